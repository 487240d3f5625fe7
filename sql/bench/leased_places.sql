-- Which places of the run a worker holds leases for. Called by: bench, the moment it has killed that worker; half a second later
-- others begin to take them over. $1 worker_id
select (o.payload ->> 'place')::bigint
from posthaste.lease l join posthaste.outbox o using (event_id)
where l.holder = $1
