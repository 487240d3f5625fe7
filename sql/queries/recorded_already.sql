-- Which attempts of a batch are in history already, because a try to record them committed although its answer was lost.
-- Called by: recorder, before it tries again. Returns places in the batch, from 1. Relies on: attempt_by_event.
-- $1.. arrays of equal length: event_id, subscription_id, replay, number, worker_id, outcome
select r.place
from unnest($1::uuid[], $2::integer[], $3::smallint[], $4::smallint[], $5::integer[], $6::text[])
    with ordinality as r (event_id, subscription_id, replay, number, worker_id, outcome, place)
cross join lateral (
    select from posthaste.attempt a
    where a.event_id = r.event_id and a.subscription_id = r.subscription_id and a.replay = r.replay
      and a.number = r.number and a.worker_id = r.worker_id and a.outcome::text = r.outcome
    limit 1
) a
