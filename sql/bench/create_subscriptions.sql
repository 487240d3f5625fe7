-- Many subscriptions at once. Called by: bench. Returns their ids, in the order asked for.
-- $1 names   $2 URLs   $3 the one event type of each   $4 the waits between attempts, for all of them   $5 the tenants, or nulls
select posthaste.approve(posthaste.propose_subscription(
    w.name, w.url, array[w.event_type], tenant => w.tenant, retry_intervals => $4::text[]::interval[]))
from unnest($1::text[], $2::text[], $3::text[], $5::text[]) with ordinality as w (name, url, event_type, tenant, place)
order by w.place
