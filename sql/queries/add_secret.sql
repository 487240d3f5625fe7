-- Stores a signing secret that was made elsewhere; its number among the subscription's. Called by: whoever sets up a trial.
-- $1 subscription_id   $2 secret_id   $3 key_id   $4 ciphertext   $5 why
select posthaste.add_secret(s.name, $2::uuid, $3::text, $4::bytea, $5::text)
from posthaste.subscription s where s.subscription_id = $1::integer
