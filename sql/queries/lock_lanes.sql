-- Locks lanes that have something due, longest waiting first, for claim_waiting.sql in the same transaction.
--
-- Two statements on purpose: claim_waiting.sql raises a lane's wake_at, and may do so only under a snapshot taken after the
-- lock, or it would not see a row that was added while it waited.
-- Called by: worker. Returns one row per lane locked, and one (whose subscription_id is null) that tells where the next call may start:
-- everything before is dead, and stays in the index for as long as anything keeps vacuum back. What is made due earlier than that is
-- found by a call that starts at the beginning.
-- Relies on: lane_by_next_claim.
--
-- $1 how many lanes at most   $2 subscriptions that have no room here, in ascending order   $3 where to start; null: at the beginning
with lowest as materialized (
    select greatest(wake_at, rest_until, hold_until) as next_claim from posthaste.lane
    where greatest(wake_at, rest_until, hold_until) >= coalesce($3::text::timestamptz, '-infinity') and wake_at < 'infinity' and active
    order by greatest(wake_at, rest_until, hold_until) limit 1
), locked as materialized (
    select subscription_id from posthaste.lane
    where greatest(wake_at, rest_until, hold_until) between (select next_claim from lowest) and now() and wake_at < 'infinity' and active
      -- By bisection, since there may be many of them.
      and ($2::integer[])[width_bucket(subscription_id, $2::integer[])] is distinct from subscription_id
    order by greatest(wake_at, rest_until, hold_until) limit $1::bigint
    for update skip locked
)
select subscription_id, null as start from locked
union all
-- Not quite up to now: a lane may be woken by somebody who has not committed yet.
select null, least((select next_claim from lowest), now() - interval '10 seconds')::text
