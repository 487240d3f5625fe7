# frozen_string_literal: true

# Verifies webhooks signed as Standard Webhooks, version 1. Copy this file; it needs nothing but Ruby 3.0 or later.
#
#     problem = StandardWebhook.verify(secrets, headers, body)    # nil: the request is genuine; else why it is not
#
# `body` is the bytes as they came, before any JSON parser (request.raw_post). Answer 401 to what is not genuine.

require "openssl"

module StandardWebhook
  TOLERANCE = 300 # seconds between the sender's clock and yours, either way

  module_function

  # Returns nil where one signature matches under one secret, else a word that says why not.
  #
  # secrets: `whsec_...`, two during a rotation. headers: a hash, in any case. now: Unix seconds.
  def verify(secrets, headers, body, now = Time.now.to_i)
    keys = secrets.map { |secret| key_of(secret) }
    found = headers.transform_keys { |name| name.to_s.downcase }
    id = found.fetch("webhook-id", "")
    timestamp = found.fetch("webhook-timestamp", "")
    signatures = found.fetch("webhook-signature", "").split(" ").select { |entry| entry.start_with?("v1,") }

    return "missing_id" if id.empty?
    return "missing_timestamp" if timestamp.empty?
    return "malformed_timestamp" unless timestamp.match?(/\A[0-9]{1,18}\z/)

    age = now - timestamp.to_i
    return "too_old" if age > TOLERANCE
    return "too_new" if age < -TOLERANCE
    return "no_signature" if signatures.empty?

    content = "#{id}.#{timestamp}.".b + body.b
    genuine = keys.any? do |key|
      expected = "v1,#{[OpenSSL::HMAC.digest("SHA256", key, content)].pack("m0")}"
      signatures.any? { |offered| same?(expected, offered) }
    end
    genuine ? nil : "no_match"
  end

  # The key is what the part after `whsec_` is the base64 of, not its letters.
  def key_of(secret)
    key = secret.start_with?("whsec_") ? secret.delete_prefix("whsec_").unpack1("m0") : ""
    raise ArgumentError, "a signing secret is whsec_ and the base64 of 24 bytes or more" if key.bytesize < 24

    key
  end

  # Takes the same time wherever the difference lies.
  def same?(expected, offered)
    expected.bytesize == offered.bytesize && OpenSSL.fixed_length_secure_compare(expected, offered)
  end

  # Verifies a recorded delivery: a folder with the files headers, body, secrets and now.
  def check(folder)
    headers = File.readlines("#{folder}/headers", chomp: true).to_h { |line| line.split(":", 2).map(&:strip) }
    secrets = File.readlines("#{folder}/secrets", chomp: true)
    verify(secrets, headers, File.binread("#{folder}/body"), File.read("#{folder}/now").to_i)
  end
end

if $PROGRAM_NAME == __FILE__
  ARGV.each do |folder|
    problem = StandardWebhook.check(folder)
    puts problem.nil? ? "valid" : "invalid: #{problem}"
  end
end
