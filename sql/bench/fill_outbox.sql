-- Commits many events at once, as a backlog to drain.
-- Called by: bench, one batch a transaction. $1 the payloads
insert into posthaste.outbox (event_type, payload)
select 'bench.event', payload::json from unnest($1::text[]) payload
