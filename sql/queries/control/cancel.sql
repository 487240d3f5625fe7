-- Asks for what waits of an event to be cancelled; how many deliveries that is now. Called by: `cancel`.
-- $1 event_id   $2 reason   $3 subscription, or null
select posthaste.cancel($1::text::uuid, $2::text, $3::text)
