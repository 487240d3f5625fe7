-- The worker that registered last. Called by: bench, which starts them one by one.
select max(worker_id) from posthaste.worker
