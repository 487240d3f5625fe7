-- Notes that workers have ended: they stopped, or are gone and left no lease.
-- Called by: worker. $1 worker ids
update posthaste.worker set ended_at = now() where worker_id = any ($1::integer[]) and ended_at is null
