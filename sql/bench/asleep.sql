-- Whether a worker sleeps: it then holds the doze lock, and an insert rings. Called by: bench, before a clock starts.
select exists (
    select from pg_locks
    where locktype = 'advisory' and granted and mode = 'ExclusiveLock' and objsubid = 2
      and database = (select oid from pg_database where datname = current_database())
      and classid = 1347375956 and objid = 0)
