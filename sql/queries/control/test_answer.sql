-- The attempt that a test led to, once it is recorded. Called by: `subscription test`, until it is there. $1 event_id
select to_jsonb(a)::text
from posthaste.attempt_log a
where a.event_id = $1::uuid and a.verdict <> 'late'
order by a.number desc limit 1
