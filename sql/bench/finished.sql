-- How many attempts there were, and how many of them finished their delivery. Called by: bench, after a run.
-- History that was there before bears the worker_id 0, which no worker has.
select count(*), count(*) filter (where verdict = 'done') from posthaste.attempt where worker_id > 0
