-- Gives up leases whose attempt was never begun: the deliveries wait again, due at once, with no attempt counted, and ahead of
-- what came later.
--
-- Called by: worker, when it stops, and for leases too short to be used. Relies on: the lease as the fence.
-- $1.. arrays of equal length: event_id, subscription_id, replay, number, holder, address
with found as materialized (
    select u.number, u.holder, f.address
    from posthaste.find_leases($1, $2, $3, $6) f
    join unnest($4::smallint[], $5::integer[]) with ordinality u (number, holder, place) using (place)
), released as (
    delete from posthaste.lease l using found f
    where l.ctid = f.address and l.holder = f.holder and l.number = f.number
    returning l.event_id, l.subscription_id, l.replay, l.number, l.ordering_key
)
select posthaste.let_wait(
           array_agg(event_id), array_agg(subscription_id), array_agg(replay), array_agg(ordering_key), array_agg((number - 1)::smallint),
           array_agg(least(now(), posthaste.event_time(event_id))),
           posthaste.expiry_times(array_agg(event_id)))
from released
having count(*) > 0
