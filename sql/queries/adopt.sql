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
), adopted as materialized (
    update posthaste.lease l
    set holder = $1::integer, ends_at = now() + make_interval(secs => $2::float8)
    from picked p
    where l.ctid = p.address
    returning l.ctid as address, l.event_id, l.subscription_id, l.replay, l.number, l.ordering_key, p.holder as worker_id, p.ends_at as ended_at
), placed as materialized (
    select *, row_number() over () as place from adopted
), expiry as materialized (
    select posthaste.expiry_times(array_agg(event_id order by place)) as times from placed having count(*) > 0
)
select p.address, p.event_id, p.subscription_id, p.replay, p.number, p.ordering_key, p.worker_id,
       -- How long ago the lease began, in seconds.
       coalesce((select extract(epoch from now() - p.ended_at + w.lease) from posthaste.worker w where w.worker_id = p.worker_id), 0)::float8 as age,
       s.revision,
       -- How long the event may still be sent, in seconds; for ever, where its end lies at infinity, which no time can be subtracted from.
       (extract(epoch from least((select times from expiry)[p.place], case when p.replay = 0 then posthaste.event_time(p.event_id) + s.max_age end)) - extract(epoch from now()))::float8 as expires_in
from placed p
left join lateral (select revision, max_age from posthaste.subscription where subscription.subscription_id = p.subscription_id limit 1) s on true
