-- Quarantines deliveries whose payload breaks its event type's schema: their leases go, their attempts are never made.
--
-- Called by: worker. Returns the place (from 1) of each that was released from quarantine before: it keeps its lease, and is sent.
-- Relies on: the lease as the fence. Attempts made before count on.
-- $1.. arrays of equal length: event_id, subscription_id, replay, number, holder, address, reason
with broken as materialized (
    select * from unnest($1::uuid[], $2::integer[], $3::smallint[], $4::smallint[], $5::integer[], $7::text[])
        with ordinality u (event_id, subscription_id, replay, number, holder, reason, place)
), released as materialized (
    select b.place from broken b
    cross join lateral (
        select from posthaste.quarantine
        where event_id = b.event_id and subscription_id = b.subscription_id and replay = b.replay limit 1
    ) q
), found as materialized (
    select b.place, b.number, b.holder, f.address
    from posthaste.find_leases($1, $2, $3, $6) f join broken b using (place)
    where (b.place in (select place from released)) is not true
), ended as materialized (
    delete from posthaste.lease l using found f
    where l.ctid = f.address and l.holder = f.holder and l.number = f.number
    returning f.place, l.subscription_id
), probe as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select l.subscription_id from posthaste.lane l
    where l.subscription_id = any (array(select e.subscription_id from ended e)) and l.breaker = 'half_open'
    order by l.subscription_id for update
), let_go as (
    -- Nobody will tell what came of a probe that was not made: the next one follows at once.
    update posthaste.lane l set hold_until = now()
    where l.subscription_id = any (array(select p.subscription_id from probe p))
), held as (
    insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason)
    select event_id, subscription_id, replay, number - 1, reason from broken where (place in (select place from ended)) is true
)
select place from released
