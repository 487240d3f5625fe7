-- A call of each function that a role may execute, with arguments that it is likely to take, by the names of its parameters; and its
-- texts one by one replaced by the literal $2, unless that is null. $1 is producer, worker, admin or auditor.
-- Called by: tests/attacks.rs, as a superuser.
with likely (name, literal) as (
    values ('name', '''novel'''), ('url', '''https://novel.example/'''), ('event_types', '''{*}'''), ('tenant', 'null'), ('filter', '''$.a > 1'''),
           ('unknown_types', 'false'), ('retry_intervals', '''{5 s}'''), ('retry_jitter', '''0.5'''), ('client_errors', '''reject'''), ('max_age', '''1 day'''), ('breaker', '''{"failures": 3}'''), ('pause_after', '''1 day'''), ('sandbox', 'false'), ('base', '''10 s'''), ('factor', '2'), ('cap', '''1 hour'''), ('count', '5'), ('timeout', '''5 s'''), ('concurrency', '3'),
           ('headers', '''{"X-Berth": "7"}'''), ('rates', '''[{"requests": 5, "period": "1 s"}]'''), ('networks', '''{203.0.113.0/24}'''), ('after_dead_letter', '''hold'''), ('partner', '''north'''), ('envelope', '''standard@1'''), ('envelope_values', '''{}'''), ('signatures', '''{stripe}'''), ('header_prefix', '''X-Port'''), ('user_agent', '''Port/1'''),
           ('pass_trace', 'true'), ('authentication', '''{"kind": "bearer"}'''), ('tls', 'null'), ('handshake', '''{"origin": "port.example"}'''), ('mask', '''{"allow": ["/a"]}'''), ('template', '''{"it":"{{data}}"}'''), ('content_type', '''application/json'''),
           ('kind', '''shared'''), ('public_key', 'null'), ('internal', '''7'''), ('external', '''E-7'''), ('origin', '''port.example'''), ('kinds', '''{ship}'''), ('internals', '''{7}'''), ('externals', '''{E-7}'''), ('description', '''what it is'''), ('contact', '''they'''),
           ('reason', '''because'''), ('subscription', '''harbour'''), ('changes', '''{"description": "another"}'''), ('event_type', '''ship.arrived'''),
           ('payload', '''{}'''), ('occurred_at', 'pg_catalog.now()'), ('metadata', '''{}'''), ('traceparent', '''00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01'''),
           ('ordering_key', '''ship-1'''), ('dedup_key', '''d-1'''), ('deliver_after', 'pg_catalog.now()'), ('expires_at', '''infinity'''), ('schema', '''{}'''), ('example', '''{}'''), ('owner', '''ops'''), ('change_id', '2'), ('login', 'session_user'), ('tenants', '''{}'''),
           ('every', '''1 day'''), ('span', '''1 hour'''), ('since', '''-infinity'''), ('deliveries', '''[]'''), ('requests', '''{1}'''), ('failures', '''{1}'''), ('runs', '''{1}'''), ('asked_for', '''{0}'''), ('to_pause', '''{NULL}'''), ('is_open', 'true'), ('held_for', '1'), ('subscription_id', '1'), ('overlap', '''1 hour'''), ('secret_id', 'pg_catalog.gen_random_uuid()'), ('key_id', '''k1'''), ('ciphertext', '''\x00'''),
           ('old_ciphertext', '''\x00'''), ('header', '''Authorization'''), ('number', '1'), ('entry', '1'), ('current_key', '''k9'''),
           ('event_id', '''01900000-0000-7000-8000-000000000001'''), ('known_entry', '1'), ('known_digest', '''00'''), ('only_partition', '''outbox_20200101'''),
           ('counts_stop_at', '10'), ('over_seconds', '10'), ('named', '''{harbour}'''), ('days_ahead', '0'), ('most', '10'), ('at', 'pg_catalog.now()'), ('value', '''a.b'''), ('what', '''x'''), ('given', '''y'''), ('allowed', '''z'''),
           ('predicate', '''http_status = 500'''), ('dry_run', 'false'), ('rate', '5'), ('replay_id', '1'),
           ('event_ids', '''{01900000-0000-7000-8000-000000000001}'''), ('subscription_ids', '''{1}'''), ('last_attempts', '''{2026-01-01}'''),
           ('replays', '''{0}'''), ('ordering_keys', '''{ship-1}'''), ('quarantine', '''{too odd}'''), ('due_at', 'pg_catalog.now()'),
           ('addresses', '''{"(0,1)"}'''), ('attempts_made', '''{0}'''), ('due_times', '''{2026-01-01}'''), ('expiry_times', '''{NULL}''')
), parameter as (
    select p.oid, n as place, p.proargnames[n] as name, t.typname as type
    from posthaste.access a
    join pg_proc p on a.object = 'function ' || p.proname and p.pronamespace = 'posthaste'::regnamespace
    cross join generate_series(1, p.pronargs) n
    join pg_type t on t.oid = p.proargtypes[n - 1]
    where to_jsonb(a) ->> $1::text = 'execute'
), argument as (
    select r.*, format('(%s)::%s', case r.type when 'json' then '''{}''' when 'uuid' then coalesce(nullif(l.literal, '''a.b'''), 'pg_catalog.gen_random_uuid()') else l.literal end, 'pg_catalog.' || quote_ident(r.type)) as literal,
           case when $2::text is not null then
               case r.type when 'text' then $2::text
                           when '_text' then format('array[%s]', $2::text)
                           when 'jsonb' then format('pg_catalog.jsonb_build_object(%s, %1$s)', $2::text)
                           when 'json' then format('pg_catalog.json_build_object(%s, %1$s)', $2::text) end
           end as hostile
    from parameter r left join likely l using (name)
)
select p.proname::text, coalesce(h.name, ''),
       format('select posthaste.%I(%s)', p.proname, (
           select string_agg(case when a.place = h.place then h.hostile else a.literal end, ', ' order by a.place) from argument a where a.oid = p.oid))
from posthaste.access d
join pg_proc p on d.object = 'function ' || p.proname and p.pronamespace = 'posthaste'::regnamespace
left join argument h on h.oid = p.oid and h.hostile is not null
where to_jsonb(d) ->> $1::text = 'execute' and ($2::text is null or h.oid is not null)
order by 1, 2
