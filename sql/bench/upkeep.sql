-- How large the delivery side's tables are, what is dead in them, and how often the server tidied them by itself.
-- Called by: bench, after a run.
select relname::text, n_live_tup, n_dead_tup, autovacuum_count, autoanalyze_count, pg_table_size(relid), pg_indexes_size(relid)
from pg_stat_user_tables
where schemaname = 'posthaste' and relname in ('intake', 'queue', 'lease', 'lane')
order by relname
