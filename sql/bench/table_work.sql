-- What was done to each table of the delivery side. Called by: bench, after a run, when the worker's sessions have ended and
-- with them their numbers have arrived.
select relname::text, n_tup_ins, n_tup_upd, n_tup_hot_upd, n_tup_del, n_dead_tup, coalesce(idx_scan, 0), seq_scan,
       pg_table_size(relid), pg_indexes_size(relid)
from pg_stat_user_tables
where schemaname = 'posthaste' and n_tup_ins + n_tup_upd + n_tup_del > 0
order by relname
