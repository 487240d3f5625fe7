-- Stores a new signing secret, and lets the others end after the overlap. Called by: `secret rotate`. Returns its number.
-- $1 subscription   $2 overlap   $3 reason   $4 secret_id   $5 key_id   $6 ciphertext   $7 kind   $8 the public key, of an ed25519 one
select posthaste.rotate_secret($1::text, $2::text::interval, $3::text, $4::uuid, $5::text, $6::bytea, $7::text, $8::bytea)
