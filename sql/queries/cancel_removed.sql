-- Cancels deliveries still owed to removed subscriptions; how many. Called by: worker, now and then. $1 how many at most
select posthaste.cancel_removed($1::integer)
