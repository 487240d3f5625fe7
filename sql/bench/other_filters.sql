-- Subscriptions to the run's own event type whose filter lets none of its payloads pass. Called by: bench, before a run. $1 how many
select posthaste.approve(posthaste.propose_subscription(
    'filtered ' || n, 'http://127.0.0.1:9/', array['bench.event'], filter => '$.internship.hours > 100000'))
from generate_series(1, $1::integer) n
