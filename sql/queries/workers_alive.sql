-- The workers alive this moment. Called by: the `status` command.
select worker_id, name, version, extract(epoch from now() - started_at)::float8 as up_for,
       settings_digest, clock_difference
from posthaste.worker_alive order by worker_id
