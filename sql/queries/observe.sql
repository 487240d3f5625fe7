-- Whether this worker is the one that observes: the lock goes with the session. Called by: presence.
select pg_try_advisory_lock(1347375958, 3)
