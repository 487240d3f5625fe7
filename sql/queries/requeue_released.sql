-- Puts deliveries back into the queue that were released from quarantine; how many. Called by: worker. $1 how many at most
select posthaste.requeue_released($1::integer)
