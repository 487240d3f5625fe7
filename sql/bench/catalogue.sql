-- Adds those of these event types that are not in the catalogue. Called by: bench, before it subscribes to them. $1 the event types
insert into posthaste.event_type (event_type, description)
select given, 'measured' from unnest($1::text[]) given
on conflict (event_type) do nothing
