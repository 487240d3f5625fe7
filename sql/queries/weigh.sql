-- Weighs what lately came of attempts: the endpoints that failed, or that failed before, and what that makes of their breakers.
--
-- Called by: recorder, after a batch with failures, or of subscriptions that had some. Returns one row each: for how many seconds
-- nothing is to be sent now, and whether it need not be weighed again before something fails.
-- Relies on: lanes locked in the one order.
--
-- $1.. arrays of equal length: subscription_id, requests that came to an end, how many failed, how many of the last did so in a row,
-- for how many seconds the receiver asked to be left alone, and why its subscription is to be paused
with told as materialized (
    select * from unnest($1::integer[], $2::integer[], $3::integer[], $4::integer[], $5::float8[], $6::text[])
        u (subscription_id, requests, failures, run, asked_for, to_pause)
), locked as materialized (
    select * from posthaste.lane
    where subscription_id = any ($1::integer[])
    order by subscription_id for update
), weighed as materialized (
    select l.breaker as before, w.*, s.breaker as policy
    from told t
    join locked l using (subscription_id)
    cross join lateral (select breaker from posthaste.subscription where subscription.subscription_id = t.subscription_id limit 1) s
    cross join lateral posthaste.weighed(l::posthaste.lane, s.breaker, t.requests, t.failures, t.run, make_interval(secs => t.asked_for), t.to_pause, now()) w
), changed as (
    update posthaste.lane l
    set breaker = w.breaker, hold_until = w.hold_until, openings = w.openings, failures = w.failures, failing_since = w.failing_since,
        window_since = w.window_since, window_requests = w.window_requests, window_failures = w.window_failures,
        weighed_at = w.weighed_at, to_pause = w.to_pause
    from weighed w where l.subscription_id = w.subscription_id
)
select subscription_id, breaker::text as breaker, before::text as before, extract(epoch from greatest(hold_until, now()) - now())::float8 as held_for,
       breaker = 'closed' and failures = 0 and window_since is null as is_well,
       case when (breaker = 'closed') <> (before = 'closed')
            then posthaste.tell_breaker(subscription_id, breaker <> 'closed', failures, extract(epoch from greatest(hold_until, now()) - now())::float8) end as told
from weighed
