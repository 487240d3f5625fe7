-- Records finished attempts: history in, leases out, what is to be tried again back into the queue, and what was given up into
-- operational_event, in one statement.
--
-- The lease is the fence: an attempt whose lease somebody else took over is recorded as `late` and changes nothing.
-- Called by: worker, for a batch at a time. Returns the place in the batch (from 1) of each late one.
-- Relies on: the planner settings of our sessions. Not safe to repeat by itself: see recorded_already.sql.
--
-- $1 to $24: arrays of equal length, one element per attempt; see store::record. Ages are seconds before now, retries seconds
-- after it: every time that is written comes from the database's clock.
-- $25 ordering keys, or no element at all where none of the attempts has one; else free_heads.sql follows in the same transaction
with result as materialized (
    select r.*, now() + make_interval(secs => r.retry_in) as due_at
    from unnest(
        $1::uuid[], $2::integer[], $3::smallint[], $4::smallint[], $5::integer[], $6::integer[], $7::integer[],
        $8::float8[], $9::float8[], $10::integer[], $11::integer[], $12::integer[], $13::integer[], $14::integer[],
        $15::text[], $16::text[], $17::smallint[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[], $23::boolean[], $24::tid[], $25::text[]
    ) with ordinality as r (
        event_id, subscription_id, replay, number, holder, worker_id, revision,
        age, retry_in, duration_us, dns_us, connect_us, tls_us, body_us,
        outcome, verdict, http_status, remote_address, signed_with, error, response, rule, expires, address, ordering_key,
        place)
), there as materialized (
    -- `limit 1` makes this a look-up by address for each result, whatever the planner believes about the table's size.
    select r.place, r.holder, r.number, l.address
    from result r
    cross join lateral (
        select ctid as address from posthaste.lease
        where ctid = r.address and event_id = r.event_id and subscription_id = r.subscription_id and replay = r.replay
        limit 1
    ) l
), found as materialized (
    select * from there
    union all
    -- What is not there is lost; or somebody has had the table written anew (VACUUM FULL), and it lies elsewhere.
    select place, ($5::integer[])[place], ($4::smallint[])[place], address
    from posthaste.find_leases($1, $2, $3)
    where (select count(*) from there) < cardinality($1) and place <> all (array(select place from there))
), ended as materialized (
    -- The fence stands in the DELETE, where a lease that changed since we looked is checked again.
    delete from posthaste.lease l using found f
    where l.ctid = f.address and l.holder = f.holder and l.number = f.number
    returning f.place
), rescheduled as (
    insert into posthaste.queue (event_id, subscription_id, replay, ordering_key, attempts, due_at, expires_at)
    select event_id, subscription_id, replay, ordering_key, number,
           -- Whoever lost an attempt through no fault of its partner does not go behind what came later.
           case when outcome = 'abandoned' then least(due_at, posthaste.event_time(event_id)) else due_at end,
           case when expires then (select o.expires_at from posthaste.outbox o where o.event_id = result.event_id) end
    from result
    -- `is true` keeps this from becoming a join, which might compare each result with each lease: it is a hashed look-up.
    where verdict = 'retry' and (place in (select place from ended)) is true
    returning subscription_id, due_at
), lowest as materialized (
    select subscription_id, min(due_at) as due_at from rescheduled group by subscription_id
), locked as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select subscription_id from posthaste.lane
    where subscription_id = any (array(select subscription_id from lowest))
    order by subscription_id for update
), woken as (
    update posthaste.lane l
    set wake_at = least(l.wake_at, (select w.due_at from lowest w where w.subscription_id = l.subscription_id))
    where l.subscription_id = any (array(select subscription_id from locked))
), recorded as (
    insert into posthaste.attempt (
        event_id, subscription_id, replay, number, worker_id, subscription_revision,
        started_at, duration_us, dns_us, connect_us, tls_us, body_us,
        outcome, verdict, rule, next_attempt_at,
        http_status, remote_address, signed_with, error, response)
    select event_id, subscription_id, replay, number, worker_id, revision,
           now() - make_interval(secs => age), duration_us, dns_us, connect_us, tls_us, body_us,
           outcome::posthaste.outcome,
           (case when was_held then verdict else 'late' end)::posthaste.verdict,
           rule::posthaste.rule,
           case when was_held then due_at end,
           http_status, remote_address::inet, signed_with, error, response
    from (select r.*, r.place in (select place from ended) as was_held from result r offset 0) judged
), told as materialized (
    -- Where nothing ended badly, there is no row here, and the function is not called.
    select posthaste.tell_ended(jsonb_agg(jsonb_build_object(
               'event_id', event_id, 'subscription_id', subscription_id, 'replay', replay, 'number', number, 'worker_id', worker_id,
               'verdict', verdict, 'outcome', outcome, 'http_status', http_status, 'error', error))) as how_many
    from result
    where verdict in ('exhausted', 'rejected') and replay >= 0 and (place in (select place from ended)) is true
    having count(*) > 0
)
select place from result where (place in (select place from ended)) is not true
union all
-- Never a row: it is read so that it runs.
select how_many::bigint from told where how_many is null
