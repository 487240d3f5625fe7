-- Holds the session lock that says `worker $1 is alive` for as long as this session lives.
-- Called by: presence, before the worker's row appears. $1 worker_id
select pg_try_advisory_lock(1347375957, $1::integer)
