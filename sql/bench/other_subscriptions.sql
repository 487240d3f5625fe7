-- One subscription to each event type of other_types.sql; nothing is ever sent to it. Called by: bench, before a run. $1 how many
select posthaste.approve(posthaste.propose_subscription('other ' || n, 'http://127.0.0.1:9/', array['bench.other_' || n]))
from generate_series(1, $1::integer) n
