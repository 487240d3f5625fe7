-- Frees the ordering keys of deliveries that are over, or lets them be held, after record.sql in the same transaction. Whoever called
-- this has advance.sql let the next of each come up.
--
-- A statement of its own, so that a batch without keys pays nothing for it.
-- Called by: worker. Relies on: ordering_pkey, and on record.sql, which has just deleted the leases of these heads.
--
-- $1.. arrays of equal length: event_id, subscription_id, replay, ordering_key; $5 whether it has become a dead letter
with head as materialized (
    select o.address, h.is_dead and s.after_dead_letter = 'hold' as holds
    from unnest($1::uuid[], $2::integer[], $3::smallint[], $4::text[], $5::boolean[]) h (event_id, subscription_id, replay, ordering_key, is_dead)
    cross join lateral (select after_dead_letter from posthaste.subscription where subscription.subscription_id = h.subscription_id limit 1) s
    cross join lateral (
        select ctid as address from posthaste.ordering
        where ordering.subscription_id = h.subscription_id and ordering.ordering_key = h.ordering_key
          and ordering.event_id = h.event_id and ordering.replay = h.replay
        limit 1
    ) o
), freed as (
    delete from posthaste.ordering where ctid = any (array(select address from head where not holds))
)
update posthaste.ordering set held_at = now() where ctid = any (array(select address from head where holds))
