-- The terms of subscriptions: where to, how, how often, and the live secrets, oldest first. One row per subscription and secret; one
-- with null secret columns where a subscription has none.
--
-- Called by: directory, for subscriptions it does not know or whose revision has changed. Relies on: primary keys.
-- $1 subscription ids
select s.subscription_id, s.revision, s.name, s.url, s.active, s.sandbox, (s.breaker ->> 'failures')::integer as breaker_failures, s.retry_jitter, s.client_errors,
       array(select extract(epoch from i)::float8 from unnest(s.retry_intervals) with ordinality u (i, place) order by place) as retry_seconds,
       extract(epoch from s.timeout)::float8 as timeout_seconds, s.concurrency, s.networks,
       -- Within what time a claimed delivery must be on its way, for the rates to hold.
       (select min(least(1, extract(epoch from (r ->> 'period')::interval) / 10))::float8 from jsonb_array_elements(s.rates) r) as send_within,
       array(select key from jsonb_each(s.headers) order by key) as header_names,
       -- Null where the value is a secret.
       array(select case when jsonb_typeof(value) = 'string' then value #>> '{}' end from jsonb_each(s.headers) order by key) as header_values,
       h.headers, h.secret_ids, h.key_ids, h.ciphertexts,
       k.number, k.secret_id, k.key_id, k.ciphertext,
       extract(epoch from k.ends_at - now())::float8 as ends_in
from posthaste.subscription s
-- Look-ups by key for each subscription, whatever the planner believes about sizes.
left join lateral (
    select * from posthaste.signing_secret k
    where k.subscription_id = s.subscription_id and (k.ends_at is null or k.ends_at > now())
    offset 0
) k on true
cross join lateral (
    select array_agg(header) as headers, array_agg(secret_id) as secret_ids, array_agg(key_id) as key_ids, array_agg(ciphertext) as ciphertexts
    from posthaste.header_secret x where x.subscription_id = s.subscription_id
) h
where s.subscription_id = any ($1::integer[])
order by s.subscription_id, k.number
