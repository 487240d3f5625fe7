-- Pauses subscriptions that fail for too long, or whose receivers want nothing more; one row each. Called by: worker. $1 how many at most
select subscription_id, reason from posthaste.pause_failing($1::integer)
