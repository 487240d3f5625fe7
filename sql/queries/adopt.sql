-- Takes over leases that have ended, and those whose worker is gone, so that their attempts can be recorded as abandoned.
--
-- Called by: worker, twice a second. Returns one row per lease taken over; each is now ours and must be recorded.
-- Relies on: queue_by_lease_end. The scan starts a little before the last one ($4), so that entries of finished leases, dead but
-- not yet vacuumed, are not visited again and again; now and then $4 is null and all is looked at.
--
-- $1 worker_id   $2 lease in seconds   $3 workers that are gone   $4 how many seconds to look back, null for ever   $5 how many at most
with picked as materialized (
    select q.ctid as address, q.lease_holder, q.lease_ends_at
    from posthaste.queue q
    where q.lease_holder is not null
      and q.lease_ends_at >= coalesce(now() - make_interval(secs => $4::float8), '-infinity')
      -- While nobody is gone the scan ends at now: it never visits the leases that stand, nor the dead entries among them.
      and q.lease_ends_at < case when cardinality($3::integer[]) = 0 then now() else 'infinity' end
      and (q.lease_ends_at < now() or q.lease_holder = any ($3::integer[]))
    order by q.lease_ends_at limit $5::bigint
    for update skip locked
)
update posthaste.queue q
set lease_holder = $1::integer, lease_ends_at = now() + make_interval(secs => $2::float8)
from picked p
where q.ctid = p.address
returning q.event_id, q.subscription_id, q.replay, q.attempts, p.lease_holder as worker_id,
    -- How long ago the lease began, in seconds.
    coalesce((select extract(epoch from now() - p.lease_ends_at + w.lease) from posthaste.worker w where w.worker_id = p.lease_holder), 0)::float8 as age,
    (select s.revision from posthaste.subscription s where s.subscription_id = q.subscription_id) as revision
