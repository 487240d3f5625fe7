-- Replays and tests, the newest first: those that are under way, and the last $2 others where $1. Called by: `replay list`.
-- $1 finished ones too   $2 how many at most
select to_jsonb(p)::text
from posthaste.replay_progress p
where p.state = 'under way' or $1::boolean
order by p.replay_id desc limit $2::bigint
