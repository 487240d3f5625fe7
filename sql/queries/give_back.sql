-- Gives up leases whose attempt was never begun: the deliveries wait again, due at once, with no attempt counted.
--
-- Called by: worker, when it stops, and for leases too short to be used. Relies on: lease_pkey; the lease as the fence.
-- $1.. arrays of equal length: event_id, subscription_id, replay, number; $5 worker_id
with unbegun as materialized (
    select * from unnest($1::uuid[], $2::integer[], $3::smallint[], $4::smallint[]) u (event_id, subscription_id, replay, number)
), released as (
    delete from posthaste.lease l using unbegun u
    where l.event_id = u.event_id and l.subscription_id = u.subscription_id and l.replay = u.replay
      and l.holder = $5::integer and l.number = u.number
    returning l.event_id, l.subscription_id, l.replay, l.number
), queued as (
    insert into posthaste.queue (event_id, subscription_id, replay, attempts, due_at)
    select event_id, subscription_id, replay, number - 1, now() from released
), locked as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select subscription_id from posthaste.lane
    where subscription_id = any (array(select subscription_id from released))
    order by subscription_id for update
), woken as (
    update posthaste.lane l set wake_at = least(l.wake_at, now())
    from locked where l.subscription_id = locked.subscription_id
)
select count(*) from released
