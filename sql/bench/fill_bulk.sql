-- Commits many events in one statement, each with its place in its payload. Called by: bench, to make a large backlog quickly.
-- $1 the event type   $2 a payload whose place is 999999999   $3 the first place, of nine digits too   $4 the last
insert into posthaste.outbox (event_type, payload)
select $1::text, replace($2::text, '999999999', place::text)::json from generate_series($3::bigint, $4::bigint) place
