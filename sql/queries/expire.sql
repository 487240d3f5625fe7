-- Ends deliveries that were claimed and are not to be sent any more: their leases go, their attempts are never made. One that was to be
-- the probe of a breaker leaves that to the next.
--
-- Called by: worker, for one lane; it has advance.sql let their ordering keys go on. Relies on: the lease as the fence; ordering_pkey.
-- $1.. arrays of equal length: event_id, subscription_id, replay, number, holder, address
with found as materialized (
    select u.number, u.holder, f.address
    from posthaste.find_leases($1, $2, $3, $6) f
    join unnest($4::smallint[], $5::integer[]) with ordinality u (number, holder, place) using (place)
), ended as (
    delete from posthaste.lease l using found f
    where l.ctid = f.address and l.holder = f.holder and l.number = f.number
    returning l.event_id, l.subscription_id, l.replay, l.number, l.ordering_key
), freed as (
    -- A look-up for each, whatever the planner believed about both whenever it planned.
    delete from posthaste.ordering where ctid = any (array(
        select o.address from ended e
        cross join lateral (
            select ctid as address from posthaste.ordering
            where ordering.subscription_id = e.subscription_id and ordering.ordering_key = e.ordering_key
              and ordering.event_id = e.event_id and ordering.replay = e.replay
            limit 1
        ) o
    ))
), noted as (
    insert into posthaste.cancellation (event_id, subscription_id, replay, attempts, reason, is_expired)
    select event_id, subscription_id, replay, number - 1, 'it was not to be sent any more', true from ended
), locked as materialized (
    -- Never waiting: whoever has a lane may want what we have.
    select subscription_id from posthaste.lane
    where subscription_id = any (array(select subscription_id from ended)) and breaker = 'half_open'
    for update skip locked
), left_to_next as (
    update posthaste.lane set hold_until = now() where subscription_id = any (array(select subscription_id from locked))
)
select count(*) from ended
