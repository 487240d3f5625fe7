-- The worker's sessions: which they are, whether one idles in a transaction, and how old its transaction is.
-- Called by: bench, several times a second. $1 the sessions that were there before
select pid, coalesce(state like 'idle in transaction%', false),
       extract(epoch from clock_timestamp() - xact_start)::float8
from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and pid <> all ($1::integer[])
