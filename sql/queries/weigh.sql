-- Weighs what lately came of attempts: the endpoints that failed, or that failed before, and what that makes of their breakers.
--
-- Called by: recorder, after a batch with failures, or of subscriptions that had some. Returns one row each: for how many seconds
-- nothing is to be sent now, and whether it need not be weighed again before something fails.
--
-- $1.. arrays of equal length: subscription_id, requests that came to an end, how many failed, how many of the last did so in a row,
-- for how many seconds the receiver asked to be left alone, and why its subscription is to be paused
select * from posthaste.weigh($1::integer[], $2::integer[], $3::integer[], $4::integer[], $5::float8[], $6::text[])
