-- Changes fields of an event type. Called by: `event-type change`. $1 event type   $2 the fields, a JSON object   $3 reason
select posthaste.change_event_type($1::text, $2::text::jsonb, $3::text)
