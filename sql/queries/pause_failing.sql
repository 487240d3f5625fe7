-- Pauses subscriptions that fail for too long, or whose receivers want nothing more; how many. Called by: worker. $1 how many at most
select posthaste.pause_failing($1::integer)
