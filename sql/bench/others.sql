-- How many other sessions this database has. Called by: bench, after the worker has ended.
select count(*) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
