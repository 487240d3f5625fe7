-- Every session of this database. Called by: bench, before a worker starts, to tell its own sessions from the worker's.
select pid from pg_stat_activity where datname = current_database()
