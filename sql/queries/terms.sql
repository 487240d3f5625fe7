-- The terms of subscriptions: where to, how, how often, and the live secrets, oldest first. One row per subscription and secret; one
-- with null secret columns where a subscription has none.
--
-- Called by: directory, for subscriptions it does not know or whose revision has changed. Relies on: primary keys.
-- $1 subscription ids
select s.subscription_id, s.revision, s.name, s.url, s.active, s.sandbox, (s.breaker ->> 'failures')::integer as breaker_failures, s.retry_jitter, s.client_errors,
       array(select extract(epoch from i)::float8 from unnest(s.retry_intervals) with ordinality u (i, place) order by place) as retry_seconds,
       extract(epoch from s.timeout)::float8 as timeout_seconds, s.concurrency, s.networks,
       -- Within what time a claimed delivery must be on its way, for the rates to hold.
       least((select min(least(1, extract(epoch from (r ->> 'period')::interval) / 10))::float8 from jsonb_array_elements(s.rates) r),
             case when g.has_rate then 1 end) as send_within,
       array(select key from jsonb_each(s.headers) order by key) as header_names,
       -- Null where the value is a secret.
       array(select case when jsonb_typeof(value) = 'string' then value #>> '{}' end from jsonb_each(s.headers) order by key) as header_values,
       h.names as credentials, h.secret_ids, h.key_ids, h.ciphertexts,
       s.signatures, s.header_prefix, s.user_agent, s.pass_trace, s.partner, s.mask::text as mask,
       s.authentication::text as authentication, s.tls ->> 'certificate' as client_certificate, s.tls ->> 'authority' as authority,
       s.handshake::text as handshake, g.is_granted,
       e.template, e.content_type,
       array(select key from jsonb_each(e.headers) order by key) as template_header_names,
       array(select value #>> '{}' from jsonb_each(e.headers) order by key) as template_header_values,
       array(select key from jsonb_each(s.envelope_values) order by key) as value_names,
       array(select value #>> '{}' from jsonb_each(s.envelope_values) order by key) as value_texts,
       p.secret_id as partner_secret_id, p.key_id as partner_key_id, p.ciphertext as partner_ciphertext,
       k.number, k.secret_id, k.kind, k.key_id, k.ciphertext,
       extract(epoch from k.ends_at - now())::float8 as ends_in
from posthaste.subscription s
-- Look-ups by key for each subscription, whatever the planner believes about sizes.
left join lateral (
    select * from posthaste.signing_secret k
    where k.subscription_id = s.subscription_id and (k.ends_at is null or k.ends_at > now())
    offset 0
) k on true
cross join lateral (
    select array_agg(name) as names, array_agg(secret_id) as secret_ids, array_agg(key_id) as key_ids, array_agg(ciphertext) as ciphertexts
    from posthaste.credential x where x.subscription_id = s.subscription_id
) h
cross join lateral (
    -- What was granted last counts; its rate is one a minute.
    select count(*) > 0 as is_granted, coalesce(bool_or(rate is not null), false) as has_rate
    from (
        select a.rate from posthaste.handshake a
        where a.subscription_id = s.subscription_id and a.url = s.url and a.origin = s.handshake ->> 'origin'
        order by a.handshake_id desc limit 1) last
) g
left join lateral (
    select * from posthaste.envelope n
    where n.name = split_part(s.envelope, '@', 1) and n.version = split_part(s.envelope, '@', 2)::integer limit 1
) e on true
left join lateral (select * from posthaste.partner_key x where x.partner = s.partner and s.mask is not null limit 1) p on true
where s.subscription_id = any ($1::integer[])
order by s.subscription_id, k.number
