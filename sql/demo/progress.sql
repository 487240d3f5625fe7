-- How far each subscription is, for the bars. One snapshot: an event is in the intake, in the queue or finished, never nowhere.
select s.name,
       (select count(*) from posthaste.intake) as not_fanned_out,
       (select count(*) from posthaste.queue q where q.subscription_id = s.subscription_id)
           + (select count(*) from posthaste.lease l where l.subscription_id = s.subscription_id) as owed,
       count(a.verdict) as attempts,
       count(*) filter (where a.verdict in ('done', 'exhausted', 'rejected')) as finished
from posthaste.subscription s
left join posthaste.attempt a using (subscription_id)
group by s.subscription_id
