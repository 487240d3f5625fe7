-- Adds an event type to the catalogue. Called by: `event-type create`.
-- $1 event type   $2 description   $3 JSON Schema   $4 example   $5 owner
select posthaste.create_event_type($1::text, $2::text, $3::text::json, $4::text::json, $5::text)
