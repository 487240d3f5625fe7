-- Stores an encrypted secret for a subscription, if $5 only where it has none; null where it had one.
-- Called by: directory (the first secret), the `secret` command.
-- $1 subscription_id   $2 secret_id   $3 key_id   $4 ciphertext   $5 only if none
select posthaste.add_signing_secret($1::integer, $2::uuid, $3::text, $4::bytea, $5::boolean)
