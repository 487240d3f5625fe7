-- Commits many rows at once for the hand-written loop. Called by: bench, one batch a transaction. $1 the payloads
insert into plain_outbox (payload) select payload::jsonb from unnest($1::text[]) payload
