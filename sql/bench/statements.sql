-- Which statements cost the server most. Called by: bench --statements, after a run. Relies on: pg_stat_statements.
select query, calls, rows, total_exec_time as total_ms, wal_bytes::bigint, shared_blks_hit
from pg_stat_statements s join pg_database d on d.oid = s.dbid
where d.datname = current_database() and calls > 0
order by total_exec_time desc limit $1
