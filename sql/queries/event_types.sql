-- The JSON Schemas of event types, as text, and their revisions.
-- Called by: catalogue, for those it does not know or that have changed. $1 event types
select event_type, revision, schema::text as schema from posthaste.event_type
where event_type = any ($1::text[]) and schema is not null
