-- Tells operators of signing secrets that are older than agreed, once of each; those that it told of. Called by: worker, now and then.
-- $1 how many at most
select t.subscription_id, t.number, s.name
from posthaste.tell_overdue_rotations($1::integer) t
join posthaste.subscription s using (subscription_id)
