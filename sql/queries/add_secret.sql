-- Stores a signing secret that was made elsewhere; its number among the subscription's. Called by: whoever sets up a trial.
-- $1 subscription_id   $2 secret_id   $3 key_id   $4 ciphertext   $5 why   $6 kind   $7 the public key, of an ed25519 one
select posthaste.add_secret(s.name, $2::uuid, $3::text, $4::bytea, $5::text, $6::text, $7::bytea)
from posthaste.subscription s where s.subscription_id = $1::integer
