-- One row for the hand-written loop. Called by: bench, one a transaction. $1 the payload
insert into plain_outbox (payload) values ($1::text::jsonb)
