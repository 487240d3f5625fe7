-- Every live signing secret, to see whether the keys at hand open it; at most $1. One that is only asked for has nothing to open.
-- Called by: the `check` command.
select k.subscription_id, s.name, k.number, k.secret_id, k.kind, k.key_id, k.ciphertext, null::float8 as ends_in
from posthaste.signing_secret k
join posthaste.subscription s on s.subscription_id = k.subscription_id
where k.ciphertext is not null and (k.ends_at is null or k.ends_at > now())
order by k.subscription_id, k.number
limit $1::bigint
