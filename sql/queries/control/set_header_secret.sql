-- Stores the value of a secret header. Called by: `secret import --header`.
-- $1 subscription   $2 header   $3 secret_id   $4 key_id   $5 ciphertext   $6 reason
select posthaste.set_header_secret($1::text, $2::text, $3::uuid, $4::text, $5::bytea, $6::text)
