-- The catalogue of event types, or one of them. Called by: the `event-type` commands. $1 event type, or null
select to_jsonb(t)::text
from posthaste.event_type t
where $1::text is null or t.event_type = $1::text
order by t.event_type
