-- Takes over leases that have ended, and those whose worker is gone, so that their attempts can be recorded as abandoned.
--
-- Called by: worker, about twice a second, more rarely where it is slow. Returns one row per lease taken over; each is now ours and
-- must be recorded.
-- Reads the whole table: it holds what workers have in their hands, and the dead rows of what they had since the last vacuum.
--
-- $1 worker_id   $2 lease in seconds   $3 workers that are gone   $4 how many at most
with picked as materialized (
    select ctid as address, holder, ends_at from posthaste.lease
    where ends_at < now() or holder = any ($3::integer[])
    limit $4::bigint
    for update skip locked
)
update posthaste.lease l
set holder = $1::integer, ends_at = now() + make_interval(secs => $2::float8)
from picked p
where l.ctid = p.address
returning l.ctid as address, l.event_id, l.subscription_id, l.replay, l.number, l.ordering_key, p.holder as worker_id,
    -- How long ago the lease began, in seconds.
    coalesce((select extract(epoch from now() - p.ends_at + w.lease) from posthaste.worker w where w.worker_id = p.holder), 0)::float8 as age,
    (select s.revision from posthaste.subscription s where s.subscription_id = l.subscription_id) as revision,
    -- How long the event may still be sent, in seconds; for ever, where its end lies at infinity, which no time can be subtracted from.
    (select (extract(epoch from least(o.expires_at, case when l.replay = 0 then posthaste.event_time(l.event_id) + s.max_age end)) - extract(epoch from now()))::float8
     from posthaste.outbox o, posthaste.subscription s
     where o.event_id = l.event_id and s.subscription_id = l.subscription_id) as expires_in
