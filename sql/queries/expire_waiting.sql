-- Ends deliveries that wait and are not to be sent any more; how many. Called by: worker, now and then. $1 how many at most
select posthaste.expire_waiting($1::integer)
