-- The terms of subscriptions: where to, how often, and the live secrets, oldest first. One row per subscription and secret; one
-- with null secret columns where a subscription has none.
--
-- Called by: directory, for subscriptions it does not know or whose revision has changed. Relies on: primary keys.
-- $1 subscription ids
select s.subscription_id, s.revision, s.name, s.url, s.retry_jitter::float8 as retry_jitter,
       array(select extract(epoch from i)::float8 from unnest(s.retry_intervals) with ordinality u (i, place) order by place) as retry_seconds,
       k.number, k.secret_id, k.key_id, k.ciphertext,
       extract(epoch from k.ends_at - now())::float8 as ends_in
from posthaste.subscription s
left join lateral (
    select * from posthaste.signing_secret k
    where k.subscription_id = s.subscription_id and (k.ends_at is null or k.ends_at > now())
    -- A look-up by key for each subscription, whatever the planner believes about sizes.
    offset 0
) k on true
where s.subscription_id = any ($1::integer[])
order by s.subscription_id, k.number
