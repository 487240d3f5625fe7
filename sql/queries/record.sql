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
    -- Side by side in the list of columns: in FROM, each array would be kept by itself and read anew.
    select generate_subscripts($1::uuid[], 1)::bigint as place, unnest($1) as event_id, unnest($2::integer[]) as subscription_id, unnest($3::smallint[]) as replay,
           unnest($4::smallint[]) as number, unnest($5::integer[]) as holder, unnest($6::integer[]) as worker_id, unnest($7::integer[]) as revision,
           unnest($8::float8[]) as age, now() + make_interval(secs => unnest($9::float8[])) as due_at, unnest($10::integer[]) as duration_us,
           unnest($11::integer[]) as dns_us, unnest($12::integer[]) as connect_us, unnest($13::integer[]) as tls_us, unnest($14::integer[]) as body_us,
           unnest($15::text[]) as outcome, unnest($16::text[]) as verdict, unnest($17::smallint[]) as http_status, unnest($18::text[]) as remote_address,
           unnest($19::text[]) as signed_with, unnest($20::text[]) as error, unnest($21::text[]) as response, unnest($22::text[]) as rule,
           unnest($23::boolean[]) as expires, unnest($24::tid[]) as address, unnest($25::text[]) as ordering_key
), there as materialized (
    -- The fence stands in the DELETE, where a lease that changed since we looked is checked again. By address: never each lease against
    -- each result.
    delete from posthaste.lease l using result r
    where l.ctid = r.address and l.event_id = r.event_id and l.subscription_id = r.subscription_id and l.replay = r.replay
      and l.holder = r.holder and l.number = r.number
    returning r.place
), elsewhere as materialized (
    -- What was not there is lost; or somebody has had the table written anew (VACUUM FULL), and it lies elsewhere.
    select f.place, f.address from posthaste.find_leases($1, $2, $3, $24) f
    where (select count(*) from there) < cardinality($1) and f.place <> all (array(select place from there))
), moved as materialized (
    delete from posthaste.lease l using elsewhere e
    where l.ctid = e.address and l.holder = ($5::integer[])[e.place] and l.number = ($4::smallint[])[e.place]
    returning e.place
), ended as materialized (
    select place from there union all select place from moved
), requeued as materialized (
    -- What is rare is written by functions: one more table to write to would cost every call the time to open it.
    select posthaste.let_wait(
               array_agg(event_id), array_agg(subscription_id), array_agg(replay), array_agg(ordering_key), array_agg(number),
               -- Whoever lost an attempt through no fault of its partner does not go behind what came later.
               array_agg(case when outcome = 'abandoned' then least(due_at, posthaste.event_time(event_id)) else due_at end),
               posthaste.expiry_times(array_agg(case when expires then event_id end))) as how_many
    from result
    -- A hashed look-up, and only where there is something to look up.
    where case when verdict = 'retry' then place in (select place from ended) end
    having count(*) > 0
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
               'verdict', verdict, 'outcome', outcome, 'http_status', http_status, 'error', error)))::bigint as how_many
    from result
    where case when verdict in ('exhausted', 'rejected') and replay >= 0 then place in (select place from ended) end
    having count(*) > 0
)
select place from result where (select count(*) from ended) < cardinality($1) and (place in (select place from ended)) is not true
union all
-- Never a row: they are read so that they run.
select how_many from requeued where how_many is null
union all
select how_many from told where how_many is null
