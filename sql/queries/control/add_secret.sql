-- Stores a signing secret that was made elsewhere. Called by: `secret import`. Returns its number.
-- $1 subscription   $2 secret_id   $3 key_id   $4 ciphertext   $5 reason   $6 kind   $7 the public key, of an ed25519 one
select posthaste.add_secret($1::text, $2::uuid, $3::text, $4::bytea, $5::text, $6::text, $7::bytea)
