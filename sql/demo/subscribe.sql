-- Proposes a subscription and approves it, which takes a second administrator in earnest. The intervals are far shorter than one would choose in earnest: a newcomer
-- watches; and no breaker, which would leave the failing partners alone for longer than that. Returns subscription_id.
--
-- $1 name   $2 URL   $3 event types   $4 waits between attempts
select posthaste.approve(posthaste.propose_subscription($1, $2, $3, retry_intervals => $4::text[]::interval[], breaker => null))
