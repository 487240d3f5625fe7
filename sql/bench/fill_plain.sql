-- Commits many rows at once for the hand-written loop. Called by: bench, one batch a transaction.
-- $1 the payloads   $2 event types, which this table does not have
insert into plain_outbox (payload) select payload::jsonb from unnest($1::text[]) payload where cardinality($2::text[]) > 0
