-- Gives up leases whose attempt was never begun: the deliveries wait again, due at once, with no attempt counted, and ahead of
-- what came later.
--
-- Called by: worker, when it stops, and for leases too short to be used. Relies on: the lease as the fence.
-- $1.. arrays of equal length: event_id, subscription_id, replay, number; $5 worker_id
with found as materialized (
    select u.number, f.address
    from posthaste.find_leases($1, $2, $3) f
    join unnest($4::smallint[]) with ordinality u (number, place) using (place)
), released as (
    delete from posthaste.lease l using found f
    where l.ctid = f.address and l.holder = $5::integer and l.number = f.number
    returning l.event_id, l.subscription_id, l.replay, l.number, l.ordering_key
), queued as (
    insert into posthaste.queue (event_id, subscription_id, replay, ordering_key, attempts, due_at, expires_at)
    select event_id, subscription_id, replay, ordering_key, number - 1, least(now(), posthaste.event_time(event_id)),
           (select o.expires_at from posthaste.outbox o where o.event_id = released.event_id)
    from released
    returning subscription_id, due_at
), lowest as materialized (
    select subscription_id, min(due_at) as due_at from queued group by subscription_id
), locked as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select subscription_id from posthaste.lane
    where subscription_id = any (array(select subscription_id from lowest))
    order by subscription_id for update
), woken as (
    update posthaste.lane l
    set wake_at = least(l.wake_at, (select w.due_at from lowest w where w.subscription_id = l.subscription_id))
    where l.subscription_id = any (array(select subscription_id from locked))
)
select count(*) from released
