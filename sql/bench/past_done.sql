-- All of past_queue.sql is done: the tables are empty again, but have their pages still. The vacuum that follows tells the planner
-- that they are empty, as it does in life whenever a queue has run dry. Called by: bench, before a run.
with events as (delete from posthaste.intake), waiting as (delete from posthaste.queue)
delete from posthaste.lease
