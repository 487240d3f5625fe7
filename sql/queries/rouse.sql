-- Takes back what doze.sql said. Called by: presence, when the worker woke.
select pg_advisory_unlock(1347375956, 0)
