-- How many deliveries of a subscription are done. Called by: bench, after a run. $1 subscription_id
select count(*) from posthaste.attempt where subscription_id = $1 and verdict = 'done'
