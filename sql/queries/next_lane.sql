-- In how many seconds the next lane has something due; null where none has. Called by: worker, after it found nothing due.
-- Relies on: lane_by_next_claim. $1 subscriptions that have no room here, in ascending order
select extract(epoch from greatest(wake_at, rest_until, hold_until) - now())::float8 as due_in from posthaste.lane
where greatest(wake_at, rest_until, hold_until) > now() and wake_at < 'infinity' and active and ($1::integer[])[width_bucket(subscription_id, $1::integer[])] is distinct from subscription_id
order by greatest(wake_at, rest_until, hold_until) limit 1
