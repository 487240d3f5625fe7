-- One row of the outbox's shape, with nothing behind it. Called by: bench, one a transaction. $1 the payload
insert into same_shape (event_type, payload) values ('bench.event', $1::text::json)
