-- Events and attempts a second, of the last few seconds. Called by: the `status` command.
--
-- $1 over how many seconds
select * from posthaste.recent_rates($1::float8)
