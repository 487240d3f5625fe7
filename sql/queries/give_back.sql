-- Gives up leases whose attempt was never begun: the deliveries wait again, due as they were, with no attempt counted.
--
-- Called by: worker, when it stops, and for leases too short to be used. Relies on: queue_pkey; the lease as the fence.
-- $1.. arrays of equal length: event_id, subscription_id, replay, number; $5 worker_id
with lease as materialized (
    select * from unnest($1::uuid[], $2::integer[], $3::smallint[], $4::smallint[]) l (event_id, subscription_id, replay, number)
), found as materialized (
    select l.number, q.address
    from lease l
    cross join lateral (
        select ctid as address from posthaste.queue
        where event_id = l.event_id and subscription_id = l.subscription_id and replay = l.replay
        limit 1
    ) q
), released as (
    update posthaste.queue q set lease_holder = null, lease_ends_at = null
    from found f
    where q.ctid = f.address and q.lease_holder = $5::integer and q.attempts = f.number - 1
    returning q.subscription_id, q.due_at
), lowest as materialized (
    select subscription_id, min(due_at) as due_at from released group by subscription_id
), locked as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select l.subscription_id, w.due_at
    from lowest w join posthaste.lane l using (subscription_id)
    order by l.subscription_id for update of l
), woken as (
    update posthaste.lane l set wake_at = least(l.wake_at, locked.due_at)
    from locked where l.subscription_id = locked.subscription_id
)
select count(*) from released
