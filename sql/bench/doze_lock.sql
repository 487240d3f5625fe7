-- Whether a worker sleeps: it then holds the doze lock alone. Called by: bench, until one does.
select exists (
    select from pg_locks
    where locktype = 'advisory' and classid = 1347375956 and objid = 0 and mode = 'ExclusiveLock' and granted
      and database = (select oid from pg_database where datname = current_database()))
