-- Leases deliveries that wait in locked lanes and are due, lane by lane in turn, soonest first, as far as there is room, and sets each lane to sleep
-- until the next one it holds.
--
-- A lane's wake_at is where its scan starts, so the dead entries of deliveries claimed before are never visited.
-- Called by: worker, after lock_lanes.sql in the same transaction. Returns one row per delivery leased.
-- Relies on: queue_by_due; the lock on the lanes, which makes us their only claimer.
--
-- $1 locked subscription ids   $2 how many deliveries each may be leased here
-- $3 worker_id   $4 lease in seconds   $5 how many deliveries in all   $6 how many payload bytes   $7 longest payload to fetch
with lane as materialized (
    select l.subscription_id, l.wake_at, slots.n as slots
    from unnest($1::integer[], $2::integer[]) slots (subscription_id, n)
    cross join lateral (select * from posthaste.lane where lane.subscription_id = slots.subscription_id limit 1) l
), waiting as materialized (
    -- One more than may be leased: its due time is when the lane must wake again.
    select w.*, l.slots, row_number() over (partition by w.subscription_id order by w.due_at) as place
    from lane l
    cross join lateral (
        select q.ctid as address, q.event_id, q.subscription_id, q.replay, q.attempts, q.due_at
        from posthaste.queue q
        where q.subscription_id = l.subscription_id and q.lease_holder is null and q.due_at >= l.wake_at
        order by q.due_at limit l.slots + 1
    ) w
), read as materialized (
    select w.*, o.event_type, o.occurred_at, octet_length(o.payload::text) as bytes,
           case when octet_length(o.payload::text) <= $7::integer then o.payload::text end as payload
    from waiting w
    left join lateral (select * from posthaste.outbox where outbox.event_id = w.event_id limit 1) o on true
    where w.place <= w.slots and w.due_at <= now()
), leased as (
    select * from (
        select r.*, count(*) over running as running_count, sum(least(coalesce(r.bytes, 0), $7::integer)) over running as running_bytes
        -- Lane by lane in turn: one that was down for a night has the oldest rows of all, and would take all the room until
        -- its backlog is done.
        from read r window running as (order by r.place, r.due_at, r.event_id, r.subscription_id)
    ) counted
    where running_count <= $5::integer and running_bytes <= $6::bigint
), claimed as (
    update posthaste.queue q
    set lease_holder = $3::integer, lease_ends_at = now() + make_interval(secs => $4::float8)
    -- coalesce, not `is null`: else the planner may walk a whole partial index to find these addresses.
    where q.ctid = any (array(select address from leased)) and coalesce(q.lease_holder, 0) = 0
), left_waiting as (
    select subscription_id, min(due_at) as due_at
    from (select subscription_id, due_at, address from waiting
          except all
          select subscription_id, due_at, address from leased) w
    group by subscription_id
), slept as (
    update posthaste.lane l
    set wake_at = coalesce((select due_at from left_waiting w where w.subscription_id = l.subscription_id), 'infinity')
    where l.subscription_id = any ($1::integer[])
)
select l.event_id, l.subscription_id, l.replay, l.attempts, s.revision, l.event_type, l.occurred_at, l.bytes, l.payload
from leased l
cross join lateral (select revision from posthaste.subscription where subscription.subscription_id = l.subscription_id limit 1) s
