-- Asks for a delivery to be made once more. Called by: `replay delivery`. Returns the replay's id, or null, and how many deliveries.
-- $1 event_id   $2 subscription   $3 reason   $4 dry run   $5 deliveries a second, or null
select replay_id, deliveries from posthaste.replay_delivery($1::text::uuid, $2::text, $3::text, $4::boolean, $5::integer)
