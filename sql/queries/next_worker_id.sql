-- An id for a worker that is about to register. Called by: presence, which takes the lock on it before the row appears, so that
-- no row is ever seen without its lock.
select nextval(pg_get_serial_sequence('posthaste.worker', 'worker_id'))::integer
