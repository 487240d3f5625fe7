-- How many leases a worker holds. Called by: bench, until those of a killed worker are taken over. $1 worker_id
select count(*) from posthaste.lease where holder = $1
