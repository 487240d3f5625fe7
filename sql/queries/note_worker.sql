-- Notes what only the worker itself knows of its machine. Called by: worker, once a minute.
-- $1 worker_id   $2 its clock minus the database's in seconds   $3 when the first of its client certificates ends, or null
update posthaste.worker set clock_difference = $2::float8, certificate_ends = $3::timestamptz, noted_at = now()
where worker_id = $1::integer
