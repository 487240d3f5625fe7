-- Fans out events nobody has taken yet, and leases their deliveries to this worker as far as it has room: one statement, so
-- that a delivery which succeeds at once is written down thinly once, and deleted once.
--
-- Called by: worker, whenever it has room. Returns one row per delivery leased, and at least one row (the first, whose
-- event_id is null) that tells how the scan went.
-- Relies on: the planner settings of our sessions (see store); intake_by_xid; subscription_event_type's primary key.
--
-- $1 watermark: no event of a transaction below it is left, bar those that another worker had locked and gave back
-- $2 how many events at most          $3 worker_id                    $4 lease in seconds
-- $5 how many deliveries to lease     $6 how many payload bytes       $7 longest payload to fetch, in bytes
-- $8, $9 subscription ids, and how many deliveries each may be leased here   $10 the same for all the others
with picked as materialized (
    select ctid as address, event_id from posthaste.intake
    where xid >= $1::text::xid8
    order by xid limit $2::bigint
    for update skip locked
), read as materialized (
    select p.address, o.event_id, o.event_type, o.tenant, o.occurred_at, octet_length(o.payload::text) as bytes,
           case when octet_length(o.payload::text) <= $7::integer then o.payload::text end as payload
    from picked p
    -- `limit 1` and `offset 0` keep each of these a look-up by key per row, whatever the planner believes about sizes.
    cross join lateral (select * from posthaste.outbox where outbox.event_id = p.event_id limit 1) o
), taken as (
    -- What was read, not what was picked: a plan made while the day's partition was being attached does not know it and finds
    -- nothing there. What it misses stays for the next sweep.
    -- By address: joined on anything else, the planner may read the whole backlog to delete a batch.
    delete from posthaste.intake where ctid = any (array(select address from read))
), route as materialized (
    -- Who wants each type is asked once for the batch, not once for each event.
    select t.event_type, s.subscription_id, s.revision, s.tenant,
           coalesce(($9::integer[])[array_position($8::integer[], s.subscription_id)], $10::integer) as slots
    from (select distinct event_type from read) t
    cross join lateral (
        select subscription_id from posthaste.subscription_event_type
        where subscription_event_type.event_type = any (array[t.event_type, '*']) offset 0
    ) w
    cross join lateral (select * from posthaste.subscription where subscription.subscription_id = w.subscription_id limit 1) s
), matched as (
    select r.event_id, s.subscription_id, s.revision, least(r.bytes, $7::integer) as bytes,
           row_number() over (partition by s.subscription_id order by r.event_id) <= s.slots as has_slot
    from read r join route s using (event_type)
    where s.tenant is null or s.tenant = r.tenant
), placed as materialized (
    select event_id, subscription_id, revision,
           has_slot and count(*) filter (where has_slot) over running <= $5::integer
                    and sum(bytes) filter (where has_slot) over running <= $6::bigint as leased
    from matched
    window running as (order by event_id, subscription_id)
), leased as (
    insert into posthaste.lease (event_id, subscription_id, holder, ends_at)
    select event_id, subscription_id, $3::integer, now() + make_interval(secs => $4::float8) from placed where leased
), queued as (
    insert into posthaste.queue (event_id, subscription_id, due_at)
    select event_id, subscription_id, now() from placed where not leased
), locked as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select subscription_id from posthaste.lane
    where subscription_id = any (array(select subscription_id from placed where not leased))
    order by subscription_id for update
), woken as (
    update posthaste.lane l set wake_at = least(l.wake_at, now())
    from locked where l.subscription_id = locked.subscription_id
)
select null::uuid as event_id, null::integer as subscription_id, null::integer as revision,
       null::text as event_type, null::timestamptz as occurred_at, null::integer as bytes, null::text as payload,
       (select count(*) from picked) as events_seen,
       (select count(*) from read) as events_taken,
       (select count(*) from placed) as deliveries_made,
       (select count(*) from read) - (select count(distinct event_id) from placed) as unrouted,
       pg_snapshot_xmin(pg_current_snapshot())::text as next_watermark
union all
select p.event_id, p.subscription_id, p.revision, r.event_type, r.occurred_at, r.bytes, r.payload, null, null, null, null, null
from placed p join read r on r.event_id = p.event_id
where p.leased
