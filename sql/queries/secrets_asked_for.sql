-- Signing secrets that were asked for and that nobody has made yet, at most $1. Called by: directory. Relies on: signing_secret_asked_for.
select subscription_id, secret_id from posthaste.signing_secret
where ciphertext is null and (ends_at is null or ends_at > now())
order by subscription_id limit $1::bigint
