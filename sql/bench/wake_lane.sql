-- Lets a lane wake in time for the deliveries that fill_queue.sql made a while before: earlier than all of them, or the first would never be
-- seen. Called by: bench. $1 subscription_id   $2 as $3 there
update posthaste.lane set wake_at = least(wake_at, now() + make_interval(secs => $2::float8) - interval '1 hour')
where subscription_id = $1::integer
