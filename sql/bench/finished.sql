-- How many attempts there were, and how many of them finished their delivery. Called by: bench, after a run.
select count(*), count(*) filter (where verdict = 'done') from posthaste.attempt
