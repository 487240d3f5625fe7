-- Stored secrets that are under another key than this one, a bounded number. Called by: `secret reencrypt`, until none are left.
-- $1 entry that ask_to_reencrypt.sql made   $2 the key to encrypt under
select kind, subscription_id, secret_id, key_id, ciphertext from posthaste.secrets_to_reencrypt($1::bigint, $2::text)
