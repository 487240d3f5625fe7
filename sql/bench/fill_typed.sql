-- The same number of events of each type, all in one transaction. Called by: bench, as a backlog of endpoints that misbehave.
-- $1 the types   $2 the payload   $3 how many of each
insert into posthaste.outbox (event_type, payload)
select event_type, $2::text::json from unnest($1::text[]) event_type, generate_series(1, $3::integer)
