-- Ends deliveries that were claimed and are not to be sent any more: their leases go, their attempts are never made.
--
-- Called by: worker, which has advance.sql let their ordering keys go on. Relies on: lease_pkey; the lease as the fence; ordering_pkey;
-- lane_pkey.
-- $1.. arrays of equal length: event_id, subscription_id, replay, number, holder
with late as materialized (
    select * from unnest($1::uuid[], $2::integer[], $3::smallint[], $4::smallint[], $5::integer[]) u (event_id, subscription_id, replay, number, holder)
), found as materialized (
    -- `limit 1` makes this a look-up by key for each lease, whatever the planner believes about the table's size.
    select u.number, u.holder, l.address
    from late u
    cross join lateral (
        select ctid as address from posthaste.lease
        where event_id = u.event_id and subscription_id = u.subscription_id and replay = u.replay
        limit 1
    ) l
), ended as (
    delete from posthaste.lease l using found f
    where l.ctid = f.address and l.holder = f.holder and l.number = f.number
    returning l.event_id, l.subscription_id, l.replay, l.number, l.ordering_key
), freed as (
    delete from posthaste.ordering o using ended e
    where (o.subscription_id, o.ordering_key, o.event_id, o.replay) = (e.subscription_id, e.ordering_key, e.event_id, e.replay)
), probe as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select l.subscription_id from posthaste.lane l
    where l.subscription_id = any (array(select e.subscription_id from ended e)) and l.breaker = 'half_open'
    order by l.subscription_id for update
), let_go as (
    -- Nobody will tell what came of a probe that was not made: the next one follows at once.
    update posthaste.lane l set hold_until = now()
    where l.subscription_id = any (array(select p.subscription_id from probe p))
), noted as (
    insert into posthaste.cancellation (event_id, subscription_id, replay, attempts, reason, is_expired)
    select event_id, subscription_id, replay, number - 1, 'it was not to be sent any more', true from ended
)
select count(*) from ended
