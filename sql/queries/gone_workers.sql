-- Workers that did not say goodbye and whose session lock is gone: their process, their host or their connection died.
-- Called by: worker, twice a second. $1 our own worker_id
select w.worker_id from posthaste.worker w
where w.ended_at is null and w.worker_id <> $1::integer
  and w.worker_id <> all (array(select worker_id from posthaste.worker_alive))
