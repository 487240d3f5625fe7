-- The place of each attempt that was recorded as abandoned. Called by: bench, to explain deliveries that came twice.
select (o.payload ->> 'place')::bigint
from posthaste.attempt a join posthaste.outbox o using (event_id)
where a.outcome = 'abandoned'
