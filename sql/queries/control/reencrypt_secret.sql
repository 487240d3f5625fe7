-- Puts the same secret under another key; false where it has changed meanwhile. Called by: `secret reencrypt`.
-- $1 secret_id   $2 old ciphertext   $3 key_id   $4 ciphertext
select posthaste.reencrypt_secret($1::uuid, $2::bytea, $3::text, $4::bytea)
