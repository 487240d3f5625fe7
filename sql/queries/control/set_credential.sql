-- Stores what a subscription shows to its endpoint. Called by: `secret import --header`, `--authentication` and `--client-key`.
-- $1 subscription   $2 its name: a header, :authentication or :client_key   $3 secret_id   $4 key_id   $5 ciphertext   $6 reason
select posthaste.set_credential($1::text, $2::text, $3::uuid, $4::text, $5::bytea, $6::text)
