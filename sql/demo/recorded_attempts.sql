-- Every attempt in order, to be compared with what each partner counted and answered.
select s.name as subscription, a.event_id, a.outcome::text as outcome, a.http_status
from posthaste.attempt a join posthaste.subscription s using (subscription_id)
order by a.event_id, a.subscription_id, a.number, a.started_at
