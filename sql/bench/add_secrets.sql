-- A sealed signing secret for each of many subscriptions, so that none is made while the clock runs. Called by: bench.
-- $1 subscription ids   $2 secret ids   $3 which key sealed them   $4 the sealed secrets
select posthaste.add_secret(s.name, w.secret_id, $3::text, w.ciphertext, 'measured')
from unnest($1::integer[], $2::uuid[], $4::bytea[]) w (subscription_id, secret_id, ciphertext)
join posthaste.subscription s using (subscription_id)
