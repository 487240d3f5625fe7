-- Puts those of these event types into the catalogue that it does not have. Called by: bench, before anybody subscribes to them.
-- $1 their names
insert into posthaste.event_type (event_type, description)
select distinct name, 'measured' from unnest($1::text[]) name
on conflict do nothing
