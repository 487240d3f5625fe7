-- The partitions of outbox and attempt for the days before today, as they would be there by now. Called by: bench, before a run.
-- $1 how many days
select posthaste.create_partition(history, (now() at time zone 'UTC')::date - n)
from generate_series(1, $1::integer) n, unnest('{posthaste.outbox,posthaste.attempt}'::regclass[]) history
