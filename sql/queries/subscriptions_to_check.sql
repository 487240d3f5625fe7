-- The subscriptions that are there, at most $2 with ids beyond $1. Called by: the `check` command, until none are left.
-- Relies on: subscription_pkey. $1 id to start after   $2 how many
select subscription_id
from posthaste.subscription
where removed_at is null and subscription_id > $1::integer
order by subscription_id
limit $2::bigint
