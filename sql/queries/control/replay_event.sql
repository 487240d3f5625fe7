-- Asks for all deliveries of an event to be made once more. Called by: `replay event`. Returns as replay_delivery.sql.
-- $1 event_id   $2 reason   $3 dry run   $4 deliveries a second, or null
select replay_id, deliveries from posthaste.replay_event($1::text::uuid, $2::text, $3::boolean, $4::integer)
