-- One delivery that was given up, attempt by attempt: what did it meet, how long until the next?
select a.number, a.started_at::time(3) as started, a.outcome, a.error, a.verdict,
       a.next_attempt_at - a.started_at as next_after
from posthaste.attempt a
join (
    select event_id, subscription_id from posthaste.delivery
    where status = 'RETRY_EXHAUSTED' limit 1
) dead using (event_id, subscription_id)
order by a.number;
