-- An attempt for each event of the days before today. Called by: bench, after past_events.sql.
insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, duration_us, outcome, verdict,
                               replay, number, http_status, remote_address, signed_with)
select occurred_at, event_id, 1, 1, 0, 1000, 'accepted', 'done', 0, 1, 200, '127.0.0.1', '{1}'
from posthaste.outbox
