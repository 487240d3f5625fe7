-- One event, as a producer inserts it. Called by: bench, one a transaction. $1 the payload
insert into posthaste.outbox (event_type, payload) values ('bench.event', $1::text::json)
