-- Notes that workers have ended: they stopped, or are gone, and left no lease. One that left a lease is not noted yet, for then
-- nobody would look for it any more, and the lease would stand until its end.
-- Called by: worker. Relies on: queue_by_lease_end. Leases that have ended are taken over whoever held them, so the scan starts at now.
-- $1 worker ids
update posthaste.worker w set ended_at = now()
where w.worker_id = any ($1::integer[]) and w.ended_at is null
  and not exists (select from posthaste.queue q where q.lease_ends_at >= now() and q.lease_holder = w.worker_id)
