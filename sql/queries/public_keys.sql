-- The public keys that verify our signatures, at most $1, each with its subscription.
-- Called by: the worker, for the listener's key sets, when terms have changed and once a minute. Never per request.
-- Reads the tables: posthaste.public_key asks for the scope of a login, which is not for workers to call.
select s.name as subscription, k.secret_id as key_id, k.public_key
from posthaste.signing_secret k
join posthaste.subscription s on s.subscription_id = k.subscription_id
where k.public_key is not null and s.removed_at is null and (k.ends_at is null or k.ends_at > now())
order by s.name, k.number
limit $1::bigint
