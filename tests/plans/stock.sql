-- What tests/plans.rs fills a database with, and how it asks a worker's session for its settings. For tests only.
-- Called by: stock.rs, once, on a database that has been migrated and holds nothing.

-- Statistics change when a test says so, and at no other time.
alter table posthaste.intake set (autovacuum_enabled = off);
alter table posthaste.queue set (autovacuum_enabled = off);
alter table posthaste.lease set (autovacuum_enabled = off);
alter table posthaste.lane set (autovacuum_enabled = off);
alter table posthaste.follower set (autovacuum_enabled = off);
alter table posthaste.ordering set (autovacuum_enabled = off);
alter table posthaste.subscription set (autovacuum_enabled = off);
alter table posthaste.subscription_event_type set (autovacuum_enabled = off);
alter table posthaste.subscription_revision set (autovacuum_enabled = off);
alter table posthaste.quarantine set (autovacuum_enabled = off);
alter table posthaste.signing_secret set (autovacuum_enabled = off);
alter table posthaste.event_type set (autovacuum_enabled = off);
alter table posthaste.worker set (autovacuum_enabled = off);

-- History of two months.
select posthaste.create_partitions(60);
do $$
declare
    history regclass;
begin
    for history in select inhrelid from pg_inherits
        where inhparent in ('posthaste.outbox'::regclass, 'posthaste.attempt'::regclass)
    loop
        execute format('alter table %s set (autovacuum_enabled = off)', history);
    end loop;
end
$$;

create schema trial;

-- The settings of whichever session touches a worker's row last, as it set them when it connected.
create table trial.setting (name text primary key, setting text not null);
create function trial.note_settings() returns trigger language plpgsql as $$
begin
    insert into trial.setting
    select name, setting from pg_settings where source = 'client' and context in ('user', 'superuser')
    on conflict do nothing;
    return null;
end
$$;
create trigger note_settings after update on posthaste.worker for each row execute function trial.note_settings();

-- Where the next look for events may start.
create table trial.watermark as select '0' as xid, '{}'::text[] as open;

-- Arguments of a batch, as text: a column of it, and a value that is the same throughout.
create function trial.each(anyarray) returns text language sql as $$ select coalesce($1, '{}')::text $$;
create function trial.all(anyelement, bigint) returns text language sql as $$ select array_fill($1, array[$2::integer])::text $$;

-- The keys of the oldest followers.
create function trial.free_key() returns table (subscription_id integer, ordering_key text) language sql as $$
    select distinct f.subscription_id, f.ordering_key
    from (select f.subscription_id, f.ordering_key from posthaste.follower f order by f.event_id limit 700) f
$$;

-- One row in each of intake, outbox and attempt for every n, and one in queue or lease: of four, the first waits in the one
-- deep lane, the second is due in one of many lanes, the third waits there for a later time. The fourth is leased to one of
-- four workers, up to what four workers have in their hands, and waits in the deep lane beyond that. The 250 oldest leases
-- have ended. Whatever the size, the first batch looks the same.
--
-- Every event goes to the subscription of the deep lane. Those of the other lanes want all types too, but only of their own tenant.
--
-- The rows are those that the triggers and the worker's statements would have left, made in bulk.
create function trial.fill(low integer, high integer) returns void language plpgsql as $$
declare
    day constant text := left(translate(posthaste.first_event_id(now())::text, '-', ''), 12) || '7000';
    hour_ago constant timestamptz := now() - interval '1 hour';
    hour_ahead constant timestamptz := now() + interval '1 hour';
begin
    -- Not by ALTER TABLE, which would make every session plan anew.
    set local session_replication_role = replica;
    insert into posthaste.event_type (event_type, description) values ('thing.happened', 'for a test') on conflict do nothing;
    insert into posthaste.subscription (name, partner, url, event_types, tenant, retry_intervals, retry_jitter)
    select 'lane ' || n, case when n > 0 then 'tenant ' || n else 'all' end, 'https://partner.example/' || n, '{*}', case when n > 0 then 'tenant ' || n end, '{1 hour}', 0.1
    from generate_series(case when low = 1 then 0 else 1 + (low - 1) / 100 end, high / 100) n;
    insert into posthaste.subscription_event_type (event_type, tenant, subscription_id)
    select '*', coalesce(tenant, ''), subscription_id from posthaste.subscription
    on conflict do nothing;
    insert into posthaste.subscription_revision (subscription_id, revision, terms, signing_secrets, xid)
    select s.subscription_id, n, '{}', '{1}', '3' from posthaste.subscription s cross join generate_series(1, 5) n
    on conflict do nothing;
    insert into posthaste.lane (subscription_id) select subscription_id from posthaste.subscription on conflict do nothing;
    insert into posthaste.signing_secret (secret_id, subscription_id, number, key_id, ciphertext)
    select gen_random_uuid(), subscription_id, 1, 'k1', '\x00' from posthaste.subscription on conflict do nothing;
    insert into posthaste.worker (name, version, lease) select 'worker ' || n, 'trial', interval '1 minute'
    from generate_series(1, 4) n where low = 1;

    insert into posthaste.outbox (event_id, event_type, tenant, payload)
    select (day || '8' || lpad(to_hex(n), 15, '0'))::uuid, 'thing.happened', 'visitor ' || n, '{}' from generate_series(low, high) n;
    -- The events of the deliveries that are due first.
    insert into posthaste.outbox (event_id, event_type, payload)
    select (day || '9' || lpad(to_hex(n), 15, '0'))::uuid, 'thing.happened', '{}' from generate_series(low, least(high, low + 9999)) n;
    insert into posthaste.intake (event_id, xid, ordering_hash)
    select (day || '8' || lpad(to_hex(n), 15, '0'))::uuid, (3 + n / 10)::text::xid8, case when n % 4 = 0 then hashtext('taken ' || n) end from generate_series(low, high) n;

    insert into posthaste.lease (event_id, subscription_id, holder, ends_at)
    select (day || '9' || lpad(to_hex(n), 15, '0'))::uuid, 1, 1 + n / 4 % 4,
           case when n - low < 1000 then hour_ago else hour_ahead end + n * interval '1 millisecond'
    from generate_series(low, least(high, low + 9999)) n where n % 4 = 3;
    insert into posthaste.queue (event_id, subscription_id, due_at)
    select (day || '9' || lpad(to_hex(n), 15, '0'))::uuid,
           case when n % 4 in (0, 3) then 1 else 2 + (n - 1) / 100 end,
           case when n % 4 = 2 then hour_ahead else hour_ago end + n * interval '1 millisecond'
    from generate_series(low, high) n where n % 4 <> 3 or n >= low + 10000;
    update posthaste.lane l set wake_at = least(l.wake_at, w.due_at)
    from (select subscription_id, min(due_at) as due_at from posthaste.queue group by 1) w
    where l.subscription_id = w.subscription_id;

    -- Of four followers, one is of the one deep key, the others have a key each. The oldest keys are free, of the others one is under way.
    insert into posthaste.follower (event_id, subscription_id, ordering_key, due_at)
    select (day || 'a' || lpad(to_hex(n), 15, '0'))::uuid, case when n % 16 = 0 then 1 else 2 + (n - 1) / 100 end,
           case when n % 16 = 0 then 'deep' else 'key ' || n end, hour_ago
    from generate_series(low, high) n where n % 4 = 0;
    insert into posthaste.ordering (event_id, subscription_id, replay, ordering_key)
    select (day || '7' || lpad(to_hex(n), 15, '0'))::uuid, 2 + (n - 1) / 100, 0, 'key ' || n
    from generate_series(low + 4000, high) n where n % 4 = 0 and n % 16 <> 0;

    -- Some are held, and nobody has decided.
    insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason)
    select (day || 'b' || lpad(to_hex(n), 15, '0'))::uuid, 1, 0, 0, 'it breaks its schema' from generate_series(low, high) n where n % 16 = 0;

    insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, replay, number, http_status)
    select now(), (day || '8' || lpad(to_hex(n), 15, '0'))::uuid, 1, 1, 1, 'accepted', 'done', 0, 1, 200 from generate_series(low, high) n;
    set local session_replication_role = origin;
end
$$;
