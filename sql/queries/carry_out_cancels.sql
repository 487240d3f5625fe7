-- Cancels what people asked to be cancelled: how many requests it looked at, how many deliveries it ended, and which ordering keys may go on. Called by: worker.
-- $1 how many at most
select * from posthaste.carry_out_cancels($1::integer)
