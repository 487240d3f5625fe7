-- Asks for the dead letters of a subscription since a time to be delivered once more. Called by: `replay since`. Returns as
-- replay_delivery.sql.
-- $1 subscription   $2 since   $3 reason   $4 dry run   $5 deliveries a second, or null
select replay_id, deliveries from posthaste.replay_since($1::text, $2::text::timestamptz, $3::text, $4::boolean, $5::integer)
