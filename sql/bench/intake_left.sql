-- How many events wait for a worker to take them. Called by: bench, to know that a busy worker was busy to the end.
select count(*) from posthaste.intake
