-- Records finished attempts: history in, leases out, and what is to be tried again back into the queue, in one statement.
--
-- The lease is the fence: an attempt whose lease somebody else took over is recorded as `late` and changes nothing.
-- Called by: worker, for a batch at a time. Returns the place in the batch (from 1) of each late one.
-- Relies on: lease_pkey; the planner settings of our sessions. Not safe to repeat by itself: see recorded_already.sql.
--
-- $1 to $22: arrays of equal length, one element per attempt; see store::record. Ages are seconds before now, retries seconds
-- after it: every time that is written comes from the database's clock.
with result as materialized (
    select r.*, now() + make_interval(secs => r.retry_in) as due_at
    from unnest(
        $1::uuid[], $2::integer[], $3::smallint[], $4::smallint[], $5::integer[], $6::integer[], $7::integer[],
        $8::float8[], $9::float8[], $10::integer[], $11::integer[], $12::integer[], $13::integer[], $14::integer[], $15::integer[],
        $16::text[], $17::text[], $18::smallint[], $19::text[], $20::text[], $21::text[], $22::text[]
    ) with ordinality as r (
        event_id, subscription_id, replay, number, holder, worker_id, revision,
        age, retry_in, duration_us, dns_us, connect_us, tls_us, first_byte_us, body_us,
        outcome, verdict, http_status, remote_address, signed_with, error, response,
        place)
), held as materialized (
    -- The fence stands in the DELETE, where a lease that changed since we looked is checked again.
    delete from posthaste.lease l using result r
    where l.event_id = r.event_id and l.subscription_id = r.subscription_id and l.replay = r.replay
      and l.holder = r.holder and l.number = r.number
    returning r.place
), rescheduled as (
    insert into posthaste.queue (event_id, subscription_id, replay, attempts, due_at)
    select r.event_id, r.subscription_id, r.replay, r.number, r.due_at
    from result r join held using (place)
    where r.verdict = 'retry'
    returning subscription_id, due_at
), lowest as materialized (
    select subscription_id, min(due_at) as due_at from rescheduled group by subscription_id
), locked as materialized (
    -- In one order everywhere, so that two workers never wait for each other.
    select l.subscription_id, w.due_at
    from lowest w join posthaste.lane l using (subscription_id)
    order by l.subscription_id for update of l
), woken as (
    update posthaste.lane l set wake_at = least(l.wake_at, locked.due_at)
    from locked where l.subscription_id = locked.subscription_id
), recorded as (
    insert into posthaste.attempt (
        event_id, subscription_id, replay, number, worker_id, subscription_revision,
        started_at, duration_us, dns_us, connect_us, tls_us, first_byte_us, body_us,
        outcome, verdict, next_attempt_at,
        http_status, remote_address, signed_with, error, response)
    select r.event_id, r.subscription_id, r.replay, r.number, r.worker_id, r.revision,
           now() - make_interval(secs => r.age), r.duration_us, r.dns_us, r.connect_us, r.tls_us, r.first_byte_us, r.body_us,
           r.outcome::posthaste.outcome,
           (case when h.place is null then 'late' else r.verdict end)::posthaste.verdict,
           case when h.place is not null then r.due_at end,
           r.http_status, r.remote_address::inet, r.signed_with, r.error, r.response
    from result r left join held h using (place)
)
select r.place from result r left join held h using (place) where h.place is null
