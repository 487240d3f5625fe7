-- One event of a given type, as a producer inserts it. Called by: bench, one a transaction. $1 the type, $2 the payload
insert into posthaste.outbox (event_type, payload) values ($1, $2::text::json)
