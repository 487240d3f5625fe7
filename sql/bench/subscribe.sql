-- One subscription. Called by: bench, before a run. $1 its name   $2 its URL   $3 its event types
select posthaste.approve(posthaste.propose_subscription($1, $2, $3))
