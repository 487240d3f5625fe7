-- Fans out events nobody has taken yet, and leases their deliveries to this worker as far as it has room: one statement, so
-- that a delivery which succeeds at once is written down thinly once, and deleted once.
--
-- Called by: worker, whenever it has room. Returns one row per delivery leased, and at least one row (the first, whose
-- event_id is null) that tells how the scan went.
-- Relies on: the planner settings of our sessions (see store); intake_by_xid; subscription_event_type's primary key.
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
    select p.address, o.event_id, o.event_type, o.tenant, o.occurred_at, octet_length(o.payload::text) as bytes,
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
), route as materialized (
    -- Who wants each type is asked once for the batch, not once for each event.
    select t.event_type, s.subscription_id, s.revision, s.tenant,
           coalesce(($10::integer[])[array_position($9::integer[], s.subscription_id)], $11::integer) as slots
    from (select distinct event_type from read) t
    cross join lateral (
        select subscription_id from posthaste.subscription_event_type
        where subscription_event_type.event_type = any (array[t.event_type, '*']) offset 0
    ) w
    cross join lateral (select * from posthaste.subscription where subscription.subscription_id = w.subscription_id limit 1) s
), matched as (
    select r.event_id, s.subscription_id, s.revision, least(r.bytes, $8::integer) as bytes,
           row_number() over (partition by s.subscription_id order by r.event_id) <= s.slots as has_slot
    from read r join route s using (event_type)
    where s.tenant is null or s.tenant = r.tenant
), placed as materialized (
    select event_id, subscription_id, revision,
           has_slot and count(*) filter (where has_slot) over running <= $6::integer
                    and sum(bytes) filter (where has_slot) over running <= $7::bigint as leased
    from matched
    window running as (order by event_id, subscription_id)
), leased as (
    insert into posthaste.lease (event_id, subscription_id, holder, ends_at)
    select event_id, subscription_id, $4::integer, now() + make_interval(secs => $5::float8) from placed where leased
), queued as (
    insert into posthaste.queue (event_id, subscription_id, due_at)
    select event_id, subscription_id, now() from placed where not leased
), locked as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select subscription_id from posthaste.lane
    where subscription_id = any (array(select subscription_id from placed where not leased))
    order by subscription_id for update
), woken as (
    update posthaste.lane set wake_at = least(wake_at, now())
    where subscription_id = any (array(select subscription_id from locked))
)
select null::uuid as event_id, null::integer as subscription_id, null::integer as revision,
       null::text as event_type, null::timestamptz as occurred_at, null::integer as bytes, null::text as payload,
       (select count(*) from picked) as events_seen,
       (select count(*) from read) as events_taken,
       (select count(*) from placed) as deliveries_made,
       (select count(*) from read) - (select count(distinct event_id) from placed) as unrouted,
       (select watermark::text from next) as watermark,
       case when (select count(*) from late) = $3::bigint then $2::text[]
            else array(select x::text from pg_snapshot_xip(pg_current_snapshot()) x where x < (select watermark from next)) end as still_open
union all
select p.event_id, p.subscription_id, p.revision, r.event_type, r.occurred_at, r.bytes, r.payload, null, null, null, null, null, null
-- A full join that no condition turns into another can be done by hash alone: never each delivery against each event.
from placed p full join read r on r.event_id = p.event_id
where coalesce(p.leased, false)
