-- Notes that workers have ended: they stopped ($2), or are gone, and left no lease. One that left a lease is not noted yet, for
-- then nobody would look for it any more, and the lease would stand until its end; nor is one that came back meanwhile.
-- Called by: worker. Leases that have ended do not count: they are taken over whoever held them.
-- $1 worker ids   $2 the one that says so of itself, or null
update posthaste.worker w set ended_at = now()
where w.worker_id = any ($1::integer[]) and w.ended_at is null
  and (w.worker_id = $2::integer or w.worker_id <> all (array(select worker_id from posthaste.worker_alive)))
  and not exists (select from posthaste.lease l where l.ends_at >= now() and l.holder = w.worker_id)
