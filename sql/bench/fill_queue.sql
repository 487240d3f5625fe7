-- Makes deliveries that wait, as if their events had been fanned out. Called by: bench, with the lane's wake_at to follow.
-- $1 subscription_id   $2 how many   $3 from how many seconds after now on they are due, over the hour that follows
insert into posthaste.queue (event_id, subscription_id, due_at)
select event_id, $1::integer, now() + make_interval(secs => $3::float8 + random() * 3600)
from posthaste.outbox limit $2::bigint
