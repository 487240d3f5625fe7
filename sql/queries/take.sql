-- Fans out events nobody has taken yet, and leases their deliveries to this worker as far as it has room: one statement, so
-- that a delivery which succeeds at once is written down thinly once, and deleted once.
--
-- An event with an ordering key is never leased here: its deliveries go behind what waits of their key, and whoever called this
-- has advance.sql let the first one come up.
--
-- Called by: worker, whenever it has room. Returns one row per delivery leased, and at least one row (the first, whose
-- event_id is null) that tells how the scan went.
-- Relies on: the planner settings of our sessions (see store); intake_by_xid; the primary keys of subscription_event_type and event_type.
--
-- $1 watermark: no event of a transaction below it is left, bar those of the transactions in $2, which were still open then,
--    and those that another worker had locked and gave back
-- $3 how many events at most          $4 worker_id                    $5 lease in seconds
-- $6 how many deliveries to lease     $7 how many payload bytes       $8 longest payload to fetch, in bytes
-- $9, $10 subscription ids, and how many deliveries each may be leased here   $11 the same for all the others
-- $12, $13 the smallest and the largest id of an event to take: known before the first row is read, they keep the partitions of a
--    long history from being opened
with late as materialized (
    select ctid as address, event_id, xid from posthaste.intake
    where xid = any ($2::text[]::xid8[])
    limit $3::bigint
    for update skip locked
), fresh as materialized (
    select ctid as address, event_id, xid from posthaste.intake
    where xid >= $1::text::xid8
    order by xid limit $3::bigint - (select count(*) from late)
    for update skip locked
), picked as (
    select * from late union all select * from fresh
), next as materialized (
    -- Whatever was visible and lies below is taken by now. Where the scan came to its end, that is all there was.
    select case when (select count(*) from late) = $3::bigint then $1::text::xid8
                when (select count(*) from picked) = $3::bigint then (select xid from fresh order by xid desc limit 1)
                else pg_snapshot_xmax(pg_current_snapshot()) end as watermark
), read as materialized (
    select p.address, o.event_id, o.event_type, o.tenant, o.occurred_at, o.ordering_key, octet_length(o.payload::text) as bytes,
           case when octet_length(o.payload::text) <= $8::integer then o.payload::text end as payload
    from picked p
    -- `limit 1` and `offset 0` keep each of these a look-up by key per row, whatever the planner believes about sizes.
    cross join lateral (
        select * from posthaste.outbox
        where outbox.event_id = p.event_id
          and outbox.event_id between $12::uuid and $13::uuid
        limit 1
    ) o
), taken as (
    -- What was read, not what was picked: a plan made while the day's partition was being attached does not know it and finds
    -- nothing there. What it misses, or what lies too far from now, stays for another look.
    -- By address: joined on anything else, the planner may read the whole backlog to delete a batch.
    delete from posthaste.intake where ctid = any (array(select address from read))
), kind as materialized (
    -- What the catalogue knows of each type, and who wants it, is asked once for the batch, not once for each event.
    select t.event_type, coalesce(c.active, false) as is_known, case when c.has_schema then c.revision end as schema_revision
    from (select distinct event_type from read) t
    left join lateral (
        select active, schema is not null as has_schema, revision from posthaste.event_type
        where event_type.event_type = t.event_type limit 1
    ) c on true
), unknown as (
    insert into posthaste.unknown_event_type as u (event_type, events, last_event)
    select r.event_type, count(*), (array_agg(r.event_id order by r.event_id desc))[1]
    from read r join kind k using (event_type)
    -- Asked first of all, so that a batch without any reads nothing here.
    where (select bool_or(not is_known) from kind) and not k.is_known
    group by r.event_type order by r.event_type
    on conflict (event_type) do update set events = u.events + excluded.events, last_at = now(), last_event = excluded.last_event
), route as materialized (
    select k.event_type, k.schema_revision, s.subscription_id, s.revision, s.tenant, s.filter,
           -- What may not be sent at once waits: where a subscription is paused, or has rates, which are kept in its lane.
           case when s.active and s.rates = '[]' then coalesce(($10::integer[])[array_position($9::integer[], s.subscription_id)], $11::integer) else 0 end as slots
    from kind k
    cross join lateral (
        select distinct subscription_id from posthaste.subscription_event_type
        where subscription_event_type.event_type = any (posthaste.patterns(k.event_type)) offset 0
    ) w
    cross join lateral (select * from posthaste.subscription where subscription.subscription_id = w.subscription_id limit 1) s
    where k.is_known or s.unknown_types
), filtered as materialized (
    -- Nothing is judged by a payload that is too long to be sent: it passes, and ends as rejected.
    select r.event_id, r.ordering_key, s.subscription_id, s.revision, s.schema_revision, s.slots, least(r.bytes, $8::integer) as bytes,
           r.payload is null or posthaste.matches(s.filter, r.payload) as passes
    from read r join route s using (event_type)
    where (select bool_or(filter is not null) from route) and s.filter is not null and (s.tenant is null or s.tenant = r.tenant)
), held as (
    insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason)
    select event_id, subscription_id, 0, 0, 'the subscription''s filter cannot be evaluated on the payload' from filtered where passes is null and ordering_key is null
), matched as (
    select event_id, ordering_key, subscription_id, revision, schema_revision, bytes,
           ordering_key is null and row_number() over (partition by subscription_id, ordering_key is null order by event_id) <= slots as has_slot
    from (
        select r.event_id, r.ordering_key, s.subscription_id, s.revision, s.schema_revision, s.slots, least(r.bytes, $8::integer) as bytes
        from read r join route s using (event_type)
        where s.filter is null and (s.tenant is null or s.tenant = r.tenant)
        union all
        select event_id, ordering_key, subscription_id, revision, schema_revision, slots, bytes from filtered where passes
    ) m
), placed as materialized (
    select event_id, ordering_key, subscription_id, revision, schema_revision,
           has_slot and count(*) filter (where has_slot) over running <= $6::integer
                    and sum(bytes) filter (where has_slot) over running <= $7::bigint as leased
    from matched
    window running as (order by event_id, subscription_id)
), leased as (
    insert into posthaste.lease (event_id, subscription_id, holder, ends_at)
    select event_id, subscription_id, $4::integer, now() + make_interval(secs => $5::float8) from placed where leased
), queued as (
    insert into posthaste.queue (event_id, subscription_id, due_at)
    select event_id, subscription_id, now() from placed where not leased and ordering_key is null
), followed as materialized (
    -- By a function: one more table to write to would cost every call the time to open it.
    select posthaste.follow(array_agg(event_id), array_agg(subscription_id), array_agg(0::smallint), array_agg(ordering_key), array_agg(quarantine), null),
           count(*) filter (where quarantine is null) as followers, array_agg(subscription_id) as subscriptions, array_agg(ordering_key) as keys
    from (
        select event_id, subscription_id, ordering_key, null::text as quarantine from placed where ordering_key is not null
        union all
        select event_id, subscription_id, ordering_key, 'the subscription''s filter cannot be evaluated on the payload' from filtered
        where ordering_key is not null and passes is null
    ) o
    having count(*) > 0
), locked as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select subscription_id from posthaste.lane
    where subscription_id = any (array(select subscription_id from placed where not leased and ordering_key is null))
    order by subscription_id for update
), woken as (
    update posthaste.lane set wake_at = least(wake_at, now())
    where subscription_id = any (array(select subscription_id from locked))
)
select null::uuid as event_id, null::integer as subscription_id, null::integer as revision, null::integer as schema_revision,
       null::text as event_type, null::timestamptz as occurred_at, null::integer as bytes, null::text as payload,
       (select count(*) from picked) as events_seen,
       (select count(*) from read) as events_taken,
       (select count(*) from placed) as deliveries_made,
       (select count(*) from read) - (select count(distinct event_id) from placed) as unrouted,
       (select count(*) from read join kind using (event_type) where (select bool_or(not is_known) from kind) and not is_known) as unknown,
       (select watermark::text from next) as watermark,
       case when (select count(*) from late) = $3::bigint then $2::text[]
            else array(select x::text from pg_snapshot_xip(pg_current_snapshot()) x where x < (select watermark from next)) end as still_open,
       (select followers from followed) as followers,
       -- Which keys they are of: an array for each column.
       (select subscriptions from followed) as ordered_subscriptions, (select keys from followed) as ordered_keys
union all
select p.event_id, p.subscription_id, p.revision, p.schema_revision, r.event_type, r.occurred_at, r.bytes, r.payload, null, null, null, null, null, null, null, null, null, null
-- A full join that no condition turns into another can be done by hash alone: never each delivery against each event.
from placed p full join read r on r.event_id = p.event_id
where coalesce(p.leased, false)
