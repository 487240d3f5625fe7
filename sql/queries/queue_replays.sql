-- Puts the next deliveries of a replay into the queue; whether one was due. Called by: worker. $1 how many at most
select posthaste.queue_replays($1::integer)
