-- Cancels what people asked to be cancelled; how many requests it looked at. Called by: worker. $1 how many at most
select posthaste.carry_out_cancels($1::integer)
