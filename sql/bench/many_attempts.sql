-- Attempts of today, as after a busy morning. Called by: bench, before a run. $1 how many
insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, duration_us, outcome, verdict,
                               replay, number, http_status, remote_address, signed_with)
select clock_timestamp(), posthaste.new_event_id(), 1, 1, 0, 1000, 'accepted', 'done', 0, 1, 200, '127.0.0.1', '{1}'
from generate_series(1, $1::integer)
