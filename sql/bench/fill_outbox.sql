-- Commits many events at once, as a backlog to drain. Called by: bench, one batch a transaction.
-- $1 the payloads   $2 the event types, which take turns
insert into posthaste.outbox (event_type, payload)
select ($2::text[])[1 + place % cardinality($2::text[])], payload::json
from unnest($1::text[]) with ordinality as given (payload, place)
