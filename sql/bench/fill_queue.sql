-- Makes deliveries that wait, as if their events had been fanned out. Called by: bench, with the lane's wake_at to follow.
-- $1 subscription_id   $2 how many   $3 from how many seconds after now on they are due, over the hour that follows
-- $4 whether they come due in the order in which their events came, or in none
insert into posthaste.queue (event_id, subscription_id, due_at)
select event_id, $1::integer, now() + make_interval(secs => $3::float8 + 3600 * case when $4::boolean then row_number() over () / $2::bigint::float8 else random() end)
from posthaste.outbox limit $2::bigint
