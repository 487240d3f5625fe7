-- Gives a secret that was asked for its content, encrypted; false where it has one by now.
-- Called by: directory. $1 secret_id   $2 key_id   $3 ciphertext   $4 the public key, of an ed25519 one
select posthaste.fill_secret($1::uuid, $2::text, $3::bytea, $4::bytea)
