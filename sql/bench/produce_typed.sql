-- One event of a given type, as a producer inserts it. Called by: bench, one a transaction. $1 the type, $2 the payload, $3 the tenant, or null
insert into posthaste.outbox (event_type, payload, tenant) values ($1, $2::text::json, $3)
