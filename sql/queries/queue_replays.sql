-- Puts the next deliveries of a replay into the queue: whether one was due, and which ordering keys something was put behind. Called by: worker.
-- $1 how many at most
select * from posthaste.queue_replays($1::integer)
