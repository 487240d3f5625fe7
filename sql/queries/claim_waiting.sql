-- Leases deliveries that wait in locked lanes and are due, lane by lane in turn, soonest first, as far as there is room, and sets each lane to sleep
-- until the next one it holds.
--
-- A lane's wake_at is where its scan starts, so the dead entries of deliveries claimed before are never visited.
-- Where a subscription has rates, no more is leased than each of them allows by now, and the lane rests until the next is allowed.
-- Where its breaker is not closed, one is leased, to find out, and the lane is held until that is over.
-- What is too old to be sent is leased beside that, so that it can be ended: no request comes of it, so it uses up no rate and is no probe.
-- Called by: worker, after lock_lanes.sql in the same transaction. Returns one row per delivery leased.
-- Relies on: queue_by_due; the lock on the lanes, which makes us their only claimer. Its full joins are such as no condition turns into
-- others, and so are done by hash alone: never each row against each.
--
-- $1 locked subscription ids   $2 how many deliveries each may be leased here
-- $3 worker_id   $4 lease in seconds   $5 how many deliveries in all   $6 how many payload bytes   $7 longest payload to fetch
with lane as materialized (
    select l.subscription_id, l.wake_at, l.breaker, s.revision, s.max_age, s.wants_more, slots.n as room,
           -- How many claims each rate has room for: one for each of its intervals since it was used up, up to its capacity.
           least(slots.n, case when l.breaker <> 'closed' then 1 end, (
               select greatest(0, min(least(capacity, floor((extract(epoch from now())::float8 - coalesce(extract(epoch from used_until)::float8, 0)) / seconds))))::integer
               from unnest(l.rate_capacity, l.rate_interval, l.rate_used_until) r (capacity, seconds, used_until)
               having count(*) > 0
           )) as slots
    from unnest($1::integer[], $2::integer[]) slots (subscription_id, n)
    cross join lateral (select * from posthaste.lane where lane.subscription_id = slots.subscription_id limit 1) l
    cross join lateral (select revision, max_age, envelope <> 'standard@1' or pass_trace as wants_more from posthaste.subscription where subscription.subscription_id = slots.subscription_id limit 1) s
), waiting as materialized (
    -- One more than may be leased: its due time is when the lane must wake again.
    select w.*, l.slots, l.room, l.revision, l.max_age, l.wants_more, row_number() over in_turn as place, count(*) filter (where not w.is_over) over in_turn as to_send
    from lane l
    cross join lateral (
        select q.ctid as address, q.event_id, q.subscription_id, q.replay, q.attempts, q.due_at, q.expires_at, q.ordering_key,
               coalesce(q.expires_at <= now(), false) or coalesce(l.max_age is not null and q.replay = 0 and posthaste.event_time(q.event_id) + l.max_age <= now(), false) as is_over
        from posthaste.queue q
        where q.subscription_id = l.subscription_id and q.due_at >= l.wake_at
        order by q.due_at limit l.room + 1
    ) w
    window in_turn as (partition by w.subscription_id order by w.due_at, w.event_id, w.replay)
), wanted as materialized (
    -- No more than may be leased, before any payload is touched. Lane by lane in turn: one that was down for a night has the
    -- oldest rows of all, and would take all the room until its backlog is done.
    select * from waiting w
    where w.place <= w.room and (w.is_over or w.to_send <= w.slots) and w.due_at <= now()
    order by w.place, w.due_at, w.event_id, w.subscription_id
    limit $5::integer
), read as materialized (
    select w.*, o.event_type, o.occurred_at, o.deliver_after, size.bytes,
           case when not w.is_over and size.bytes <= $7::integer then o.payload::text end as payload,
           case when w.wants_more and not w.is_over and size.bytes <= $7::integer then o.metadata::text end as metadata,
           case when w.wants_more then o.tenant end as tenant, o.traceparent
    from wanted w
    full join posthaste.events(array(select event_id from wanted)) o on o.event_id = w.event_id
    cross join lateral (select octet_length(o.payload::text) + case when w.wants_more then coalesce(octet_length(o.metadata::text), 0) else 0 end as bytes offset 0) size
    where coalesce(w.place, 0) > 0
), fitting as materialized (
    select * from (
        select r.*, sum(least(coalesce(r.bytes, 0), $7::integer)) over running as running_bytes
        from read r window running as (order by r.place, r.due_at, r.event_id, r.subscription_id)
    ) counted
    where running_bytes <= $6::bigint
), kind as materialized (
    -- Which schema each type has is asked once for the batch.
    select t.event_type, c.revision
    from (select distinct event_type from fitting) t
    cross join lateral (select revision from posthaste.event_type where event_type.event_type = t.event_type and schema is not null limit 1) c
), claimed as (
    delete from posthaste.queue where ctid = any (array(select address from fitting))
    returning event_id, subscription_id, replay, attempts, ordering_key
), leased as (
    insert into posthaste.lease (event_id, subscription_id, replay, ordering_key, number, holder, ends_at)
    select event_id, subscription_id, replay, ordering_key, attempts + 1, $3::integer, now() + make_interval(secs => $4::float8) from claimed
    returning event_id, subscription_id, replay, number, ctid as address
), left_waiting as materialized (
    select subscription_id, min(due_at) as due_at
    from (select subscription_id, due_at, address from waiting
          except all
          select subscription_id, due_at, address from fitting) w
    group by subscription_id
), leaving as materialized (
    select subscription_id, count(*) as n from fitting where not is_over group by subscription_id
), slept as (
    update posthaste.lane l
    set wake_at = coalesce((select due_at from left_waiting w where w.subscription_id = l.subscription_id), 'infinity'),
        -- A hashed look-up, and only where a breaker is not closed.
        breaker = case when l.breaker <> 'closed' and l.subscription_id in (select subscription_id from leaving) then 'half_open' else l.breaker end,
        -- Longer than the lease: should nobody ever tell what came of it, the next one tries.
        hold_until = case when l.breaker <> 'closed' and l.subscription_id in (select subscription_id from leaving)
                          then now() + make_interval(secs => $4::float8 + 5) else l.hold_until end,
        (rate_used_until, rest_until) = (
            select coalesce(array_agg(to_timestamp(r.used) order by r.place), '{}'),
                   -- Until the next one is allowed; at high rates, a few: 50 ms of them.
                   coalesce(to_timestamp(max(case
                       when r.block > 0 and r.used + r.seconds > extract(epoch from now())::float8
                            and (select due_at from left_waiting w where w.subscription_id = l.subscription_id) <= now()
                           then extract(epoch from now())::float8 + r.block
                       else r.used + greatest(1, floor(least(r.capacity / 4.0, 0.05 / r.seconds))) * r.seconds end)), '-infinity')
            from (
                -- What was not used up for longer than the capacity is lost; then each claim uses up an interval.
                select place, capacity, seconds, block,
                       greatest(coalesce(extract(epoch from used_until)::float8, 0), extract(epoch from now())::float8 - capacity * seconds)
                           + seconds * coalesce((select n from leaving t where t.subscription_id = l.subscription_id), 0) as used
                from unnest(l.rate_capacity, l.rate_interval, l.rate_block, l.rate_used_until) with ordinality u (capacity, seconds, block, used_until, place)
            ) r)
    where l.subscription_id = any ($1::integer[])
)
select l.event_id, l.subscription_id, l.replay, l.number, l.address, f.revision, k.revision as schema_revision, f.event_type, f.occurred_at, f.bytes, f.payload, f.metadata, f.tenant, f.traceparent, f.ordering_key,
       -- A replay was asked for, however old the event is. An end may lie at infinity, which no time can be subtracted from.
       case when f.expires_at is not null or f.max_age is not null then
           (extract(epoch from least(f.expires_at, case when l.replay = 0 then posthaste.event_time(l.event_id) + f.max_age end)) - extract(epoch from now()))::float8 end as expires_in,
       extract(epoch from f.deliver_after)::float8 as deliver_after
from leased l
full join fitting f using (event_id, subscription_id, replay)
full join kind k on k.event_type = f.event_type
where coalesce(l.number, 0) > 0 and coalesce(f.revision, 0) > 0
