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
-- $9, $10 subscription ids in ascending order, and how many deliveries each may be leased here   $11 the same for all the others
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
    select n.picked, n.late = $3::bigint as is_same,
           case when n.late = $3::bigint then $1::text::xid8
                -- Ids that this server has not given out yet come with a restored dump; what is inserted next lies below them.
                when n.picked = $3::bigint then least((select xid from fresh order by xid desc limit 1), pg_snapshot_xmax(pg_current_snapshot()))
                else pg_snapshot_xmax(pg_current_snapshot()) end as watermark
    from (select (select count(*) from picked) as picked, (select count(*) from late) as late offset 0) n
), read as materialized (
    select p.address, o.event_id, o.event_type, o.tenant, o.occurred_at, o.deliver_after, o.expires_at, o.ordering_key, o.traceparent, octet_length(o.payload::text) as bytes,
           case when octet_length(o.payload::text) <= $8::integer then o.payload::text end as payload,
           -- Counts only where it is sent.
           coalesce(octet_length(o.metadata::text), 0) as metadata_bytes, case when octet_length(o.metadata::text) <= $8::integer then o.metadata end as metadata
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
    select t.event_type, t.events, coalesce(c.active, false) as is_known, case when c.has_schema then c.revision end as schema_revision,
           coalesce(c.patterns, posthaste.patterns(t.event_type)) as patterns,
           t.has_tenant and exists (
               select from posthaste.subscription_event_type w
               where w.event_type = any (coalesce(c.patterns, posthaste.patterns(t.event_type))) and w.tenant > '' offset 0
           ) as is_of_tenants
    from (select event_type, count(*) as events, bool_or(tenant > '') is true as has_tenant from read group by event_type) t
    left join lateral (
        select active, schema is not null as has_schema, revision, patterns from posthaste.event_type
        where event_type.event_type = t.event_type limit 1
    ) c on true
), summed as materialized (
    select coalesce(sum(events), 0)::bigint as events, coalesce(bool_or(not is_known), false) as has_unknown, coalesce(bool_or(is_of_tenants), false) as has_tenants
    from kind
), asked as materialized (
    -- Each type once for subscriptions without a tenant, and once for each tenant that comes with it in the batch, where any of them
    -- has subscribed: the subscriptions of other tenants are never looked at.
    select event_type, '' as tenant, patterns, is_known, schema_revision from kind
    union all
    select k.event_type, p.tenant, k.patterns, k.is_known, k.schema_revision
    from (select distinct event_type, tenant from read where (select has_tenants from summed) and tenant > '') p
    full join kind k using (event_type)
    where coalesce(k.is_of_tenants, false) and coalesce(p.tenant, '') > ''
), route as materialized (
    select a.event_type, a.tenant, a.schema_revision, s.subscription_id, s.revision, s.filter, s.max_age, s.envelope <> 'standard@1' or s.pass_trace as wants_more,
           -- What may not be sent at once waits: where a subscription is paused or held, or has rates, which are kept in its lane, or might get some in a handshake.
           case when s.active and l.active and l.breaker = 'closed' and l.hold_until <= now() and s.rates = '[]' and s.handshake is null
                then case when ($9::integer[])[r.place] = s.subscription_id then ($10::integer[])[r.place] else $11::integer end else 0 end as slots
    from asked a
    cross join lateral (
        select distinct subscription_id from posthaste.subscription_event_type w
        where w.event_type = any (a.patterns) and w.tenant = a.tenant offset 0
    ) w
    cross join lateral (select * from posthaste.subscription where subscription.subscription_id = w.subscription_id limit 1) s
    left join lateral (select active, breaker, hold_until from posthaste.lane where lane.subscription_id = w.subscription_id limit 1) l on true
    -- By bisection: with many lanes in hand, to go through them for each row would take longer than all else.
    cross join lateral (select width_bucket(s.subscription_id, $9::integer[]) as place) r
    where a.is_known or s.unknown_types
), met as materialized (
    -- Nothing is judged by a payload that is too long to be sent: it passes, and ends as rejected.
    select r.event_id, r.deliver_after, r.expires_at, r.ordering_key, s.subscription_id, s.revision, s.schema_revision, s.max_age, s.wants_more, s.slots,
           least(r.bytes + case when s.wants_more then r.metadata_bytes else 0 end, $8::integer) as bytes,
           s.filter is null or r.payload is null or posthaste.matches(s.filter, r.payload) as passes
    from (
        select event_type, '' as tenant, event_id, deliver_after, expires_at, ordering_key, bytes, metadata_bytes, payload from read
        union all
        select event_type, tenant, event_id, deliver_after, expires_at, ordering_key, bytes, metadata_bytes, payload from read
        where (select has_tenants from summed) and tenant > ''
    ) r
    full join route s using (event_type, tenant)
    where coalesce(r.bytes, -1) >= 0 and coalesce(s.subscription_id, 0) > 0
), matched as (
    select event_id, deliver_after, expires_at, ordering_key, subscription_id, revision, schema_revision, max_age, wants_more, bytes,
           ordering_key is null and row_number() over (partition by subscription_id, ordering_key is null order by event_id) <= slots
               and (deliver_after is null or deliver_after <= now()) as has_slot
    from met
    where passes
), placed as materialized (
    select event_id, deliver_after, expires_at, ordering_key, subscription_id, revision, schema_revision, max_age, wants_more,
           has_slot and count(*) filter (where has_slot) over running <= $6::integer
                    and sum(bytes) filter (where has_slot) over running <= $7::bigint as leased
    from matched
    window running as (order by event_id, subscription_id)
), leased as (
    insert into posthaste.lease (event_id, subscription_id, holder, ends_at)
    select event_id, subscription_id, $4::integer, now() + make_interval(secs => $5::float8) from placed where leased
    returning event_id, subscription_id, ctid as address
), followed as materialized (
    select posthaste.follow(array_agg(event_id), array_agg(subscription_id), array_agg(0::smallint), array_agg(ordering_key),
                            array_agg(case when passes is null then 'the subscription''s filter cannot be evaluated on the payload' end), null),
           count(*) filter (where passes) as followers, array_agg(subscription_id) as subscriptions, array_agg(ordering_key) as keys
    from met
    where ordering_key is not null and passes is not false
    having count(*) > 0
)
select null::uuid as event_id, null::integer as subscription_id, null::integer as revision, null::integer as schema_revision,
       null::text as event_type, null::timestamptz as occurred_at, null::integer as bytes, null::text as payload, null::text as metadata, null::text as tenant, null::text as traceparent, null::float8 as expires_in, null::float8 as deliver_after, null::tid as address,
       n.picked as events_seen, t.events as events_taken, m.deliveries as deliveries_made, t.events - m.events as unrouted,
       -- What is rare is written by functions: one more table to write to would cost every call the time to open it.
       (select posthaste.note_unknown(array_agg(event_type), array_agg(event_id)) from read
        where (select has_unknown from summed) and (event_type in (select event_type from kind where not is_known)) is true
        having count(*) > 0) as unknown,
       (select posthaste.hold_unfiltered(array_agg(event_id), array_agg(subscription_id)) from met
        where passes is null and ordering_key is null
        having count(*) > 0) as held,
       (select posthaste.let_wait(array_agg(event_id), array_agg(subscription_id), array_agg(0::smallint), array_agg(null::text), array_agg(0::smallint),
                                  array_agg(greatest(deliver_after, now())), array_agg(expires_at)) from placed
        where not leased and ordering_key is null
        having count(*) > 0) as waiting,
       n.watermark::text as watermark,
       case when n.is_same then $2::text[] else array(select x::text from pg_snapshot_xip(pg_current_snapshot()) x where x < n.watermark) end as still_open,
       -- Which keys they are of: an array for each column.
       f.followers, f.subscriptions as ordered_subscriptions, f.keys as ordered_keys
from next n, summed t, (select count(*) as deliveries, count(distinct event_id) as events from placed) m left join followed f on true
union all
select p.event_id, p.subscription_id, p.revision, p.schema_revision, r.event_type, r.occurred_at,
       r.bytes + case when p.wants_more then r.metadata_bytes else 0 end,
       case when not p.wants_more or r.bytes + r.metadata_bytes <= $8::integer then r.payload end,
       case when p.wants_more and r.bytes + r.metadata_bytes <= $8::integer then r.metadata::text end, case when p.wants_more then r.tenant end, r.traceparent,
       -- An end may lie at infinity, which no time can be subtracted from.
       case when p.expires_at is not null or p.max_age is not null then
           (extract(epoch from least(p.expires_at, posthaste.event_time(p.event_id) + p.max_age)) - extract(epoch from now()))::float8 end,
       extract(epoch from p.deliver_after)::float8, l.address, null, null, null, null, null, null, null, null, null, null, null, null
-- Full joins that no condition turns into others can be done by hash alone: never each delivery against each event.
from leased l full join placed p using (event_id, subscription_id) full join read r on r.event_id = p.event_id
where coalesce(l.subscription_id, 0) > 0
