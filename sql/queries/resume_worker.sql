-- Whether a worker that lost its session may go on under its old id: nobody has declared it gone.
-- Called by: presence, once it holds the lock on that id again. $1 worker_id
select exists (select from posthaste.worker where worker_id = $1::integer and ended_at is null)
