-- Locks lanes that have something due, longest waiting first, for claim_waiting.sql in the same transaction.
--
-- Two statements on purpose: claim_waiting.sql raises a lane's wake_at, and may do so only under a snapshot taken after the
-- lock, or it would not see a row that was added while it waited.
-- Called by: worker. Relies on: lane_by_next_claim.
--
-- $1 how many lanes at most   $2 subscriptions that have no room here
select subscription_id from posthaste.lane
where greatest(wake_at, rest_until, hold_until) <= now() and wake_at < 'infinity' and active and subscription_id <> all ($2::integer[])
order by greatest(wake_at, rest_until, hold_until) limit $1::bigint
for update skip locked
