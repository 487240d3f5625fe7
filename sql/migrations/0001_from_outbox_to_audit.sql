-- The first schema: what happened, what is agreed, what was done, what is owed, and who may do what. sql/schema.sql tells it as it
-- stands today.

-- ---------------------------------------------------------------------------------------------------------------------------
-- Helpers that tables rely on
-- ---------------------------------------------------------------------------------------------------------------------------

create function posthaste.new_event_id() returns uuid
    language sql volatile parallel safe
return (
    -- 60 bits of Unix time in 1/4096 ms as hexadecimal digits, the version slipped in before the last three; then variant and chance.
    overlay(lpad(to_hex((date_part('epoch', clock_timestamp()) * 4096000)::bigint), 15, '0') placing '7' from 13 for 0)
    || right(gen_random_uuid()::text, 17))::uuid;
comment on function posthaste.new_event_id() is
    'A UUID version 7: 48 bits of Unix milliseconds, 12 bits of the fraction of one, then random bits, so that ids follow each other as they are made. Not from a sequence, so a restored backup never gives an old id to a new event.';

create function posthaste.first_event_id(at timestamptz) returns uuid
    language sql immutable parallel safe
return (lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
comment on function posthaste.first_event_id(timestamptz) is
    'The smallest event id of that millisecond. Bounds a search by time: event_id >= posthaste.first_event_id(now() - interval ''1 hour'').';

create function posthaste.event_time(event_id uuid) returns timestamptz
    language sql immutable parallel safe
return to_timestamp(('x' || left(translate(event_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0);
comment on function posthaste.event_time(uuid) is 'When an event id was made, to the millisecond: when the event was inserted.';

create function posthaste.refuse(what text, given text, allowed text) returns boolean
    language plpgsql immutable parallel safe
    set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using
        errcode = 'check_violation',
        message = format('%s %L is not valid: %s', what, left(given, 200), allowed);
end
$$;
comment on function posthaste.refuse(text, text, text) is
    'Raises a check violation that names the field, the value and the rule. CHECK constraints call it in their failing branch only.';

-- The rules of the columns below, one function each, called by name from CHECK constraints, an event's from a single one. Postgres reads a
-- constraint's expression anew for every statement, and compiles a function once a session: spelled out in the constraints, the first five
-- rules made an INSERT of one event cost a third more processor time. Operators and types are qualified, so that nobody's search_path
-- bends a rule.

create function posthaste.is_event_id(value uuid) returns boolean
    language plpgsql immutable parallel safe
as $$
begin
    return case when pg_catalog.substring(pg_catalog.uuid_send(value), 7, 1) operator(pg_catalog.>=) '\x70'
                 and pg_catalog.substring(pg_catalog.uuid_send(value), 7, 1) operator(pg_catalog.<) '\x80' then true
           else posthaste.refuse('event_id', value::pg_catalog.text, 'it must be a UUID version 7; leave it out to get one') end;
end
$$;
comment on function posthaste.is_event_id(uuid) is 'True for a UUID version 7; raises otherwise.';

create function posthaste.is_event_type(value text) returns boolean
    language plpgsql stable parallel safe
as $$
begin
    -- Whoever may act as the owner may: that is our own functions, and whoever restores a dump.
    if value operator(pg_catalog.^@) 'posthaste.' and not pg_catalog.pg_has_role(pg_catalog.to_regrole('posthaste_owner'), 'usage') then
        return posthaste.refuse('event_type', value, 'types that begin with posthaste. are those of posthaste''s own events');
    end if;
    return case when value operator(pg_catalog.~) '^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$' and pg_catalog.length(value) operator(pg_catalog.<=) 128 then true
           else posthaste.refuse('event_type', value,
               'up to 128 characters, words of A-Z a-z 0-9 _ joined by dots, such as certificate.issued or CERTIFICATE_ISSUED') end;
end
$$;
comment on function posthaste.is_event_type(text) is 'True for a name such as certificate.issued or CERTIFICATE_ISSUED; raises otherwise, and where a producer uses a name that is reserved, such as posthaste.delivery.exhausted.';

create function posthaste.is_tenant(value text) returns boolean
    language plpgsql immutable parallel safe
as $$
begin
    return case when pg_catalog.length(value) operator(pg_catalog.<=) 128 and value operator(pg_catalog.<>) '' then true
           else posthaste.refuse('tenant', value, '1 to 128 characters, or null') end;
end
$$;
comment on function posthaste.is_tenant(text) is 'True for 1 to 128 characters; raises otherwise.';

create function posthaste.is_object(name text, value json) returns boolean
    language plpgsql immutable parallel safe
as $$
begin
    return case when pg_catalog.json_typeof(value) operator(pg_catalog.=) 'object' then true
           else posthaste.refuse(name, value::pg_catalog.text, 'a JSON object, or null') end;
end
$$;
comment on function posthaste.is_object(text, json) is 'True for a JSON object; raises otherwise, naming the column.';

create function posthaste.is_key(name text, value text) returns boolean
    language plpgsql immutable parallel safe
as $$
begin
    return case when pg_catalog.length(value) operator(pg_catalog.<=) 256 and value operator(pg_catalog.<>) '' then true
           else posthaste.refuse(name, value, '1 to 256 characters, or null') end;
end
$$;
comment on function posthaste.is_key(text, text) is 'True for 1 to 256 characters; raises otherwise, naming the column.';

create function posthaste.is_traceparent(value text) returns boolean
    language plpgsql immutable parallel safe
as $$
begin
    return case when value operator(pg_catalog.~) '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' then true
           else posthaste.refuse('traceparent', value, 'the W3C form 00-<32 hex>-<16 hex>-<2 hex>, or null') end;
end
$$;
comment on function posthaste.is_traceparent(text) is 'True for the W3C form of a trace context; raises otherwise.';

create function posthaste.is_event(
    event_id uuid, event_type text, tenant text, metadata json, traceparent text, ordering_key text, dedup_key text, deliver_after timestamptz, expires_at timestamptz)
    returns boolean
    language plpgsql stable parallel safe
as $$
begin
    return posthaste.is_event_id(event_id)
       and posthaste.is_event_type(event_type)
       and (tenant is null or posthaste.is_tenant(tenant))
       and (metadata is null or posthaste.is_object('metadata', metadata))
       and (traceparent is null or posthaste.is_traceparent(traceparent))
       and (ordering_key is null or posthaste.is_key('ordering_key', ordering_key))
       and (dedup_key is null or posthaste.is_key('dedup_key', dedup_key))
       and (expires_at is null or deliver_after is null or expires_at operator(pg_catalog.>) deliver_after
            or posthaste.refuse('expires_at', expires_at::pg_catalog.text, 'later than deliver_after, or null'));
end
$$;
comment on function posthaste.is_event(uuid, text, text, json, text, text, text, timestamptz, timestamptz) is
    'True where every column of an event keeps its rule; raises otherwise, naming the column.';

create function posthaste.refuse_change() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using
        errcode = 'insufficient_privilege',
        message = format('%s on %I.%I is refused: it is append-only history', tg_op, tg_table_schema, tg_table_name),
        hint = 'History is corrected by adding to it. Retention drops whole partitions.';
end
$$;
comment on function posthaste.refuse_change() is 'Guards history against UPDATE, DELETE and TRUNCATE, by anyone.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- What happened: the outbox
-- ---------------------------------------------------------------------------------------------------------------------------

create table posthaste.outbox (
    event_id      uuid        not null default posthaste.new_event_id(),
    occurred_at   timestamptz not null default clock_timestamp(),
    event_type    text        not null,
    payload       json        not null,
    tenant        text,
    metadata      json,
    traceparent   text,
    ordering_key  text,
    dedup_key     text,
    deliver_after timestamptz,
    expires_at    timestamptz,
    constraint outbox_pkey primary key (event_id),
    -- All rules of its columns at once: each further constraint would be read anew for every statement.
    constraint is_an_event check (posthaste.is_event(event_id, event_type, tenant, metadata, traceparent, ordering_key, dedup_key, deliver_after, expires_at))
) partition by range (event_id);

comment on table posthaste.outbox is
    'What happened, one immutable row per event, inserted by the platform in the transaction that made it true. Partitioned by the day inside event_id.';
comment on column posthaste.outbox.event_id is 'What partners see as webhook-id: the same on every attempt and every replay.';
comment on column posthaste.outbox.occurred_at is 'When it happened, for partners to read. Has no influence on when or in which order it is sent.';
comment on column posthaste.outbox.event_type is 'Such as certificate.issued. An event of a type that the catalogue does not have is kept, and shown by posthaste.unrouted.';
comment on column posthaste.outbox.payload is 'Sent byte for byte as inserted: json keeps spaces, key order and every digit, jsonb would not.';
comment on column posthaste.outbox.tenant is 'Whose event it is. A subscription with a tenant gets only that tenant''s events.';
comment on column posthaste.outbox.metadata is 'A JSON object kept with the event. Sent where a subscription''s envelope has a place for it, and its mask allows it.';
comment on column posthaste.outbox.traceparent is 'The producer''s W3C trace context. Sent to subscriptions with pass_trace.';
comment on column posthaste.outbox.ordering_key is 'Each subscription gets the events of one key one at a time and in their order, such as those of one order or one user. Null: no order, and no cost.';
comment on column posthaste.outbox.dedup_key is 'A second event of the same type and tenant with the same key, within setting.dedup_window, changes nothing: the INSERT succeeds with no row. See posthaste.dedup.';
comment on column posthaste.outbox.deliver_after is 'Not to be sent before. Null: at once.';
comment on column posthaste.outbox.expires_at is 'Not to be sent from then on: deliveries that still wait end as EXPIRED. Null: never.';

create table posthaste.intake (
    event_id      uuid not null,
    xid           xid8 not null default pg_current_xact_id(),
    ordering_hash integer
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
-- Serves take.sql: `where xid >= <watermark> order by xid`, and the transactions below it that were still open, each by its id.
-- So a scan never visits the dead entries of events already taken, however long some transaction keeps vacuum from removing them.
create index intake_by_xid on posthaste.intake (xid);
-- Serves advance.sql: is an event of this key left that must go first? One without a key has no entry here.
create index intake_by_ordering on posthaste.intake (ordering_hash, xid) where ordering_hash is not null;
-- Without a key: a publication of all tables would refuse the deletes otherwise. Costs nothing until there is one.
alter table posthaste.intake replica identity full;
comment on table posthaste.intake is
    'Events that have not been fanned out yet: one thin row per event, deleted by the worker that makes its deliveries.';
comment on column posthaste.intake.ordering_hash is 'hashtext of the event''s ordering_key: where two keys share one, they at worst wait for each other''s events to be taken.';

create function posthaste.take_in() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into posthaste.intake (event_id, ordering_hash) select event_id, hashtext(ordering_key) from inserted;
    -- The doze lock. A worker that ran dry holds it exclusively, looks once more, and sleeps. If we get it, nobody is asleep,
    -- and nobody can fall asleep until we commit and they have looked again: no notification is needed. If we do not, somebody
    -- is asleep: wake them. So a busy system never pays for NOTIFY, whose lock serialises commits across the whole cluster.
    -- The guard keeps a listener that hangs from filling the notification queue, which would make our commit fail.
    if not pg_try_advisory_xact_lock_shared(1347375956, 0) and pg_notification_queue_usage() < 0.5 then
        perform pg_notify('posthaste', '');
    end if;
    return null;
end
$$;
comment on function posthaste.take_in() is
    'After an INSERT into the outbox: notes the new events for fan-out, and wakes a worker only if one sleeps. Runs as the owner, so a producer needs no right beyond INSERT.';

create trigger outbox_takes_in after insert on posthaste.outbox
    referencing new table as inserted
    for each statement execute function posthaste.take_in();

create table posthaste.dedup (
    dedup_key  text        not null,
    event_type text        not null,
    tenant     text        not null,
    event_id   uuid        not null,
    expires_at timestamptz not null,
    -- Serves posthaste.admit: did this key come before?
    primary key (dedup_key, event_type, tenant)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
-- Serves forget_keys.
create index dedup_by_expiry on posthaste.dedup (expires_at);
comment on table posthaste.dedup is 'Dedup keys that came lately, each with the first event that bore it. Workers delete what has expired.';
comment on column posthaste.dedup.tenant is 'The event''s; empty where it has none.';
comment on column posthaste.dedup.expires_at is 'From then on the key is free again.';

create function posthaste.admit() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    first posthaste.dedup;
    free_at timestamptz;
begin
    -- The outbox is about to refuse it, and says why; no index could hold it. Its rules are not called here: under another search_path
    -- than the CHECKs', Postgres would plan them anew each time.
    if new.event_id is null or new.event_type is null
       or length(new.dedup_key) > 256 or length(new.event_type) > 128 or length(new.tenant) > 128 then
        return new;
    end if;
    free_at := clock_timestamp() + coalesce((select t.dedup_window from posthaste.setting t), '1 day');
    for round in 1..100 loop
        -- Waits for whoever inserts the same key right now, as a unique index does; and locks nothing where the key is taken: an
        -- UPDATE on conflict would, and one duplicate in a long transaction would hold up all others.
        insert into posthaste.dedup (dedup_key, event_type, tenant, event_id, expires_at)
        values (new.dedup_key, new.event_type, coalesce(new.tenant, ''), new.event_id, free_at)
        on conflict do nothing;
        if found then
            return new;
        end if;
        select * into first from posthaste.dedup d
        where (d.dedup_key, d.event_type, d.tenant) = (new.dedup_key, new.event_type, coalesce(new.tenant, ''));
        if first.expires_at > clock_timestamp() then
            perform set_config('posthaste.first_event', first.event_id::text, true);
            return null;
        end if;
        -- It has expired, and a worker may be about to delete it; or it is gone already, and we begin anew.
        update posthaste.dedup d set event_id = new.event_id, expires_at = free_at
        where (d.dedup_key, d.event_type, d.tenant) = (new.dedup_key, new.event_type, coalesce(new.tenant, '')) and d.expires_at <= clock_timestamp();
        if found then
            return new;
        end if;
    end loop;
    raise exception using errcode = 'serialization_failure',
        message = format('dedup_key %L comes and goes too fast', new.dedup_key), hint = 'Try again.';
end
$$;
comment on function posthaste.admit() is
    'Before an INSERT into the outbox of an event with a dedup key: leaves it out if its key came before.';

-- The WHEN clause is all that an event without a key pays. Postgres reads it anew for every statement: keep it this short.
create trigger outbox_admits before insert on posthaste.outbox
    for each row when (new.dedup_key is not null)
    execute function posthaste.admit();

create function posthaste.forget_keys(since timestamptz, most integer) returns table (forgotten bigint, up_to timestamptz)
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    with expired as materialized (
        select d.ctid as address from posthaste.dedup d
        where d.expires_at >= coalesce(forget_keys.since, '-infinity') and d.expires_at <= now()
        order by d.expires_at limit forget_keys.most for update skip locked
    ), deleted as (
        delete from posthaste.dedup d where d.ctid = any (array(select x.address from expired x)) returning d.expires_at
    )
    select count(*), max(x.expires_at) from deleted x;
end;
comment on function posthaste.forget_keys(timestamptz, integer) is
    'Deletes dedup keys that have expired since then, and returns how many and the last one''s time. Called by workers, each time from where they were: what was deleted before is not walked again.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- What happened: attempts
-- ---------------------------------------------------------------------------------------------------------------------------

create type posthaste.outcome as enum (
    'accepted',     -- a complete response head with a 2xx status
    'rejected',     -- a complete response head with any other status
    'timed_out',    -- the deadline passed before the response head was complete
    'unreachable',  -- no response: DNS, connection, TLS or HTTP failed
    'blocked',      -- not sent: an address, URL or size that we refuse, terms that cannot be kept now, or our own proxy does not let us out
    'sandboxed',    -- not sent: the subscription is in its sandbox
    'abandoned'     -- the worker died or lost its lease before recording; whether the request was sent is not known
);
comment on type posthaste.outcome is 'What an attempt met.';

create type posthaste.verdict as enum (
    'done',         -- accepted: the delivery is finished, SUCCESS
    'retry',        -- another attempt is due at next_attempt_at: FAILED for now
    'exhausted',    -- the last attempt of the retry policy failed: the delivery is finished, RETRY_EXHAUSTED
    'rejected',     -- refused for good: the delivery is finished, REJECTED
    'expired',      -- the next attempt would come too late: the delivery is finished, EXPIRED
    'late'          -- the lease was lost before this was recorded: it changed nothing, another attempt decides
);
comment on type posthaste.verdict is 'What an attempt meant for its delivery.';

create type posthaste.rule as enum (
    'interval',         -- the next interval of the retry policy
    'retry_after',      -- the receiver's Retry-After, which lies beyond that interval; nothing else is sent there before, either
    'no_retries_left',  -- the retry policy has no interval left
    'client_error',     -- a 4xx status, which is final by the subscription's terms
    'gone',             -- 410: final, and the subscription is paused
    'disable',          -- the receiver answered `webhook-delivery: disable`: final, and the subscription is paused
    'abort_message',    -- the receiver answered `webhook-delivery: abort-message`: final
    'expires_before',   -- the event is not to be sent any more when the next attempt would be due
    'unsendable',       -- no attempt could ever send it
    'sandbox',          -- nothing leaves the sandbox
    'worker_lost'       -- through no fault of the receiver: tried again at once, up to three times more than the policy allows
);
comment on type posthaste.rule is 'Which rule led from what an attempt met to its verdict.';

create table posthaste.attempt (
    started_at            timestamptz not null,
    next_attempt_at       timestamptz,
    event_id              uuid        not null,
    subscription_id       integer     not null,
    subscription_revision integer     not null,
    worker_id             integer     not null,
    duration_us           integer,
    dns_us                integer,
    connect_us            integer,
    tls_us                integer,
    body_us               integer,
    outcome               posthaste.outcome not null,
    verdict               posthaste.verdict not null,
    rule                  posthaste.rule,
    replay                smallint    not null,
    number                smallint    not null,
    http_status           smallint,
    remote_address        inet,
    signed_with           text,
    error                 text,
    response              text,
    constraint attempts_are_numbered_from_1 check (number >= 1),
    constraint next_attempt_iff_retry check ((next_attempt_at is not null) = (verdict = 'retry')),
    constraint accepted_has_a_2xx_status check (outcome <> 'accepted' or coalesce(http_status between 200 and 299, false)),
    constraint rejected_has_another_status check (outcome <> 'rejected' or coalesce(http_status not between 200 and 299, false)),
    constraint what_was_not_sent_has_no_status check (outcome not in ('blocked', 'sandboxed', 'abandoned') or http_status is null),
    constraint done_iff_accepted_in_time check ((verdict = 'done') = (outcome in ('accepted', 'sandboxed') and verdict <> 'late')),
    constraint anything_but_accepted_says_why check (outcome in ('accepted', 'sandboxed') or error is not null),
    constraint anything_but_accepted_has_a_rule check (outcome = 'accepted' or rule is not null),
    constraint response_is_bounded check (length(response) <= 65536),
    constraint error_is_bounded check (length(error) <= 2048)
) partition by range (started_at);

-- Serves the delivery view, an event's story, and the proof that an abandoned attempt was recorded.
create index attempt_by_event on posthaste.attempt (event_id);
-- Serves dead letters, and findings, which looks for leases that were lost. Small: most attempts succeed.
create index attempt_by_ending on posthaste.attempt (subscription_id, started_at)
    where verdict in ('exhausted', 'rejected', 'late') or outcome = 'abandoned';

comment on table posthaste.attempt is
    'One immutable row for every HTTP request a worker made, or may have made. Partitioned by day.';
comment on column posthaste.attempt.started_at is 'When the request began; for an abandoned one, when its lease began.';
comment on column posthaste.attempt.subscription_revision is 'Under which terms it was sent.';
comment on column posthaste.attempt.duration_us is 'Microseconds from name resolution, or from sending on a pooled connection, to the end. Null when abandoned.';
comment on column posthaste.attempt.dns_us is 'Microseconds of name resolution. Null on a pooled connection, as are connect_us and tls_us. What the phases leave of duration_us is the wait for the response head; see attempt_log.';
comment on column posthaste.attempt.body_us is 'Microseconds from the complete response head to the end of what was read of the body. Null where there was none.';
comment on column posthaste.attempt.rule is 'Which rule led to the verdict. Null where it was accepted, and nothing else applied.';
comment on column posthaste.attempt.replay is '0 for the delivery that the event itself caused, 1 and up for replays, -1 for a test.';
comment on column posthaste.attempt.number is 'Attempts of a delivery count from 1. Two rows bear the same number only where one says abandoned and the other, late, what really came of it.';
comment on column posthaste.attempt.remote_address is 'The address connected to, or refused.';
comment on column posthaste.attempt.signed_with is 'The numbers of the subscription''s signing secrets that signed it, joined by commas: 1, or 1,2 during a rotation. Null where nothing was signed.';
comment on column posthaste.attempt.error is 'Why it was not accepted, in one line.';
comment on column posthaste.attempt.response is 'The start of the response body, control characters escaped.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- What is agreed
-- ---------------------------------------------------------------------------------------------------------------------------

create table posthaste.setting (
    is_only          boolean     primary key default true,
    four_eyes        boolean     not null default true,
    secrets_rotate   interval    not null default '90 days',
    dedup_window     interval    not null default '1 day',
    constraint there_is_one_row check (is_only)
);
comment on table posthaste.setting is 'How the control plane is set; one row. Changed by posthaste.set_four_eyes, set_secret_rotation and set_dedup_window; whoever changes it otherwise is in the audit log, too.';
comment on column posthaste.setting.four_eyes is 'Whether a proposal needs the approval of another administrator than the one who made it.';
comment on column posthaste.setting.secrets_rotate is 'How old the newest signing secret of a subscription may become before its rotation is overdue.';
comment on column posthaste.setting.dedup_window is 'For how long a dedup key keeps further events with it out. Holds for keys that come from now on.';
insert into posthaste.setting default values;

create function posthaste.patterns(event_type text) returns text[]
    language plpgsql immutable parallel safe
    set search_path = pg_catalog, pg_temp
as $$
declare
    -- Whoever gets everything did not ask for what concerns operators alone.
    patterns text[] := case when starts_with(event_type, 'posthaste.') then array[event_type] else array[event_type, '*'] end;
    start integer := 0;
    dot integer;
begin
    loop
        dot := strpos(substr(event_type, start + 1), '.');
        exit when dot = 0;
        start := start + dot;
        patterns := patterns || (left(event_type, start) || '*');
    end loop;
    return patterns;
end
$$;
comment on function posthaste.patterns(text) is 'Everything that can stand in a subscription''s event_types to match this type: itself, its prefixes, and *, which does not match our own types (posthaste.*).';

create table posthaste.event_type (
    event_type  text primary key,
    description text        not null,
    schema      json,
    example     json,
    owner       text,
    active      boolean     not null default true,
    revision    integer     not null default 1,
    created_at  timestamptz not null default now(),
    created_by  text        not null default session_user,
    patterns    text[]      generated always as (case when length(event_type) <= 128 then posthaste.patterns(event_type) end) stored,
    constraint event_type_is_dotted_words check (posthaste.is_event_type(event_type)),
    constraint description_is_not_blank check (btrim(description) <> ''),
    constraint schema_is_an_object_or_boolean check (json_typeof(schema) in ('object', 'boolean')),
    -- Each change of it puts all of this into the audit log, twice.
    constraint description_is_bounded check (case when length(description) > 1000 then posthaste.refuse('description', description, 'at most 1000 characters') else true end),
    constraint schema_is_bounded check (case when octet_length(schema::text) > 65536 then posthaste.refuse('schema', schema::text, 'at most 64 KiB') else true end),
    constraint example_is_bounded check (case when octet_length(example::text) > 65536 then posthaste.refuse('example', example::text, 'at most 64 KiB') else true end),
    constraint owner_is_bounded check (case when length(owner) > 200 then posthaste.refuse('owner', owner, 'at most 200 characters') else true end)
);
comment on table posthaste.event_type is 'The catalogue: what can be subscribed to. A producer is never held to it: see posthaste.unrouted for what does not fit.';
comment on column posthaste.event_type.schema is 'JSON Schema of the payload. What is about to be sent is held against it: a payload that breaks it is kept, and its deliveries are quarantined. What no subscription wants, or its filter leaves out, is not looked at.';
comment on column posthaste.event_type.example is 'An example payload.';
comment on column posthaste.event_type.owner is 'Who answers for it: a team, a person.';
comment on column posthaste.event_type.active is 'If not, it cannot be subscribed to, and its events are treated as those of an unknown type.';
comment on column posthaste.event_type.revision is 'Counts up with every change, so that workers read the schema anew.';
comment on column posthaste.event_type.patterns is 'What can stand in a subscription''s event_types to match it, so that no look at new events has to work that out again.';
insert into posthaste.event_type (event_type, description, schema, example, owner, created_by)
select t.name, t.description,
       format('{"type": "object", "required": %s, "properties": {%s}}', to_json(array['severity'] || t.required),
              (select string_agg(format('%s: %s', to_json(f.name), f.schema), ', ') from (values
                  ('severity', '{"enum": ["info", "warning", "error"]}'), ('subscription_id', '{"type": "integer"}'), ('subscription', '{"type": "string"}'),
                  ('event_id', '{"type": "string"}'), ('event_type', '{"type": "string"}'), ('replay', '{"type": "integer"}'), ('number', '{"type": "integer"}')) f (name, schema)))::json,
       t.example::json, 'posthaste', 'posthaste_owner'
from (values
    ('posthaste.delivery.exhausted', 'The last attempt of a delivery failed: it is a dead letter. `number` is that attempt''s.', '{subscription_id,subscription,event_id,replay,number}'::text[],
     '{"severity": "error", "subscription_id": 7, "subscription": "university", "event_id": "01a20492-6698-78f6-8c62-89b09a1d19af", "event_type": "certificate.issued", "replay": 0, "number": 10, "outcome": "rejected", "http_status": 503, "error": "the endpoint answered 503"}'),
    ('posthaste.delivery.rejected', 'A delivery was refused for good, by its receiver or by us: it is a dead letter. `number` is the last attempt''s.', '{subscription_id,subscription,event_id,replay,number}',
     '{"severity": "warning", "subscription_id": 7, "subscription": "university", "event_id": "01a20492-6698-78f6-8c62-89b09a1d19af", "event_type": "certificate.issued", "replay": 0, "number": 1, "outcome": "rejected", "http_status": 410, "error": "the endpoint answered 410"}'),
    ('posthaste.subscription.paused', 'A subscription was paused: nothing is sent until it is active again.', '{subscription_id,subscription}',
     '{"severity": "error", "subscription_id": 7, "subscription": "university", "reason": "nothing but failures for 5 days"}'),
    ('posthaste.breaker.opened', 'So much failed that nothing but probes is sent to an endpoint for now.', '{subscription_id,subscription}',
     '{"severity": "error", "subscription_id": 7, "subscription": "university", "reason": "10 failures in a row"}'),
    ('posthaste.breaker.closed', 'A probe succeeded: an endpoint gets everything again.', '{subscription_id,subscription}',
     '{"severity": "info", "subscription_id": 7, "subscription": "university"}'),
    ('posthaste.rotation.overdue', 'The newest signing secret of a subscription is older than agreed. `number` is the secret''s. Told once for each secret.', '{subscription_id,subscription,number}',
     '{"severity": "warning", "subscription_id": 7, "subscription": "university", "number": 1, "made_at": "2026-05-01T12:00:00Z"}')
) t (name, description, required, example);

create table posthaste.envelope (
    name         text        not null,
    version      integer     not null,
    template     text        not null,
    content_type text        not null default 'application/json',
    headers      jsonb       not null default '{}',
    description  text,
    created_at   timestamptz not null default now(),
    created_by   text        not null default session_user,
    primary key (name, version),
    constraint versions_count_from_1 check (version >= 1)
);
comment on table posthaste.envelope is
    'Shapes of requests: a template of the body, which is a JSON text with placeholders such as "{{data}}", and of headers. A version never changes and never goes; a new one is proposed with posthaste.propose_envelope. docs/envelopes.md explains the templates.';
comment on column posthaste.envelope.template is 'Kept as text: spaces and the order of keys are part of what is sent.';
comment on column posthaste.envelope.headers is 'Name to text with placeholders.';

insert into posthaste.envelope (name, version, template, content_type, headers, description) values
    ('standard', 1, '{"type":"{{type}}","timestamp":"{{occurred_at}}","data":"{{data}}"}', 'application/json', '{}',
     'type, timestamp, data: the shape that Standard Webhooks describes'),
    ('event_occurred_at', 1, '{"event":"{{type}}","occurredAt":"{{occurred_at}}","data":"{{data}}"}', 'application/json', '{}',
     'event, occurredAt, data: for partners whose code is in camel case'),
    ('identified', 1, '{"id":"{{event_id}}","type":"{{type}}","timestamp":"{{occurred_at}}","data":"{{data}}","metadata":"{{metadata}}"}', 'application/json', '{}',
     'id, type, timestamp, data, metadata (null where the event has none): for partners that store bodies without headers'),
    ('api_versioned', 1, '{"id":"{{event_id}}","event":"{{type}}","timestamp":"{{occurred_at}}","data":"{{data}}","api_version":"{{values.api_version}}"}', 'application/json', '{}',
     'id, event, timestamp, data, api_version: for a platform that pins each partner to a version of its API, values.api_version'),
    ('unix_sourced', 1, '{"event":"{{type}}","timestamp":"{{occurred_at_unix}}","data":"{{data}}","source":"{{values.source}}"}', 'application/json', '{}',
     'event, timestamp in Unix seconds, data, source: which of a partner''s suppliers it comes from, values.source'),
    ('raw', 1, '"{{data}}"', 'application/json', '{}',
     'the payload alone, byte for byte; its type and time are told by nothing'),
    ('cloudevents_structured', 1, '{"specversion":"1.0","id":"{{event_id}}","source":"{{values.source}}","type":"{{type}}","time":"{{occurred_at}}","subject":"{{tenant?}}","datacontenttype":"application/json","data":"{{data}}"}', 'application/cloudevents+json; charset=utf-8', '{}',
     'a CloudEvent 1.0 in structured mode; its source, a URI reference, is values.source, its subject the tenant where there is one'),
    ('cloudevents_binary', 1, '"{{data}}"', 'application/json', '{"ce-specversion": "1.0", "ce-id": "{{event_id}}", "ce-source": "{{values.source}}", "ce-type": "{{type}}", "ce-time": "{{occurred_at}}", "ce-subject": "{{tenant?}}"}',
     'a CloudEvent 1.0 in binary mode: the payload alone, with ce-* headers; its source, a URI reference, is values.source, its subject the tenant where there is one');

create table posthaste.subscription (
    subscription_id integer generated always as identity primary key,
    name            text        not null,
    tenant          text,
    url             text        not null,
    event_types     text[]      not null,
    unknown_types   boolean     not null default false,
    filter          text,
    retry_intervals interval[]  not null,
    retry_jitter    text        not null default '0.1',
    client_errors   text        not null default 'retry',
    max_age         interval,
    breaker         jsonb,
    pause_after     interval,
    sandbox         boolean     not null default false,
    timeout         interval,
    concurrency     integer,
    rates           jsonb       not null default '[]',
    headers         jsonb       not null default '{}',
    networks        text[]      not null default '{}',
    after_dead_letter text      not null default 'continue',
    partner         text        not null,
    envelope        text        not null default 'standard@1',
    envelope_values jsonb       not null default '{}',
    signatures      text[]      not null default '{standard_v1}',
    header_prefix   text,
    user_agent      text,
    pass_trace      boolean     not null default false,
    authentication  jsonb,
    tls             jsonb,
    handshake       jsonb,
    mask            jsonb,
    description     text,
    contact         text,
    active          boolean     not null default true,
    removed_at      timestamptz,
    revision        integer     not null default 1,
    created_at      timestamptz not null default now(),
    created_by      text        not null default session_user,
    constraint name_is_1_to_100_characters check (name ~ '^[^[:cntrl:][:space:]]([^[:cntrl:]]{0,98}[^[:cntrl:][:space:]])?$'),
    constraint tenant_has_1_to_128_characters check (tenant is null or posthaste.is_tenant(tenant)),
    constraint at_most_50_retries check (cardinality(retry_intervals) <= 50),
    constraint retry_intervals_is_a_flat_list check (coalesce(array_ndims(retry_intervals), 1) = 1),
    constraint jitter_is_known_or_a_fraction check (retry_jitter in ('none', 'full', 'equal') or retry_jitter::real between 0 and 1),
    constraint client_errors_are_retried_or_rejected check (client_errors in ('retry', 'reject')),
    constraint concurrency_is_1_to_1024 check (concurrency between 1 and 1024),
    constraint after_dead_letter_is_known check (after_dead_letter in ('continue', 'hold')),
    constraint partner_is_the_tenant_where_there_is_one check (partner = coalesce(tenant, partner)),
    constraint something_signs check (cardinality(signatures) >= 1),
    constraint only_all_can_have_unknown_types check (not unknown_types or event_types = '{*}'),
    constraint removed_is_not_active check (removed_at is null or not active)
);
create unique index subscription_name on posthaste.subscription (name) where removed_at is null;
-- Serves cancel_removed.
create index subscription_removed on posthaste.subscription (subscription_id) where removed_at is not null;
-- Serves expire_waiting.
create index subscription_with_max_age on posthaste.subscription (subscription_id) where max_age is not null and removed_at is null;
comment on table posthaste.subscription is
    'What a partner gets, where, and on what terms. Made and changed by posthaste.approve alone, but for the pause, posthaste.deactivate. A removed one stays, for whoever reads its history.';
comment on column posthaste.subscription.tenant is 'The partner; never changes. If set, only events of this tenant match, and an administrator scoped to another partner does not see it.';
comment on column posthaste.subscription.event_types is 'Names from the catalogue, prefixes such as certificate.*, or * alone for all but our own (posthaste.*).';
comment on column posthaste.subscription.unknown_types is 'With *: also events whose type is not in the catalogue.';
comment on column posthaste.subscription.filter is 'An SQL/JSON path. The payload matches where the first thing it finds is neither false nor null.';
comment on column posthaste.subscription.retry_intervals is 'How long to wait after the first, second, ... failed attempt. When the list ends, the delivery is RETRY_EXHAUSTED.';
comment on column posthaste.subscription.retry_jitter is 'How chance varies the intervals: a fraction by which each is stretched or shrunk at most; full: from nothing to the interval; equal: from half of it to all of it; none.';
comment on column posthaste.subscription.client_errors is 'What a 4xx status means, but for 408, 425 and 429, which are always tried again, and 410, which ends it: retry, or reject (the delivery is REJECTED at once).';
comment on column posthaste.subscription.max_age is 'How long after an event was inserted it is still sent. Later its delivery ends as EXPIRED. Null: for as long as the retry policy lasts.';
comment on column posthaste.subscription.breaker is 'When its circuit breaker opens: after so many failures in a row, or where of so many requests in a window more than that ratio fail; and for how long nothing is sent then, until a single probe tells: twice as long each time, up to the longest. See posthaste.checked_breaker. Null: never.';
comment on column posthaste.subscription.pause_after is 'Where it fails so long after it began to, and nothing was accepted since, a worker pauses it. Null: never.';
comment on column posthaste.subscription.sandbox is 'Everything is rendered, signed and recorded, and nothing leaves: attempts are sandboxed, and deliveries end as SUCCESS.';
comment on column posthaste.subscription.timeout is 'One whole request. Null: the worker''s request_timeout. Never longer than the worker''s lease allows.';
comment on column posthaste.subscription.concurrency is 'Requests at once from one worker. Null: the worker''s endpoint_concurrency.';
comment on column posthaste.subscription.rates is 'How many requests may be sent, all workers together: [{"requests": 1000, "period": "1 minute"}, {"requests": 100, "period": "10 seconds"}], never more in any such period; with a "burst", that many at once where nothing was sent for a while. What is above waits; with a "block", such as "5 minutes", everything does for that long.';
comment on column posthaste.subscription.headers is 'Extra headers: name to text, or to {"secret": true}, whose value is imported with `posthaste secret import --header` and stored encrypted.';
comment on column posthaste.subscription.networks is 'If not empty, the endpoint''s address must lie in one of these: 203.0.113.0/24, 203.0.113.0/24:443, [2001:db8::/32]:443.';
comment on column posthaste.subscription.after_dead_letter is 'What becomes of the events behind one that was given up, where they have the same ordering_key: continue sends them, hold lets them wait for posthaste.skip_ordered or a replay.';
comment on column posthaste.subscription.partner is 'Whose pseudonyms and external ids it gets; never changes. The tenant, where there is one.';
comment on column posthaste.subscription.envelope is 'The shape of its requests: name@version in posthaste.envelope.';
comment on column posthaste.subscription.envelope_values is 'Constants for the envelope''s placeholders {{values.NAME}}, such as {"source": "https://platform.example"}.';
comment on column posthaste.subscription.signatures is 'How requests are signed, all at once: standard_v1, standard_v1a, svix_legacy, stripe, github, shopify, convoy, convoy_simple, hook0, prefixed. github, shopify, convoy_simple and prefixed bind no time: whoever records such a request can replay it.';
comment on column posthaste.subscription.header_prefix is 'Such as X-Platform: sends X-Platform-Event, X-Platform-Delivery, X-Platform-Timestamp, and with the signature prefixed X-Platform-Signature.';
comment on column posthaste.subscription.user_agent is 'Null: the worker''s own.';
comment on column posthaste.subscription.pass_trace is 'Whether the event''s traceparent is sent along.';
comment on column posthaste.subscription.authentication is 'How we show who we are: {"kind": "bearer"}, {"kind": "basic", "user": ...}, {"kind": "header", "header": ...} or {"kind": "oauth2", "token_url": ..., "client_id": ...}; the secret part is imported with `posthaste secret import --authentication`. See posthaste.checked_authentication.';
comment on column posthaste.subscription.tls is '{"certificate": PEM} shows a client certificate, whose key is imported with `posthaste secret import --client-key`; {"authority": PEM} trusts this authority and no other.';
comment on column posthaste.subscription.handshake is 'Asks the receiver before the first delivery, as CloudEvents'' webhook specification says: {"origin": "platform.example", "callback": URL, "rate": requests a minute}.';
comment on column posthaste.subscription.mask is 'What becomes of fields before they leave; what it does not allow does not. docs/masks.md explains it. Null: everything leaves.';
comment on column posthaste.subscription.active is 'If not, nothing is sent; what comes up waits until it is active again.';
comment on column posthaste.subscription.revision is 'Counts up with every change of the subscription or its secrets; see subscription_revision.';

create table posthaste.subscription_event_type (
    event_type      text    not null,
    -- Empty for a subscription without one: a key has no nulls.
    tenant          text    not null,
    subscription_id integer not null references posthaste.subscription,
    -- Serves take.sql: which subscriptions does an event of this type and tenant go to?
    primary key (event_type, tenant, subscription_id)
);
comment on table posthaste.subscription_event_type is 'subscription.event_types the other way round, kept by a trigger: a name, a prefix such as certificate.*, or *.';
comment on column posthaste.subscription_event_type.tenant is 'subscription.tenant; empty where it has none, and gets the events of all.';

create table posthaste.subscription_revision (
    subscription_id integer     not null references posthaste.subscription,
    revision        integer     not null,
    since           timestamptz not null default clock_timestamp(),
    terms           jsonb       not null,
    signing_secrets smallint[]  not null,
    changed_by      text        not null default session_user,
    xid             xid8        not null default pg_current_xact_id(),
    -- Serves whoever asks under which terms an attempt was made.
    primary key (subscription_id, revision)
);
-- Serves changed_terms.sql: what has changed since a worker last looked.
create index subscription_revision_by_xid on posthaste.subscription_revision (xid);
comment on table posthaste.subscription_revision is 'Every revision that a subscription ever had: who received what under which terms. attempt.subscription_revision leads here.';
comment on column posthaste.subscription_revision.signing_secrets is 'The numbers of the secrets that had not ended then.';

create table posthaste.signing_secret (
    secret_id       uuid        primary key,
    subscription_id integer     not null references posthaste.subscription,
    number          smallint    not null,
    kind            text        not null default 'shared',
    key_id          text,
    ciphertext      bytea,
    public_key      bytea,
    created_at      timestamptz not null default now(),
    created_by      text        not null default session_user,
    ends_at         timestamptz,
    -- Serves terms.sql: the live secrets of a subscription, oldest first.
    constraint secrets_are_numbered_within_a_subscription unique (subscription_id, number),
    constraint numbers_count_from_1 check (number >= 1),
    constraint ends_after_it_begins check (ends_at >= created_at),
    constraint ciphertext_iff_key check ((ciphertext is null) = (key_id is null)),
    constraint kind_is_known check (kind in ('shared', 'text', 'ed25519')),
    constraint public_key_iff_ed25519_is_made check ((public_key is not null) = (kind = 'ed25519' and ciphertext is not null)),
    constraint public_key_has_32_bytes check (octet_length(public_key) = 32)
);
-- Serves secrets_asked_for.sql: normally nothing.
create index signing_secret_asked_for on posthaste.signing_secret (subscription_id) where ciphertext is null;
comment on table posthaste.signing_secret is
    'Secrets that sign a subscription''s requests; every live one signs. Encrypted under a key that Postgres never sees, and bound to this row: moved elsewhere it does not decrypt.';
comment on column posthaste.signing_secret.kind is 'shared: random bytes that both sides know; text: one that a partner brought along, for signatures whose key is a text; ed25519: a private key, for standard_v1a.';
comment on column posthaste.signing_secret.public_key is 'Of an ed25519 secret: what partners verify with. Not a secret.';
comment on column posthaste.signing_secret.key_id is 'Which key of the keyring encrypted it.';
comment on column posthaste.signing_secret.ciphertext is 'Null while it is only asked for: whoever holds the keys, a worker or `posthaste secret`, fills it in.';
comment on column posthaste.signing_secret.ends_at is 'No longer signs from then on. Null: no end agreed.';

create table posthaste.credential (
    secret_id       uuid        primary key,
    subscription_id integer     not null references posthaste.subscription,
    name            text        not null,
    key_id          text        not null,
    ciphertext      bytea       not null,
    created_at      timestamptz not null default now(),
    created_by      text        not null default session_user,
    constraint one_value_for_a_name unique (subscription_id, name)
);
comment on table posthaste.credential is 'What we show to an endpoint and nobody else may see, encrypted as signing secrets are.';
comment on column posthaste.credential.name is 'The header that the subscription marks as secret; or :authentication, the secret part of subscription.authentication; or :client_key, the key of the certificate in subscription.tls.';

create table posthaste.partner_key (
    partner    text        primary key,
    secret_id  uuid        not null unique default gen_random_uuid(),
    key_id     text,
    ciphertext bytea,
    created_at timestamptz not null default now(),
    constraint ciphertext_iff_key check ((ciphertext is null) = (key_id is null))
);
-- Serves partner_keys_asked_for.sql: normally nothing.
create index partner_key_asked_for on posthaste.partner_key (partner) where ciphertext is null;
comment on table posthaste.partner_key is 'Keys of pseudonyms, one for each partner, encrypted as signing secrets are: what one partner gets cannot be linked with what another gets. Never replaced, or its pseudonyms would change.';
comment on column posthaste.partner_key.ciphertext is 'Null while it is only asked for: a worker fills it in.';

create table posthaste.external_id (
    partner      text        not null,
    kind         text        not null,
    internal     text        not null,
    external     text        not null,
    is_pseudonym boolean     not null default false,
    created_at   timestamptz not null default now(),
    created_by   text        not null default session_user,
    primary key (partner, kind, internal),
    constraint an_external_id_means_one_thing unique (partner, kind, external)
);
comment on table posthaste.external_id is 'What a partner calls our things: a mask puts the external id in the place of the internal one. Written once with posthaste.map_id, by administrators or by the platform in its own transactions; never changed, since the bytes of a retry are those of the first attempt.';
comment on column posthaste.external_id.kind is 'Such as student or order.';
comment on column posthaste.external_id.is_pseudonym is 'No id was known when one was needed, and the mask said: pseudonym. That has been its id since.';

create table posthaste.handshake (
    handshake_id    bigint generated always as identity primary key,
    subscription_id integer     not null references posthaste.subscription,
    url             text        not null,
    origin          text        not null,
    rate            integer,
    granted_at      timestamptz not null default now(),
    granted_by      text        not null default session_user,
    constraint rate_is_positive check (rate >= 1)
);
-- Serves terms.sql and posthaste.rates: what the receiver granted last.
create index handshake_by_subscription on posthaste.handshake (subscription_id, handshake_id);
comment on table posthaste.handshake is 'Permissions to send, which a receiver gave when asked (OPTIONS), or which a person wrote down who had got one. The newest one for the subscription''s URL and origin counts.';
comment on column posthaste.handshake.rate is 'Requests a minute that the receiver allows. Null: any.';

create table posthaste.preparation (
    preparation_id  bigint generated always as identity primary key,
    subscription_id integer     not null,
    kind            text        not null,
    worker_id       integer     not null,
    url             text        not null,
    at              timestamptz not null default now(),
    duration_us     integer     not null,
    outcome         posthaste.outcome not null,
    http_status     smallint,
    error           text,
    constraint kind_is_known check (kind in ('handshake', 'token'))
);
comment on table posthaste.preparation is 'Every request that a worker made to be able to deliver: to ask whether it may (handshake), or for an access token (token). Append-only, and never with a token or a body.';

create table posthaste.subscription_change (
    change_id       bigint generated always as identity primary key,
    subscription_id integer,
    kind            text        not null,
    before          jsonb,
    terms           jsonb,
    reason          text,
    proposed_at     timestamptz not null default now(),
    proposed_by     text        not null default session_user,
    proposed_for    text,
    expires_at      timestamptz not null,
    decision        text,
    decided_at      timestamptz,
    decided_by      text,
    decided_for     text,
    decision_reason text,
    constraint kind_is_known check (kind in ('create', 'change', 'remove', 'envelope')),
    constraint subscription_unless_envelope check ((subscription_id is null) = (kind = 'envelope')),
    constraint terms_unless_removal check ((terms is null) = (kind = 'remove')),
    constraint before_unless_creation check ((before is null) = (kind in ('create', 'envelope'))),
    constraint decision_is_known check (decision in ('approved', 'rejected')),
    constraint decided_iff_decision check ((decision is null) = (decided_at is null) and (decision is null) = (decided_by is null))
);
-- Serves the open proposals, of which there are few.
create index subscription_change_open on posthaste.subscription_change (subscription_id) where decision is null;
comment on table posthaste.subscription_change is 'What was proposed, by whom, and what another administrator decided. A proposal never changes; only its decision is added, once.';
comment on column posthaste.subscription_change.before is 'The terms that stood when it was proposed: if others stand when it is to be approved, it is stale.';
comment on column posthaste.subscription_change.terms is 'The whole terms that it would make, as posthaste.checked_terms wrote them; or the whole envelope.';
comment on column posthaste.subscription_change.proposed_for is 'posthaste.application_user, where an API proposed on somebody''s behalf.';

create table posthaste.partner_scope (
    login  text not null,
    tenant text not null,
    primary key (login, tenant),
    constraint tenant_has_1_to_128_characters check (posthaste.is_tenant(tenant))
);
comment on table posthaste.partner_scope is 'Logins that see and change only these partners. A login without a row here is not scoped. Whoever is scoped sees only its own rows.';

create function posthaste.count_revision() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_table_name = 'subscription' then
        new.revision := old.revision + 1;
        return new;
    end if;
    -- A change of a secret is a change of the terms: the update counts it. One that is only encrypted anew is none.
    if tg_op = 'UPDATE' then
        if old.ciphertext is not null and (to_jsonb(new) - '{key_id,ciphertext}'::text[]) = (to_jsonb(old) - '{key_id,ciphertext}'::text[]) then
            return null;
        end if;
    end if;
    update posthaste.subscription s set revision = s.revision
    where s.subscription_id = case when tg_op = 'DELETE' then old.subscription_id else new.subscription_id end;
    return null;
end
$$;
comment on function posthaste.count_revision() is 'Counts every change of a subscription, of its secrets, and of what its receiver allows, so that workers read the terms anew.';

create function posthaste.keep_revision() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into posthaste.subscription_revision (subscription_id, revision, terms, signing_secrets)
    values (new.subscription_id, new.revision, posthaste.terms(new), array(
        select number from posthaste.signing_secret k
        where k.subscription_id = new.subscription_id and (k.ends_at is null or k.ends_at > clock_timestamp()) order by number));
    if tg_op = 'INSERT' or new.event_types is distinct from old.event_types or new.removed_at is distinct from old.removed_at then
        delete from posthaste.subscription_event_type t where t.subscription_id = new.subscription_id;
        insert into posthaste.subscription_event_type (event_type, tenant, subscription_id)
        select distinct t, coalesce(new.tenant, ''), new.subscription_id from unnest(new.event_types) t where new.removed_at is null;
    end if;
    return null;
end
$$;
comment on function posthaste.keep_revision() is 'Writes down each revision of a subscription, and keeps subscription_event_type.';

create trigger subscription_counts_revision before update on posthaste.subscription
    for each row execute function posthaste.count_revision();
create trigger subscription_keeps_revision after insert or update on posthaste.subscription
    for each row execute function posthaste.keep_revision();
create trigger signing_secret_counts_revision after insert or update or delete on posthaste.signing_secret
    for each row execute function posthaste.count_revision();
create trigger credential_counts_revision after insert or update or delete on posthaste.credential
    for each row execute function posthaste.count_revision();
create trigger handshake_counts_revision after insert on posthaste.handshake
    for each row execute function posthaste.count_revision();

create function posthaste.guard_change() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if old.decision is not null or (to_jsonb(new) - '{decision,decided_at,decided_by,decided_for,decision_reason}'::text[])
                                is distinct from (to_jsonb(old) - '{decision,decided_at,decided_by,decided_for,decision_reason}'::text[]) then
        raise exception using errcode = 'insufficient_privilege',
            message = format('change %s is refused: what was proposed stays as it is, and is decided once', old.change_id);
    end if;
    return new;
end
$$;
comment on function posthaste.guard_change() is 'Lets a proposal get its decision, once, and nothing else.';

create trigger change_is_decided_once before update on posthaste.subscription_change
    for each row execute function posthaste.guard_change();
alter table posthaste.subscription_change enable always trigger change_is_decided_once;
create trigger no_delete before delete on posthaste.subscription_change
    for each row execute function posthaste.refuse_change();
alter table posthaste.subscription_change enable always trigger no_delete;
create trigger no_truncate before truncate on posthaste.subscription_change
    for each statement execute function posthaste.refuse_change();
alter table posthaste.subscription_change enable always trigger no_truncate;

create trigger no_change before update or delete on posthaste.envelope
    for each row execute function posthaste.refuse_change();
alter table posthaste.envelope enable always trigger no_change;
create trigger no_truncate before truncate on posthaste.envelope
    for each statement execute function posthaste.refuse_change();
alter table posthaste.envelope enable always trigger no_truncate;
create trigger no_change before update on posthaste.external_id
    for each row execute function posthaste.refuse_change();
alter table posthaste.external_id enable always trigger no_change;
create trigger no_truncate before truncate on posthaste.external_id
    for each statement execute function posthaste.refuse_change();
alter table posthaste.external_id enable always trigger no_truncate;
create trigger no_change before update or delete on posthaste.handshake
    for each row execute function posthaste.refuse_change();
alter table posthaste.handshake enable always trigger no_change;
create trigger no_truncate before truncate on posthaste.handshake
    for each statement execute function posthaste.refuse_change();
alter table posthaste.handshake enable always trigger no_truncate;
create trigger no_change before update or delete on posthaste.preparation
    for each row execute function posthaste.refuse_change();
alter table posthaste.preparation enable always trigger no_change;
create trigger no_truncate before truncate on posthaste.preparation
    for each statement execute function posthaste.refuse_change();
alter table posthaste.preparation enable always trigger no_truncate;

create function posthaste.matches(filter text, payload text) returns boolean
    language plpgsql immutable parallel safe
    set search_path = pg_catalog, pg_temp
as $$
declare
    found_first jsonb;
begin
    found_first := jsonb_path_query_first(payload::jsonb, filter::jsonpath, '{}', true);
    return coalesce(found_first not in ('false', 'null'), false);
exception when others then
    return null;
end
$$;
comment on function posthaste.matches(text, text) is
    'Whether a payload passes a filter: the first thing that the SQL/JSON path finds is neither false nor null. Null where that cannot be said, since jsonb does not take every valid JSON text.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- What was done: the audit log
-- ---------------------------------------------------------------------------------------------------------------------------

create table posthaste.audit_log (
    entry            bigint      primary key,
    at               timestamptz not null,
    actor            text        not null,
    application_user text,
    action           text        not null,
    object           text        not null,
    tenant           text,
    before           jsonb,
    after            jsonb,
    reason           text,
    xid              xid8        not null,
    previous         bytea       not null,
    digest           bytea       not null,
    constraint entries_count_from_1 check (entry >= 1)
);
comment on table posthaste.audit_log is
    'Who did what, when, to what, from what to what, and why. Append-only, and each entry is chained to the one before it: posthaste.verify_audit() names the first that was tampered with.';
comment on column posthaste.audit_log.actor is 'The login, session_user: neither SET ROLE nor an API can change it.';
comment on column posthaste.audit_log.application_user is 'Whom an API acted for: what it put into the setting posthaste.application_user. Only as trustworthy as the API.';
comment on column posthaste.audit_log.digest is 'SHA-256 over the previous entry''s digest and everything else in this one; see posthaste.audit_digest.';

create table posthaste.audit_head (
    is_only boolean primary key default true,
    entry   bigint  not null default 0,
    digest  bytea   not null default '\x',
    constraint there_is_one_row check (is_only)
);
comment on table posthaste.audit_head is 'The last entry of the audit log. Its row lock makes those who write take turns.';
insert into posthaste.audit_head default values;

create function posthaste.audit_digest(e posthaste.audit_log) returns bytea
    language sql stable parallel safe
    set search_path = pg_catalog, pg_temp
return sha256(e.previous || convert_to(jsonb_build_array(
    e.entry, (extract(epoch from e.at) * 1000000)::bigint, e.actor, e.application_user, e.action, e.object, e.tenant,
    e.before, e.after, e.reason, e.xid::text)::text, 'UTF8'));
comment on function posthaste.audit_digest(posthaste.audit_log) is
    'The digest that an entry must bear: SHA-256 of the previous digest and the UTF-8 text of a jsonb array: entry, time in microseconds, actor, application_user, action, object, tenant, before, after, reason, transaction.';

create function posthaste.application_user() returns text
    language sql stable parallel safe
return nullif(current_setting('posthaste.application_user', true), '');
comment on function posthaste.application_user() is 'Whom an API says it acts for: `set posthaste.application_user = ''ada''`.';

create function posthaste.refuse_to_wait() returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using errcode = 'lock_not_available',
        message = 'somebody has acted here in a transaction that is still open, and such acts take turns',
        hint = 'Try again; or find the session in pg_stat_activity (idle in transaction) and end it with pg_terminate_backend.';
end
$$;
comment on function posthaste.refuse_to_wait() is 'Raises where an open transaction was in the way for too long.';

create function posthaste.note(action text, object text, tenant text, before jsonb, after jsonb, reason text) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '5s'
as $$
declare
    head posthaste.audit_head;
    e posthaste.audit_log;
begin
    if length(reason) > 1000 then
        perform posthaste.refuse('reason', reason, 'at most 1000 characters');
    end if;
    if length(posthaste.application_user()) > 128 then
        perform posthaste.refuse('posthaste.application_user', posthaste.application_user(), 'at most 128 characters');
    end if;
    -- Where the transaction's snapshot is older than the last entry, this fails with 40001: try again.
    begin
        select * into strict head from posthaste.audit_head for update;
    exception when lock_not_available then
        perform posthaste.refuse_to_wait();
    end;
    e.entry := head.entry + 1;
    e.at := clock_timestamp();
    e.actor := session_user;
    e.application_user := posthaste.application_user();
    e.action := note.action;
    e.object := note.object;
    e.tenant := note.tenant;
    e.before := note.before;
    e.after := note.after;
    e.reason := note.reason;
    e.xid := pg_current_xact_id();
    e.previous := head.digest;
    e.digest := posthaste.audit_digest(e);
    insert into posthaste.audit_log values (e.*);
    update posthaste.audit_head h set entry = e.entry, digest = e.digest where h.is_only;
    return e.entry;
end
$$;
comment on function posthaste.note(text, text, text, jsonb, jsonb, text) is 'Adds an entry to the audit log and returns its number. Nobody may call it but the functions here.';

create function posthaste.note_setting() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
as $$
declare
    before constant jsonb := case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) end;
    after constant jsonb := case when tg_op in ('UPDATE', 'INSERT') then to_jsonb(new) end;
    field text;
begin
    if tg_op = 'TRUNCATE' then
        perform posthaste.note('setting_truncated', 'setting', null, null, null, nullif(current_setting('posthaste.reason', true), ''));
    end if;
    for field in
        select k from jsonb_object_keys(coalesce(after, before)) k where before -> k is distinct from after -> k order by k
    loop
        perform posthaste.note(field || '_set', 'setting', null, jsonb_build_object(field, before -> field), jsonb_build_object(field, after -> field),
            nullif(current_setting('posthaste.reason', true), ''));
    end loop;
    return null;
end
$$;
comment on function posthaste.note_setting() is 'Writes each change of a setting into the audit log, whoever makes it and however. The functions that make one give their reason in posthaste.reason.';

create trigger setting_is_noted after insert or update or delete on posthaste.setting
    for each row execute function posthaste.note_setting();
alter table posthaste.setting enable always trigger setting_is_noted;
create trigger truncation_is_noted after truncate on posthaste.setting
    for each statement execute function posthaste.note_setting();
alter table posthaste.setting enable always trigger truncation_is_noted;

create function posthaste.verify_audit(
    known_entry bigint default null,
    known_digest text default null
) returns table (intact boolean, entries bigint, first_broken bigint, problem text, last_digest text)
    language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    e posthaste.audit_log;
    head posthaste.audit_head;
    before bytea := '\x';
begin
    select * into head from posthaste.audit_head h;
    entries := 0;
    for e in select * from posthaste.audit_log order by audit_log.entry loop
        entries := entries + 1;
        problem := case
            when e.entry <> entries then format('entry %s is missing', entries)
            when e.previous <> before then 'it is not chained to the entry before it'
            when e.digest <> posthaste.audit_digest(e) then 'its content is not what its digest was made of'
            when e.entry = known_entry and encode(e.digest, 'hex') <> known_digest
                then 'its digest is not the one that was known: it or an earlier entry was written anew'
        end;
        if problem is not null then
            first_broken := least(e.entry, entries);
            exit;
        end if;
        before := e.digest;
    end loop;
    if problem is null and head.entry is distinct from entries then
        first_broken := least(entries, head.entry) + 1;
        problem := format('the log ends at entry %s, and %s were written', entries, coalesce(head.entry::text, 'none'));
    elsif problem is null and known_entry > entries then
        first_broken := entries + 1;
        problem := format('the log ends at entry %s, and entry %s was known', entries, known_entry);
    elsif problem is null and head.digest <> before then
        first_broken := entries;
        problem := 'it is not the one that was written last';
    end if;
    intact := problem is null;
    last_digest := encode(before, 'hex');
    return next;
end
$$;
comment on function posthaste.verify_audit(bigint, text) is
    'Reads the whole audit log and names the first entry that was changed, removed or slipped in. Whoever owns the tables could write the whole chain anew: keep an entry''s number and digest elsewhere, and give them here.';

create function posthaste.scope() returns text[]
    language sql stable security definer parallel safe
    set search_path = pg_catalog, pg_temp
return (select array_agg(p.tenant) from posthaste.partner_scope p where p.login = session_user);
comment on function posthaste.scope() is 'The partners that this login is scoped to; null where it is not scoped.';

alter table posthaste.partner_scope enable row level security;
create policy scoped_see_their_own on posthaste.partner_scope for select
    using (login = session_user or (select posthaste.scope()) is null);

create function posthaste.is_in_scope(tenant text) returns boolean
    language sql stable
    set search_path = pg_catalog, pg_temp
return posthaste.scope() is null or coalesce(tenant = any (posthaste.scope()), false);
comment on function posthaste.is_in_scope(text) is 'Whether this login may see and change what belongs to a partner. What belongs to none is for those who are not scoped.';

create function posthaste.refuse_scoped() returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if posthaste.scope() is not null then
        raise exception using errcode = 'insufficient_privilege',
            message = format('%s is scoped to single partners and may not do what concerns all', session_user);
    end if;
end
$$;
comment on function posthaste.refuse_scoped() is 'Raises where the login is scoped to single partners.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- What is still owed
-- ---------------------------------------------------------------------------------------------------------------------------

create table posthaste.queue (
    event_id        uuid        not null,
    due_at          timestamptz not null,
    subscription_id integer     not null,
    replay          smallint    not null default 0,
    attempts        smallint    not null default 0,
    ordering_key    text,
    expires_at      timestamptz,
    -- Serves people who ask by event; and no delivery can wait twice.
    constraint queue_pkey primary key (event_id, subscription_id, replay),
    constraint attempts_count_from_0 check (attempts >= 0)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
-- Serves claim_waiting.sql: one subscription's waiting deliveries from its lane's wake_at on, soonest first.
create index queue_by_due on posthaste.queue (subscription_id, due_at);
-- Serves expire_waiting: what is not to be sent any more, also where nothing is claimed.
create index queue_by_expiry on posthaste.queue (expires_at) where expires_at is not null;
-- Serves oldest_owed: what is owed since somebody asked for it, not since its event. What fast traffic writes is never in it.
create index queue_by_replay on posthaste.queue (event_id) where replay <> 0;
comment on table posthaste.queue is
    'One row per delivery that waits: for its time, or for room at a worker. To claim it is to move it into lease.';
comment on column posthaste.queue.due_at is 'Not to be attempted before.';
comment on column posthaste.queue.attempts is 'Attempts recorded so far.';
comment on column posthaste.queue.ordering_key is 'The event''s, if it has one: no other delivery of this subscription and key is under way or waits here.';
comment on column posthaste.queue.expires_at is 'Not to be attempted from then on. Null: never.';

create table posthaste.lease (
    event_id        uuid        not null,
    ends_at         timestamptz not null,
    holder          integer     not null,
    subscription_id integer     not null,
    replay          smallint    not null default 0,
    number          smallint    not null default 1,
    ordering_key    text,
    constraint attempts_are_numbered_from_1 check (number >= 1)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
-- No index, and so no key: each delivery would pay for it twice. Whoever makes a lease is told its address (ctid) and finds it there; that it
-- is still the same lease is asked of its columns. The table holds no more than what workers have in their hands, so whoever has no address
-- (adopt.sql, people) reads all of it.
alter table posthaste.lease replica identity full; -- as of intake
comment on table posthaste.lease is
    'One row per delivery under way: the holder alone may make this one attempt, until the lease ends. Deleted by the statement that records the attempt.';
comment on column posthaste.lease.ends_at is 'From then on anyone may adopt it; its attempt is recorded as abandoned.';
comment on column posthaste.lease.holder is 'worker_id of the worker that may make the attempt.';
comment on column posthaste.lease.number is 'The attempt that it is for. With the delivery and the holder, the lease''s identity.';
comment on column posthaste.lease.ordering_key is 'As in queue.';

create function posthaste.find_leases(event_ids uuid[], subscription_ids integer[], replays smallint[], addresses tid[]) returns table (place bigint, address tid)
    language sql stable
    set search_path = pg_catalog, pg_temp
begin atomic
    with sought as materialized (
        select u.event_id, u.subscription_id, u.replay, u.address, u.place
        from unnest(find_leases.event_ids, find_leases.subscription_ids, find_leases.replays, find_leases.addresses)
            with ordinality u (event_id, subscription_id, replay, address, place)
    ), there as materialized (
        -- `limit 1` makes this a look-up by address for each, whatever the planner believes about the table's size.
        select s.place, s.address from sought s
        cross join lateral (
            select from posthaste.lease l
            where l.ctid = s.address and l.event_id = s.event_id and l.subscription_id = s.subscription_id and l.replay = s.replay
            limit 1
        ) l
    )
    select t.place, t.address from there t
    union all
    -- What is not there is lost; or somebody has had the table written anew (VACUUM FULL), and it lies elsewhere. A full join that no
    -- condition turns into another can be done by hash alone: never each lease against each delivery.
    select s.place, l.ctid
    from posthaste.lease l full join sought s using (event_id, subscription_id, replay)
    where (select count(*) from there) < (select count(*) from sought)
      and coalesce(l.number, 0) > 0 and coalesce(s.place, 0) > 0 and s.place <> all (array(select t.place from there t));
end;
comment on function posthaste.find_leases(uuid[], integer[], smallint[], tid[]) is
    'Where the leases of these deliveries are: the place in the arrays, from 1, and the address. They are looked for where they were written; the whole table is read only where some are not there. Called by workers.';

create type posthaste.breaker as enum (
    'closed',     -- deliveries are sent
    'open',       -- too many attempts failed: nothing is sent until lane.hold_until
    'half_open'   -- one attempt is under way to find out; the others wait for it
);
comment on type posthaste.breaker is 'The state of a subscription''s circuit breaker.';

create table posthaste.lane (
    subscription_id integer     primary key references posthaste.subscription,
    wake_at         timestamptz not null default 'infinity',
    active          boolean     not null default true,
    rest_until      timestamptz not null default '-infinity',
    rate_capacity   integer[]   not null default '{}',
    rate_interval   float8[]    not null default '{}',
    rate_block      float8[]    not null default '{}',
    rate_used_until timestamptz[] not null default '{}',
    hold_until      timestamptz not null default '-infinity',
    breaker         posthaste.breaker not null default 'closed',
    openings        smallint    not null default 0,
    failures        integer     not null default 0,
    failing_since   timestamptz,
    window_since    timestamptz,
    window_requests integer     not null default 0,
    window_failures integer     not null default 0,
    weighed_at      timestamptz,
    to_pause        text,
    breaker_since   timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
-- Serves lock_lanes.sql: lanes that have something due.
create index lane_by_next_claim on posthaste.lane (greatest(wake_at, rest_until, hold_until)) where wake_at < 'infinity' and active;
-- Serves changed_terms.sql: how endpoints fare that did not fare well a moment ago.
create index lane_by_weighing on posthaste.lane (weighed_at) where weighed_at is not null;
-- Serves pause_failing: what may have failed for too long.
create index lane_failing on posthaste.lane (failing_since) where failing_since is not null;
-- Serves changed_terms.sql and pause_failing: whose receiver wants nothing more. Not among all that fail: it is asked for all the time.
create index lane_to_pause on posthaste.lane (subscription_id) where to_pause is not null;
comment on table posthaste.lane is
    'One row per subscription: no waiting delivery of it is due before wake_at. The backlog of a lane that sleeps is never scanned.';
comment on column posthaste.lane.active is 'subscription.active, as of when a worker last looked: where not, nothing is claimed.';
comment on column posthaste.lane.rest_until is 'By its rates, nothing may be claimed before.';
comment on column posthaste.lane.rate_block is 'Of each: how many seconds nothing may be claimed once it was used up; 0 for no longer than it takes.';
comment on column posthaste.lane.hold_until is 'Nothing may be claimed before: its receiver asked for that (Retry-After), or its breaker is open, or half open and a probe under way.';
comment on column posthaste.lane.openings is 'How many times in a row the breaker has opened: each time it stays open twice as long.';
comment on column posthaste.lane.failures is 'Failed attempts since the last that was accepted.';
comment on column posthaste.lane.failing_since is 'When the first of those was recorded.';
comment on column posthaste.lane.window_since is 'When the window began over which the breaker counts requests and failures: with a failure. Null: there is none.';
comment on column posthaste.lane.weighed_at is 'When an attempt last changed any of this.';
comment on column posthaste.lane.breaker_since is 'When the breaker was last closed. Null: it is.';
comment on column posthaste.lane.to_pause is 'Why a worker is to pause the subscription.';
comment on column posthaste.lane.rate_capacity is 'Of each of the subscription''s rates: how many claims may follow at once upon a rest.';
comment on column posthaste.lane.rate_interval is 'Of each: how many seconds a claim uses up.';
comment on column posthaste.lane.rate_used_until is 'Of each: until when the claims made so far have used it up. A claim may be made where this lies at least one interval back.';
comment on column posthaste.lane.wake_at is 'At or before the earliest due_at among its waiting rows; infinity where none waits. Lowered by whoever adds a waiting row, raised by whoever claims.';

create function posthaste.wake_lane() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    update posthaste.lane l set wake_at = least(l.wake_at, new.due_at) where l.subscription_id = new.subscription_id;
    return null;
end
$$;
comment on function posthaste.wake_lane() is 'Lets a lane wake in time for a delivery that a person made due sooner.';

-- Fires for people alone: workers insert and delete, and wake the lane themselves.
create trigger queue_wakes_lane after update of due_at on posthaste.queue
    for each row when (new.due_at < old.due_at)
    execute function posthaste.wake_lane();

-- Order. Of each subscription and ordering_key, one delivery at most is in queue, lease or quarantine: the head, which `ordering` names.
-- All that come behind it are in `follower`, where no claim meets them. advance.sql lets the next one come up.

create table posthaste.follower (
    event_id        uuid        not null,
    due_at          timestamptz not null,
    expires_at      timestamptz,
    subscription_id integer     not null,
    replay          smallint    not null default 0,
    ordering_key    text        not null,
    quarantine      text,
    -- Serves people who ask by event; and no delivery can wait twice.
    constraint follower_pkey primary key (event_id, subscription_id, replay)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
-- Serves advance.sql: which comes next of a key? And idle_keys.sql, which steps from key to key.
create index follower_by_key on posthaste.follower (subscription_id, ordering_key, event_id, replay);
-- Serves expire_waiting: what is not to be sent any more.
create index follower_by_expiry on posthaste.follower (expires_at) where expires_at is not null;
-- Serves oldest_owed, as in queue.
create index follower_by_replay on posthaste.follower (event_id) where replay <> 0;
comment on table posthaste.follower is
    'Deliveries that wait behind another one of their subscription and ordering_key, or that were just taken. The one with the smallest event_id comes up next.';
comment on column posthaste.follower.due_at is 'Not to be attempted before. A head that is not due yet holds up those behind it.';
comment on column posthaste.follower.expires_at is 'As in queue.';
comment on column posthaste.follower.quarantine is 'Why it goes into quarantine once it comes up, if it must; in its turn, so that those behind it wait for what is decided.';

create table posthaste.ordering (
    event_id        uuid        not null,
    held_at         timestamptz,
    subscription_id integer     not null,
    replay          smallint    not null,
    ordering_key    text        not null,
    -- Serves advance.sql and record.sql: is the key busy? And two heads of one key cannot be.
    constraint ordering_pkey primary key (subscription_id, ordering_key)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
-- Serves free_keys: what is held for subscriptions that do not want it any more.
create index ordering_held on posthaste.ordering (subscription_id, held_at) where held_at is not null;
comment on table posthaste.ordering is
    'Keys that are busy, and their heads. Inserted by advance.sql under the lane''s lock; deleted together with the queue or lease row of the head, by whoever has that.';
comment on column posthaste.ordering.held_at is 'Since when the head is a dead letter that holds the key. Null: it is in queue, lease or quarantine.';

create table posthaste.skip (
    skip_id         bigint generated always as identity primary key,
    subscription_id integer     not null,
    ordering_key    text        not null,
    event_id        uuid        not null,
    replay          smallint    not null,
    reason          text        not null,
    asked_by        text        not null default session_user
);
comment on table posthaste.skip is 'Heads that are to make way for those behind them, until a worker has seen to it (posthaste.free_keys). Only added to by people, whose transactions may stay open for long: no worker waits for one.';

create table posthaste.worker (
    worker_id  integer generated always as identity primary key,
    name       text        not null,
    version    text        not null,
    lease      interval    not null,
    started_at timestamptz not null default now(),
    ended_at   timestamptz,
    settings_digest  text,
    clock_difference float8,
    certificate_ends timestamptz,
    noted_at         timestamptz
);
-- Serves gone_workers.sql, twice a second: the few that may be alive among all that ever were.
create index worker_not_ended on posthaste.worker (worker_id) where ended_at is null;
comment on table posthaste.worker is
    'Every worker that ever registered. One without ended_at is alive while it holds the session advisory lock (1347375957, worker_id); see the view worker_alive.';
comment on column posthaste.worker.settings_digest is 'Of every setting but secrets, names, addresses and the log: two workers with the same do the same.';
comment on column posthaste.worker.clock_difference is 'Its machine''s clock minus the database''s in seconds, at noted_at.';
comment on column posthaste.worker.certificate_ends is 'When the first of the client certificates that it shows ends. Null: it shows none.';
comment on column posthaste.worker.noted_at is 'When it last noted the two before: once a minute.';
comment on column posthaste.worker.lease is 'How long its leases last; lease.ends_at - lease is when a lease began.';

create table posthaste.quarantine (
    event_id        uuid        not null,
    subscription_id integer     not null references posthaste.subscription,
    replay          smallint    not null,
    attempts        smallint    not null,
    reason          text        not null,
    held_at         timestamptz not null default now(),
    decision        text,
    decided_at      timestamptz,
    decided_by      text,
    decision_reason text,
    is_requeued     boolean     not null default false,
    primary key (event_id, subscription_id, replay),
    constraint decision_is_known check (decision in ('released', 'discarded')),
    constraint decided_iff_decision check ((decision is null) = (decided_at is null)),
    constraint requeued_is_released check (not is_requeued or decision = 'released')
);
-- Serves cancel_removed and whoever reads what is owed: what waits for somebody, or for a worker.
create index quarantine_open on posthaste.quarantine (subscription_id, held_at) where decision is null or (decision = 'released' and not is_requeued);
-- Serves changed_terms.sql and requeue_released: what waits for a worker. Not among all that is held: it is asked for all the time.
create index quarantine_released on posthaste.quarantine (held_at) where decision = 'released' and not is_requeued;
comment on table posthaste.quarantine is
    'Deliveries that are held because the payload breaks its event type''s schema, or because a filter could not be evaluated on it, and what an administrator decided. They stay as evidence.';
comment on column posthaste.quarantine.is_requeued is 'A worker has put it back into the queue after its release.';

create table posthaste.cancellation (
    event_id        uuid        not null,
    subscription_id integer     not null,
    replay          smallint    not null,
    attempts        smallint    not null,
    reason          text        not null,
    cancelled_at    timestamptz not null default now(),
    is_expired      boolean     not null default false,
    primary key (event_id, subscription_id, replay)
);
comment on table posthaste.cancellation is 'Deliveries that ended without an attempt that says so: cancelled, discarded from quarantine, owed to a subscription that was removed, or expired.';

create table posthaste.unknown_event_type (
    event_type text        primary key,
    events     bigint      not null,
    first_at   timestamptz not null default now(),
    last_at    timestamptz not null default now(),
    last_event uuid        not null,
    constraint event_type_is_bounded check (length(event_type) <= 128)
);
comment on table posthaste.unknown_event_type is 'Event types that came and that the catalogue does not have, or not as active ones; one row each, however many events, and 1000 at most.';

create table posthaste.dismissal (
    dismissal_id bigint generated always as identity primary key,
    event_type   text        not null,
    dismissed_at timestamptz not null default clock_timestamp()
);
comment on table posthaste.dismissal is 'Unknown event types that an administrator has dismissed, until a worker has forgotten them. Only added to by people, whose transactions may stay open for long: no worker waits for one.';
comment on column posthaste.dismissal.event_type is 'A name, a prefix such as noise.*, or *.';

create function posthaste.is_dismissed(u posthaste.unknown_event_type) returns boolean
    language sql stable security definer
    set search_path = pg_catalog, pg_temp
return exists (
    select from posthaste.dismissal d where d.event_type = any (posthaste.patterns(u.event_type)) and u.last_at <= d.dismissed_at);
comment on function posthaste.is_dismissed(posthaste.unknown_event_type) is 'Whether an unknown event type was dismissed, and has not come since.';

create function posthaste.forget_dismissed() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from posthaste.dismissal) then
        delete from posthaste.unknown_event_type u
        where u.event_type = any (array(
            select x.event_type from posthaste.unknown_event_type x where posthaste.is_dismissed(x) for update skip locked));
        delete from posthaste.dismissal d
        where d.dismissal_id = any (array(
            select x.dismissal_id from posthaste.dismissal x
            where not exists (
                select from posthaste.unknown_event_type u
                where x.event_type = any (posthaste.patterns(u.event_type)) and u.last_at <= x.dismissed_at)
            for update skip locked));
    end if;
    return null;
end
$$;
comment on function posthaste.forget_dismissed() is 'Removes what was dismissed, whenever a worker notes an unknown event type, and waits for nobody.';

-- For each row: take.sql inserts none as a rule, and pays nothing then.
create trigger dismissed_types_are_forgotten after insert or update on posthaste.unknown_event_type
    for each row execute function posthaste.forget_dismissed();

create function posthaste.bound_unknown_types() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- Names are the producer's: each new one would be one more row, and nobody reads a thousand of them.
    if not exists (select from posthaste.unknown_event_type u where u.event_type = new.event_type)
       and (select count(*) >= 1000 from (select from posthaste.unknown_event_type limit 1000) u) then
        return null;
    end if;
    return new;
end
$$;
comment on function posthaste.bound_unknown_types() is 'Keeps no more than 1000 unknown event types; those that come on top are not counted until some were dismissed. Their events are kept as ever.';

create trigger unknown_types_are_bounded before insert on posthaste.unknown_event_type
    for each row execute function posthaste.bound_unknown_types();

create table posthaste.replay (
    replay_id     bigint generated always as identity primary key,
    kind          text        not null,
    asked         jsonb       not null,
    reason        text        not null,
    rate          integer,
    asked_at      timestamptz not null default clock_timestamp(),
    asked_by      text        not null default session_user,
    asked_for     text,
    used_until    timestamptz not null default '-infinity',
    resumes_at    timestamptz not null default '-infinity',
    finished_at   timestamptz,
    cancelled_by  text,
    cancelled_for text,
    cancel_reason text,
    constraint kind_is_known check (kind in ('replay', 'test')),
    constraint rate_is_positive check (rate >= 1),
    constraint cancelled_iff_reason check ((cancelled_by is null) = (cancel_reason is null)),
    constraint cancelled_is_finished check (cancelled_by is null or finished_at is not null)
);
-- Serves changed_terms.sql and queue_replays: normally nothing.
create index replay_under_way on posthaste.replay (resumes_at) where finished_at is null;
comment on table posthaste.replay is
    'Every replay that an administrator asked for, of one delivery or a million, and every test. Workers carry them out, one worker at a time each: whoever holds the lock on its row.';
comment on column posthaste.replay.asked is 'What was asked for: an event, a subscription and a time, or a predicate over dead_letter.';
comment on column posthaste.replay.rate is 'How many deliveries are put into the queue in a second, all workers together. Null: as many as go.';
comment on column posthaste.replay.used_until is 'Until when the deliveries queued so far have used the rate up.';
comment on column posthaste.replay.resumes_at is 'When a worker looks again.';
comment on column posthaste.replay.asked_for is 'posthaste.application_user, where an API asked on somebody''s behalf.';

create table posthaste.replay_part (
    replay_id       bigint  not null references posthaste.replay,
    subscription_id integer not null references posthaste.subscription,
    total           bigint  not null,
    queued          bigint  not null default 0,
    skipped         bigint  not null default 0,
    after_event     uuid    not null default '00000000-0000-0000-0000-000000000000',
    served_at       timestamptz not null default '-infinity',
    primary key (replay_id, subscription_id),
    constraint no_more_than_all_are_done check (queued + skipped <= total)
);
comment on table posthaste.replay_part is 'How far each replay has come with each of its subscriptions: one whose endpoint is behind holds up no other.';
comment on column posthaste.replay_part.skipped is 'Not queued after all: the subscription was removed or does not get such events any more, or the event was cancelled.';
comment on column posthaste.replay_part.after_event is 'No item up to this event is left, so that the dead entries of those that were are never visited.';

create table posthaste.replay_item (
    replay_id       bigint  not null,
    subscription_id integer not null,
    event_id        uuid    not null,
    -- Serves queue_replays: a part's items from replay_part.after_event on.
    constraint replay_item_pkey primary key (replay_id, subscription_id, event_id),
    -- Nothing is asked for twice at the same time. Serves carry_out_cancels, too.
    constraint replay_item_waits_once unique (event_id, subscription_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table posthaste.replay_item is 'What a replay still has to put into the queue: an event and a subscription. Deleted as that is done.';

create table posthaste.replayed (
    event_id        uuid        not null,
    subscription_id integer     not null,
    replay          smallint    not null,
    follows         smallint,
    replay_id       bigint      not null,
    queued_at       timestamptz not null default now(),
    -- Serves queue_replays, which asks for the last number; dead_letter and delivery; and people who ask by event.
    primary key (event_id, subscription_id, replay),
    constraint a_replay_follows_and_a_test_does_not check ((follows is null) = (replay = -1)),
    constraint follows_an_earlier_one check (follows >= 0 and follows < replay)
);
comment on table posthaste.replayed is 'Every delivery that exists because somebody asked for it: a replay, which names the delivery that it follows, or a test.';
comment on column posthaste.replayed.replay is 'The new delivery''s number: from 1 for replays, -1 for a test.';
comment on column posthaste.replayed.follows is 'The number of the delivery of the same event and subscription that came before it, 0 for the first. Null for a test.';

create table posthaste.cancel_request (
    request_id      bigint generated always as identity primary key,
    event_id        uuid        not null,
    subscription_id integer references posthaste.subscription,
    tenants         text[],
    reason          text        not null,
    asked_at        timestamptz not null default clock_timestamp(),
    asked_by        text        not null default session_user,
    asked_for       text,
    up_to           xid8        not null default greatest(pg_snapshot_xmax(pg_current_snapshot()), pg_current_xact_id()),
    is_fanned_out   boolean     not null default false,
    looked_at       timestamptz not null default '-infinity',
    cancelled       integer     not null default 0,
    closed_at       timestamptz
);
-- Serves changed_terms.sql and carry_out_cancels: normally nothing.
create index cancel_request_open on posthaste.cancel_request (looked_at) where closed_at is null;
-- Serves event_history.
create index cancel_request_by_event on posthaste.cancel_request (event_id);
comment on table posthaste.cancel_request is
    'Events of which an administrator wanted nothing more to be delivered. Workers carry that out; a request is closed once nothing of it waits.';
comment on column posthaste.cancel_request.subscription_id is 'The delivery to this one alone. Null: all.';
comment on column posthaste.cancel_request.tenants is 'Of these partners alone: whoever asked is scoped to them. Null: all.';
comment on column posthaste.cancel_request.up_to is 'The event was inserted by a transaction no later than this one: once intake holds none of those, all of its deliveries are there.';

-- The functions that workers call to carry out what people decided. People's transactions may stay open for long, so they never
-- lock a lane or a waiting delivery themselves: no worker ever waits for a person.

create function posthaste.rates(s posthaste.subscription) returns jsonb
    language sql stable
    set search_path = pg_catalog, pg_temp
return s.rates || case when s.handshake is null then '[]' else coalesce((
    select case when h.rate is not null then jsonb_build_array(jsonb_build_object('requests', h.rate, 'period', '1 minute')) end
    from posthaste.handshake h
    where h.subscription_id = s.subscription_id and h.url = s.url and h.origin = s.handshake ->> 'origin'
    order by h.handshake_id desc limit 1), '[]') end;
comment on function posthaste.rates(posthaste.subscription) is 'The rates that a subscription is held to: those agreed, and the one that its receiver allowed in a handshake.';

create function posthaste.pace(rates jsonb) returns table (capacity integer[], seconds float8[], block float8[])
    language sql immutable
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
begin atomic
    -- What is claimed is sent within the grace that send_within tells, so that never more is sent in a period than is claimed in a
    -- period and the grace. After a rest, as many may be claimed at once as come up in a grace; or a burst, where one was agreed.
    select coalesce(array_agg(coalesce(r.burst, r.at_once) order by r.place), '{}'),
           coalesce(array_agg(case when r.burst is null then (r.period + r.grace) / (r.requests - r.at_once + 1) else r.period / r.requests end order by r.place), '{}'),
           coalesce(array_agg(coalesce(r.block, 0) order by r.place), '{}')
    from (
        select p.*, greatest(1, floor(p.requests * p.grace / p.period))::integer as at_once
        from (
            select u.place, (u.rate ->> 'requests')::integer as requests, (u.rate ->> 'burst')::integer as burst,
                   extract(epoch from (u.rate ->> 'block')::interval)::float8 as block,
                   extract(epoch from (u.rate ->> 'period')::interval)::float8 as period,
                   least(1, extract(epoch from (u.rate ->> 'period')::interval)::float8 / 10) as grace
            from jsonb_array_elements(rates) with ordinality u (rate, place)
        ) p
    ) r;
end;
comment on function posthaste.pace(jsonb) is 'Rates as a lane keeps them: of each, how many claims may follow at once upon a rest, how many seconds each uses up, and for how many nothing may follow once it is used up.';

create function posthaste.settle_lanes() returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '2s'
as $$
declare
    unsettled integer[];
begin
    unsettled := array(
        select l.subscription_id from posthaste.lane l join posthaste.subscription s using (subscription_id)
        -- Most have none, and theirs need not be worked out.
        left join lateral (select p.* from posthaste.pace(posthaste.rates(s)) p where s.rates <> '[]' or s.handshake is not null offset 0) p on true
        where (l.active, l.rate_capacity, l.rate_interval, l.rate_block)
              <> (s.active, coalesce(p.capacity, '{}'), coalesce(p.seconds, '{}'), coalesce(p.block, '{}'))
           or s.breaker is null and (l.breaker <> 'closed' or l.openings > 0)
           -- Nothing leaves the sandbox, so nothing that is sent there could ever close a breaker, or end what failed before.
           or s.sandbox and (l.breaker <> 'closed' or l.hold_until > now() or l.failing_since is not null or l.to_pause is not null)
        order by l.subscription_id for update of l);
    -- Whoever was told that it opened is told that it is over.
    perform posthaste.tell_breaker(l.subscription_id, false, 0, 0)
    from posthaste.lane l join posthaste.subscription s using (subscription_id)
    where l.subscription_id = any (unsettled) and l.breaker <> 'closed' and (l.active <> s.active or s.sandbox or s.breaker is null);
    update posthaste.lane l
    set active = s.active, rate_capacity = p.capacity, rate_interval = p.seconds, rate_block = p.block,
        -- New rates begin with nothing saved up, or a change would let through what neither allows.
        rate_used_until = case when (l.rate_capacity, l.rate_interval) = (p.capacity, p.seconds) then l.rate_used_until
                               else array_fill(now(), array[cardinality(p.capacity)]) end,
        rest_until = case when (l.rate_capacity, l.rate_interval) = (p.capacity, p.seconds) then l.rest_until
                          -- A limit that blocks would be met by the first that comes.
                          when 0 < any (p.block) then now() + make_interval(secs => (select max(c * i) from unnest(p.capacity, p.seconds) u (c, i)))
                          else '-infinity' end,
        -- Whoever takes it up again has seen to it; what failed before counts no more.
        breaker = case when l.active = s.active and not s.sandbox and s.breaker is not null then l.breaker else 'closed' end,
        hold_until = case when l.active = s.active and not s.sandbox and (s.breaker is not null or l.breaker = 'closed') then l.hold_until else '-infinity' end,
        -- Workers that leave it alone learn that they need not any more.
        weighed_at = case when l.active = s.active and not s.sandbox and (s.breaker is not null or l.breaker = 'closed') then l.weighed_at else now() end,
        openings = case when l.active = s.active and not s.sandbox and s.breaker is not null then l.openings else 0 end,
        breaker_since = case when l.active = s.active and not s.sandbox and s.breaker is not null then l.breaker_since end,
        failures = case when l.active = s.active and not s.sandbox then l.failures else 0 end,
        failing_since = case when l.active = s.active and not s.sandbox then l.failing_since end,
        window_since = case when l.active = s.active and not s.sandbox then l.window_since end,
        to_pause = case when l.active = s.active and not s.sandbox then l.to_pause end
    from posthaste.subscription s cross join lateral posthaste.pace(posthaste.rates(s)) p
    where l.subscription_id = any (unsettled) and s.subscription_id = l.subscription_id;
end
$$;
comment on function posthaste.settle_lanes() is 'Lets the lanes follow their subscriptions: whether anything may be claimed, and at what rates. Called by workers, after every change of terms.';

create function posthaste.weighed(
    l posthaste.lane, breaker jsonb, requests integer, failures integer, run integer, asked_for interval, to_pause text, at timestamptz
) returns posthaste.lane
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    l.weighed_at := at;
    l.to_pause := coalesce(l.to_pause, weighed.to_pause);
    if requests > run then
        l.failures := run;
        l.failing_since := case when run > 0 then at end;
    else
        l.failures := l.failures + run;
        l.failing_since := coalesce(l.failing_since, case when run > 0 then at end);
    end if;
    if l.window_since is null or l.window_since + coalesce((breaker ->> 'window')::interval, interval '0') <= at then
        l.window_since := case when failures > 0 then at end;
        l.window_requests := 0;
        l.window_failures := 0;
    end if;
    if l.window_since is not null then
        l.window_requests := l.window_requests + requests;
        l.window_failures := l.window_failures + failures;
    end if;
    if l.breaker <> 'closed' and (requests > run or breaker is null) then
        -- One that was accepted is enough.
        l.breaker := 'closed';
        l.breaker_since := null;
        l.hold_until := '-infinity';
        l.openings := 0;
        l.window_since := null;
    elsif l.breaker = 'half_open' and run > 0
       or l.breaker = 'closed' and (
              l.failures >= (breaker ->> 'failures')::integer
           or l.window_requests >= (breaker ->> 'requests')::integer
              and l.window_failures >= (breaker ->> 'ratio')::float8 * l.window_requests) then
        l.breaker := 'open';
        l.breaker_since := coalesce(l.breaker_since, at);
        l.hold_until := at + least((breaker ->> 'open_for')::interval * power(2, least(l.openings, 20)), (breaker ->> 'open_for_at_most')::interval);
        l.openings := least(l.openings + 1, 1000);
        l.window_since := null;
    end if;
    if asked_for > interval '0' or l.to_pause is not null then
        l.hold_until := greatest(l.hold_until, at + coalesce(asked_for, interval '0'), at + case when l.to_pause is not null then interval '10 seconds' else interval '0' end);
    end if;
    return l;
end
$$;
comment on function posthaste.weighed(posthaste.lane, jsonb, integer, integer, integer, interval, text, timestamptz) is
    'What becomes of a lane when so many requests came to an end, so many of which failed, the last `run` of them in a row; its receiver may have asked for a pause, or to be paused for good. Changes nothing.';

create function posthaste.pause_failing(most integer) returns table (subscription_id integer, reason text)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
    set lock_timeout = '2s'
as $$
declare
    due record;
    s posthaste.subscription;
    before jsonb;
begin
    -- Who acts takes turns, and people's transactions may stay open for long: no worker waits for one; another time will do.
    if not exists (select from posthaste.lane l where l.to_pause is not null) and not exists (select from posthaste.lane l where l.failing_since is not null) then
        return;
    end if;
    perform from posthaste.audit_head for update skip locked;
    if not found then
        return;
    end if;
    for due in
        select l.subscription_id, coalesce(l.to_pause, format('nothing but failures since %s, %s of them', l.failing_since, l.failures)) as reason
        from (
            select f.* from posthaste.lane f where f.failing_since is not null
            union all
            select f.* from posthaste.lane f where f.to_pause is not null and f.failing_since is null
        ) l
        join posthaste.subscription x on x.subscription_id = l.subscription_id
        -- A lane that is not active yet remembers what came before the pause; settle_lanes forgets it.
        where x.active and l.active
          -- By its last failure, not by now: one failure that nothing followed says nothing of the days since.
          and (l.to_pause is not null or l.failing_since + x.pause_after <= l.weighed_at)
        order by l.subscription_id limit most
    loop
        select * into s from posthaste.subscription x
        where x.subscription_id = due.subscription_id and x.active for no key update skip locked;
        continue when not found;
        before := posthaste.terms(s);
        update posthaste.subscription x set active = false where x.subscription_id = s.subscription_id returning * into s;
        perform posthaste.note('paused', s.name, s.tenant, before, posthaste.terms(s), due.reason);
        perform posthaste.tell('posthaste.subscription.paused', 'error', s.subscription_id, detail => jsonb_build_object('reason', due.reason));
        pause_failing.subscription_id := s.subscription_id;
        pause_failing.reason := due.reason;
        return next;
    end loop;
end
$$;
comment on function posthaste.pause_failing(integer) is
    'Pauses subscriptions whose receiver wants nothing more, or that have had nothing but failures for longer than pause_after, on the record, and returns them. Called by workers. To go on, propose {"active": true}.';

-- Statements that run all day ask these for what is in the outbox, since whoever names a partitioned table opens all of its partitions
-- each time it starts, even if it reads none: beside a year of days that is a millisecond.

create function posthaste.events(event_ids uuid[]) returns setof posthaste.outbox
    language plpgsql stable rows 100
    set search_path = pg_catalog, pg_temp
as $$
declare
    -- Known before the first row is read, these keep all partitions but those between from being opened.
    first uuid;
    last uuid;
begin
    select u.id into first from unnest(event_ids) u (id) order by u.id limit 1;
    select u.id into last from unnest(event_ids) u (id) where u.id is not null order by u.id desc limit 1;
    if first is not null then
        return query
            select o.* from (select distinct u.id from unnest(event_ids) u (id)) i
            -- `limit 1` makes this a look-up by key for each.
            cross join lateral (select * from posthaste.outbox x where x.event_id = i.id and x.event_id between first and last limit 1) o;
    end if;
end
$$;
comment on function posthaste.events(uuid[]) is 'The events with these ids, each once, as far as there are any. Opens only the days between the first and the last. Called by workers.';

create function posthaste.expiry_times(event_ids uuid[]) returns timestamptz[]
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    if array_remove(event_ids, null) = '{}' then
        return array_fill(null::timestamptz, array[cardinality(event_ids)]);
    end if;
    return array(
        select o.expires_at from unnest(event_ids) with ordinality u (id, place)
        -- A full join that no condition turns into another can be done by hash alone: never each id against each event.
        full join posthaste.events(event_ids) o on o.event_id = u.id
        where coalesce(u.place, 0) > 0
        order by u.place);
end
$$;
comment on function posthaste.expiry_times(uuid[]) is 'When each of these events expires: null where it does not, where there is none, and where there is no id. Called by workers.';

create function posthaste.let_wait(
    event_ids uuid[], subscription_ids integer[], replays smallint[], ordering_keys text[], attempts_made smallint[], due_times timestamptz[], expiry_times timestamptz[])
    returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into posthaste.queue (event_id, subscription_id, replay, ordering_key, attempts, due_at, expires_at)
    select * from unnest(event_ids, subscription_ids, replays, ordering_keys, attempts_made, due_times, expiry_times);
    -- In one order everywhere, so that two workers never wait for each other.
    perform from posthaste.lane l where l.subscription_id = any (subscription_ids) order by l.subscription_id for update;
    -- What is awake stays as it is. This sees what was committed until we had the locks: a lane may have been put to sleep while we waited.
    update posthaste.lane l set wake_at = w.due_at
    from (select u.subscription_id, min(u.due_at) as due_at from unnest(subscription_ids, due_times) u (subscription_id, due_at) group by u.subscription_id) w
    where l.subscription_id = w.subscription_id and l.wake_at > w.due_at;
    return cardinality(event_ids);
end
$$;
comment on function posthaste.let_wait(uuid[], integer[], smallint[], text[], smallint[], timestamptz[], timestamptz[]) is
    'Lets deliveries wait until they are due, so many attempts made, and wakes their lanes; returns how many. Called by workers.';

create function posthaste.requeue_released(most integer) returns integer
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    with released as materialized (
        select q.ctid as address from posthaste.quarantine q
        where q.decision = 'released' and not q.is_requeued
        order by q.held_at limit requeue_released.most for update skip locked
    ), marked as (
        update posthaste.quarantine q set is_requeued = true
        where q.ctid = any (array(select r.address from released r))
        returning q.*
    )
    select coalesce((
        select posthaste.let_wait(
            array_agg(m.event_id), array_agg(m.subscription_id), array_agg(m.replay), array_agg(o.ordering_key), array_agg(m.attempts),
            array_agg(greatest(now(), o.deliver_after)), array_agg(o.expires_at))
        from marked m
        left join lateral (select x.ordering_key, x.deliver_after, x.expires_at from posthaste.outbox x where x.event_id = m.event_id limit 1) o on true
        having count(*) > 0
    ), 0)::integer;
end;
comment on function posthaste.requeue_released(integer) is 'Puts deliveries that were released from quarantine back into the queue, and returns how many. Called by workers.';

create function posthaste.expire_waiting(most integer) returns integer
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    with past as materialized (
        select q.ctid as address
        from posthaste.queue q where q.expires_at <= now()
        order by q.expires_at limit expire_waiting.most for update skip locked
    ), old as materialized (
        -- Where nothing is claimed nobody else finds out; what has been due for longest is oldest, but for what was tried again.
        select l.address
        from (
            select q.event_id, q.subscription_id, q.replay
            from posthaste.subscription s
            cross join lateral (
                select * from posthaste.queue q
                where q.subscription_id = s.subscription_id and q.due_at <= now()
                order by q.due_at limit expire_waiting.most
            ) q
            where s.max_age is not null and s.removed_at is null
              and (not s.active or exists (
                  select from posthaste.lane l where l.subscription_id = s.subscription_id and (l.breaker <> 'closed' or l.hold_until > now())))
              and q.replay = 0 and posthaste.event_time(q.event_id) <= now() - s.max_age
            limit expire_waiting.most
        ) found
        -- No more is locked than what goes: to lock is to write.
        cross join lateral (
            select q.ctid as address from posthaste.queue q
            where (q.event_id, q.subscription_id, q.replay) = (found.event_id, found.subscription_id, found.replay)
            limit 1 for update skip locked
        ) l
    ), unqueued as (
        -- By address, since the rows are locked; and what goes with them by a look-up for each, whatever the planner believes about sizes.
        delete from posthaste.queue q where q.ctid = any (array(select p.address from past p union select o.address from old o))
        returning q.event_id, q.subscription_id, q.replay, q.attempts, q.ordering_key
    ), freed as (
        delete from posthaste.ordering where ctid = any (array(
            select o.address from unqueued u
            cross join lateral (
                select x.ctid as address from posthaste.ordering x
                where (x.subscription_id, x.ordering_key, x.event_id, x.replay) = (u.subscription_id, u.ordering_key, u.event_id, u.replay)
                limit 1
            ) o
        ))
    ), behind as materialized (
        select f.ctid as address
        from posthaste.follower f where f.expires_at <= now()
        order by f.expires_at limit expire_waiting.most for update skip locked
    ), unfollowed as (
        delete from posthaste.follower f where f.ctid = any (array(select b.address from behind b))
        returning f.event_id, f.subscription_id, f.replay
    ), ended as (
        insert into posthaste.cancellation (event_id, subscription_id, replay, attempts, reason, is_expired)
        select u.event_id, u.subscription_id, u.replay, u.attempts, 'it was not to be sent any more', true
        from (select event_id, subscription_id, replay, attempts from unqueued
              union all
              select event_id, subscription_id, replay, 0::smallint from unfollowed) u
        returning 1
    )
    select count(*)::integer from ended;
end;
comment on function posthaste.expire_waiting(integer) is 'Ends deliveries that wait and are not to be sent any more, also those behind a pause or a breaker, and returns how many. Called by workers.';

create function posthaste.cancel_removed(most integer) returns integer
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    -- In an order that only the index by subscription has: another one could be read from end to end.
    with gone as materialized (
        select q.address
        from posthaste.subscription s
        cross join lateral (
            select x.ctid as address from posthaste.queue x where x.subscription_id = s.subscription_id
            order by x.due_at limit cancel_removed.most for update skip locked
        ) q
        where s.removed_at is not null
        limit cancel_removed.most
    ), unqueued as (
        delete from posthaste.queue q where q.ctid = any (array(select g.address from gone g))
        returning q.event_id, q.subscription_id, q.replay, q.attempts
    ), behind as materialized (
        select f.address
        from posthaste.subscription s
        cross join lateral (
            select x.ctid as address from posthaste.follower x where x.subscription_id = s.subscription_id
            order by x.ordering_key, x.event_id limit cancel_removed.most for update skip locked
        ) f
        where s.removed_at is not null
        limit cancel_removed.most
    ), unfollowed as (
        delete from posthaste.follower f where f.ctid = any (array(select b.address from behind b))
        returning f.event_id, f.subscription_id, f.replay, 0::smallint as attempts
    ), busy as materialized (
        select o.address
        from posthaste.subscription s
        cross join lateral (
            select x.ctid as address from posthaste.ordering x where x.subscription_id = s.subscription_id
            order by x.ordering_key limit cancel_removed.most for update skip locked
        ) o
        where s.removed_at is not null
        limit cancel_removed.most
    ), freed as (
        -- Nothing of a removed subscription comes up any more, so its keys need no head.
        delete from posthaste.ordering where ctid = any (array(select b.address from busy b))
    ), held as materialized (
        select h.address
        from posthaste.subscription s
        cross join lateral (
            select x.ctid as address from posthaste.quarantine x where x.subscription_id = s.subscription_id and x.decision is null
            order by x.held_at limit cancel_removed.most for update skip locked
        ) h
        where s.removed_at is not null
        limit cancel_removed.most
    ), unheld as (
        update posthaste.quarantine q
        set decision = 'discarded', decided_at = now(), decided_by = session_user, decision_reason = 'the subscription was removed'
        where q.ctid = any (array(select h.address from held h))
        returning q.event_id, q.subscription_id, q.replay, q.attempts
    ), cancelled as (
        insert into posthaste.cancellation (event_id, subscription_id, replay, attempts, reason)
        select u.*, 'the subscription was removed' from (select * from unqueued union all select * from unfollowed union all select * from unheld) u
        returning 1
    )
    select count(*)::integer from cancelled;
end;
comment on function posthaste.cancel_removed(integer) is 'Cancels deliveries still owed to subscriptions that were removed, and returns how many. Called by workers.';

create function posthaste.follow(
    event_ids uuid[], subscription_ids integer[], replays smallint[], ordering_keys text[], quarantine text[], due_at timestamptz) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into posthaste.follower (event_id, subscription_id, replay, ordering_key, quarantine, due_at, expires_at)
    select u.event_id, u.subscription_id, u.replay, u.ordering_key, u.quarantine, coalesce(follow.due_at, greatest(now(), o.deliver_after)), o.expires_at
    from unnest(event_ids, subscription_ids, replays, ordering_keys, quarantine) u (event_id, subscription_id, replay, ordering_key, quarantine)
    left join lateral (select x.deliver_after, x.expires_at from posthaste.outbox x where x.event_id = u.event_id limit 1) o on true;
end
$$;
comment on function posthaste.follow(uuid[], integer[], smallint[], text[], text[], timestamptz) is
    'Puts deliveries behind what waits of their ordering keys, due then, or when their events say where it is null. Called by workers, who have advance.sql let the first one come up after their commit.';

create function posthaste.note_unknown(event_types text[], event_ids uuid[]) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into posthaste.unknown_event_type as k (event_type, events, last_event)
    select u.event_type, count(*), (array_agg(u.event_id order by u.event_id desc))[1]
    from unnest(event_types, event_ids) u (event_type, event_id)
    group by u.event_type order by u.event_type
    on conflict (event_type) do update set events = k.events + excluded.events, last_at = now(), last_event = excluded.last_event;
    return cardinality(event_ids);
end
$$;
comment on function posthaste.note_unknown(text[], uuid[]) is 'Counts events whose type the catalogue does not have; returns how many. Called by take.sql.';

create function posthaste.hold_unfiltered(event_ids uuid[], subscription_ids integer[]) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason)
    select u.event_id, u.subscription_id, 0, 0, 'the subscription''s filter cannot be evaluated on the payload'
    from unnest(event_ids, subscription_ids) u (event_id, subscription_id);
    return cardinality(event_ids);
end
$$;
comment on function posthaste.hold_unfiltered(uuid[], integer[]) is 'Quarantines deliveries on whose payload a filter cannot be evaluated; returns how many. Called by take.sql.';

create function posthaste.free_keys(most integer) returns table (subscription_id integer, ordering_key text)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    asked posthaste.skip;
    attempts_made smallint;
    is_held boolean;
begin
    for asked in select * from posthaste.skip s order by s.skip_id limit most for update skip locked loop
        select o.held_at is not null into is_held from posthaste.ordering o
        where (o.subscription_id, o.ordering_key, o.event_id, o.replay) = (asked.subscription_id, asked.ordering_key, asked.event_id, asked.replay)
        for update skip locked;
        if not found and exists (
            select from posthaste.ordering o
            where (o.subscription_id, o.ordering_key, o.event_id, o.replay) = (asked.subscription_id, asked.ordering_key, asked.event_id, asked.replay)) then
            continue;
        end if;
        if is_held is false then
            delete from posthaste.queue q
            where q.ctid = any (array(
                select x.ctid from posthaste.queue x
                where (x.event_id, x.subscription_id, x.replay) = (asked.event_id, asked.subscription_id, asked.replay) for update skip locked))
            returning q.attempts into attempts_made;
            if not found then
                update posthaste.quarantine h
                set decision = 'discarded', decided_at = now(), decided_by = asked.asked_by, decision_reason = asked.reason
                where h.ctid = any (array(
                    select x.ctid from posthaste.quarantine x
                    where (x.event_id, x.subscription_id, x.replay) = (asked.event_id, asked.subscription_id, asked.replay)
                      and x.decision is null for update skip locked))
                returning h.attempts into attempts_made;
            end if;
            if found then
                insert into posthaste.cancellation (event_id, subscription_id, replay, attempts, reason)
                values (asked.event_id, asked.subscription_id, asked.replay, attempts_made, asked.reason);
            elsif not exists (
                select from posthaste.quarantine x
                where (x.event_id, x.subscription_id, x.replay) = (asked.event_id, asked.subscription_id, asked.replay)
                  and x.decision = 'discarded') then
                -- It is under way, or somebody has it in hand: another round will find it done or waiting.
                continue;
            end if;
        end if;
        delete from posthaste.skip s where s.skip_id = asked.skip_id;
        return query
            delete from posthaste.ordering o
            where (o.subscription_id, o.ordering_key, o.event_id, o.replay) = (asked.subscription_id, asked.ordering_key, asked.event_id, asked.replay)
            returning o.subscription_id, o.ordering_key;
    end loop;
    return query
        delete from posthaste.ordering o
        where o.ctid = any (array(
            select h.address from posthaste.subscription s
            cross join lateral (
                select x.ctid as address from posthaste.ordering x
                where x.subscription_id = s.subscription_id and x.held_at is not null
                order by x.held_at limit most for update skip locked
            ) h
            where s.after_dead_letter = 'continue' limit most))
        returning o.subscription_id, o.ordering_key;
end
$$;
comment on function posthaste.free_keys(integer) is 'Lets keys go on whose head was skipped or discarded, and those held by a dead letter whose subscription does not hold any more; returns them. Called by workers.';

create function posthaste.unfinished(event_id uuid) returns table (subscription_id integer, replay smallint, why text)
    language sql stable
    set search_path = pg_catalog, pg_temp
begin atomic
    select q.subscription_id, q.replay, 'it waits' from posthaste.queue q where q.event_id = unfinished.event_id
    union all
    select f.subscription_id, f.replay, 'it waits behind others of its ordering key' from posthaste.follower f where f.event_id = unfinished.event_id
    union all
    select l.subscription_id, l.replay, 'it is under way' from posthaste.lease l where l.event_id = unfinished.event_id
    union all
    select h.subscription_id, h.replay, 'it is quarantined' from posthaste.quarantine h
    where h.event_id = unfinished.event_id and (h.decision is null or (h.decision = 'released' and not h.is_requeued))
    union all
    select i.subscription_id, null, format('replay %s is to send it', i.replay_id) from posthaste.replay_item i where i.event_id = unfinished.event_id;
end;
comment on function posthaste.unfinished(uuid) is 'What is still to come of an event that was fanned out, in one look: to which subscriptions, and what it waits for.';

create function posthaste.is_meant(c posthaste.cancel_request, subscription_id integer) returns boolean
    language sql stable
    set search_path = pg_catalog, pg_temp
return (c.subscription_id is null or c.subscription_id = is_meant.subscription_id)
   and (c.tenants is null or exists (
        select from posthaste.subscription s where s.subscription_id = is_meant.subscription_id and s.tenant = any (c.tenants)));
comment on function posthaste.is_meant(posthaste.cancel_request, integer) is 'Whether a request to cancel is about the deliveries to this subscription.';

create function posthaste.still_wants(s posthaste.subscription, event_type text, payload json) returns boolean
    language sql stable
    set search_path = pg_catalog, pg_temp
return exists (
        select from posthaste.subscription_event_type t
        where t.subscription_id = s.subscription_id and t.event_type = any (posthaste.patterns(still_wants.event_type)))
    and (s.unknown_types or exists (select from posthaste.event_type c where c.event_type = still_wants.event_type and c.active))
    and (s.filter is null or coalesce(posthaste.matches(s.filter, payload::text), false));
comment on function posthaste.still_wants(posthaste.subscription, text, json) is
    'Whether a subscription, as it was agreed on last, gets such an event: a replay is a decision of today, and one administrator''s.';

create function posthaste.enqueue(event_ids uuid[], subscription_ids integer[], replays smallint[]) returns void
    language sql volatile
    set search_path = pg_catalog, pg_temp
begin atomic
    with given as materialized (
        select u.event_id, u.subscription_id, u.replay, o.deliver_after, o.expires_at, case when u.replay > 0 then o.ordering_key end as ordering_key
        from unnest(event_ids, subscription_ids, replays) u (event_id, subscription_id, replay)
        cross join lateral (select * from posthaste.outbox where outbox.event_id = u.event_id limit 1) o
    ), followed as materialized (
        select posthaste.follow(array_agg(g.event_id), array_agg(g.subscription_id), array_agg(g.replay), array_agg(g.ordering_key),
                                array_agg(null::text), null)
        from given g where g.ordering_key is not null having count(*) > 0
    )
    select posthaste.let_wait(array_agg(g.event_id), array_agg(g.subscription_id), array_agg(g.replay), array_agg(null::text), array_agg(0::smallint),
                              array_agg(greatest(now(), g.deliver_after)), array_agg(g.expires_at))
    from given g
    where g.ordering_key is null and (select count(*) from followed) >= 0
    having count(*) > 0;
end;
comment on function posthaste.enqueue(uuid[], integer[], smallint[]) is 'Puts new deliveries into the queue and wakes their lanes; those with an ordering key go behind what waits of it. Called where workers carry out what people asked for.';

create function posthaste.queue_replays(most integer, out is_any boolean, out ordered_subscriptions integer[], out ordering_keys text[])
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '500ms'
as $$
declare
    r posthaste.replay;
    used timestamptz;
    queued integer;
    room integer := most;
    event_ids uuid[];
    subscription_ids integer[];
    replays smallint[];
    looked_at bigint := 0;
begin
    -- One that is locked is another worker's just now, or a person is about to cancel it.
    select * into r from posthaste.replay x
    where x.finished_at is null and x.resumes_at <= now()
    order by x.resumes_at limit 1 for update skip locked;
    is_any := found;
    if not is_any then
        return;
    end if;
    if r.rate is not null then
        -- What was not used up for longer than a second is lost.
        used := greatest(r.used_until, now() - make_interval(secs => 1));
        room := least(most, floor(extract(epoch from now() - used) * r.rate));
    end if;
    if room > 0 then
        with part as materialized (
            select p.subscription_id, p.after_event
            from posthaste.replay_part p
            join posthaste.subscription s using (subscription_id)
            join posthaste.lane l using (subscription_id)
            where p.replay_id = r.replay_id and p.queued + p.skipped < p.total
              -- A lane with something overdue gets nothing on top: its fresh events and retries come first, and what is replayed waits
              -- here, where it is in nobody's way. One that is paused takes no harm.
              and (l.wake_at > now() - interval '1 second' or not l.active or s.removed_at is not null)
            order by p.served_at, p.subscription_id limit least(room, 64)
        ), item as materialized (
            -- The same number of each part, so that all fit and each gets the next ones of its own.
            select p.subscription_id, i.event_id, i.address
            from part p
            cross join lateral (
                select x.event_id, x.ctid as address from posthaste.replay_item x
                where x.replay_id = r.replay_id and x.subscription_id = p.subscription_id and x.event_id > p.after_event
                order by x.event_id limit room / (select count(*) from part)
            ) i
        ), taken as (
            delete from posthaste.replay_item x where x.ctid = any (array(select address from item))
            returning x.event_id, x.subscription_id
        ), looked_up as materialized (
            select t.event_id, t.subscription_id, coalesce(x.replay, 0) as follows, case r.kind when 'replay' then o.ordering_key end as ordering_key,
                   s.removed_at is null and coalesce(x.replay, 0) < 32767 and o.event_id is not null
                   and (r.kind = 'test' or posthaste.still_wants(s, o.event_type, o.payload)) as is_wanted
            from taken t
            join posthaste.subscription s using (subscription_id)
            left join lateral (
                select y.replay from posthaste.replayed y
                where y.event_id = t.event_id and y.subscription_id = t.subscription_id
                order by y.replay desc limit 1
            ) x on true
            left join lateral (select * from posthaste.outbox where outbox.event_id = t.event_id limit 1) o on true
        ), replayed as (
            insert into posthaste.replayed (event_id, subscription_id, replay, follows, replay_id)
            select u.event_id, u.subscription_id, case r.kind when 'test' then -1 else u.follows + 1 end,
                   case r.kind when 'replay' then u.follows end, r.replay_id
            from looked_up u where u.is_wanted
            returning replayed.event_id, replayed.subscription_id, replayed.replay
        ), served as (
            update posthaste.replay_part p
            set queued = p.queued + n.queued, skipped = p.skipped + n.skipped, served_at = now(),
                after_event = (select i.event_id from item i where i.subscription_id = p.subscription_id order by i.event_id desc limit 1)
            from (
                select i.subscription_id, count(*) filter (where u.is_wanted) as queued, count(*) filter (where not u.is_wanted) as skipped
                from item i left join looked_up u using (event_id, subscription_id)
                group by i.subscription_id
            ) n
            where p.replay_id = r.replay_id and p.subscription_id = n.subscription_id
        )
        select n.*, (select count(*) from item), k.*
        into event_ids, subscription_ids, replays, looked_at, ordered_subscriptions, ordering_keys
        from (select array_agg(event_id), array_agg(subscription_id), array_agg(replay) from replayed) n,
             (select array_agg(u.subscription_id), array_agg(u.ordering_key) from looked_up u where u.is_wanted and u.ordering_key is not null) k;
        perform posthaste.enqueue(event_ids, subscription_ids, replays);
    end if;
    queued := coalesce(cardinality(event_ids), 0);
    update posthaste.replay x
    set used_until = case when r.rate is null then x.used_until else used + make_interval(secs => queued / r.rate::float8) end,
        -- Where every endpoint is behind, it rests; else until the next one is allowed.
        resumes_at = case when room > 0 and looked_at = 0 then now() + interval '1 second'
                          when r.rate is null then clock_timestamp()
                          else used + make_interval(secs => (queued + 1) / r.rate::float8 + 0.001) end,
        finished_at = case when not exists (
            select from posthaste.replay_part p where p.replay_id = r.replay_id and p.queued + p.skipped < p.total) then clock_timestamp() end
    where x.replay_id = r.replay_id;
end
$$;
comment on function posthaste.queue_replays(integer) is
    'Puts the next deliveries of one replay that is due into the queue, at most so many and at its rate, if any is due; returns the ordering keys that something was put behind. Called by workers, who have advance.sql let the first one come up after their commit.';

create function posthaste.carry_out_cancels(most integer, out requests integer, out deliveries integer, out ordered_subscriptions integer[], out ordering_keys text[])
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '500ms'
as $$
declare
    c posthaste.cancel_request;
    ended integer;
    freed_subscriptions integer[];
    freed_keys text[];
begin
    requests := 0;
    deliveries := 0;
    for c in
        select * from posthaste.cancel_request x
        where x.closed_at is null order by x.looked_at limit most for update skip locked
    loop
        requests := requests + 1;
        -- Asked first: what is fanned out by now is seen by all that follows.
        c.is_fanned_out := c.is_fanned_out or not exists (select from posthaste.intake i where i.xid <= c.up_to);
        -- Whoever holds a row just now moves it, and it is met at the next look.
        with waiting as materialized (
            select q.ctid as address from posthaste.queue q
            where q.event_id = c.event_id and posthaste.is_meant(c, q.subscription_id) for update skip locked
        ), unqueued as (
            delete from posthaste.queue q where q.ctid = any (array(select address from waiting))
            returning q.event_id, q.subscription_id, q.replay, q.attempts
        ), behind as materialized (
            select f.ctid as address from posthaste.follower f
            where f.event_id = c.event_id and posthaste.is_meant(c, f.subscription_id) for update skip locked
        ), unfollowed as (
            delete from posthaste.follower f where f.ctid = any (array(select address from behind))
            returning f.event_id, f.subscription_id, f.replay, 0::smallint as attempts
        ), held as materialized (
            select h.replay, h.subscription_id from posthaste.quarantine h
            where h.event_id = c.event_id and h.decision is null and posthaste.is_meant(c, h.subscription_id) for update skip locked
        ), unheld as (
            update posthaste.quarantine q
            set decision = 'discarded', decided_at = now(), decided_by = c.asked_by, decision_reason = c.reason
            from held h
            where (q.event_id, q.subscription_id, q.replay) = (c.event_id, h.subscription_id, h.replay)
            returning q.event_id, q.subscription_id, q.replay, q.attempts
        ), cancelled as (
            insert into posthaste.cancellation (event_id, subscription_id, replay, attempts, reason)
            select u.*, c.reason from (select * from unqueued union all select * from unfollowed union all select * from unheld) u
            returning 1
        ), freed as (
            -- Whoever was the head of its ordering key is none any more.
            delete from posthaste.ordering o where o.ctid = any (array(
                select h.address from (select * from unqueued union all select * from unheld) u
                cross join lateral (select ordering_key from posthaste.outbox where outbox.event_id = c.event_id limit 1) x
                cross join lateral (
                    select ctid as address from posthaste.ordering
                    where (ordering.subscription_id, ordering.ordering_key, ordering.event_id, ordering.replay)
                        = (u.subscription_id, x.ordering_key, u.event_id, u.replay)
                    limit 1
                ) h
            ))
            returning o.subscription_id, o.ordering_key
        )
        select (select count(*) from cancelled), array_agg(f.subscription_id), array_agg(f.ordering_key) into ended, freed_subscriptions, freed_keys
        from freed f;
        deliveries := deliveries + ended;
        ordered_subscriptions := ordered_subscriptions || freed_subscriptions;
        ordering_keys := ordering_keys || freed_keys;
        with item as materialized (
            select i.ctid as address from posthaste.replay_item i
            where i.event_id = c.event_id and posthaste.is_meant(c, i.subscription_id) for update skip locked
        ), dropped as (
            delete from posthaste.replay_item i where i.ctid = any (array(select address from item))
            returning i.replay_id, i.subscription_id
        )
        update posthaste.replay_part p set skipped = p.skipped + 1
        from dropped d where (p.replay_id, p.subscription_id) = (d.replay_id, d.subscription_id);
        update posthaste.cancel_request x
        set looked_at = clock_timestamp(), is_fanned_out = c.is_fanned_out, cancelled = x.cancelled + ended,
            -- In one look at all places: what moves from one to another meanwhile is seen in one of them.
            closed_at = case when c.is_fanned_out and not exists (select from posthaste.unfinished(c.event_id) u where posthaste.is_meant(c, u.subscription_id))
                             then clock_timestamp() end
        where x.request_id = c.request_id;
    end loop;
end
$$;
comment on function posthaste.carry_out_cancels(integer) is
    'Cancels what waits of the events that were asked to be cancelled, of so many requests at most, and closes those of which nothing is left. Returns how many it looked at, how many deliveries it ended, and the ordering keys that may go on. Called by workers.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- What operators should know
-- ---------------------------------------------------------------------------------------------------------------------------

create table posthaste.operational_event (
    id              uuid        primary key default posthaste.new_event_id(),
    at              timestamptz not null default clock_timestamp(),
    event_type      text        not null,
    severity        text        not null,
    subscription_id integer,
    event_id        uuid,
    replay          smallint,
    number          smallint,
    worker_id       integer,
    detail          jsonb       not null default '{}',
    constraint event_type_is_one_of_ours check (event_type in (
        'posthaste.delivery.exhausted', 'posthaste.delivery.rejected', 'posthaste.subscription.paused',
        'posthaste.breaker.opened', 'posthaste.breaker.closed', 'posthaste.rotation.overdue')),
    constraint severity_is_known check (severity in ('info', 'warning', 'error')),
    constraint detail_is_an_object check (jsonb_typeof(detail) = 'object'),
    constraint delivery_iff_event check ((event_id is null) = (replay is null))
);
-- Serves tell_overdue_rotations: each secret is told of once, however many workers look.
create unique index operational_event_overdue_once on posthaste.operational_event (subscription_id, number) where event_type = 'posthaste.rotation.overdue';
-- Serves findings: which subscriptions a worker paused. Few.
create index operational_event_paused on posthaste.operational_event (subscription_id, at) where event_type = 'posthaste.subscription.paused';
comment on table posthaste.operational_event is
    'What operators should know: deliveries that were given up, subscriptions paused, breakers opened and closed, rotations overdue. Append-only; see posthaste.operations. Grows with failures alone, by some 300 bytes each; nothing removes them yet.';
comment on column posthaste.operational_event.id is 'Also the event_id of the outbox row that tells a subscription of it, where one wants to know.';
comment on column posthaste.operational_event.event_type is 'As in the catalogue.';
comment on column posthaste.operational_event.subscription_id is 'The subscription that it is about.';
comment on column posthaste.operational_event.event_id is 'With replay, the delivery that it is about.';
comment on column posthaste.operational_event.number is 'Of the last attempt, or of the secret.';
comment on column posthaste.operational_event.worker_id is 'The worker that made the last attempt.';
comment on column posthaste.operational_event.detail is 'What else there is to know. No secret, no payload.';

create function posthaste.spread() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    how_many constant bigint := (select count(*) from inserted);
    wanted text[];
begin
    if how_many = 0 then
        return null;
    end if;
    -- For each its own notification; where many come at once, the first one's tells how many there are from its id on. The guard is
    -- that of posthaste.take_in.
    if pg_notification_queue_usage() < 0.5 then
        perform pg_notify('posthaste_operations',
            (jsonb_build_object('id', i.id, 'type', i.event_type) || case when how_many > 10 then jsonb_build_object('count', how_many) else '{}' end)::text)
        from (select id, event_type from inserted order by id limit case when how_many > 10 then 1 else 10 end) i;
    end if;

    wanted := array(
        select t.event_type from (select distinct event_type from inserted) t
        where exists (select from posthaste.subscription_event_type w where w.event_type = any (posthaste.patterns(t.event_type))));
    if wanted <> '{}' then
        insert into posthaste.outbox (event_id, event_type, payload, occurred_at, tenant)
        select i.id, i.event_type,
               (jsonb_strip_nulls(jsonb_build_object(
                   'severity', i.severity, 'subscription_id', i.subscription_id, 'subscription', s.name, 'event_id', i.event_id,
                   'event_type', o.event_type, 'replay', i.replay, 'number', i.number)) || i.detail)::text::json,
               i.at, s.tenant
        from inserted i
        left join lateral (select name, tenant from posthaste.subscription where subscription.subscription_id = i.subscription_id limit 1) s on true
        left join lateral (select event_type from posthaste.outbox where outbox.event_id = i.event_id limit 1) o on true
        where i.event_type = any (wanted)
          -- No loops: what fails in telling is not told that way, nor what becomes of the endpoint of somebody who would be told.
          and not coalesce(starts_with(o.event_type, 'posthaste.'), false)
          and not (starts_with(i.event_type, 'posthaste.breaker.') and exists (
              select from posthaste.subscription_event_type w
              where w.event_type = any (posthaste.patterns(i.event_type)) and w.subscription_id = i.subscription_id))
        order by i.id;
    end if;
    return null;
end
$$;
comment on function posthaste.spread() is
    'Notifies whoever listens on the channel posthaste_operations, and inserts into the outbox what a subscription to posthaste.* or to the very type wants to know.';

create trigger operational_events_are_spread after insert on posthaste.operational_event
    referencing new table as inserted
    for each statement execute function posthaste.spread();

create function posthaste.tell(
    event_type text,
    severity text,
    subscription_id integer,
    event_id uuid default null,
    replay smallint default null,
    detail jsonb default '{}'
) returns uuid
    language sql volatile
    set search_path = pg_catalog, pg_temp
begin atomic
    insert into posthaste.operational_event (event_type, severity, subscription_id, event_id, replay, detail)
    values (tell.event_type, tell.severity, tell.subscription_id, tell.event_id, tell.replay, tell.detail)
    returning operational_event.id;
end;
comment on function posthaste.tell(text, text, integer, uuid, smallint, jsonb) is 'Adds an operational event and returns its id. Called by our functions alone; locks nothing that anybody could wait for.';

create function posthaste.tell_ended(deliveries jsonb) returns integer
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    with told as (
        insert into posthaste.operational_event (event_type, severity, subscription_id, event_id, replay, number, worker_id, detail)
        select 'posthaste.delivery.' || d.verdict, case d.verdict when 'exhausted' then 'error' else 'warning' end,
               d.subscription_id, d.event_id, d.replay, d.number, d.worker_id,
               jsonb_strip_nulls(jsonb_build_object('outcome', d.outcome, 'http_status', d.http_status, 'error', left(d.error, 300)))
        from jsonb_to_recordset(tell_ended.deliveries) d (
            event_id uuid, subscription_id integer, replay smallint, number smallint, worker_id integer, verdict text, outcome text, http_status smallint, error text)
        returning 1
    )
    select count(*)::integer from told;
end;
comment on function posthaste.tell_ended(jsonb) is 'Adds an operational event for each of these deliveries, which were exhausted or rejected, and returns how many. Called by record.sql.';

create function posthaste.tell_breaker(subscription_id integer, is_open boolean, failures integer, held_for float8) returns uuid
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
return posthaste.tell(
    case when is_open then 'posthaste.breaker.opened' else 'posthaste.breaker.closed' end, case when is_open then 'error' else 'info' end, subscription_id,
    detail => case when is_open then jsonb_build_object('failures', failures, 'open_for_seconds', round(held_for)) else '{}' end);
comment on function posthaste.tell_breaker(integer, boolean, integer, float8) is 'Adds the operational event of a breaker that opened or closed. Called by posthaste.weigh and posthaste.settle_lanes.';

create function posthaste.weigh(
    subscription_ids integer[], requests integer[], failures integer[], runs integer[], asked_for float8[], to_pause text[]
) returns table (subscription_id integer, breaker text, before text, held_for float8, is_well boolean)
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    with told as materialized (
        select * from unnest(weigh.subscription_ids, weigh.requests, weigh.failures, weigh.runs, weigh.asked_for, weigh.to_pause)
            u (subscription_id, requests, failures, run, asked_for, to_pause)
    ), locked as materialized (
        -- In one order everywhere, so that two workers never wait for each other.
        select l.subscription_id, l as lane from posthaste.lane l
        where l.subscription_id = any (weigh.subscription_ids)
        order by l.subscription_id for update
    ), weighed as materialized (
        select (l.lane).breaker as before, w.*
        from told t
        join locked l using (subscription_id)
        cross join lateral (select x.breaker from posthaste.subscription x where x.subscription_id = t.subscription_id limit 1) s
        cross join lateral posthaste.weighed(l.lane, s.breaker, t.requests, t.failures, t.run, make_interval(secs => t.asked_for), t.to_pause, now()) w
    ), changed as (
        update posthaste.lane l
        set breaker = w.breaker, hold_until = w.hold_until, openings = w.openings, failures = w.failures, failing_since = w.failing_since,
            window_since = w.window_since, window_requests = w.window_requests, window_failures = w.window_failures,
            weighed_at = w.weighed_at, to_pause = w.to_pause, breaker_since = w.breaker_since
        from weighed w where l.subscription_id = w.subscription_id
    ), news as materialized (
        select posthaste.tell_breaker(w.subscription_id, w.breaker <> 'closed', w.failures, extract(epoch from greatest(w.hold_until, now()) - now())::float8)
        from weighed w where (w.breaker = 'closed') <> (w.before = 'closed')
    )
    select w.subscription_id, w.breaker::text, w.before::text, extract(epoch from greatest(w.hold_until, now()) - now())::float8,
           w.breaker = 'closed' and w.failures = 0 and w.window_since is null
    from weighed w cross join (select count(*) from news) told_of;
end;
comment on function posthaste.weigh(integer[], integer[], integer[], integer[], float8[], text[]) is
    'Weighs what came of attempts, subscription by subscription; see posthaste.weighed. Returns what that made of each: its breaker now and before, for how many seconds nothing is to be sent, and whether nothing is remembered that failed. Called by workers.';

create function posthaste.tell_overdue_rotations(most integer) returns table (subscription_id integer, number smallint)
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    insert into posthaste.operational_event (event_type, severity, subscription_id, number, detail)
    select 'posthaste.rotation.overdue', 'warning', s.subscription_id, k.number, jsonb_build_object('made_at', k.created_at)
    from posthaste.subscription s
    cross join posthaste.setting t
    cross join lateral (
        select x.number, x.created_at from posthaste.signing_secret x
        where x.subscription_id = s.subscription_id and (x.ends_at is null or x.ends_at > now())
        order by x.created_at desc, x.number desc limit 1
    ) k
    where s.removed_at is null and k.created_at + t.secrets_rotate < now()
      and not exists (
          select from posthaste.operational_event o
          where o.event_type = 'posthaste.rotation.overdue' and o.subscription_id = s.subscription_id and o.number = k.number)
    order by s.subscription_id limit tell_overdue_rotations.most
    on conflict (subscription_id, number) where event_type = 'posthaste.rotation.overdue' do nothing
    returning operational_event.subscription_id, operational_event.number;
end;
comment on function posthaste.tell_overdue_rotations(integer) is
    'Adds an operational event for each subscription whose newest secret has become older than agreed, once for that secret, and returns them. Called by workers.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- Guards and partitions
-- ---------------------------------------------------------------------------------------------------------------------------

create function posthaste.guard_history(history regclass) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- ENABLE ALWAYS: a session that calls itself a replica is refused too. TRUNCATE fires statement triggers only.
    execute format('create trigger no_truncate before truncate on %s for each statement execute function posthaste.refuse_change()', history);
    execute format('alter table %s enable always trigger no_truncate', history);
    if not exists (select from pg_trigger where tgrelid = history and tgname = 'no_change') then
        execute format('create trigger no_change before update or delete on %s for each row execute function posthaste.refuse_change()', history);
    end if;
    execute format('alter table %s enable always trigger no_change', history);
end
$$;
comment on function posthaste.guard_history(regclass) is 'Puts the triggers on a table, or on a new partition, that refuse UPDATE, DELETE and TRUNCATE.';

create function posthaste.create_partition(history regclass, day date, rows_of regclass default null) returns boolean
    language plpgsql security definer -- a partition belongs to the schema's owner, whoever had it made
    set search_path = pg_catalog, pg_temp
as $$
declare
    parent constant text := (select relname from pg_class where oid = history);
    partition constant text := format('posthaste.%I', parent || to_char(day, '"_"YYYYMMDD'));
    lower constant timestamptz := day::timestamp at time zone 'UTC';
    upper constant timestamptz := (day + 1)::timestamp at time zone 'UTC';
begin
    if to_regclass(partition) is not null then
        return false;
    end if;
    -- Made apart and attached, so that the parent is locked for the attach alone; against inserts only where the day has begun:
    -- an INSERT on its way to the default partition would wait there for our commit, and then be refused for being in the wrong one.
    execute format('create table %s (like %s including defaults including constraints)', partition, history);
    if rows_of is not null then
        -- Before it has triggers: what is moved here is fanned out already, or will be.
        execute format('insert into %s select * from %s where %s = %L', partition, rows_of, posthaste.day_of_row(parent), day);
    end if;
    if day <= (now() at time zone 'UTC')::date then
        execute format('lock table %s in share row exclusive mode', history);
    end if;
    if parent = 'outbox' then
        execute format('alter table posthaste.outbox attach partition %s for values from (%L) to (%L)',
            partition, posthaste.first_event_id(lower), posthaste.first_event_id(upper));
    else
        execute format('alter table %s attach partition %s for values from (%L) to (%L)', history, partition, lower, upper);
    end if;
    perform posthaste.adorn_partition(history, partition::regclass);
    return true;
end
$$;
comment on function posthaste.create_partition(regclass, date, regclass) is
    'Makes the partition of outbox or attempt for a day (UTC), with that day''s rows of another table, if one is named; false if it was there.';

create function posthaste.day_of_row(parent text) returns text
    language sql immutable
    set search_path = pg_catalog, pg_temp
return format('(%s at time zone ''UTC'')::date', case parent when 'outbox' then 'posthaste.event_time(event_id)' else 'started_at' end);
comment on function posthaste.day_of_row(text) is 'The expression that says which day a row of outbox or attempt is of.';

create function posthaste.adorn_partition(history regclass, partition regclass) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform posthaste.guard_history(partition);
    if history = 'posthaste.outbox'::regclass then
        -- An INSERT that names the partition itself fires this one instead of the parent's, and is taken in all the same.
        execute format('create trigger outbox_takes_in after insert on %s referencing new table as inserted
                        for each statement execute function posthaste.take_in()', partition);
    end if;
end
$$;
comment on function posthaste.adorn_partition(regclass, regclass) is 'Gives a partition the triggers that Postgres does not copy from its parent.';

create function posthaste.create_partitions(days_ahead integer) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    -- Rather give up and try again later than make a producer queue behind us.
    set lock_timeout = '200ms'
    set timezone = 'UTC'
as $$
declare
    made integer := 0;
    history regclass;
    day date;
begin
    if days_ahead is null or days_ahead not between 0 and 366 then
        perform posthaste.refuse('days_ahead', coalesce(days_ahead::text, 'null'), 'from 0 to 366');
    end if;
    -- One at a time; whoever comes second has nothing left to do.
    perform pg_advisory_xact_lock(1347375958, 0);
    for history, day in
        select h, d::date
        from unnest('{posthaste.outbox,posthaste.attempt}'::regclass[]) h,
             generate_series(current_date, current_date + days_ahead, interval '1 day') d
    loop
        -- To attach a partition, Postgres reads the whole default one, and inserts wait for it meanwhile: a moment while it is
        -- small, as it is if partitions were always made in time.
        if pg_relation_size(format('%s_default', history)::regclass) > 16 * 1024 * 1024 then
            raise warning 'no partition of % for %: the default partition is large, and inserts would wait while it is read; call posthaste.empty_default in a quiet hour', history, day;
            continue;
        end if;
        begin
            made := made + posthaste.create_partition(history, day)::int;
        exception when check_violation then
            -- The default partition holds rows of that day already. It goes on taking them; the other days get theirs.
            raise warning 'no partition of % for %: the default partition holds rows of that day; see posthaste.empty_default', history, day;
        end;
    end loop;
    return made;
end
$$;
comment on function posthaste.create_partitions(integer) is
    'Makes the partitions of today and of the coming days and returns how many were missing. Workers call it hourly. What comes without a partition lands in the default one and is delivered all the same.';

create function posthaste.empty_default(history regclass, reason text) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '5s'
as $$
declare
    parent constant text := (select relname from pg_class where oid = history and oid in ('posthaste.outbox'::regclass, 'posthaste.attempt'::regclass));
    held constant text := format('posthaste.%I', parent || '_default');
    days date[];
    moved bigint;
begin
    if parent is null then
        perform posthaste.refuse('history', coalesce(history::text, 'null'), 'posthaste.outbox or posthaste.attempt');
    end if;
    reason := posthaste.because(reason);
    -- Nobody reads or writes until we commit: a row is in one place at any time.
    execute format('lock table %s in access exclusive mode', history);
    execute format('select array_agg(distinct %s), count(*) from %s', posthaste.day_of_row(parent), held) into days, moved;
    if days is null then
        return 0;
    end if;
    execute format('alter table %s detach partition %s', history, held);
    perform posthaste.create_partition(history, day, held::regclass) from unnest(days) day;
    -- The one place that takes rows of history out of a table, and each of them is in its partition by now.
    execute format('alter table %s disable trigger no_truncate', held);
    execute format('truncate %s', held);
    execute format('alter table %s enable always trigger no_truncate', held);
    execute format('alter table %s attach partition %s default', history, held);
    perform posthaste.note('default_partition_emptied', parent || '_default', null, null, jsonb_build_object('rows', moved, 'days', cardinality(days)), reason);
    return cardinality(days);
end
$$;
comment on function posthaste.empty_default(regclass, text) is
    'Moves what lies in the default partition of outbox or attempt into partitions of its days, and returns how many those are. For whoever owns the schema, in a quiet hour: inserts and deliveries wait meanwhile, a second or two for 100,000 rows.';

create table posthaste.outbox_default partition of posthaste.outbox default;
create table posthaste.attempt_default partition of posthaste.attempt default;
comment on table posthaste.outbox_default is 'Takes what no day''s partition covers, so that no insert fails for want of one. Normally empty.';
comment on table posthaste.attempt_default is 'Takes what no day''s partition covers, so that no insert fails for want of one. Normally empty.';

select posthaste.guard_history('posthaste.outbox');
select posthaste.guard_history('posthaste.attempt');
select posthaste.guard_history('posthaste.audit_log');
select posthaste.guard_history('posthaste.subscription_revision');
select posthaste.guard_history('posthaste.cancellation');
select posthaste.guard_history('posthaste.operational_event');
select posthaste.guard_history('posthaste.replayed');
select posthaste.adorn_partition('posthaste.outbox', 'posthaste.outbox_default');
select posthaste.adorn_partition('posthaste.attempt', 'posthaste.attempt_default');

-- ---------------------------------------------------------------------------------------------------------------------------
-- Views for people. A login that is scoped to partners (see partner_scope) sees only theirs.
-- ---------------------------------------------------------------------------------------------------------------------------

create type posthaste.delivery_status as enum (
    'PENDING',          -- no attempt recorded yet
    'SUCCESS',          -- an attempt was accepted
    'FAILED',           -- attempts failed, another is due
    'RETRY_EXHAUSTED',  -- the last attempt of the retry policy failed
    'REJECTED',         -- refused for good
    'EXPIRED',          -- too late: the event's expires_at, or the subscription's max_age, has passed
    'CANCELLED'         -- ended by a person: cancelled, discarded, or its subscription removed
);
comment on type posthaste.delivery_status is 'Where a delivery stands.';

create view posthaste.event with (security_barrier) as
select o.event_id, posthaste.event_time(o.event_id) as inserted_at, o.occurred_at, o.event_type, o.tenant, o.metadata, o.traceparent,
       o.ordering_key, o.dedup_key, o.deliver_after, o.expires_at, o.payload
from posthaste.outbox o
where (select posthaste.scope()) is null or o.tenant = any ((select posthaste.scope())::text[]);
comment on view posthaste.event is 'Every event. Auditors do not see the payload.';

create view posthaste.delivery with (security_barrier) as
select d.event_id, d.subscription_id, d.replay, s.name as subscription, s.tenant, o.event_type, d.status, d.attempts, d.next_attempt_at,
       d.leased_to, d.finished_at, d.note, r.follows, r.replay_id
from (
    select q.event_id, q.subscription_id, q.replay,
           (case when q.attempts = 0 then 'PENDING' else 'FAILED' end)::posthaste.delivery_status as status,
           q.attempts, q.due_at as next_attempt_at, null::integer as leased_to, null::timestamptz as finished_at, null::text as note
    from posthaste.queue q
    union all
    select l.event_id, l.subscription_id, l.replay,
           (case when l.number = 1 then 'PENDING' else 'FAILED' end)::posthaste.delivery_status,
           (l.number - 1)::smallint, null, l.holder, null, null
    from posthaste.lease l
    union all
    select h.event_id, h.subscription_id, h.replay,
           (case when h.attempts = 0 then 'PENDING' else 'FAILED' end)::posthaste.delivery_status,
           h.attempts, null, null, null, 'quarantined: ' || h.reason
    from posthaste.quarantine h
    where h.decision is null or (h.decision = 'released' and not h.is_requeued)
    union all
    select f.event_id, f.subscription_id, f.replay, 'PENDING', 0::smallint, null, null, null,
           'waits behind ' || case when o.held_at is not null then 'the dead letter ' else '' end || coalesce(o.event_id::text, 'others') || ' of its ordering key'
    from posthaste.follower f
    left join posthaste.ordering o on (o.subscription_id, o.ordering_key) = (f.subscription_id, f.ordering_key)
    union all
    select c.event_id, c.subscription_id, c.replay, (case when c.is_expired then 'EXPIRED' else 'CANCELLED' end)::posthaste.delivery_status, c.attempts, null, null, c.cancelled_at, c.reason
    from posthaste.cancellation c
    union all
    select a.event_id, a.subscription_id, a.replay,
           (case a.verdict when 'done' then 'SUCCESS' when 'exhausted' then 'RETRY_EXHAUSTED' when 'expired' then 'EXPIRED' else 'REJECTED' end)::posthaste.delivery_status,
           a.number, null, null, a.started_at + make_interval(secs => coalesce(a.duration_us, 0) / 1000000.0), a.error
    from posthaste.attempt a
    where a.verdict in ('done', 'exhausted', 'rejected', 'expired')
) d
join posthaste.subscription s using (subscription_id)
left join posthaste.outbox o using (event_id)
left join posthaste.replayed r using (event_id, subscription_id, replay)
where (select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]);
comment on view posthaste.delivery is 'Every delivery, finished or not, with its status; note says why it is held, was cancelled or failed. A replay names the one that it follows and the replay that it is part of; replay -1 is a test.';

create view posthaste.attempt_log with (security_barrier) as
select a.event_id, a.subscription_id, s.name as subscription, s.tenant, a.replay, a.number, a.started_at, a.outcome, a.verdict, a.rule, a.http_status,
       a.error, a.next_attempt_at, a.duration_us, a.dns_us, a.connect_us, a.tls_us,
       -- The phases follow upon each other: the wait for the response head is what the others leave.
       case when a.http_status is not null then
           a.duration_us - coalesce(a.dns_us, 0) - coalesce(a.connect_us, 0) - coalesce(a.tls_us, 0) - coalesce(a.body_us, 0)
       end as first_byte_us,
       a.body_us, a.remote_address, a.signed_with, a.response, a.subscription_revision, a.worker_id, w.name as worker
from posthaste.attempt a
left join posthaste.subscription s using (subscription_id)
left join posthaste.worker w using (worker_id)
where (select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]);
comment on view posthaste.attempt_log is 'Every attempt with the names of its subscription and its worker, and with the time from sending to the complete response head.';

create view posthaste.dead_letter with (security_barrier) as
select a.event_id, a.subscription_id, a.replay, s.name as subscription, s.tenant, o.event_type,
       (case a.verdict when 'exhausted' then 'RETRY_EXHAUSTED' else 'REJECTED' end)::posthaste.delivery_status as status,
       a.number as attempts, a.started_at as last_attempt_at, a.outcome, a.http_status, a.error, a.response,
       posthaste.event_time(a.event_id) as inserted_at, s.removed_at is not null as is_removed,
       r.replay as replayed_as, r.queued_at as replayed_at, coalesce(r.replay_id, i.replay_id) as replay_id
from posthaste.attempt a
join posthaste.subscription s using (subscription_id)
left join posthaste.outbox o using (event_id)
left join posthaste.replayed r on (r.event_id, r.subscription_id, r.follows) = (a.event_id, a.subscription_id, a.replay)
left join posthaste.replay_item i on r.event_id is null and (i.event_id, i.subscription_id) = (a.event_id, a.subscription_id)
where a.verdict in ('exhausted', 'rejected') and a.replay >= 0
  and ((select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]));
comment on view posthaste.dead_letter is
    'Deliveries that were given up, with what their last attempt met. One that was replayed says as which delivery, and by which replay; with a replay_id alone it is about to be. A test is none.';

create view posthaste.replay_progress with (security_barrier) as
select r.replay_id, r.kind,
       case when r.cancelled_by is not null then 'cancelled' when r.finished_at is not null then 'finished' else 'under way' end as state,
       p.tenant, p.subscriptions, r.asked, r.reason, r.asked_by, r.asked_for, r.asked_at, r.rate,
       p.total, p.queued, p.skipped, p.total - p.queued - p.skipped as remaining,
       case when r.finished_at is null then greatest(r.used_until, now()) + make_interval(secs => (p.total - p.queued - p.skipped) / r.rate::float8) end as expected_end,
       r.finished_at, r.cancelled_by, r.cancelled_for, r.cancel_reason
from posthaste.replay r
cross join lateral (
    select sum(x.total)::bigint as total, sum(x.queued)::bigint as queued, sum(x.skipped)::bigint as skipped,
           case when count(distinct coalesce(s.tenant, '')) = 1 then min(s.tenant) end as tenant,
           array_agg(s.name order by s.name) as subscriptions,
           bool_and((select posthaste.scope()) is null or coalesce(s.tenant = any ((select posthaste.scope())::text[]), false)) as is_in_scope
    from posthaste.replay_part x join posthaste.subscription s using (subscription_id)
    where x.replay_id = r.replay_id
) p
where p.is_in_scope;
comment on view posthaste.replay_progress is
    'Every replay and test, and how far it has come: of all its deliveries, how many are in the queue or beyond, how many were left out, how many remain, and when it will be done at its rate if no endpoint is behind. What became of them: posthaste.delivery where replay_id = it.';

create view posthaste.operations with (security_barrier) as
select e.id, e.at, e.event_type, e.severity, e.subscription_id, s.name as subscription, s.tenant, e.event_id, o.event_type as about, e.replay, e.number,
       e.worker_id, w.name as worker, e.detail
from posthaste.operational_event e
left join posthaste.subscription s using (subscription_id)
left join posthaste.outbox o on o.event_id = e.event_id
left join posthaste.worker w using (worker_id)
where (select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[])
order by e.id desc;
comment on view posthaste.operations is 'What operators should know, newest first, with names; about is the type of the event whose delivery it is about.';

create view posthaste.subscription_terms with (security_barrier) as
select r.subscription_id, s.name as subscription, s.tenant, r.revision, r.since,
       lead(r.since) over (partition by r.subscription_id order by r.revision) as until,
       r.terms, r.signing_secrets, r.changed_by
from posthaste.subscription_revision r
join posthaste.subscription s using (subscription_id)
where (select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]);
comment on view posthaste.subscription_terms is 'Every revision of every subscription: the terms under which an attempt with that subscription_revision was made.';

create view posthaste.change with (security_barrier) as
select c.change_id, c.kind, coalesce(c.terms, c.before) ->> 'name' as subscription, coalesce(c.terms, c.before) ->> 'tenant' as tenant,
       case when c.decision is not null then c.decision when c.expires_at <= now() then 'expired' else 'open' end as state,
       -- What differs, field by field: {"url": {"from": ..., "to": ...}}.
       case when c.kind = 'change' then (
           select jsonb_object_agg(t.key, jsonb_build_object('from', c.before -> t.key, 'to', t.value))
           from jsonb_each(c.terms) t where c.before -> t.key is distinct from t.value)
       else coalesce(c.terms, c.before) end as what,
       c.reason, c.proposed_by, c.proposed_for, c.proposed_at, c.expires_at, c.decided_by, c.decided_for, c.decided_at, c.decision_reason
from posthaste.subscription_change c
where (select posthaste.scope()) is null or coalesce(c.terms, c.before) ->> 'tenant' = any ((select posthaste.scope())::text[]);
comment on view posthaste.change is 'Every proposal, with what it changes and what was decided.';

create view posthaste.audit with (security_barrier) as
select a.entry, a.at, a.actor, a.application_user, a.action, a.object, a.tenant, a.before, a.after, a.reason, encode(a.digest, 'hex') as digest
from posthaste.audit_log a
where (select posthaste.scope()) is null or a.tenant = any ((select posthaste.scope())::text[]);
comment on view posthaste.audit is 'The audit log.';

create view posthaste.secret_overview with (security_barrier) as
select s.subscription_id, s.name as subscription, s.tenant,
       count(k.number) filter (where k.ciphertext is not null and k.is_live) as live,
       count(k.number) filter (where k.ciphertext is null and k.is_live) as asked_for,
       max(k.created_at) filter (where k.is_live) as newest_made_at,
       min(k.ends_at) filter (where k.is_live) as next_end_at,
       coalesce(max(k.created_at) filter (where k.is_live) + t.secrets_rotate < now(), false) as is_overdue,
       array((select h.key from jsonb_each(s.headers) h where h.value = '{"secret": true}'
              union all select ':authentication' where s.authentication is not null
              union all select ':client_key' where s.tls ? 'certificate')
             except select x.name from posthaste.credential x where x.subscription_id = s.subscription_id order by 1) as credentials_without_value
from posthaste.subscription s
cross join posthaste.setting t
left join lateral (
    select *, x.ends_at is null or x.ends_at > now() as is_live from posthaste.signing_secret x where x.subscription_id = s.subscription_id
) k on true
where s.removed_at is null
  and ((select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]))
group by s.subscription_id, t.secrets_rotate;
comment on view posthaste.secret_overview is 'How many secrets each subscription has, how old the newest is, and whether its rotation is overdue. Never a secret.';

create view posthaste.id_map with (security_barrier) as
select e.partner, e.kind, e.internal, e.external, e.is_pseudonym, e.created_at, e.created_by
from posthaste.external_id e
where (select posthaste.scope()) is null or e.partner = any ((select posthaste.scope())::text[]);
comment on view posthaste.id_map is 'What partners call our things.';

create view posthaste.preparation_log with (security_barrier) as
select p.at, s.name as subscription, s.tenant, p.kind, p.url, p.outcome, p.http_status, p.error, p.duration_us, p.worker_id
from posthaste.preparation p
join posthaste.subscription s using (subscription_id)
where (select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]);
comment on view posthaste.preparation_log is 'Requests that workers made to be able to deliver: for permission, and for access tokens.';

create view posthaste.handshake_log with (security_barrier) as
select h.granted_at, s.name as subscription, s.tenant, h.url, h.origin, h.rate, h.granted_by
from posthaste.handshake h
join posthaste.subscription s using (subscription_id)
where (select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]);
comment on view posthaste.handshake_log is 'What receivers allowed when they were asked.';

create view posthaste.public_key with (security_barrier) as
select s.subscription_id, s.name as subscription, s.tenant, k.number, k.secret_id as key_id, k.public_key, k.created_at, k.ends_at
from posthaste.signing_secret k
join posthaste.subscription s using (subscription_id)
where k.public_key is not null and s.removed_at is null and (k.ends_at is null or k.ends_at > now())
  and ((select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]));
comment on view posthaste.public_key is 'The public keys that verify standard_v1a signatures, while they sign: for partners, by `posthaste secret jwks` or the listener''s /jwks.json.';

create view posthaste.subscription_overview with (security_barrier) as
select s.subscription_id, s.name as subscription, s.tenant,
       case when s.removed_at is not null then 'removed'
            when not s.active then 'paused'
            when l.breaker <> 'closed' then 'breaker ' || replace(l.breaker::text, '_', ' ')
            when l.hold_until > now() then 'held, as its receiver asked'
            when k.live = 0 then 'waits for a signing secret'
            when cardinality(k.credentials_without_value) > 0 then 'waits for the value of a credential'
            else 'active' end as state,
       s.url, s.event_types, s.revision,
       a.hour_done::float8 / nullif(a.hour_all, 0) as success_last_hour,
       a.day_done::float8 / nullif(a.day_all, 0) as success_last_day,
       nullif(greatest(l.hold_until, now()), now()) as held_until, l.failing_since,
       coalesce(b.waiting, 0) as backlog, b.oldest as oldest_waiting_since,
       a.last_failure_at, a.last_failure, s.contact
from posthaste.subscription s
left join posthaste.secret_overview k using (subscription_id)
left join posthaste.lane l using (subscription_id)
left join (
    select subscription_id, count(*) as day_all, count(*) filter (where verdict = 'done') as day_done,
           count(*) filter (where started_at > now() - interval '1 hour') as hour_all,
           count(*) filter (where started_at > now() - interval '1 hour' and verdict = 'done') as hour_done,
           max(started_at) filter (where outcome not in ('accepted', 'sandboxed')) as last_failure_at,
           (array_agg(error order by started_at desc) filter (where outcome not in ('accepted', 'sandboxed')))[1] as last_failure
    from posthaste.attempt where started_at > now() - interval '1 day' group by subscription_id
) a using (subscription_id)
left join (
    select subscription_id, count(*) as waiting, posthaste.event_time(min(event_id::text)::uuid) as oldest
    from (select subscription_id, event_id from posthaste.queue union all select subscription_id, event_id from posthaste.follower) w
    group by subscription_id
) b using (subscription_id)
where (select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]);
comment on view posthaste.subscription_overview is
    'How each subscription fares. Success is accepted attempts of all attempts. Reads a day of attempts and all that waits: for people, not for every few seconds.';

create view posthaste.consumer with (security_barrier) as
select s.subscription_id, s.name as subscription, s.tenant, substring(s.url from '^https?://([^/?]+)') as host, s.event_types, s.unknown_types, s.filter,
       s.active, s.created_at as since, c.proposed_by, c.decided_by as approved_by, s.contact, s.description
from posthaste.subscription s
left join posthaste.subscription_change c on c.subscription_id = s.subscription_id and c.kind = 'create' and c.decision = 'approved'
where s.removed_at is null
  and ((select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]));
comment on view posthaste.consumer is 'Every party that can receive anything, who proposed it, and who approved it. Nothing leaves but to one of these.';

create view posthaste.unrouted with (security_barrier) as
select u.event_type, case when c.event_type is null then 'not in the catalogue' else 'not active in the catalogue' end as reason,
       u.events, u.first_at, u.last_at, u.last_event as event_id, null::text[] as held_for
from posthaste.unknown_event_type u
left join posthaste.event_type c using (event_type)
where c.active is distinct from true and not posthaste.is_dismissed(u) and (select posthaste.scope()) is null
union all
select o.event_type, min(q.reason), 1, min(q.held_at), max(q.held_at), q.event_id, array_agg(s.name order by s.name)
from posthaste.quarantine q
join posthaste.subscription s using (subscription_id)
left join posthaste.outbox o using (event_id)
where q.decision is null
  and ((select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]))
group by q.event_id, o.event_type;
comment on view posthaste.unrouted is
    'What did not reach anybody, and why: types that the catalogue does not have (one row each), and events held in quarantine (one row each; see posthaste.release and posthaste.discard).';

create view posthaste.ordered_key with (security_barrier) as
select o.subscription_id, s.name as subscription, s.tenant, o.ordering_key, o.event_id, o.replay, o.held_at,
       (select count(*) from posthaste.follower f
        where f.subscription_id = o.subscription_id and f.ordering_key = o.ordering_key) as waiting
from posthaste.ordering o
join posthaste.subscription s using (subscription_id)
where (select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]);
comment on view posthaste.ordered_key is
    'Ordering keys of which a delivery is under way, waits or holds the others (held_at), and how many wait behind it; see posthaste.skip_ordered.';

create view posthaste.worker_alive as
select w.worker_id, w.name, w.version, w.started_at, w.settings_digest, w.clock_difference, w.certificate_ends, w.noted_at
from posthaste.worker w
where w.ended_at is null
  and exists (
      select from pg_locks l
      where l.locktype = 'advisory' and l.granted and l.objsubid = 2
        and l.database = (select oid from pg_database where datname = current_database())
        and l.classid = 1347375957 and l.objid = w.worker_id::oid);
comment on view posthaste.worker_alive is 'Workers whose session advisory lock stands: alive this very moment.';

create function posthaste.delivery_id(event_id uuid, subscription_id integer, replay smallint default 0) returns uuid
    language sql immutable parallel safe
    set search_path = pg_catalog, pg_temp
return (
    select encode(set_byte(set_byte(d.digest, 6, get_byte(d.digest, 6) & 15 | 128), 8, get_byte(d.digest, 8) & 63 | 128), 'hex')::uuid
    from (select substr(sha256(uuid_send(event_id) || int4send(subscription_id) || int2send(replay)), 1, 16) as digest) d);
comment on function posthaste.delivery_id(uuid, integer, smallint) is 'What a partner sees as the delivery''s id, in <prefix>-Delivery or where its envelope says: the same on every attempt, another for each replay.';

create function posthaste.event_history(event_id uuid)
    returns table (at timestamptz, what text, subscription text, detail text)
    language sql stable security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    select h.at, h.what, h.subscription, h.detail from (
        select e.inserted_at as at, 'inserted' as what, null::text as subscription, e.event_type as detail, 0 as place
        from posthaste.event e where e.event_id = event_history.event_id
        union all
        select a.started_at, format('attempt %s%s %s', a.number, case when a.replay > 0 then format(' of replay %s', a.replay) when a.replay < 0 then ' of the test' end, a.outcome), a.subscription,
               concat_ws(', ', a.http_status::text, a.error, a.verdict::text || coalesce(' at ' || a.next_attempt_at, ''), 'by ' || a.rule, 'worker ' || a.worker_id), 1
        from posthaste.attempt_log a where a.event_id = event_history.event_id
        union all
        select q.held_at, 'quarantined', s.name, q.reason, 2
        from posthaste.quarantine q join posthaste.subscription s using (subscription_id)
        where q.event_id = event_history.event_id and posthaste.is_in_scope(s.tenant)
        union all
        select q.decided_at, q.decision, s.name, q.decided_by || ': ' || q.decision_reason, 3
        from posthaste.quarantine q join posthaste.subscription s using (subscription_id)
        where q.event_id = event_history.event_id and q.decision is not null and posthaste.is_in_scope(s.tenant)
        union all
        select r.queued_at, case r.kind when 'test' then 'test queued' else format('replay %s queued', r.replay) end, r.name,
               concat_ws(', ', case r.follows when 0 then 'follows the first delivery' else 'follows replay ' || r.follows end, 'replay_id ' || r.replay_id,
                         'asked for by ' || coalesce(r.asked_for || ' through ', '') || r.asked_by || ': ' || r.reason), 0
        from (
            select x.*, p.kind, p.asked_by, p.asked_for, p.reason, s.name
            from posthaste.replayed x join posthaste.replay p using (replay_id) join posthaste.subscription s using (subscription_id)
            where x.event_id = event_history.event_id and posthaste.is_in_scope(s.tenant)
        ) r
        union all
        select p.asked_at, 'replay asked for', s.name, format('replay_id %s, by %s: %s', p.replay_id, coalesce(p.asked_for || ' through ', '') || p.asked_by, p.reason), 0
        from posthaste.replay_item i join posthaste.replay p using (replay_id) join posthaste.subscription s using (subscription_id)
        where i.event_id = event_history.event_id and posthaste.is_in_scope(s.tenant)
        union all
        select c.asked_at, 'cancel asked for', s.name, format('by %s: %s', coalesce(c.asked_for || ' through ', '') || c.asked_by, c.reason), 3
        from posthaste.cancel_request c left join posthaste.subscription s using (subscription_id)
        where c.event_id = event_history.event_id
          and (posthaste.scope() is null or coalesce(s.tenant = any (posthaste.scope()), c.tenants <@ posthaste.scope(), false))
        union all
        select c.cancelled_at, case when c.is_expired then 'expired' else 'cancelled' end, s.name, c.reason, 4
        from posthaste.cancellation c join posthaste.subscription s using (subscription_id)
        where c.event_id = event_history.event_id and posthaste.is_in_scope(s.tenant)
        union all
        select coalesce(d.next_attempt_at, now()), case when d.leased_to is null then 'waits' else 'under way' end, d.subscription,
               coalesce('worker ' || d.leased_to, 'due at ' || d.next_attempt_at, d.note), 5
        from posthaste.delivery d where d.event_id = event_history.event_id and d.finished_at is null
    ) h order by h.at, h.place;
end;
comment on function posthaste.event_history(uuid) is 'The whole story of one event in the order of time: inserted, each attempt, quarantine and release, replays, cancels, and what still waits.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- Functions for people. Each runs as the owner of the schema, checks who calls, and writes to the audit log what it did.
-- ---------------------------------------------------------------------------------------------------------------------------

create function posthaste.publish(
    event_type text,
    payload json,
    occurred_at timestamptz default clock_timestamp(),
    tenant text default null,
    metadata json default null,
    traceparent text default null,
    ordering_key text default null,
    dedup_key text default null,
    deliver_after timestamptz default null,
    expires_at timestamptz default null
) returns uuid
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    id uuid := posthaste.new_event_id();
begin
    perform set_config('posthaste.first_event', '', true) where dedup_key is not null;
    insert into posthaste.outbox (event_id, event_type, payload, occurred_at, tenant, metadata, traceparent,
                                  ordering_key, dedup_key, deliver_after, expires_at)
    values (id, publish.event_type, publish.payload, publish.occurred_at, publish.tenant, publish.metadata, publish.traceparent,
            publish.ordering_key, publish.dedup_key, publish.deliver_after, publish.expires_at);
    if not found then
        -- posthaste.admit tells which event came first.
        id := nullif(current_setting('posthaste.first_event', true), '');
    end if;
    return id;
end
$$;
comment on function posthaste.publish(text, json, timestamptz, text, json, text, text, text, timestamptz, timestamptz) is
    'Inserts one event into the outbox and returns its id; where its dedup key came before, the id of the first event with it. The same as the plain INSERT, for those who prefer a call.';

-- The event catalogue.

create function posthaste.create_event_type(
    event_type text,
    description text,
    schema json default null,
    example json default null,
    owner text default null
) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform posthaste.refuse_scoped();
    if starts_with(event_type, 'posthaste.') then
        perform posthaste.refuse('event_type', event_type, 'types that begin with posthaste. are those of posthaste''s own events');
    end if;
    if description is null or btrim(description) = '' then
        perform posthaste.refuse('description', coalesce(description, 'null'), 'say what it means, for whoever subscribes to it');
    end if;
    insert into posthaste.event_type (event_type, description, schema, example, owner)
    values (create_event_type.event_type, create_event_type.description, create_event_type.schema, create_event_type.example, create_event_type.owner);
    perform posthaste.note('event_type_created', create_event_type.event_type, null, null,
        (select to_jsonb(c) - 'patterns' from posthaste.event_type c where c.event_type = create_event_type.event_type), null);
exception when unique_violation then
    perform posthaste.refuse('event_type', create_event_type.event_type, 'it is in the catalogue already; see posthaste.change_event_type');
end
$$;
comment on function posthaste.create_event_type(text, text, json, json, text) is 'Adds an event type to the catalogue, so that it can be subscribed to.';

create function posthaste.change_event_type(event_type text, changes jsonb, reason text default null) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    c posthaste.event_type;
    before jsonb;
    field text;
begin
    perform posthaste.refuse_scoped();
    if starts_with(event_type, 'posthaste.') then
        perform posthaste.refuse('event_type', event_type, 'types that begin with posthaste. stay as they are');
    end if;
    select * into c from posthaste.event_type t where t.event_type = change_event_type.event_type for update;
    if not found then
        perform posthaste.refuse('event_type', change_event_type.event_type, 'it is not in the catalogue; see posthaste.create_event_type');
    end if;
    if jsonb_typeof(changes) is distinct from 'object' then
        perform posthaste.refuse('changes', changes::text, 'a JSON object such as {"active": false}');
    end if;
    select k into field from jsonb_object_keys(changes) k where k <> all ('{description,schema,example,owner,active}') limit 1;
    if found then
        perform posthaste.refuse('field', field, 'one of description, schema, example, owner, active');
    end if;
    if changes ? 'active' and jsonb_typeof(changes -> 'active') <> 'boolean' then
        perform posthaste.refuse('active', changes ->> 'active', 'true or false');
    end if;
    if changes ? 'description' and btrim(coalesce(changes ->> 'description', '')) = '' then
        perform posthaste.refuse('description', coalesce(changes ->> 'description', 'null'), 'say what it means, for whoever subscribes to it');
    end if;
    before := to_jsonb(c) - 'patterns';
    update posthaste.event_type t
    set description = case when changes ? 'description' then changes ->> 'description' else t.description end,
        schema = case when changes ? 'schema' then nullif(changes -> 'schema', 'null')::json else t.schema end,
        example = case when changes ? 'example' then nullif(changes -> 'example', 'null')::json else t.example end,
        owner = case when changes ? 'owner' then changes ->> 'owner' else t.owner end,
        active = case when changes ? 'active' then (changes ->> 'active')::boolean else t.active end,
        revision = t.revision + 1
    where t.event_type = change_event_type.event_type
    returning * into c;
    perform posthaste.note('event_type_changed', change_event_type.event_type, null, before, to_jsonb(c) - 'patterns', reason);
end
$$;
comment on function posthaste.change_event_type(text, jsonb, text) is
    'Changes fields of an event type: description, schema, example, owner, active, as a JSON object. Takes effect at the next event.';

-- Subscriptions: terms, and who may agree to them.

create function posthaste.because(reason text) returns text
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    if reason is null or btrim(reason) = '' or length(reason) > 1000 then
        perform posthaste.refuse('reason', coalesce(reason, 'null'), '1 to 1000 characters that say why, for whoever reads the audit log');
    end if;
    return reason;
end
$$;
comment on function posthaste.because(text) is 'The reason, where one was given; raises otherwise.';

create function posthaste.terms(s posthaste.subscription) returns jsonb
    language sql stable
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
return jsonb_build_object(
    'name', s.name, 'tenant', s.tenant, 'url', s.url, 'event_types', to_jsonb(s.event_types), 'unknown_types', s.unknown_types,
    'filter', s.filter, 'retry_intervals', to_jsonb(s.retry_intervals::text[]), 'retry_jitter', s.retry_jitter,
    'client_errors', s.client_errors, 'max_age', s.max_age::text, 'breaker', s.breaker, 'pause_after', s.pause_after::text, 'sandbox', s.sandbox,
    'timeout', s.timeout::text, 'concurrency', s.concurrency, 'rates', s.rates, 'headers', s.headers, 'networks', to_jsonb(s.networks),
    'after_dead_letter', s.after_dead_letter, 'partner', s.partner, 'envelope', s.envelope, 'envelope_values', s.envelope_values,
    'signatures', to_jsonb(s.signatures), 'header_prefix', s.header_prefix, 'user_agent', s.user_agent, 'pass_trace', s.pass_trace,
    'authentication', s.authentication, 'tls', s.tls, 'handshake', s.handshake, 'mask', s.mask,
    'description', s.description, 'contact', s.contact, 'active', s.active);
comment on function posthaste.terms(posthaste.subscription) is 'A subscription''s terms as one JSON object: what is proposed, approved, and kept for each revision.';

create function posthaste.checked_url(url text) returns text
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    label constant text := '[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?';
    rule constant text := 'https://host[:port][/path][?query], lower-case ASCII host, no user, no fragment, no spaces, the rest percent-encoded, at most 2048 characters';
    parts text[];
    host text;
    address inet;
begin
    parts := regexp_match(url, format('^(https?)://(%s(?:\.%s)*|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?(?:[/?](?:[!$&-;=?-Z_a-z~]|%%[0-9A-Fa-f]{2})*)?$',
        replace(label, '(', '(?:'), replace(label, '(', '(?:')));
    if parts is null or length(url) > 2048 then
        return posthaste.refuse('url', coalesce(url, 'null'), rule);
    end if;
    host := parts[2];
    if parts[3]::integer > 65535 then
        return posthaste.refuse('url', url, 'a port is 1 to 65535');
    end if;
    -- What ends in a number is an address to some parsers, in whatever base; only the plain form means the same to all.
    if host ~ '^\[|(^|\.)(0x[0-9a-f]*|[0-9]+)$' then
        begin
            address := btrim(host, '[]')::inet;
        exception when others then
            return posthaste.refuse('url', url, format('%s is not an address in its plain form', host));
        end;
        if (case family(address) when 4 then host(address) else '[' || host(address) || ']' end) <> host then
            return posthaste.refuse('url', url, format('%s is not an address in its plain form', host));
        end if;
    elsif length(host) > 253 then
        return posthaste.refuse('url', url, 'a host name has at most 253 characters');
    elsif host <> 'localhost' and host !~ '\.' then
        return posthaste.refuse('url', url, 'a host name has a dot in it');
    end if;
    -- Plain http to this very machine is for trials: every worker refuses it too, unless its configuration allows it.
    if parts[1] = 'http' and not (host = 'localhost' or coalesce(address <<= inet '127.0.0.0/8' or address = inet '::1', false)) then
        return posthaste.refuse('url', url, rule);
    end if;
    return url;
end
$$;
comment on function posthaste.checked_url(text) is 'The URL, where it keeps the rules; raises otherwise.';

create function posthaste.checked_headers(headers jsonb) returns jsonb
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    name text;
    value jsonb;
begin
    if jsonb_typeof(headers) is distinct from 'object' then
        perform posthaste.refuse('headers', coalesce(jsonb_typeof(headers), 'null'), 'a JSON object of names and texts, such as {"X-Environment": "production"}');
    end if;
    if (select count(*) from jsonb_object_keys(headers)) > 20 then
        perform posthaste.refuse('headers', 'of that number', 'at most 20');
    end if;
    if (select count(distinct lower(k)) < count(*) from jsonb_object_keys(headers) k) then
        perform posthaste.refuse('headers', (select string_agg(k, ', ') from jsonb_object_keys(headers) k), 'each name once, whatever its case');
    end if;
    for name, value in select * from jsonb_each(headers) loop
        if name !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,100}$' then
            perform posthaste.refuse('header name', name, '1 to 100 characters of A-Z a-z 0-9 and !#$%&''*+-.^_`|~');
        end if;
        -- What we set ourselves, and what decides where a request ends or where it goes.
        if lower(name) ~ '^(webhook-.*|svix-.*|ce-.*|content-.*|proxy-.*|sec-.*|(stripe|x-hook0|x-convoy)-signature|x-hub-signature-256|x-shopify-hmac-sha256|traceparent|tracestate|host|connection|keep-alive|transfer-encoding|te|trailer|upgrade|expect|date|user-agent|accept-encoding|http2-settings)$' then
            perform posthaste.refuse('header name', name, 'not one that we set ourselves, or that frames or routes the request');
        end if;
        if value = '{"secret": true}' then
            continue;
        end if;
        -- Whatever carries a credential would lie here in the clear, and in everybody's sight. No value is shown, whichever rule it breaks.
        if name ~* 'auth|secret|token|passw|credential|cookie|api[-_.]?key|(^|[-_.])key$' or value::text ~* '^"(bearer|basic) ' then
            perform posthaste.refuse(format('header %s', name), '(not shown)', 'a credential is {"secret": true}, and its value is imported with `posthaste secret import --header`');
        end if;
        if jsonb_typeof(value) <> 'string' then
            perform posthaste.refuse(format('header %s', name), '(not shown)', 'a text, or {"secret": true} for one whose value is imported apart');
        end if;
        if value #>> '{}' !~ '^[!-~]([ !-~]*[!-~])?$' or length(value #>> '{}') > 2048 then
            perform posthaste.refuse(format('header %s', name), '(not shown)', '1 to 2048 visible ASCII characters, with spaces only between them');
        end if;
    end loop;
    return headers;
end
$$;
comment on function posthaste.checked_headers(jsonb) is 'The extra headers, where none can collide with ours, split a request or show a credential; raises otherwise.';

create function posthaste.checked_network(network text) returns text
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    parts constant text[] := coalesce(
        regexp_match(network, '^\[([0-9a-fA-F]*:[0-9a-fA-F:.]*(?:/[0-9]{1,3})?)\](?::([1-9][0-9]{0,4}))?$'),
        regexp_match(network, '^([0-9]+(?:\.[0-9]+){3}(?:/[0-9]{1,2})?)(?::([1-9][0-9]{0,4}))?$'),
        regexp_match(network, '^([0-9a-fA-F]*:[0-9a-fA-F:.]*/[0-9]{1,3})$'));
    rule constant text := 'a network and perhaps a port: 203.0.113.0/24, 203.0.113.0/24:443, [2001:db8::/32]:443; no bits beyond the mask, not everything';
    range cidr;
begin
    range := parts[1]::cidr;
    if parts is null or masklen(range) = 0 or parts[2]::integer > 65535 then
        return posthaste.refuse('network', coalesce(network, 'null'), rule);
    end if;
    return case when coalesce(parts[2], '') = '' then range::text
                when family(range) = 6 then format('[%s]:%s', range, parts[2])
                else format('%s:%s', range, parts[2]) end;
exception when invalid_text_representation then
    return posthaste.refuse('network', network, rule);
end
$$;
comment on function posthaste.checked_network(text) is 'A network in its plain form; raises where it is none.';

create function posthaste.checked_interval(field text, value jsonb, least_allowed interval, most_allowed interval) returns text
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
as $$
declare
    span interval;
begin
    if jsonb_typeof(value) is distinct from 'string' then
        return posthaste.refuse(field, coalesce(value::text, 'null'), 'an interval in quotes, such as "5 minutes"');
    end if;
    begin
        span := (value #>> '{}')::interval;
    exception when others then
        return posthaste.refuse(field, value #>> '{}', 'an interval such as 5 minutes');
    end;
    if extract(epoch from span) not between extract(epoch from least_allowed) and extract(epoch from most_allowed) then
        return posthaste.refuse(field, value #>> '{}', format('from %s to %s', least_allowed, most_allowed));
    end if;
    return span::text;
end
$$;
comment on function posthaste.checked_interval(text, jsonb, interval, interval) is 'An interval as Postgres writes it, where it lies within bounds; raises otherwise.';

create function posthaste.checked_text(field text, value jsonb, longest integer) returns text
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(jsonb_typeof(value), 'null') = 'null' then
        return null;
    end if;
    if jsonb_typeof(value) <> 'string' or length(value #>> '{}') not between 1 and longest or value #>> '{}' ~ '[[:cntrl:]]' then
        return posthaste.refuse(field, value #>> '{}', format('a text of 1 to %s characters on one line, or null', longest));
    end if;
    return value #>> '{}';
end
$$;
comment on function posthaste.checked_text(text, jsonb, integer) is 'A text, or null; raises where it is neither.';

create function posthaste.checked_rates(rates jsonb) returns jsonb
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    rate jsonb;
    field text;
    checked jsonb := '[]';
begin
    if jsonb_typeof(rates) is distinct from 'array' or jsonb_array_length(rates) > 4 then
        perform posthaste.refuse('rates', coalesce(rates::text, 'null'), 'a list of at most 4 rates such as {"requests": 100, "period": "1 minute"}; [] for no limit');
    end if;
    for rate in select jsonb_array_elements(rates) loop
        if jsonb_typeof(rate) <> 'object' or exists (select from jsonb_object_keys(rate) k where k <> all ('{requests,period,burst,block}')) then
            perform posthaste.refuse('rates', rate::text, 'an object of requests, period and perhaps burst and block');
        end if;
        foreach field in array '{requests,burst}'::text[] loop
            if (field = 'requests' or rate ? 'burst')
               and (jsonb_typeof(rate -> field) is distinct from 'number' or rate ->> field !~ '^[1-9][0-9]{0,5}$') then
                perform posthaste.refuse('rates: ' || field, coalesce(rate ->> field, 'null'), 'a whole number from 1 to 999999');
            end if;
        end loop;
        if rate ? 'block' then
            rate := jsonb_set(rate, '{block}', to_jsonb(posthaste.checked_interval('rates: block', rate -> 'block', '1 second', '1 day')));
        end if;
        checked := checked || jsonb_set(rate, '{period}', to_jsonb(posthaste.checked_interval('rates: period', rate -> 'period', '1 second', '1 day')));
    end loop;
    return checked;
end
$$;
comment on function posthaste.checked_rates(jsonb) is 'The rates in one form; raises where a rule is broken.';

create function posthaste.retry_schedule(name text) returns interval[]
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return case name
        when 'standard_webhooks' then '{5 seconds,5 minutes,30 minutes,2 hours,5 hours,10 hours,14 hours,20 hours,24 hours}'::interval[]
        when 'five_retries' then '{15 seconds,1 minute,5 minutes,15 minutes,1 hour}'
        when 'four_retries' then '{1 minute,5 minutes,15 minutes,1 hour}'
        when 'three_retries' then posthaste.exponential_schedule('1 minute', 2, '1 hour', 3)
        when 'once' then '{}'
    end;
end
$$;
comment on function posthaste.retry_schedule(text) is
    'The intervals of a schedule that people know by name: standard_webhooks (the default), five_retries (15 s to 1 h), four_retries (1 min to 1 h), three_retries (1, 2 and 4 min), once (no retry). Null for any other name.';

create function posthaste.exponential_schedule(base interval, factor numeric, cap interval, count integer) returns interval[]
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    seconds constant numeric := extract(epoch from base);
    most constant numeric := extract(epoch from cap);
    waits interval[] := '{}';
begin
    if seconds is null or seconds not between 0.001 and 2592000 then
        perform posthaste.refuse('base', coalesce(base::text, 'null'), 'from 1 millisecond to 30 days');
    end if;
    if factor is null or factor not between 1 and 100 then
        perform posthaste.refuse('factor', coalesce(factor::text, 'null'), 'from 1 to 100');
    end if;
    if most is null or most not between seconds and 2592000 then
        perform posthaste.refuse('cap', coalesce(cap::text, 'null'), 'from the base to 30 days');
    end if;
    if count is null or count not between 0 and 50 then
        perform posthaste.refuse('count', coalesce(count::text, 'null'), 'from 0 to 50');
    end if;
    for n in 0 .. count - 1 loop
        -- Ten thousand times the cap is beyond it, whatever the factor's power would be.
        waits := waits || make_interval(secs => least(most, seconds * least(power(factor::float8, n)::numeric, 1e11)));
    end loop;
    return waits;
end
$$;
comment on function posthaste.exponential_schedule(interval, numeric, interval, integer) is
    'As many intervals as count says: base, base times factor, times factor again and so on, none longer than cap.';

create function posthaste.checked_schedule(value jsonb) returns jsonb
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
as $$
declare
    rule constant text := 'a list of at most 50 intervals ([] to try once), a name (standard_webhooks, five_retries, four_retries, three_retries, once), or {"exponential": {"base": "10 seconds", "factor": 2, "cap": "1 hour", "count": 8}}';
    exponential constant jsonb := value -> 'exponential';
    waits jsonb;
begin
    case jsonb_typeof(value)
        when 'string' then
            waits := to_jsonb(posthaste.retry_schedule(value #>> '{}')::text[]);
        when 'object' then
            if (select count(*) <> 1 from jsonb_object_keys(value)) or jsonb_typeof(exponential) is distinct from 'object'
               or (select array_agg(k order by k) from jsonb_object_keys(exponential) k) is distinct from '{base,cap,count,factor}'
               or jsonb_typeof(exponential -> 'factor') <> 'number' or exponential ->> 'factor' !~ '^[0-9]{1,3}(\.[0-9]{1,6})?$'
               or jsonb_typeof(exponential -> 'count') <> 'number' or exponential ->> 'count' !~ '^[0-9]{1,2}$' then
                perform posthaste.refuse('retry_intervals', value::text, rule);
            end if;
            waits := to_jsonb(posthaste.exponential_schedule(
                posthaste.checked_interval('retry_intervals base', exponential -> 'base', '1 millisecond', '30 days')::interval,
                (exponential ->> 'factor')::numeric,
                posthaste.checked_interval('retry_intervals cap', exponential -> 'cap', '1 millisecond', '30 days')::interval,
                (exponential ->> 'count')::integer)::text[]);
        when 'array' then
            if jsonb_array_length(value) <= 50 then
                waits := coalesce(
                    (select jsonb_agg(posthaste.checked_interval('retry_intervals', v, '0', '30 days') order by place)
                     from jsonb_array_elements(value) with ordinality u (v, place)), '[]');
            end if;
        else
    end case;
    if waits is null then
        perform posthaste.refuse('retry_intervals', coalesce(value::text, 'null'), rule);
    end if;
    return waits;
end
$$;
comment on function posthaste.checked_schedule(jsonb) is 'A retry schedule as a list of intervals, where it is one, or names or describes one; raises otherwise.';

create function posthaste.checked_breaker(value jsonb) returns jsonb
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    b jsonb := '{"failures": 20, "ratio": 0.8, "requests": 100, "window": "1 minute", "open_for": "15 seconds", "open_for_at_most": "5 minutes"}';
    fields constant text := 'failures, ratio, requests, window, open_for, open_for_at_most';
    field text;
begin
    if coalesce(jsonb_typeof(value), 'null') = 'null' then
        return 'null';
    end if;
    if jsonb_typeof(value) <> 'object' then
        perform posthaste.refuse('breaker', value::text, 'an object of ' || fields || ', each with a default; null for none');
    end if;
    select k into field from jsonb_object_keys(value) k where k <> all (string_to_array(fields, ', ')) limit 1;
    if found then
        perform posthaste.refuse('breaker', field, 'one of ' || fields);
    end if;
    b := b || value;
    -- Whoever says only how long it stays open at first means at least that.
    if not value ? 'open_for_at_most' then
        b := b || jsonb_build_object('open_for_at_most', greatest(
            (b ->> 'open_for_at_most')::interval, posthaste.checked_interval('breaker open_for', b -> 'open_for', '1 second', '1 day')::interval)::text);
    end if;
    foreach field in array '{failures,requests}'::text[] loop
        if b -> field <> 'null' and (jsonb_typeof(b -> field) <> 'number' or b ->> field !~ '^[1-9][0-9]{0,5}$') or field = 'requests' and b -> field = 'null' then
            perform posthaste.refuse('breaker ' || field, b ->> field, 'a whole number from 1 to 999999');
        end if;
    end loop;
    if b -> 'ratio' <> 'null' and (jsonb_typeof(b -> 'ratio') <> 'number' or (b ->> 'ratio')::numeric not between 0.01 and 1) then
        perform posthaste.refuse('breaker ratio', b ->> 'ratio', 'from 0.01 to 1; null to open by failures in a row alone');
    end if;
    if b -> 'failures' = 'null' and b -> 'ratio' = 'null' then
        perform posthaste.refuse('breaker', value::text, 'failures or ratio must be a number; to have no breaker, set it to null');
    end if;
    b := jsonb_set(b, '{window}', to_jsonb(posthaste.checked_interval('breaker window', b -> 'window', '1 second', '1 day')));
    b := jsonb_set(b, '{open_for}', to_jsonb(posthaste.checked_interval('breaker open_for', b -> 'open_for', '1 second', '1 day')));
    return jsonb_set(b, '{open_for_at_most}', to_jsonb(posthaste.checked_interval('breaker open_for_at_most', b -> 'open_for_at_most', (b ->> 'open_for')::interval, '1 day')));
end
$$;
comment on function posthaste.checked_breaker(jsonb) is
    'A circuit breaker with its defaults filled in: it opens after `failures` in a row, or where at least `requests` were made within `window` and the share of failures is `ratio` or more; stays open for `open_for`, twice as long after each probe that fails, at most `open_for_at_most`. Raises where a rule is broken.';

create function posthaste.checked_event_types(value jsonb, known_before jsonb) returns jsonb
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    entry text;
begin
    if jsonb_typeof(value) is distinct from 'array' or jsonb_array_length(value) not between 1 and 1000
       or exists (select from jsonb_array_elements(value) v where jsonb_typeof(v) <> 'string') then
        perform posthaste.refuse('event_types', coalesce(value::text, 'null'), 'a list of 1 to 1000 names from posthaste.event_type, prefixes such as certificate.*, or * alone');
    end if;
    for entry in select jsonb_array_elements_text(value) loop
        if entry = '*' then
            if jsonb_array_length(value) > 1 then
                perform posthaste.refuse('event_types', value::text, '* stands for all and stands alone');
            end if;
        elsif known_before ? entry then
            continue; -- It was approved when the catalogue had it.
        elsif entry like '%.*' then
            if not exists (select from posthaste.event_type c where c.active and entry = any (posthaste.patterns(c.event_type))) then
                perform posthaste.refuse('event_types', entry, 'no active event type of the catalogue begins like that');
            end if;
        elsif not exists (select from posthaste.event_type c where c.event_type = entry and c.active) then
            perform posthaste.refuse('event_types', entry, 'it is not in the catalogue, or not active; see posthaste.event_type and posthaste.create_event_type');
        end if;
    end loop;
    return (select jsonb_agg(distinct v order by v) from jsonb_array_elements(value) v);
end
$$;
comment on function posthaste.checked_event_types(jsonb, jsonb) is 'The event types of a subscription, sorted, where the catalogue has them; raises otherwise.';

create function posthaste.checked_filter(filter text) returns text
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    -- As Postgres writes it, however it was escaped: texts and names in quotes, a variable as $"name".
    plain text;
    sign text;
    before text := '';
    depth integer := 0;
    opened integer[] := '{}';
begin
    if filter is null then
        return null;
    end if;
    if length(filter) > 1000 then
        perform posthaste.refuse('filter', filter, 'at most 1000 characters');
    end if;
    begin
        plain := filter::jsonpath::text;
    exception when others then
        perform posthaste.refuse('filter', filter, format('an SQL/JSON path such as $.amount > 100; Postgres says: %s', sqlerrm));
    end;
    -- To match a back-reference can take time without bounds, and claims would wait for it.
    if plain ~ '\\[1-9]' then
        perform posthaste.refuse('filter', filter, 'no back-references in like_regex');
    end if;
    plain := regexp_replace(plain, '"([^"\\]|\\.)*"', '"', 'g');
    if plain ~ '\$"' then
        perform posthaste.refuse('filter', filter, 'no variables: nothing could give them a value');
    end if;
    -- Each takes as long again for every value in the payload: three of them took minutes for one of two kilobytes.
    if plain ~ '\*\*.*\*\*' then
        perform posthaste.refuse('filter', filter, 'at most one .**');
    end if;
    -- To compare each of one list with each of another, or to begin at the top for each of a list, takes the product of their lengths.
    if plain ~ '(==|!=|<>|<=|>=|<|>)[-+( ]*[@$]' then
        perform posthaste.refuse('filter', filter, 'a comparison has a literal on its right, such as @.amount > 100');
    end if;
    foreach sign in array string_to_array(replace(plain, ' ', ''), null) loop
        if sign = '(' then
            depth := depth + 1;
            opened := case when before = '?' then opened || depth else opened end;
        elsif sign = ')' then
            opened := array_remove(opened, depth);
            depth := depth - 1;
        elsif sign = '$' and opened <> '{}' then
            perform posthaste.refuse('filter', filter, 'within ?( ) write @, not $');
        end if;
        before := sign;
    end loop;
    return filter;
end
$$;
comment on function posthaste.checked_filter(text) is 'The filter, where it is an SQL/JSON path that can be evaluated on a payload alone; raises otherwise.';

create function posthaste.checked_object(field text, value jsonb, needed text[], allowed text[]) returns jsonb
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    key text;
    kind text;
begin
    if jsonb_typeof(value) is distinct from 'object' then
        perform posthaste.refuse(field, '(not shown)', 'a JSON object, or null');
    end if;
    for key, kind in select k, jsonb_typeof(v) from jsonb_each(value) o (k, v) loop
        -- No value is shown: somebody may have put a secret there.
        if key <> all (needed || allowed) then
            perform posthaste.refuse(field || ' key', left(key, 60), 'one of ' || array_to_string(needed || allowed, ', '));
        end if;
        if kind not in ('string', 'number') or length(value ->> key) not between 1 and 16384 then
            perform posthaste.refuse(field || '.' || key, '(not shown)', 'a text');
        end if;
    end loop;
    select n into key from unnest(needed) n where not value ? n limit 1;
    if found then
        perform posthaste.refuse(field, '(not shown)', format('it needs %s', key));
    end if;
    return value;
end
$$;
comment on function posthaste.checked_object(text, jsonb, text[], text[]) is 'A flat JSON object of texts and numbers with these keys and no others; raises otherwise.';

create function posthaste.checked_authentication(value jsonb, headers jsonb) returns jsonb
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    header text := 'authorization';
begin
    if coalesce(jsonb_typeof(value), 'null') = 'null' then
        return 'null';
    end if;
    if jsonb_typeof(value) <> 'object' then
        perform posthaste.refuse('authentication', '(not shown)', 'a JSON object, or null');
    end if;
    case value ->> 'kind'
        when 'bearer' then perform posthaste.checked_object('authentication', value, '{kind}', '{}');
        when 'basic' then
            perform posthaste.checked_object('authentication', value, '{kind,user}', '{}');
            if value ->> 'user' !~ '^[ -9;-~]{1,200}$' then
                perform posthaste.refuse('authentication.user', value ->> 'user', '1 to 200 visible ASCII characters but no colon');
            end if;
        when 'header' then
            perform posthaste.checked_object('authentication', value, '{kind,header}', '{}');
            header := lower(value ->> 'header');
            perform posthaste.checked_headers(jsonb_build_object(value ->> 'header', '{"secret": true}'::jsonb));
        when 'oauth2' then
            perform posthaste.checked_object('authentication', value, '{kind,token_url,client_id}', '{scope,audience,client_auth}');
            perform posthaste.checked_url(value ->> 'token_url');
            if coalesce(value ->> 'client_auth', 'basic') not in ('basic', 'body') then
                perform posthaste.refuse('authentication.client_auth', value ->> 'client_auth', 'basic (in the Authorization header) or body');
            end if;
            if concat(value ->> 'client_id', value ->> 'scope', value ->> 'audience') !~ '^[ -~]+$'
               or length(concat(value ->> 'client_id', value ->> 'scope', value ->> 'audience')) > 2000 then
                perform posthaste.refuse('authentication', '(not shown)', 'client_id, scope and audience in visible ASCII characters, at most 2000');
            end if;
        else
            perform posthaste.refuse('authentication.kind', coalesce(value ->> 'kind', 'null'), 'bearer, basic, header or oauth2');
    end case;
    if exists (select from jsonb_object_keys(headers) k where lower(k) = header) then
        perform posthaste.refuse('headers', header, 'the authentication sets it');
    end if;
    return value;
end
$$;
comment on function posthaste.checked_authentication(jsonb, jsonb) is
    'How we show an endpoint who we are, without the secret: bearer; basic with a user; header with a name; oauth2 (client credentials) with token_url, client_id and, if wanted, scope, audience, and client_auth (basic or body). Raises where a rule is broken.';

create function posthaste.checked_tls(value jsonb, url text) returns jsonb
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    field text;
begin
    if coalesce(jsonb_typeof(value), 'null') = 'null' then
        return 'null';
    end if;
    perform posthaste.checked_object('tls', value, '{}', '{certificate,authority}');
    if value = '{}' then
        perform posthaste.refuse('tls', '{}', 'a certificate, an authority, or both');
    end if;
    for field in select k from jsonb_object_keys(value) k loop
        if value ->> field !~ '^\s*(-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+$' then
            perform posthaste.refuse('tls.' || field, '(not shown)', 'certificates as PEM and nothing else; a key is imported with `posthaste secret import --client-key`');
        end if;
    end loop;
    if url !~ '^https:' then
        perform posthaste.refuse('tls', 'given', 'an https URL');
    end if;
    return value;
end
$$;
comment on function posthaste.checked_tls(jsonb, text) is 'A client certificate to show, an authority to trust; raises where a rule is broken.';

create function posthaste.checked_handshake(value jsonb) returns jsonb
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(jsonb_typeof(value), 'null') = 'null' then
        return 'null';
    end if;
    perform posthaste.checked_object('handshake', value, '{origin}', '{callback,rate}');
    if value ->> 'origin' !~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$' or length(value ->> 'origin') > 253 then
        perform posthaste.refuse('handshake.origin', value ->> 'origin', 'a lower-case DNS name of ours');
    end if;
    if value ? 'callback' then
        perform posthaste.checked_url(value ->> 'callback');
    end if;
    if value ? 'rate' and (jsonb_typeof(value -> 'rate') <> 'number' or value ->> 'rate' !~ '^[1-9][0-9]{0,6}$') then
        perform posthaste.refuse('handshake.rate', value ->> 'rate', 'requests a minute, from 1 to 9999999');
    end if;
    return value;
end
$$;
comment on function posthaste.checked_handshake(jsonb) is 'What to ask a receiver before anything is sent to it; raises where a rule is broken.';

create function posthaste.is_field_pointer(value text) returns boolean
    language sql immutable
    set search_path = pg_catalog, pg_temp
return value ~ '^(/([^/~[:cntrl:]]|~[012])*){0,33}$' and octet_length(value) <= 1024 and value !~ '/[*][*]/' and (value ~ '/[*][*]$' or value !~ '^(/[^/]*){33}$');
comment on function posthaste.is_field_pointer(text) is 'Whether this is a JSON Pointer of at most 32 segments; ** may follow them and stands for all below, ~2 for a star that is meant as one.';

create function posthaste.checked_mask(value jsonb) returns jsonb
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    key text;
    rule jsonb;
    pointer text;
    example constant text := '{"allow": ["/student/name", "/items/*/sku"], "rest": "drop", "fields": {"/student/id": {"map": "student", "missing": "hold"}}, "metadata": ["/request_id"]}';
begin
    if coalesce(jsonb_typeof(value), 'null') = 'null' then
        return 'null';
    end if;
    if jsonb_typeof(value) <> 'object' then
        perform posthaste.refuse('mask', jsonb_typeof(value), 'a JSON object such as ' || example);
    end if;
    if length(value::text) > 65536 then
        perform posthaste.refuse('mask', 'of that size', 'at most 64 KiB');
    end if;
    select k into key from jsonb_object_keys(value) k where k not in ('allow', 'rest', 'fields', 'metadata') limit 1;
    if found then
        perform posthaste.refuse('mask key', left(key, 60), 'allow, rest, fields or metadata');
    end if;
    value := '{"allow": [], "rest": "drop", "fields": {}, "metadata": []}'::jsonb || value;
    foreach key in array '{allow,metadata}'::text[] loop
        if jsonb_typeof(value -> key) <> 'array' or jsonb_array_length(value -> key) > 256 then
            perform posthaste.refuse('mask.' || key, jsonb_typeof(value -> key), 'a list of at most 256 JSON Pointers');
        end if;
        select p #>> '{}' into pointer from jsonb_array_elements(value -> key) p where jsonb_typeof(p) <> 'string' or not posthaste.is_field_pointer(p #>> '{}') limit 1;
        if found then
            perform posthaste.refuse('mask.' || key, pointer, 'JSON Pointers such as /student/name or /items/*/sku');
        end if;
        select p into pointer from jsonb_array_elements_text(value -> key) p group by p having count(*) > 1 limit 1;
        if found then
            perform posthaste.refuse('mask.' || key, pointer, 'each pointer once');
        end if;
    end loop;
    if jsonb_typeof(value -> 'fields') <> 'object' or (select count(*) > 256 - jsonb_array_length(value -> 'allow') from jsonb_object_keys(value -> 'fields')) then
        perform posthaste.refuse('mask.fields', jsonb_typeof(value -> 'fields'), 'an object of JSON Pointers and what is to be done, at most 256 together with those of allow');
    end if;
    for pointer, rule in select * from jsonb_each(value -> 'fields') union all select null, value -> 'rest' loop
        if not posthaste.is_field_pointer(pointer) then
            perform posthaste.refuse('mask.fields', pointer, 'JSON Pointers such as /student/name or /items/*/sku');
        end if;
        if not (rule in ('"drop"', '"pseudonym"')
                or jsonb_typeof(rule) = 'object' and rule ? 'replace' and rule - 'replace' = '{}' and octet_length((rule -> 'replace')::text) <= 256
                or jsonb_typeof(rule) = 'object' and pointer is not null and rule - '{map,missing}'::text[] = '{}' and coalesce(rule ->> 'map', '') ~ '^[a-z][a-z0-9_.-]{0,62}$'
                   and coalesce(rule -> 'missing', '"hold"') in ('"hold"', '"pseudonym"', '"refuse"')) then
            perform posthaste.refuse(coalesce('mask.fields ' || left(pointer, 100), 'mask.rest'), left(rule::text, 100),
                '"drop", "pseudonym", {"replace": any JSON of at most 256 bytes}' || case when pointer is null then '' else ' or {"map": "student", "missing": "hold"} (hold, pseudonym or refuse)' end);
        end if;
    end loop;
    return value;
end
$$;
comment on function posthaste.checked_mask(jsonb) is 'A mask in its full form; raises where a rule is broken, naming the pointer.';

create function posthaste.envelope_called(called text, out name text, out version integer, out wanted text[])
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    parts constant text[] := regexp_match(called, '^([a-z][a-z0-9_-]{0,62})(?:@([1-9][0-9]{0,8}))?$');
begin
    select e.name, e.version, posthaste.wanted_values(e.template, e.headers) into name, version, wanted
    from posthaste.envelope e
    where e.name = parts[1] and (parts[2] is null or e.version = parts[2]::integer)
    order by e.version desc limit 1;
    if name is null then
        perform posthaste.refuse('envelope', coalesce(called, 'null'), format('one of %s, or any of them with an older version, such as standard@1',
            (select string_agg(n, ', ') from (select distinct e.name as n from posthaste.envelope e order by 1 limit 50) known)));
    end if;
end
$$;
comment on function posthaste.envelope_called(text) is 'The envelope called name@version, or the newest of that name, and which values it wants; raises where there is none.';

create function posthaste.wanted_values(template text, headers jsonb) returns text[]
    language sql immutable
    set search_path = pg_catalog, pg_temp
return array(select distinct m[1] from regexp_matches(template || headers::text, '\{\{values\.([a-z][a-z0-9_]{0,62})\??\}\}', 'g') m order by 1);
comment on function posthaste.wanted_values(text, jsonb) is 'Which {{values.NAME}} stand in an envelope.';

create function posthaste.checked_envelope(t jsonb) returns jsonb
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    e record;
    given jsonb := t -> 'envelope_values';
    key text;
begin
    e := posthaste.envelope_called(t ->> 'envelope');
    if jsonb_typeof(given) is distinct from 'object' then
        perform posthaste.refuse('envelope_values', coalesce(given::text, 'null'), 'a JSON object such as {"source": "https://platform.example"}');
    end if;
    select k into key from jsonb_each(given) v (k, value) where jsonb_typeof(value) <> 'string' or octet_length(value #>> '{}') not between 1 and 1024 limit 1;
    if found then
        perform posthaste.refuse('envelope_values.' || left(key, 60), left(given ->> key, 100), 'a text of 1 to 1024 bytes');
    end if;
    select w into key from unnest(e.wanted) w where not given ? w limit 1;
    if found then
        perform posthaste.refuse('envelope_values', left(given::text, 100), format('the envelope %s@%s wants a value for %s', e.name, e.version, key));
    end if;
    select k into key from jsonb_object_keys(given) k where k <> all (e.wanted) limit 1;
    if found then
        perform posthaste.refuse('envelope_values', key, format('the envelope %s@%s wants none of that name', e.name, e.version));
    end if;
    return t || jsonb_build_object('envelope', format('%s@%s', e.name, e.version));
end
$$;
comment on function posthaste.checked_envelope(jsonb) is 'Terms with their envelope under its full name; raises where there is none, or its values are not those that it wants.';

create function posthaste.checked_signatures(value jsonb, header_prefix text) returns jsonb
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    known constant text[] := '{standard_v1,standard_v1a,svix_legacy,stripe,github,shopify,convoy,convoy_simple,hook0,prefixed}';
    given text[];
begin
    if jsonb_typeof(value) is distinct from 'array' or value = '[]' then
        perform posthaste.refuse('signatures', coalesce(value::text, 'null'), 'a list of at least one of ' || array_to_string(known, ', '));
    end if;
    given := array(select distinct v #>> '{}' from jsonb_array_elements(value) v);
    if not given <@ known then
        perform posthaste.refuse('signatures', value::text, 'any of ' || array_to_string(known, ', '));
    end if;
    if given @> '{convoy,convoy_simple}' then
        perform posthaste.refuse('signatures', value::text, 'convoy or convoy_simple: both would be in the same header');
    end if;
    if 'prefixed' = any (given) and header_prefix is null then
        perform posthaste.refuse('signatures', 'prefixed', 'only with a header_prefix');
    end if;
    -- In one order, whoever gave them in which.
    return to_jsonb(array(select k from unnest(known) with ordinality u (k, place) where k = any (given) order by place));
end
$$;
comment on function posthaste.checked_signatures(jsonb, text) is 'The signature profiles, each once; raises where a rule is broken.';

create function posthaste.checked_terms(given jsonb, before jsonb default null) returns jsonb
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    t jsonb := '{"tenant": null, "unknown_types": false, "filter": null, "retry_intervals": "standard_webhooks", "retry_jitter": 0.1,
                 "client_errors": "retry", "max_age": null, "breaker": {}, "pause_after": "5 days", "sandbox": false, "timeout": null,
                 "concurrency": null, "rates": [], "headers": {}, "networks": [], "after_dead_letter": "continue", "partner": null, "envelope": "standard", "envelope_values": {},
                 "signatures": ["standard_v1"], "header_prefix": null, "user_agent": null, "pass_trace": false, "authentication": null, "tls": null, "handshake": null, "mask": null, "description": null, "contact": null, "active": true}';
    fields constant text[] := '{name,tenant,url,event_types,unknown_types,filter,retry_intervals,retry_jitter,client_errors,max_age,breaker,pause_after,sandbox,timeout,concurrency,rates,headers,networks,after_dead_letter,partner,envelope,envelope_values,signatures,header_prefix,user_agent,pass_trace,authentication,tls,handshake,mask,description,contact,active}';
    field text;
    value jsonb;
begin
    if jsonb_typeof(given) is distinct from 'object' then
        perform posthaste.refuse('terms', given::text, 'a JSON object');
    end if;
    select k into field from jsonb_object_keys(given) k where k <> all (fields) limit 1;
    if found then
        perform posthaste.refuse('field', field, 'one of ' || array_to_string(fields, ', '));
    end if;
    t := t || given;

    if coalesce(t ->> 'name', '') !~ '^[^[:cntrl:][:space:]]([^[:cntrl:]]{0,98}[^[:cntrl:][:space:]])?$' or jsonb_typeof(t -> 'name') <> 'string' then
        perform posthaste.refuse('name', coalesce(t ->> 'name', 'null'), '1 to 100 characters on one line, with spaces only between them');
    end if;
    perform posthaste.checked_text('tenant', t -> 'tenant', 128);
    perform posthaste.checked_url(case when jsonb_typeof(t -> 'url') = 'string' then t ->> 'url' end);
    t := jsonb_set(t, '{event_types}', posthaste.checked_event_types(t -> 'event_types', coalesce(before -> 'event_types', '[]')));
    foreach field in array '{unknown_types,sandbox,pass_trace,active}'::text[] loop
        if jsonb_typeof(t -> field) is distinct from 'boolean' then
            perform posthaste.refuse(field, coalesce(t ->> field, 'null'), 'true or false');
        end if;
    end loop;
    if (t ->> 'unknown_types')::boolean and t -> 'event_types' <> '["*"]' then
        perform posthaste.refuse('unknown_types', 'true', 'only with the event types {*}');
    end if;
    perform posthaste.checked_filter(posthaste.checked_text('filter', t -> 'filter', 1000));

    t := jsonb_set(t, '{retry_intervals}', posthaste.checked_schedule(t -> 'retry_intervals'));
    -- A fraction is kept as a text, too: as short as it can be written.
    if t ->> 'retry_jitter' ~ '^[0-9]{1,3}(\.[0-9]{1,100})?([eE][+-]?[0-9]{1,2})?$' and (t ->> 'retry_jitter')::numeric between 0 and 1 then
        t := jsonb_set(t, '{retry_jitter}', to_jsonb(trim_scale(round((t ->> 'retry_jitter')::numeric, 6))::text));
    elsif coalesce(t ->> 'retry_jitter', '') not in ('none', 'full', 'equal') then
        perform posthaste.refuse('retry_jitter', coalesce(t ->> 'retry_jitter', 'null'), 'a fraction from 0 to 1, or none, full or equal');
    end if;
    if coalesce(t ->> 'client_errors', '') not in ('retry', 'reject') then
        perform posthaste.refuse('client_errors', coalesce(t ->> 'client_errors', 'null'), 'retry or reject');
    end if;
    foreach field in array '{max_age,pause_after}'::text[] loop
        if coalesce(jsonb_typeof(t -> field), 'null') <> 'null' then
            t := jsonb_set(t, array[field], to_jsonb(posthaste.checked_interval(field, t -> field, '1 second', '1 year')));
        end if;
    end loop;
    t := jsonb_set(t, '{breaker}', posthaste.checked_breaker(t -> 'breaker'));
    if coalesce(jsonb_typeof(t -> 'timeout'), 'null') <> 'null' then
        t := jsonb_set(t, '{timeout}', to_jsonb(posthaste.checked_interval('timeout', t -> 'timeout', '100 milliseconds', '2 minutes')));
    end if;
    if coalesce(jsonb_typeof(t -> 'concurrency'), 'null') <> 'null'
       and (jsonb_typeof(t -> 'concurrency') <> 'number' or t ->> 'concurrency' !~ '^[0-9]{1,4}$' or (t ->> 'concurrency')::integer not between 1 and 1024) then
        perform posthaste.refuse('concurrency', t ->> 'concurrency', 'a whole number from 1 to 1024, or null');
    end if;
    t := jsonb_set(t, '{rates}', posthaste.checked_rates(t -> 'rates'));
    perform posthaste.checked_headers(t -> 'headers');
    value := t -> 'networks';
    if jsonb_typeof(value) is distinct from 'array' or jsonb_array_length(value) > 50 then
        perform posthaste.refuse('networks', coalesce(value::text, 'null'), 'a list of at most 50 networks; [] for any public address');
    end if;
    t := jsonb_set(t, '{networks}', coalesce(
        (select jsonb_agg(posthaste.checked_network(v) order by place) from jsonb_array_elements_text(value) with ordinality u (v, place)), '[]'));
    if t -> 'after_dead_letter' not in ('"continue"', '"hold"') then
        perform posthaste.refuse('after_dead_letter', coalesce(t ->> 'after_dead_letter', 'null'), 'continue or hold');
    end if;
    if coalesce(jsonb_typeof(t -> 'partner'), 'null') = 'null' then
        t := jsonb_set(t, '{partner}', to_jsonb(coalesce(t ->> 'tenant', t ->> 'name')));
    end if;
    perform posthaste.checked_text('partner', t -> 'partner', 128);
    if t ->> 'partner' <> t ->> 'tenant' then
        perform posthaste.refuse('partner', t ->> 'partner', format('the tenant %s, where there is one', t ->> 'tenant'));
    end if;
    t := posthaste.checked_envelope(t);
    if posthaste.checked_text('header_prefix', t -> 'header_prefix', 60) !~ '^[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*$'
       or lower(t ->> 'header_prefix') ~ '^((webhook|svix|ce|content|proxy|sec|stripe|accept|if|access)($|-)|x-(convoy|hook0)$)' then
        perform posthaste.refuse('header_prefix', t ->> 'header_prefix', 'letters and digits in words joined by -, such as X-Platform');
    end if;
    if posthaste.checked_text('user_agent', t -> 'user_agent', 200) !~ '^[!-~]([ !-~]*[!-~])?$' then
        perform posthaste.refuse('user_agent', t ->> 'user_agent', 'visible ASCII characters, such as Platform-Webhooks/1.0');
    end if;
    t := jsonb_set(t, '{signatures}', posthaste.checked_signatures(t -> 'signatures', t ->> 'header_prefix'));
    select k.name into field
    from (select lower(t ->> 'header_prefix') || suffix, true from unnest('{-event,-delivery,-timestamp,-signature}'::text[]) suffix
          union all select n, false from jsonb_object_keys(t -> 'headers') n
          union all select t -> 'authentication' ->> 'header', false where t -> 'authentication' ->> 'kind' = 'header') k (name, is_ours)
    where lower(k.name) in (select lower(e) from jsonb_object_keys((select headers from posthaste.envelope where name || '@' || version = t ->> 'envelope')) e)
       or not k.is_ours and lower(k.name) = any (array(select lower(t ->> 'header_prefix') || suffix from unnest('{-event,-delivery,-timestamp,-signature}'::text[]) suffix))
    limit 1;
    if found then
        perform posthaste.refuse('headers', field, 'the envelope or the header_prefix sets it');
    end if;
    t := jsonb_set(t, '{authentication}', posthaste.checked_authentication(t -> 'authentication', t -> 'headers'));
    t := jsonb_set(t, '{tls}', posthaste.checked_tls(t -> 'tls', t ->> 'url'));
    t := jsonb_set(t, '{handshake}', posthaste.checked_handshake(t -> 'handshake'));
    t := jsonb_set(t, '{mask}', posthaste.checked_mask(t -> 'mask'));
    perform posthaste.checked_text('description', t -> 'description', 1000);
    perform posthaste.checked_text('contact', t -> 'contact', 200);
    return t;
end
$$;
comment on function posthaste.checked_terms(jsonb, jsonb) is
    'Terms as they are stored: defaults filled in, everything in one form. Raises where a rule is broken, naming the field, the value and the rule. `before` are the terms that they change, if any.';

create function posthaste.subscription_called(name text, to_change boolean default false) returns posthaste.subscription
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '5s'
as $$
declare
    s posthaste.subscription;
begin
    select * into s from posthaste.subscription x
    where x.name = subscription_called.name and x.removed_at is null and posthaste.is_in_scope(x.tenant);
    if found and to_change then
        begin
            select * into s from posthaste.subscription x
            where x.name = subscription_called.name and x.removed_at is null and posthaste.is_in_scope(x.tenant) for no key update;
        exception when lock_not_available then
            perform posthaste.refuse_to_wait();
        end;
    end if;
    if s.subscription_id is null then
        perform posthaste.refuse('subscription', coalesce(name, 'null'), 'there is none of that name; see posthaste.subscription_overview');
    end if;
    return s;
end
$$;
comment on function posthaste.subscription_called(text, boolean) is 'The subscription of that name, locked where it is to change; raises where there is none, or none that this login may see.';

create function posthaste.propose(kind text, subscription_id integer, before jsonb, terms jsonb, reason text) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    id bigint;
    called constant text := coalesce(terms, before) ->> 'name';
begin
    if not posthaste.is_in_scope(coalesce(terms, before) ->> 'tenant') then
        raise exception using errcode = 'insufficient_privilege',
            message = format('%s may propose only for %s', session_user, array_to_string(posthaste.scope(), ', '));
    end if;
    if terms is not null and exists (
        select from posthaste.subscription s where s.name = called and s.removed_at is null and s.subscription_id <> propose.subscription_id) then
        perform posthaste.refuse('name', called, 'it is not free; take another');
    end if;
    insert into posthaste.subscription_change (subscription_id, kind, before, terms, reason, proposed_for, expires_at)
    values (propose.subscription_id, propose.kind, propose.before, propose.terms, propose.reason, posthaste.application_user(),
            now() + interval '30 days')
    returning change_id into id;
    perform posthaste.note('proposed_' || kind, called, coalesce(terms, before) ->> 'tenant', before,
        coalesce(terms, '{}') || jsonb_build_object('change_id', id), reason);
    return id;
end
$$;
comment on function posthaste.propose(text, integer, jsonb, jsonb, text) is 'Writes a proposal down. Called by the propose functions alone.';

create function posthaste.propose_subscription(
    name text,
    url text,
    event_types text[],
    tenant text default null,
    filter text default null,
    unknown_types boolean default false,
    retry_intervals interval[] default posthaste.retry_schedule('standard_webhooks'),
    retry_jitter text default '0.1',
    client_errors text default 'retry',
    max_age interval default null,
    breaker jsonb default '{}',
    pause_after interval default '5 days',
    sandbox boolean default false,
    timeout interval default null,
    concurrency integer default null,
    rates jsonb default '[]',
    headers jsonb default '{}',
    networks text[] default '{}',
    after_dead_letter text default 'continue',
    partner text default null,
    envelope text default 'standard',
    envelope_values jsonb default '{}',
    signatures text[] default '{standard_v1}',
    header_prefix text default null,
    user_agent text default null,
    pass_trace boolean default false,
    authentication jsonb default null,
    tls jsonb default null,
    handshake jsonb default null,
    mask jsonb default null,
    description text default null,
    contact text default null,
    reason text default null
) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
as $$
begin
    return posthaste.propose('create', nextval('posthaste.subscription_subscription_id_seq')::integer, null,
        posthaste.checked_terms(jsonb_build_object(
            'name', name, 'tenant', tenant, 'url', url, 'event_types', to_jsonb(event_types), 'unknown_types', unknown_types,
            'filter', filter, 'retry_intervals', to_jsonb(retry_intervals::text[]), 'retry_jitter', retry_jitter,
            'client_errors', client_errors, 'max_age', max_age::text, 'breaker', breaker, 'pause_after', pause_after::text, 'sandbox', sandbox,
            'timeout', timeout::text, 'concurrency', concurrency, 'rates', rates, 'headers', headers, 'networks', to_jsonb(networks),
            'after_dead_letter', after_dead_letter, 'partner', partner, 'envelope', envelope, 'envelope_values', envelope_values,
            'signatures', to_jsonb(signatures), 'header_prefix', header_prefix, 'user_agent', user_agent, 'pass_trace', pass_trace,
            'authentication', authentication, 'tls', tls, 'handshake', handshake, 'mask', mask,
            'description', description, 'contact', contact)), reason);
end
$$;
comment on function posthaste.propose_subscription(text, text, text[], text, text, boolean, interval[], text, text, interval, jsonb, interval, boolean, interval, integer, jsonb, jsonb, text[], text, text, text, jsonb, text[], text, text, boolean, jsonb, jsonb, jsonb, jsonb, text, text, text) is
    'Proposes a new subscription and returns the change''s id, for another administrator to approve or reject. It gets every event committed after its approval.';

create function posthaste.propose_change(subscription text, changes jsonb, reason text default null) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription);
    before constant jsonb := posthaste.terms(s);
    terms jsonb;
begin
    if jsonb_typeof(changes) is distinct from 'object' or changes = '{}' then
        perform posthaste.refuse('changes', changes::text, 'a JSON object of the terms to change, such as {"url": "https://new.example/hooks"}');
    end if;
    perform posthaste.checked_text('tenant', changes -> 'tenant', 128);
    if changes ? 'tenant' and changes ->> 'tenant' is distinct from s.tenant then
        -- All that it ever got would be there for another partner to see.
        perform posthaste.refuse('tenant', coalesce(changes ->> 'tenant', 'null'), 'it stays what it is; remove the subscription and propose a new one');
    end if;
    if changes ? 'partner' and changes ->> 'partner' is distinct from s.partner then
        perform posthaste.refuse('partner', coalesce(changes ->> 'partner', 'null'), 'it stays what it is: pseudonyms and ids were made for it');
    end if;
    terms := posthaste.checked_terms(before || changes, before);
    if terms = before then
        perform posthaste.refuse('changes', changes::text, 'they change nothing');
    end if;
    return posthaste.propose('change', s.subscription_id, before, terms, reason);
end
$$;
comment on function posthaste.propose_change(text, jsonb, text) is
    'Proposes to change terms of a subscription, given as a JSON object under the names of posthaste.terms, and returns the change''s id. {"active": true} proposes to take up deliveries again.';

create function posthaste.propose_envelope(
    name text,
    template text,
    content_type text default 'application/json',
    headers jsonb default '{}',
    description text default null,
    reason text default null
) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    placeholder text;
    header text;
    value jsonb;
    terms jsonb;
    id bigint;
begin
    perform posthaste.refuse_scoped();
    if name is null or name !~ '^[a-z][a-z0-9_-]{0,62}$' then
        perform posthaste.refuse('name', coalesce(name, 'null'), '1 to 63 of a-z, 0-9, _ and -, a letter first');
    end if;
    if template is null or length(template) > 16384 then
        perform posthaste.refuse('template', coalesce(left(template, 100), 'null'), 'a JSON text of at most 16384 characters');
    end if;
    begin
        perform template::json;
    exception when others then
        perform posthaste.refuse('template', left(template, 100), 'a JSON text: ' || sqlerrm);
    end;
    if content_type is null or content_type !~ '^application/([a-z0-9.+-]+\+)?json(; charset=utf-8)?$' then
        perform posthaste.refuse('content_type', coalesce(content_type, 'null'), 'application/json or one that ends in +json');
    end if;
    if jsonb_typeof(headers) is distinct from 'object' or (select count(*) > 20 from jsonb_object_keys(headers)) then
        perform posthaste.refuse('headers', coalesce(headers::text, 'null'), 'a JSON object of at most 20 names and texts');
    end if;
    for header, value in select * from jsonb_each(headers) loop
        if jsonb_typeof(value) <> 'string' then
            perform posthaste.refuse(format('header %s', header), value::text, 'a text');
        end if;
        if header !~* '^ce-[a-z0-9]{1,20}$' then
            -- No credential has any business here, whatever it is called.
            perform posthaste.checked_headers(jsonb_build_object(header, case when value #>> '{}' ~ '^\{\{[a-z_.?]+\}\}$' then to_jsonb('x'::text) else value end));
        end if;
    end loop;
    for placeholder in select m[1] from regexp_matches(template || headers::text, '\{\{([^{}]*)\}\}', 'g') m loop
        if placeholder !~ '^(event_id|delivery_id|type|occurred_at|occurred_at_unix|occurred_at_unix_ms|data|metadata|tenant|subscription|values\.[a-z][a-z0-9_]{0,62})\??$' then
            perform posthaste.refuse('placeholder', placeholder,
                'event_id, delivery_id, type, occurred_at, occurred_at_unix, occurred_at_unix_ms, data, metadata, tenant, subscription, or values.NAME');
        end if;
    end loop;
    -- In JSON, two opening braces in a row stand in a string.
    if regexp_replace(template || headers::text, '\{\{[^{}]*\}\}', '', 'g') ~ '\{\{' then
        perform posthaste.refuse('template', left(template, 100), 'two opening braces begin a placeholder such as {{type}}');
    end if;
    terms := jsonb_build_object('name', name, 'version', (select coalesce(max(e.version), 0) + 1 from posthaste.envelope e where e.name = propose_envelope.name),
        'template', template, 'content_type', content_type, 'headers', headers, 'description', description);
    insert into posthaste.subscription_change (kind, terms, reason, proposed_for, expires_at)
    values ('envelope', terms, propose_envelope.reason, posthaste.application_user(), now() + interval '30 days')
    returning change_id into id;
    perform posthaste.note('proposed_envelope', name, null, null, terms || jsonb_build_object('change_id', id), reason);
    return id;
end
$$;
comment on function posthaste.propose_envelope(text, text, text, jsonb, text, text) is
    'Proposes an envelope, or a new version of one, and returns the change''s id, for another administrator to approve. `posthaste envelope propose` shows first what it makes of an event.';

create function posthaste.propose_removal(subscription text, reason text) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription);
begin
    return posthaste.propose('remove', s.subscription_id, posthaste.terms(s), null, posthaste.because(reason));
end
$$;
comment on function posthaste.propose_removal(text, text) is 'Proposes to end a subscription: what it is still owed is cancelled, its history stays.';

create function posthaste.open_change(change_id bigint) returns posthaste.subscription_change
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '5s'
as $$
declare
    c posthaste.subscription_change;
begin
    begin
        select * into c from posthaste.subscription_change x where x.change_id = open_change.change_id for update;
    exception when lock_not_available then
        perform posthaste.refuse_to_wait();
    end;
    if c.change_id is null or not posthaste.is_in_scope(coalesce(c.terms, c.before) ->> 'tenant') then
        perform posthaste.refuse('change_id', coalesce(change_id::text, 'null'), 'there is no such change; see posthaste.change');
    end if;
    if c.decision is not null then
        perform posthaste.refuse('change_id', change_id::text, format('%s by %s at %s', c.decision, c.decided_by, c.decided_at));
    end if;
    return c;
end
$$;
comment on function posthaste.open_change(bigint) is 'The proposal, locked; raises where there is none, or it is decided.';

create function posthaste.decide(change_id bigint, decision text, reason text) returns void
    language sql
    set search_path = pg_catalog, pg_temp
begin atomic
    update posthaste.subscription_change c
    set decision = decide.decision, decided_at = clock_timestamp(), decided_by = session_user,
        decided_for = posthaste.application_user(), decision_reason = decide.reason
    where c.change_id = decide.change_id;
end;
comment on function posthaste.decide(bigint, text, text) is 'Writes a decision down. Called by approve and reject alone.';

create function posthaste.ask_for_secrets(subscription_id integer) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    s posthaste.subscription;
    wanted text;
begin
    select * into s from posthaste.subscription x where x.subscription_id = ask_for_secrets.subscription_id;
    foreach wanted in array array['shared', 'ed25519'] loop
        continue when wanted = 'ed25519' and 'standard_v1a' <> all (s.signatures) or wanted = 'shared' and s.signatures = '{standard_v1a}';
        -- A text does for some signatures and not for others; a shared one does for all of them.
        continue when exists (
            select from posthaste.signing_secret k
            where k.subscription_id = s.subscription_id and (k.ends_at is null or k.ends_at > clock_timestamp())
              and (k.kind = wanted or k.kind = 'text' and wanted = 'shared' and not s.signatures && '{standard_v1,svix_legacy}'));
        insert into posthaste.signing_secret (secret_id, subscription_id, number, kind)
        select gen_random_uuid(), s.subscription_id, coalesce(max(k.number), 0) + 1, wanted
        from posthaste.signing_secret k where k.subscription_id = s.subscription_id;
    end loop;
    if s.mask is not null then
        insert into posthaste.partner_key (partner) values (s.partner) on conflict do nothing;
    end if;
end
$$;
comment on function posthaste.ask_for_secrets(integer) is 'Asks for the signing secrets that a subscription''s signatures take and that it does not have, and for its partner''s key where it has a mask.';

create function posthaste.approve_envelope(c posthaste.subscription_change, reason text) returns integer
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    next_version integer;
begin
    -- One after the other, or two would take one version.
    perform pg_advisory_xact_lock(1347375957, hashtext('envelope ' || (c.terms ->> 'name')));
    select coalesce(max(e.version), 0) + 1 into next_version from posthaste.envelope e where e.name = c.terms ->> 'name';
    if next_version <> (c.terms ->> 'version')::integer then
        raise exception using errcode = 'serialization_failure',
            message = format('change %s is stale: version %s of the envelope %s is there already', c.change_id, c.terms ->> 'version', c.terms ->> 'name'),
            hint = 'Reject it, and propose it anew.';
    end if;
    insert into posthaste.envelope (name, version, template, content_type, headers, description, created_by)
    values (c.terms ->> 'name', next_version, c.terms ->> 'template', c.terms ->> 'content_type', c.terms -> 'headers', c.terms ->> 'description', c.proposed_by);
    perform posthaste.decide(c.change_id, 'approved', reason);
    perform posthaste.note('approved_envelope', c.terms ->> 'name', null, null, c.terms || jsonb_build_object('change_id', c.change_id), reason);
    return next_version;
end
$$;
comment on function posthaste.approve_envelope(posthaste.subscription_change, text) is 'Adds a version of an envelope. Called by posthaste.approve alone.';

create function posthaste.approve(change_id bigint, reason text default null) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
    set lock_timeout = '5s'
as $$
declare
    c constant posthaste.subscription_change := posthaste.open_change(change_id);
    s posthaste.subscription;
    t posthaste.subscription;
begin
    if (select four_eyes from posthaste.setting)
       -- Somebody may have a login of their own, and an API that acts for them.
       and (c.proposed_by in (session_user, posthaste.application_user()) or c.proposed_for in (session_user, posthaste.application_user())) then
        raise exception using errcode = 'insufficient_privilege',
            message = format('change %s was proposed by %s: another administrator must approve it', change_id,
                             coalesce(c.proposed_for || ' through ', '') || c.proposed_by),
            hint = 'Approvals go by personal logins: session_user, which SET ROLE does not change.';
    end if;
    if c.expires_at <= now() then
        perform posthaste.refuse('change_id', change_id::text, format('it expired at %s; propose it again', c.expires_at));
    end if;
    if c.kind = 'envelope' then
        return posthaste.approve_envelope(c, reason);
    end if;
    if c.kind <> 'create' then
        begin
            select * into s from posthaste.subscription x where x.subscription_id = c.subscription_id for no key update;
        exception when lock_not_available then
            perform posthaste.refuse_to_wait();
        end;
        if s.removed_at is not null or posthaste.terms(s) <> c.before then
            raise exception using errcode = 'serialization_failure',
                message = format('change %s is stale: %s has other terms than those it was proposed against', change_id, c.before ->> 'name'),
                hint = 'Reject it, look at the terms of today, and propose anew.';
        end if;
    end if;

    if c.kind = 'remove' then
        update posthaste.subscription x set active = false, removed_at = clock_timestamp() where x.subscription_id = c.subscription_id;
        update posthaste.signing_secret k set ends_at = clock_timestamp()
        where k.subscription_id = c.subscription_id and (k.ends_at is null or k.ends_at > clock_timestamp());
    else
        -- What was proposed was checked then; the catalogue and the names may have changed since.
        perform posthaste.checked_event_types(c.terms -> 'event_types', coalesce(c.before -> 'event_types', '[]'));
        t := jsonb_populate_record(null::posthaste.subscription, c.terms);
        begin
            if c.kind = 'create' then
                insert into posthaste.subscription (
                    subscription_id, name, tenant, url, event_types, unknown_types, filter, retry_intervals, retry_jitter,
                    client_errors, max_age, breaker, pause_after, sandbox, timeout, concurrency, rates, headers, networks, after_dead_letter,
                    partner, envelope, envelope_values, signatures, header_prefix, user_agent, pass_trace, authentication, tls, handshake, mask,
                    description, contact, active, created_by)
                overriding system value
                values (c.subscription_id, t.name, t.tenant, t.url, t.event_types, t.unknown_types, t.filter, t.retry_intervals, t.retry_jitter,
                    t.client_errors, t.max_age, nullif(t.breaker, 'null'), t.pause_after, t.sandbox, t.timeout, t.concurrency, t.rates, t.headers, t.networks,
                    t.after_dead_letter, t.partner, t.envelope, t.envelope_values, t.signatures, t.header_prefix, t.user_agent, t.pass_trace,
                    nullif(t.authentication, 'null'), nullif(t.tls, 'null'), nullif(t.handshake, 'null'), nullif(t.mask, 'null'),
                    t.description, t.contact, t.active, c.proposed_by);
                insert into posthaste.lane (subscription_id, active, rate_capacity, rate_interval, rate_block)
                select c.subscription_id, t.active, p.capacity, p.seconds, p.block from posthaste.pace(t.rates) p;
            else
                update posthaste.subscription x
                set name = t.name, tenant = t.tenant, url = t.url, event_types = t.event_types, unknown_types = t.unknown_types,
                    filter = t.filter, retry_intervals = t.retry_intervals, retry_jitter = t.retry_jitter,
                    client_errors = t.client_errors, max_age = t.max_age, breaker = nullif(t.breaker, 'null'), pause_after = t.pause_after,
                    sandbox = t.sandbox, timeout = t.timeout,
                    concurrency = t.concurrency, rates = t.rates, headers = t.headers, networks = t.networks,
                    after_dead_letter = t.after_dead_letter, envelope = t.envelope, envelope_values = t.envelope_values,
                    signatures = t.signatures, header_prefix = t.header_prefix, user_agent = t.user_agent, pass_trace = t.pass_trace,
                    authentication = nullif(t.authentication, 'null'), tls = nullif(t.tls, 'null'), handshake = nullif(t.handshake, 'null'),
                    mask = nullif(t.mask, 'null'), description = t.description,
                    contact = t.contact, active = t.active
                where x.subscription_id = c.subscription_id;
            end if;
        exception when unique_violation then
            perform posthaste.refuse('name', t.name, 'it is not free any more; propose another');
        end;
        delete from posthaste.credential k
        where k.subscription_id = c.subscription_id and not case k.name
            -- What it is for has changed, so it is another one.
            when ':authentication' then coalesce(t.authentication = c.before -> 'authentication', false)
            when ':client_key' then coalesce(t.tls -> 'certificate' = c.before #> '{tls,certificate}', false)
            else coalesce(t.headers -> k.name = '{"secret": true}', false) end;
        perform posthaste.ask_for_secrets(c.subscription_id);
    end if;
    perform posthaste.decide(change_id, 'approved', reason);
    perform posthaste.note('approved_' || c.kind, coalesce(c.terms, c.before) ->> 'name', coalesce(c.terms, c.before) ->> 'tenant',
        c.before, coalesce(c.terms, '{}') || jsonb_build_object('change_id', change_id), reason);
    return c.subscription_id;
end
$$;
comment on function posthaste.approve(bigint, text) is
    'Makes a proposal so, exactly as it was proposed, and returns the subscription''s id, or the envelope''s version. Refused to whoever proposed it (see posthaste.set_four_eyes), and where the terms have changed since. Workers heed it within a second.';

create function posthaste.reject(change_id bigint, reason text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    c constant posthaste.subscription_change := posthaste.open_change(change_id);
begin
    perform posthaste.decide(change_id, 'rejected', posthaste.because(reason));
    perform posthaste.note('rejected_' || c.kind, coalesce(c.terms, c.before) ->> 'name', coalesce(c.terms, c.before) ->> 'tenant',
        null, jsonb_build_object('change_id', change_id), reason);
end
$$;
comment on function posthaste.reject(bigint, text) is 'Ends a proposal without making it so. Whoever proposed it withdraws it with this, too.';

create function posthaste.deactivate(subscription text, reason text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s posthaste.subscription := posthaste.subscription_called(subscription, to_change => true);
    before constant jsonb := posthaste.terms(s);
begin
    perform posthaste.because(reason);
    if not s.active then
        perform posthaste.refuse('subscription', subscription, 'it is not active already');
    end if;
    update posthaste.subscription x set active = false where x.subscription_id = s.subscription_id returning * into s;
    perform posthaste.note('deactivated', s.name, s.tenant, before, posthaste.terms(s), reason);
end
$$;
comment on function posthaste.deactivate(text, text) is
    'Pauses a subscription at once: nothing more is sent, what comes up waits. One administrator may, since it only stops something; to go on, propose {"active": true}.';

create function posthaste.skip_ordered(subscription text, ordering_key text, reason text) returns uuid
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription);
    head posthaste.ordering;
begin
    perform posthaste.because(reason);
    select * into head from posthaste.ordering o where o.subscription_id = s.subscription_id and o.ordering_key = skip_ordered.ordering_key;
    if head.event_id is null then
        perform posthaste.refuse('ordering_key', coalesce(ordering_key, 'null'), 'none of its deliveries is under way or waits there; see posthaste.ordered_key');
    end if;
    insert into posthaste.skip (subscription_id, ordering_key, event_id, replay, reason)
    values (head.subscription_id, head.ordering_key, head.event_id, head.replay, reason);
    perform posthaste.note('ordering_skipped', s.name, s.tenant, null,
        jsonb_build_object('ordering_key', head.ordering_key, 'event_id', head.event_id, 'replay', head.replay, 'held_at', head.held_at), reason);
    return head.event_id;
end
$$;
comment on function posthaste.skip_ordered(text, text, text) is
    'Lets an ordering key of a subscription go on past its head, and returns that event''s id. A dead letter stays one; a delivery that waits for a retry, or in quarantine, is cancelled; one that is under way ends first, and is cancelled if it would be tried again. A worker carries it out within a second.';

-- Settings.

create function posthaste.set_four_eyes(required boolean, reason text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform posthaste.because(reason);
    if required is null then
        perform posthaste.refuse('required', 'null', 'true or false');
    end if;
    perform set_config('posthaste.reason', reason, true);
    update posthaste.setting set four_eyes = required where is_only;
    perform set_config('posthaste.reason', '', true);
end
$$;
comment on function posthaste.set_four_eyes(boolean, text) is
    'Whether a proposal needs another administrator. Not for administrators themselves: for whoever owns the schema, so that nobody switches off what they are bound by.';

create function posthaste.set_secret_rotation(every interval, reason text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform posthaste.refuse_scoped();
    perform posthaste.because(reason);
    if every is null or extract(epoch from every) not between 3600 and 315360000 then
        perform posthaste.refuse('every', coalesce(every::text, 'null'), 'from 1 hour to 3650 days');
    end if;
    perform set_config('posthaste.reason', reason, true);
    update posthaste.setting set secrets_rotate = every where is_only;
    perform set_config('posthaste.reason', '', true);
end
$$;
comment on function posthaste.set_secret_rotation(interval, text) is 'How old the newest secret of a subscription may become before posthaste.secret_overview calls its rotation overdue.';

create function posthaste.set_dedup_window(span interval, reason text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform posthaste.refuse_scoped();
    perform posthaste.because(reason);
    if span is null or extract(epoch from span) not between 1 and 7776000 then
        perform posthaste.refuse('span', coalesce(span::text, 'null'), 'from 1 second to 90 days');
    end if;
    perform set_config('posthaste.reason', reason, true);
    update posthaste.setting set dedup_window = span where is_only;
    perform set_config('posthaste.reason', '', true);
end
$$;
comment on function posthaste.set_dedup_window(interval, text) is 'For how long a dedup key keeps further events with it out. Keys that came before keep the time that they were given.';

create function posthaste.set_partner_scope(login text, tenants text[], reason text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    before jsonb;
begin
    perform posthaste.refuse_scoped();
    perform posthaste.because(reason);
    -- The scope goes by session_user: given to a group, it would scope nobody.
    if login is null or not exists (select from pg_roles where rolname = login and rolcanlogin) then
        perform posthaste.refuse('login', coalesce(login, 'null'), 'there is no role of that name that logs in');
    end if;
    if tenants is null or array_position(tenants, null) is not null or cardinality(tenants) > 1000 then
        perform posthaste.refuse('tenants', coalesce(tenants::text, 'null'), 'a list of at most 1000 partners; {} to lift the scope');
    end if;
    select to_jsonb(array_agg(p.tenant order by p.tenant)) into before from posthaste.partner_scope p where p.login = set_partner_scope.login;
    delete from posthaste.partner_scope p where p.login = set_partner_scope.login;
    insert into posthaste.partner_scope (login, tenant) select distinct set_partner_scope.login, t from unnest(tenants) t;
    perform posthaste.note('partner_scope_set', login, null, before, to_jsonb(tenants), reason);
end
$$;
comment on function posthaste.set_partner_scope(text, text[], text) is
    'Lets a login see and change only what belongs to these partners; {} lifts that. For administrators who are not scoped themselves.';

-- Secrets. The program encrypts and decrypts; what comes here is ciphertext.

create function posthaste.refuse_a_sixth_secret(s posthaste.subscription) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- Every live one signs every request.
    if (select count(*) >= 5 from posthaste.signing_secret k
        where k.subscription_id = s.subscription_id and (k.ends_at is null or k.ends_at > clock_timestamp())) then
        perform posthaste.refuse('subscription', s.name, 'it has five signing secrets that have not ended; end one with posthaste.end_secret, or wait');
    end if;
end
$$;
comment on function posthaste.refuse_a_sixth_secret(posthaste.subscription) is 'Raises where a subscription has five signing secrets that have not ended.';

create function posthaste.rotate_secret(
    subscription text,
    overlap interval default '24 hours',
    reason text default null,
    secret_id uuid default null,
    key_id text default null,
    ciphertext bytea default null,
    kind text default null,
    public_key bytea default null
) returns smallint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription, to_change => true);
    -- What a subscription signs with first of all, if nothing else is said.
    wanted constant text := coalesce(kind, case when s.signatures = '{standard_v1a}' then 'ed25519' else 'shared' end);
    next_number smallint;
    ending smallint[];
begin
    if wanted not in ('shared', 'ed25519') and (ciphertext is null or wanted <> 'text') then
        perform posthaste.refuse('kind', wanted, 'shared or ed25519');
    end if;
    if overlap is null or extract(epoch from overlap) not between 0 and 2592000 then
        perform posthaste.refuse('overlap', coalesce(overlap::text, 'null'), 'from 0 to 30 days');
    end if;
    if (secret_id is null) <> (ciphertext is null) or (key_id is null) <> (ciphertext is null) then
        perform posthaste.refuse('ciphertext', 'so given', 'secret_id, key_id and ciphertext all three, or none of them');
    end if;
    with ended as (
        update posthaste.signing_secret k set ends_at = clock_timestamp() + overlap
        where k.subscription_id = s.subscription_id and (k.ends_at is null or k.ends_at > clock_timestamp() + overlap)
          -- A private key is no substitute for a secret that both know, nor the other way round.
          and (k.kind = 'ed25519') = (wanted = 'ed25519')
        returning k.number)
    select array_agg(number order by number) into ending from ended;
    perform posthaste.refuse_a_sixth_secret(s);
    select coalesce(max(k.number), 0) + 1 into next_number from posthaste.signing_secret k where k.subscription_id = s.subscription_id;
    insert into posthaste.signing_secret (secret_id, subscription_id, number, kind, key_id, ciphertext, public_key)
    values (coalesce(rotate_secret.secret_id, gen_random_uuid()), s.subscription_id, next_number, wanted, rotate_secret.key_id, rotate_secret.ciphertext,
            rotate_secret.public_key);
    perform posthaste.note('secret_rotated', s.name, s.tenant, jsonb_build_object('ending', ending),
        jsonb_build_object('number', next_number, 'kind', wanted, 'overlap_seconds', extract(epoch from overlap)), reason);
    return next_number;
end
$$;
comment on function posthaste.rotate_secret(text, interval, text, uuid, text, bytea, text, bytea) is
    'Asks for a new signing secret (shared, or ed25519) and returns its number; the others of its kind sign along with it until the overlap ends. A worker makes it within a second, unless the program gives it encrypted already.';

create function posthaste.add_secret(
    subscription text, secret_id uuid, key_id text, ciphertext bytea, reason text, kind text default 'shared', public_key bytea default null
) returns smallint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription, to_change => true);
    next_number smallint;
begin
    perform posthaste.because(reason);
    select coalesce(max(k.number), 0) + 1 into next_number from posthaste.signing_secret k where k.subscription_id = s.subscription_id;
    if secret_id is null or key_id is null or ciphertext is null then
        perform posthaste.refuse('ciphertext', 'so given', 'secret_id, key_id and ciphertext as `posthaste secret import` makes them; to ask for a secret, see posthaste.rotate_secret');
    end if;
    -- One that was only asked for, and that nobody has seen: this is it.
    with unmade as (
        delete from posthaste.signing_secret k
        where k.subscription_id = s.subscription_id and k.ciphertext is null and (k.kind = 'ed25519') = (add_secret.kind = 'ed25519')
          and not exists (select from posthaste.signing_secret m
                          where m.subscription_id = s.subscription_id and m.number <> k.number and (m.kind = 'ed25519') = (add_secret.kind = 'ed25519'))
        returning k.number)
    select coalesce((select u.number from unmade u), next_number) into next_number;
    perform posthaste.refuse_a_sixth_secret(s);
    insert into posthaste.signing_secret (secret_id, subscription_id, number, kind, key_id, ciphertext, public_key)
    values (add_secret.secret_id, s.subscription_id, next_number, add_secret.kind, add_secret.key_id, add_secret.ciphertext, add_secret.public_key);
    perform posthaste.note('secret_imported', s.name, s.tenant, null, jsonb_build_object('number', next_number, 'kind', add_secret.kind), reason);
    return next_number;
end
$$;
comment on function posthaste.add_secret(text, uuid, text, bytea, text, text, bytea) is 'Stores a secret that was made elsewhere, encrypted by `posthaste secret import`; from now on every live one signs.';

create function posthaste.set_credential(subscription text, name text, secret_id uuid, key_id text, ciphertext bytea, reason text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription, to_change => true);
begin
    perform posthaste.because(reason);
    if not coalesce(case name
        when ':authentication' then s.authentication is not null
        when ':client_key' then s.tls ? 'certificate'
        else s.headers -> name = '{"secret": true}' end, false) then
        perform posthaste.refuse('credential', coalesce(name, 'null'),
            'a header that the subscription marks as {"secret": true}, :authentication where it has an authentication, or :client_key where its tls has a certificate');
    end if;
    delete from posthaste.credential k where k.subscription_id = s.subscription_id and k.name = set_credential.name;
    insert into posthaste.credential (secret_id, subscription_id, name, key_id, ciphertext)
    values (set_credential.secret_id, s.subscription_id, set_credential.name, set_credential.key_id, set_credential.ciphertext);
    perform posthaste.note('credential_set', s.name, s.tenant, null, jsonb_build_object('name', set_credential.name), reason);
end
$$;
comment on function posthaste.set_credential(text, text, uuid, text, bytea, text) is 'Stores what a subscription shows to its endpoint, encrypted by `posthaste secret import` (--header, --authentication or --client-key).';

create function posthaste.end_secret(subscription text, number smallint, reason text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription, to_change => true);
begin
    perform posthaste.because(reason);
    update posthaste.signing_secret k set ends_at = clock_timestamp()
    where k.subscription_id = s.subscription_id and k.number = end_secret.number and (k.ends_at is null or k.ends_at > clock_timestamp());
    if not found then
        perform posthaste.refuse('number', coalesce(number::text, 'null'), 'that secret has ended, or never was');
    end if;
    perform posthaste.note('secret_ended', s.name, s.tenant, null, jsonb_build_object('number', number), reason);
end
$$;
comment on function posthaste.end_secret(text, smallint, text) is 'Ends a signing secret now, ahead of what was agreed. Without a live one nothing is sent.';

create function posthaste.map_id(partner text, kind text, internal text, external text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    field text;
    given text;
begin
    for field, given in values ('partner', partner), ('kind', kind), ('internal', internal), ('external', external) loop
        -- As long as a mask can ask for, and short enough for the indexes.
        if given is null or octet_length(given) not between 1 and (case field when 'internal' then 1024 else 256 end) then
            perform posthaste.refuse(field, coalesce(left(given, 100), 'null'), case field when 'internal' then '1 to 1024 bytes' else '1 to 256 bytes' end);
        end if;
    end loop;
    -- The word is the worker's and the administrators'; a scoped administrator's only for its own partners.
    if not posthaste.is_in_scope(partner) then
        raise exception using errcode = 'insufficient_privilege',
            message = format('%s may map ids only for %s', session_user, array_to_string(posthaste.scope(), ', '));
    end if;
    insert into posthaste.external_id (partner, kind, internal, external)
    values (map_id.partner, map_id.kind, map_id.internal, map_id.external)
    on conflict on constraint external_id_pkey do nothing;
    -- The platform's own transactions do not queue up behind the audit log's last entry.
    if found and pg_has_role(session_user, 'posthaste_admin', 'member') then
        perform posthaste.note('id_mapped', kind, partner, null, jsonb_build_object('internal', internal, 'external', external), null);
    end if;
    if not exists (
        select from posthaste.external_id e
        where (e.partner, e.kind, e.internal, e.external) = (map_id.partner, map_id.kind, map_id.internal, map_id.external)) then
        -- What it is, is not told: whoever only writes need not learn it.
        perform posthaste.refuse('external', external, format('the %s has another id with this partner already, and keeps it', kind));
    end if;
exception when unique_violation then
    perform posthaste.refuse('external', external, format('it is the id of another %s with this partner', kind));
end
$$;
comment on function posthaste.map_id(text, text, text, text) is
    'What a partner calls one of our things, once and for all: for masks that map ids. May be called by the platform in the transaction that makes the thing.';

create function posthaste.keep_pseudonyms(subscription_id integer, kinds text[], internals text[], externals text[])
    returns table (kind text, internal text, external text)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    -- Somebody's open transaction, in which one of them is mapped, must not hold up a worker.
    set lock_timeout = '2s'
as $$
#variable_conflict use_column
declare
    called text;
begin
    select s.partner into called from posthaste.subscription s where s.subscription_id = keep_pseudonyms.subscription_id and s.mask is not null;
    if called is null then
        perform posthaste.refuse('subscription_id', coalesce(keep_pseudonyms.subscription_id::text, 'null'), 'one that has a mask');
    end if;
    insert into posthaste.external_id (partner, kind, internal, external, is_pseudonym)
    select called, k, i, e, true from unnest(kinds, internals, externals) u (k, i, e)
    order by k, i
    on conflict on constraint external_id_pkey do nothing;
    return query
        select x.kind, x.internal, x.external from posthaste.external_id x
        join unnest(kinds, internals) u (k, i) on x.kind = u.k and x.internal = u.i
        where x.partner = called;
end
$$;
comment on function posthaste.keep_pseudonyms(integer, text[], text[], text[]) is
    'Makes pseudonyms the external ids of what has none with this subscription''s partner, and returns the ids that stand. For workers, where a mask says so.';

create function posthaste.keep_handshake(subscription_id integer, url text, origin text, rate integer) returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '2s'
as $$
begin
    insert into posthaste.handshake (subscription_id, url, origin, rate)
    select s.subscription_id, s.url, s.handshake ->> 'origin', keep_handshake.rate
    from posthaste.subscription s
    where s.subscription_id = keep_handshake.subscription_id and s.url = keep_handshake.url and s.handshake ->> 'origin' = keep_handshake.origin
      and s.removed_at is null;
    if not found then
        return false;
    end if;
    -- Whoever learns that it may send finds the rate in its lane.
    if rate is not null then
        perform posthaste.settle_lanes();
    end if;
    return true;
end
$$;
comment on function posthaste.keep_handshake(integer, text, text, integer) is
    'Writes down that a receiver allows what its subscription asks for, at so many requests a minute (null: any), and has its lane keep to that; false where that is not asked any more. For workers.';

create function posthaste.grant_handshake(subscription text, rate integer, reason text) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription, to_change => true);
begin
    perform posthaste.because(reason);
    if s.handshake is null then
        perform posthaste.refuse('subscription', subscription, 'its terms ask for no handshake');
    end if;
    if rate not between 1 and 9999999 then
        perform posthaste.refuse('rate', rate::text, 'requests a minute, from 1 to 9999999; null for any');
    end if;
    insert into posthaste.handshake (subscription_id, url, origin, rate)
    values (s.subscription_id, s.url, s.handshake ->> 'origin', grant_handshake.rate);
    perform posthaste.note('handshake_granted', s.name, s.tenant, null, jsonb_build_object('origin', s.handshake ->> 'origin', 'rate', rate), reason);
end
$$;
comment on function posthaste.grant_handshake(text, integer, text) is
    'Writes down that a receiver gave its permission later, at the callback or otherwise: nothing inbound exists here, so a person says so.';

create function posthaste.previewed(subscription text, event_id uuid, change_id bigint, out s posthaste.subscription, out c posthaste.subscription_change, out o posthaste.outbox)
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if previewed.change_id is null then
        s := posthaste.subscription_called(previewed.subscription);
    else
        c := posthaste.open_change(previewed.change_id);
        if c.kind not in ('create', 'change') or coalesce(previewed.subscription, '') not in (c.terms ->> 'name', coalesce(c.before ->> 'name', c.terms ->> 'name')) then
            perform posthaste.refuse('change_id', c.change_id::text, format('one that proposes terms of %s; see posthaste.change', previewed.subscription));
        end if;
        s := jsonb_populate_record(null::posthaste.subscription, c.terms);
        s.subscription_id := c.subscription_id;
    end if;
    select x.* into o from posthaste.outbox x where x.event_id = previewed.event_id;
    -- An administrator of one partner sees no other partner's events.
    if o.event_id is null or not posthaste.is_in_scope(o.tenant) then
        perform posthaste.refuse('event_id', coalesce(previewed.event_id::text, 'null'), 'there is no such event; see posthaste.event');
    end if;
end
$$;
comment on function posthaste.previewed(text, uuid, bigint) is 'The subscription, as it stands or as a change would make it, and the event; raises where there is none, or none that this login may see.';

create function posthaste.ask_to_preview(subscription text, event_id uuid, reason text, change_id bigint default null) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    p record;
begin
    perform posthaste.because(reason);
    p := posthaste.previewed(subscription, event_id, change_id);
    return posthaste.note('event_previewed', (p.s).name, (p.s).tenant, null,
        jsonb_strip_nulls(jsonb_build_object('event_id', event_id, 'change_id', change_id, 'subscription', subscription)), reason);
end
$$;
comment on function posthaste.ask_to_preview(text, uuid, text, bigint) is
    'Writes into the audit log that this login looks at an event as a subscription would get it, or as it would under the terms that an open change proposes, and returns the entry. With it, and within a minute, posthaste.preview_source hands it out.';

create function posthaste.preview_source(entry bigint)
    returns table (subscription_id integer, event_type text, occurred_at timestamptz, payload text, metadata text, tenant text, traceparent text,
                   is_meant boolean, terms jsonb, partner_secret_id uuid, partner_key_id text, partner_ciphertext bytea)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    e posthaste.audit_log;
    p record;
    s posthaste.subscription;
    o posthaste.outbox;
    k posthaste.partner_key;
begin
    -- Of another transaction, so that no rollback can take back that it was looked at.
    select * into e from posthaste.audit_log a
    where a.entry = preview_source.entry and a.action = 'event_previewed' and a.actor = session_user
      and a.at > clock_timestamp() - interval '1 minute' and a.xid <> coalesce(pg_current_xact_id_if_assigned(), '0'::xid8);
    if not found then
        perform posthaste.refuse('entry', coalesce(entry::text, 'null'), 'an entry that posthaste.ask_to_preview made for this login, committed, less than a minute ago');
    end if;
    p := posthaste.previewed(e.after ->> 'subscription', (e.after ->> 'event_id')::uuid, (e.after ->> 'change_id')::bigint);
    s := p.s;
    o := p.o;
    if s.mask is not null and s.mask <> 'null' then
        select * into k from posthaste.partner_key x where x.partner = s.partner and x.ciphertext is not null;
    end if;
    return query select s.subscription_id, o.event_type, o.occurred_at, o.payload::text, o.metadata::text, o.tenant, o.traceparent,
        -- As posthaste.still_wants says it of what was agreed.
        o.tenant is not distinct from coalesce(s.tenant, o.tenant) and s.event_types && posthaste.patterns(o.event_type)
            and (s.unknown_types or exists (select from posthaste.event_type t where t.event_type = o.event_type and t.active))
            and (s.filter is null or coalesce(posthaste.matches(s.filter, o.payload::text), false)),
        coalesce((p.c).terms, posthaste.terms(s)), k.secret_id, k.key_id, k.ciphertext;
end
$$;
comment on function posthaste.preview_source(bigint) is
    'An event as the platform wrote it, whether it is meant for the subscription at all, the terms, and the partner''s key, encrypted: what an entry of the audit log says this login looks at. `posthaste preview` makes of it what would be sent.';

create function posthaste.ask_to_reveal(subscription text, reason text) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription);
begin
    return posthaste.note('secret_revealed', s.name, s.tenant, null, (
        select jsonb_build_object('subscription_id', s.subscription_id, 'numbers', jsonb_agg(k.number order by k.number)) from posthaste.signing_secret k
        where k.subscription_id = s.subscription_id and (k.ends_at is null or k.ends_at > now())), posthaste.because(reason));
end
$$;
comment on function posthaste.ask_to_reveal(text, text) is
    'Writes into the audit log that the live secrets of a subscription are revealed to this login, and returns the entry. With it, and within a minute, posthaste.reveal hands them out.';

create function posthaste.reveal(entry bigint)
    returns table (subscription_id integer, secret_id uuid, number smallint, kind text, key_id text, ciphertext bytea)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    e posthaste.audit_log;
begin
    -- Of another transaction, so that no rollback can take back that it was revealed.
    select * into e from posthaste.audit_log a
    where a.entry = reveal.entry and a.action = 'secret_revealed' and a.actor = session_user
      and a.at > clock_timestamp() - interval '1 minute' and a.xid <> coalesce(pg_current_xact_id_if_assigned(), '0'::xid8);
    if not found then
        perform posthaste.refuse('entry', coalesce(entry::text, 'null'), 'an entry that posthaste.ask_to_reveal made for this login, committed, less than a minute ago');
    end if;
    return query
        select k.subscription_id, k.secret_id, k.number, k.kind, k.key_id, k.ciphertext
        from posthaste.signing_secret k
        join posthaste.subscription s on s.subscription_id = k.subscription_id and s.removed_at is null
        where k.subscription_id = (e.after ->> 'subscription_id')::integer and k.ciphertext is not null and (k.ends_at is null or k.ends_at > now())
          and e.after -> 'numbers' @> to_jsonb(k.number)
        order by k.number;
end
$$;
comment on function posthaste.reveal(bigint) is 'The live secrets that an entry of the audit log says were revealed, encrypted. `posthaste secret reveal` decrypts them.';

create function posthaste.fill_secret(secret_id uuid, key_id text, ciphertext bytea, public_key bytea default null) returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    -- Somebody's open transaction must not hold up a worker.
    set lock_timeout = '200ms'
as $$
begin
    update posthaste.signing_secret k set key_id = fill_secret.key_id, ciphertext = fill_secret.ciphertext, public_key = fill_secret.public_key
    where k.secret_id = fill_secret.secret_id and k.ciphertext is null;
    if not found then
        update posthaste.partner_key k set key_id = fill_secret.key_id, ciphertext = fill_secret.ciphertext
        where k.secret_id = fill_secret.secret_id and k.ciphertext is null;
    end if;
    return found;
end
$$;
comment on function posthaste.fill_secret(uuid, text, bytea, bytea) is
    'Gives a signing secret or a partner''s key that was asked for its content, encrypted; false where it has one already. For workers: who asked is in the audit log.';

create function posthaste.ask_to_reencrypt(reason text) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform posthaste.refuse_scoped();
    return posthaste.note('secrets_taken_to_reencrypt', 'signing_secret', null, null, null, posthaste.because(reason));
end
$$;
comment on function posthaste.ask_to_reencrypt(text) is
    'Writes into the audit log that this login takes the stored secrets to encrypt them anew, and returns the entry. With it, and within an hour, posthaste.secrets_to_reencrypt hands them out.';

create function posthaste.secrets_to_reencrypt(entry bigint, current_key text)
    returns table (kind text, subscription_id integer, secret_id uuid, key_id text, ciphertext bytea)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform posthaste.refuse_scoped();
    if not exists (
        select from posthaste.audit_log a
        where a.entry = secrets_to_reencrypt.entry and a.action = 'secrets_taken_to_reencrypt' and a.actor = session_user
          and a.at > clock_timestamp() - interval '1 hour' and a.xid <> coalesce(pg_current_xact_id_if_assigned(), '0'::xid8)) then
        perform posthaste.refuse('entry', coalesce(entry::text, 'null'), 'an entry that posthaste.ask_to_reencrypt made for this login, committed, less than an hour ago');
    end if;
    return query
        select k.kind, k.subscription_id, k.secret_id, k.key_id, k.ciphertext from posthaste.signing_secret k where k.key_id <> current_key
        union all
        select case c.name when ':authentication' then 'authentication' when ':client_key' then 'client_key' else 'header' end,
               c.subscription_id, c.secret_id, c.key_id, c.ciphertext from posthaste.credential c where c.key_id <> current_key
        union all
        select 'partner', 0, p.secret_id, p.key_id, p.ciphertext from posthaste.partner_key p where p.key_id <> current_key
        limit 1000;
end
$$;
comment on function posthaste.secrets_to_reencrypt(bigint, text) is 'Secrets that are not encrypted under this key, at most 1000 at a time, and of which kind each is (shared, text, ed25519, header, authentication, client_key, partner: what it is bound to differs), for `posthaste secret reencrypt`.';

create function posthaste.reencrypt_secret(secret_id uuid, old_ciphertext bytea, key_id text, ciphertext bytea) returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    done boolean;
begin
    perform posthaste.refuse_scoped();
    update posthaste.signing_secret k set key_id = reencrypt_secret.key_id, ciphertext = reencrypt_secret.ciphertext
    where k.secret_id = reencrypt_secret.secret_id and k.ciphertext = old_ciphertext;
    done := found;
    update posthaste.credential h set key_id = reencrypt_secret.key_id, ciphertext = reencrypt_secret.ciphertext
    where h.secret_id = reencrypt_secret.secret_id and h.ciphertext = old_ciphertext;
    done := done or found;
    update posthaste.partner_key p set key_id = reencrypt_secret.key_id, ciphertext = reencrypt_secret.ciphertext
    where p.secret_id = reencrypt_secret.secret_id and p.ciphertext = old_ciphertext;
    done := done or found;
    if done then
        perform posthaste.note('secret_reencrypted', reencrypt_secret.secret_id::text, null, null, jsonb_build_object('key_id', reencrypt_secret.key_id), null);
    end if;
    return done;
end
$$;
comment on function posthaste.reencrypt_secret(uuid, bytea, text, bytea) is 'Replaces a secret''s ciphertext by the same secret under another key; false where it has changed meanwhile. No new revision: what is signed stays the same.';

-- What does not fit.

create function posthaste.release(event_id uuid, reason text) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    return posthaste.decide_quarantine(event_id, 'released', reason);
end
$$;
comment on function posthaste.release(uuid, text) is 'Sends the quarantined deliveries of an event after all; returns how many. One whose mask still misses an id is tried until there is one, and never sent unmasked.';

create function posthaste.discard(event_id uuid, reason text) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    return posthaste.decide_quarantine(event_id, 'discarded', reason);
end
$$;
comment on function posthaste.discard(uuid, text) is 'Cancels the quarantined deliveries of an event; returns how many. The event itself stays.';

create function posthaste.dismiss_unknown(event_type text, reason text) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    dismissed jsonb;
begin
    perform posthaste.refuse_scoped();
    perform posthaste.because(reason);
    select jsonb_build_object('types', count(*), 'events', sum(u.events)) into dismissed
    from posthaste.unknown_event_type u
    where dismiss_unknown.event_type = any (posthaste.patterns(u.event_type)) and not posthaste.is_dismissed(u)
    having count(*) > 0;
    if dismissed is null then
        perform posthaste.refuse('event_type', coalesce(event_type, 'null'), 'no unknown event type is called that or begins like that; see posthaste.unrouted');
    end if;
    insert into posthaste.dismissal (event_type) values (dismiss_unknown.event_type);
    perform posthaste.note('unknown_type_dismissed', event_type, null, dismissed, null, reason);
    return (dismissed ->> 'types')::integer;
end
$$;
comment on function posthaste.dismiss_unknown(text, text) is
    'Forgets that an unknown event type came, or all of a prefix such as noise.*, or all with *; returns how many. Their events stay. One that comes again is shown again.';

create function posthaste.decide_quarantine(event_id uuid, decision text, reason text) returns integer
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    decided posthaste.quarantine[];
    tenants text[];
begin
    perform posthaste.because(reason);
    with changed as (
        update posthaste.quarantine q
        set decision = decide_quarantine.decision, decided_at = clock_timestamp(), decided_by = session_user, decision_reason = decide_quarantine.reason
        from posthaste.subscription s
        where q.event_id = decide_quarantine.event_id and q.decision is null
          and s.subscription_id = q.subscription_id and posthaste.is_in_scope(s.tenant)
        returning q.*)
    select array_agg(c.*) into decided from changed c;
    if decided is null then
        perform posthaste.refuse('event_id', coalesce(event_id::text, 'null'), 'none of its deliveries is quarantined; see posthaste.unrouted');
    end if;
    -- Those that are released are put back by a worker (posthaste.requeue_released): in our transaction, which may stay open for
    -- long, their lanes would be locked against all workers.
    if decision = 'discarded' then
        insert into posthaste.cancellation (event_id, subscription_id, replay, attempts, reason)
        select q.event_id, q.subscription_id, q.replay, q.attempts, decide_quarantine.reason from unnest(decided) q;
        -- Those behind it go on.
        insert into posthaste.skip (subscription_id, ordering_key, event_id, replay, reason)
        select q.subscription_id, o.ordering_key, q.event_id, q.replay, decide_quarantine.reason
        from unnest(decided) q join posthaste.outbox o on o.event_id = q.event_id
        where o.ordering_key is not null;
    end if;
    tenants := array(
        select distinct s.tenant from unnest(decided) q join posthaste.subscription s using (subscription_id));
    perform posthaste.note('quarantine_' || decision, event_id::text, case when cardinality(tenants) = 1 then tenants[1] end, null,
        jsonb_build_object('deliveries', cardinality(decided), 'because', (select jsonb_agg(distinct q.reason) from unnest(decided) q)), reason);
    return cardinality(decided);
end
$$;
comment on function posthaste.decide_quarantine(uuid, text, text) is 'Ends a quarantine. Called by release and discard alone.';

-- Replays, tests, cancels. What is asked for here is carried out by workers: posthaste.queue_replays, posthaste.carry_out_cancels.

create function posthaste.begin_replay(kind text, asked jsonb, event_ids uuid[], subscription_ids integer[], reason text, rate integer)
    returns table (replay_id bigint, deliveries bigint)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '5s'
as $$
#variable_conflict use_column
declare
    id bigint;
    total bigint;
    tenants text[];
begin
    insert into posthaste.replay (kind, asked, reason, rate, asked_for)
    values (kind, asked, posthaste.because(reason), rate, posthaste.application_user())
    returning replay.replay_id into id;
    begin
        with item as (
            -- What somebody else has just asked for is theirs.
            insert into posthaste.replay_item (replay_id, subscription_id, event_id)
            select id, u.subscription_id, u.event_id from unnest(event_ids, subscription_ids) u (event_id, subscription_id)
            order by u.event_id, u.subscription_id
            on conflict on constraint replay_item_waits_once do nothing
            returning subscription_id
        ), part as (
            insert into posthaste.replay_part (replay_id, subscription_id, total)
            select id, i.subscription_id, count(*) from item i group by i.subscription_id
            returning subscription_id, total
        )
        select sum(part.total), array_agg(distinct s.tenant) into total, tenants
        from part join posthaste.subscription s using (subscription_id);
    exception when lock_not_available then
        perform posthaste.refuse_to_wait();
    end;
    if total is null then
        delete from posthaste.replay r where r.replay_id = id;
        return query select null::bigint, 0::bigint;
        return;
    end if;
    -- Last: from here on until we commit, nobody else can act.
    perform posthaste.note(kind || '_asked_for', format('replay %s', id), case when cardinality(tenants) = 1 then tenants[1] end, null,
        asked || jsonb_build_object('replay_id', id, 'deliveries', total, 'rate', rate), reason);
    return query select id, total;
end
$$;
comment on function posthaste.begin_replay(text, jsonb, uuid[], integer[], text, integer) is
    'Writes down what a replay is to put into the queue, whatever of it is not about to be already. Called where all else was checked.';

create function posthaste.checked_rate(rate integer) returns integer
    language plpgsql immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    if rate not between 1 and 100000 then
        perform posthaste.refuse('rate', rate::text, 'from 1 to 100000 deliveries a second, or null for as many as go');
    end if;
    return rate;
end
$$;
comment on function posthaste.checked_rate(integer) is 'The rate of a replay, where it lies within bounds; raises otherwise.';

create function posthaste.replay_finished(event_id uuid, only_to posthaste.subscription, reason text, dry_run boolean, rate integer)
    returns table (replay_id bigint, deliveries bigint)
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    event constant uuid := replay_finished.event_id;
    waiting text;
    found integer[];
    wanted integer[];
begin
    perform posthaste.checked_rate(rate);
    -- One look at all places: a delivery that moves meanwhile is seen in one of them.
    select (select string_agg(format('%s: %s', s.name, u.why), ', ' order by s.name)
            from posthaste.unfinished(event) u join posthaste.subscription s using (subscription_id)
            where posthaste.is_in_scope(s.tenant) and (only_to.subscription_id is null or s.subscription_id = only_to.subscription_id)),
           (select array_agg(s.subscription_id)
            from posthaste.subscription s
            where s.subscription_id in (
                    select a.subscription_id from posthaste.attempt a
                    where a.event_id = event and a.replay >= 0 and a.verdict in ('done', 'exhausted', 'rejected', 'expired')
                    union
                    select c.subscription_id from posthaste.cancellation c where c.event_id = event and c.replay >= 0)
              and posthaste.is_in_scope(s.tenant) and s.removed_at is null
              and (only_to.subscription_id is null or s.subscription_id = only_to.subscription_id))
    into waiting, found;
    if waiting is not null then
        perform posthaste.refuse('event_id', event::text, 'a replay follows a delivery that is finished; ' || left(waiting, 500));
    end if;
    if found is null then
        perform posthaste.refuse('event_id', coalesce(event::text, 'null'),
            'there is no finished delivery of it to a subscription that stands; see posthaste.event_history');
    end if;
    select array_agg(s.subscription_id) into wanted
    from posthaste.subscription s join posthaste.outbox o on o.event_id = event
    where s.subscription_id = any (found) and posthaste.still_wants(s, o.event_type, o.payload);
    if wanted is null then
        perform posthaste.refuse('event_id', event::text, 'there is no subscription left that gets such an event, as they are agreed on now');
    end if;
    if coalesce(dry_run, true) then
        return query select null::bigint, cardinality(wanted)::bigint;
    else
        return query select * from posthaste.begin_replay('replay',
            jsonb_strip_nulls(jsonb_build_object('event_id', event, 'subscription', only_to.name)),
            array_fill(event, array[cardinality(wanted)]), wanted, reason, rate);
    end if;
end
$$;
comment on function posthaste.replay_finished(uuid, posthaste.subscription, text, boolean, integer) is
    'Replays the deliveries of an event, or the one to a subscription; refuses where one is not finished. Called by replay_delivery and replay_event alone.';

create function posthaste.replay_delivery(event_id uuid, subscription text, reason text, dry_run boolean default false, rate integer default 100)
    returns table (replay_id bigint, deliveries bigint)
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    select * from posthaste.replay_finished(replay_delivery.event_id, posthaste.subscription_called(subscription), reason, dry_run, rate);
end;
comment on function posthaste.replay_delivery(uuid, text, text, boolean, integer) is
    'Delivers an event to a subscription once more, whatever became of the delivery before, if it is finished. Returns the replay''s id; with dry_run only counts. The event keeps its id and its payload.';

create function posthaste.replay_event(event_id uuid, reason text, dry_run boolean default false, rate integer default 100)
    returns table (replay_id bigint, deliveries bigint)
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    select * from posthaste.replay_finished(replay_event.event_id, null, reason, dry_run, rate);
end;
comment on function posthaste.replay_event(uuid, text, boolean, integer) is
    'Delivers an event once more to every subscription that it was delivered to, or was to be, if all of that is finished. As posthaste.replay_delivery.';

create function posthaste.replay_found(
    asked jsonb, event_ids uuid[], subscription_ids integer[], last_attempts timestamptz[], reason text, dry_run boolean, rate integer
) returns table (replay_id bigint, deliveries bigint)
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    events uuid[];
    subscriptions integer[];
begin
    perform posthaste.checked_rate(rate);
    select array_agg(d.event_id), array_agg(d.subscription_id) into events, subscriptions
    from (
        select distinct a.event_id, a.subscription_id
        from unnest(event_ids, subscription_ids, last_attempts) u (event_id, subscription_id, last_attempt_at)
        join posthaste.attempt a on (a.event_id, a.subscription_id, a.started_at) = (u.event_id, u.subscription_id, u.last_attempt_at)
        join posthaste.subscription s on s.subscription_id = a.subscription_id
        where a.verdict in ('exhausted', 'rejected') and a.replay >= 0 and s.removed_at is null
          and ((select posthaste.scope()) is null or s.tenant = any ((select posthaste.scope())::text[]))
          and not exists (
              select from posthaste.replayed r where (r.event_id, r.subscription_id, r.follows) = (a.event_id, a.subscription_id, a.replay))
          and not exists (
              select from posthaste.replay_item i where (i.event_id, i.subscription_id) = (a.event_id, a.subscription_id))
    ) d;
    if coalesce(dry_run, true) or events is null then
        return query select null::bigint, coalesce(cardinality(events), 0)::bigint;
    else
        return query select * from posthaste.begin_replay('replay', asked, events, subscriptions, reason, rate);
    end if;
end
$$;
comment on function posthaste.replay_found(jsonb, uuid[], integer[], timestamptz[], text, boolean, integer) is
    'Replays dead letters, given by what tells one from another: those that are within scope, that nobody has replayed, and whose subscription stands.';

create function posthaste.replay_since(subscription text, since timestamptz, reason text, dry_run boolean default false, rate integer default 100)
    returns table (replay_id bigint, deliveries bigint)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription);
    events uuid[];
    attempts timestamptz[];
begin
    if since is null then
        perform posthaste.refuse('since', 'null', 'a time; ''-infinity'' for all');
    end if;
    select array_agg(a.event_id), array_agg(a.started_at) into events, attempts
    from posthaste.attempt a
    where a.subscription_id = s.subscription_id and a.started_at >= since and a.verdict in ('exhausted', 'rejected');
    return query select * from posthaste.replay_found(
        jsonb_build_object('subscription', s.name, 'since', since), events,
        array_fill(s.subscription_id, array[coalesce(cardinality(events), 0)]), attempts, reason, dry_run, rate);
end
$$;
comment on function posthaste.replay_since(text, timestamptz, text, boolean, integer) is
    'Delivers once more every dead letter of a subscription whose last attempt was made since then, unless it was replayed already. As posthaste.replay_delivery; no id where there is none.';

create function posthaste.replay_dead_letters(
    event_ids uuid[],
    subscription_ids integer[],
    last_attempts timestamptz[],
    reason text,
    dry_run boolean default false,
    rate integer default 100,
    predicate text default null
) returns table (replay_id bigint, deliveries bigint)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if length(predicate) > 10000 then
        perform posthaste.refuse('predicate', predicate, 'at most 10000 characters');
    end if;
    return query select * from posthaste.replay_found(
        jsonb_build_object('predicate', predicate), event_ids, subscription_ids, last_attempts, reason, dry_run, rate);
end
$$;
comment on function posthaste.replay_dead_letters(uuid[], integer[], timestamptz[], text, boolean, integer, text) is
    'Delivers these dead letters once more, given by three columns of posthaste.dead_letter; what is none, or is not this login''s to see, is left out. Whoever calls it says by what predicate they were found, if any.';

-- Runs as whoever calls it: the predicate may read what they may read, and do what they may do. What it finds is handed to a function
-- of the owner's, which takes nothing on trust.
create function posthaste.replay_where(predicate text, reason text, dry_run boolean default false, rate integer default 100)
    returns table (replay_id bigint, deliveries bigint)
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    event_ids uuid[];
    subscription_ids integer[];
    last_attempts timestamptz[];
begin
    begin
        -- As a cursor: one query that reads, and no second statement behind it.
        for event_ids, subscription_ids, last_attempts in
            execute format(
                'select array_agg(d.event_id), array_agg(d.subscription_id), array_agg(d.last_attempt_at) from (select * from posthaste.dead_letter where (%s'
                || E'\n)) d', predicate)
        loop
            exit;
        end loop;
    exception when syntax_error_or_access_rule_violation then
        raise exception using errcode = 'check_violation',
            message = format('predicate %L is not valid: %s', left(predicate, 200), left(sqlerrm, 300)),
            hint = 'A condition over the columns of posthaste.dead_letter, such as subscription = ''university'' and http_status = 500.';
    end;
    return query select * from posthaste.replay_dead_letters(event_ids, subscription_ids, last_attempts, reason, dry_run, rate, predicate);
end
$$;
comment on function posthaste.replay_where(text, text, boolean, integer) is
    'Delivers once more every dead letter that an SQL predicate over posthaste.dead_letter finds, unless it was replayed already. As posthaste.replay_delivery; no id where there is none.';

create function posthaste.cancel_replay(replay_id bigint, reason text) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '5s'
as $$
#variable_conflict use_column
declare
    id constant bigint := cancel_replay.replay_id;
    r posthaste.replay;
    tenants text[];
    is_ours boolean;
    dropped bigint;
begin
    perform posthaste.because(reason);
    select array_agg(distinct s.tenant), bool_and(posthaste.is_in_scope(s.tenant)) into tenants, is_ours
    from posthaste.replay_part p join posthaste.subscription s using (subscription_id) where p.replay_id = id;
    begin
        -- Workers pass over what is locked: while we have not committed, the replay rests.
        select * into r from posthaste.replay x where x.replay_id = id and is_ours for no key update;
        if r.replay_id is null then
            perform posthaste.refuse('replay_id', coalesce(id::text, 'null'), 'there is no such replay; see posthaste.replay_progress');
        end if;
        if r.finished_at is not null then
            perform posthaste.refuse('replay_id', id::text, case when r.cancelled_by is null then 'it is finished' else 'it was cancelled by ' || r.cancelled_by end);
        end if;
        delete from posthaste.replay_item i where i.replay_id = id;
        get diagnostics dropped = row_count;
    exception when lock_not_available then
        perform posthaste.refuse_to_wait();
    end;
    update posthaste.replay x
    set finished_at = clock_timestamp(), cancelled_by = session_user, cancelled_for = posthaste.application_user(), cancel_reason = cancel_replay.reason
    where x.replay_id = id;
    perform posthaste.note('replay_cancelled', format('replay %s', id), case when cardinality(tenants) = 1 then tenants[1] end, null,
        jsonb_build_object('replay_id', id, 'left_out', dropped), reason);
    return dropped;
end
$$;
comment on function posthaste.cancel_replay(bigint, text) is
    'Ends a replay: what it has not put into the queue yet stays as it was, and may be replayed anew. Returns how much that is. For what it has, see posthaste.cancel.';

create function posthaste.send_test(subscription text, event_type text, reason text) returns uuid
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    s constant posthaste.subscription := posthaste.subscription_called(subscription);
    id constant uuid := posthaste.new_event_id();
    example json;
begin
    perform posthaste.because(reason);
    if not s.active then
        perform posthaste.refuse('subscription', subscription, 'it is paused: a test would wait, too');
    end if;
    select c.example into example from posthaste.event_type c where c.event_type = send_test.event_type and c.active;
    if not found then
        perform posthaste.refuse('event_type', coalesce(event_type, 'null'), 'it is not in the catalogue, or not as an active one');
    end if;
    if example is null then
        perform posthaste.refuse('event_type', event_type, 'the catalogue has no example of it; see posthaste.change_event_type');
    end if;
    if not exists (
        select from posthaste.subscription_event_type t
        where t.subscription_id = s.subscription_id and t.event_type = any (posthaste.patterns(send_test.event_type))) then
        perform posthaste.refuse('event_type', event_type, 'the subscription does not get such events');
    end if;
    insert into posthaste.outbox (event_id, event_type, payload, tenant, metadata)
    values (id, send_test.event_type, example, s.tenant, '{"test": true}');
    -- Nobody else gets it: it is not fanned out.
    delete from posthaste.intake i where i.xid = pg_current_xact_id() and i.event_id = id;
    perform posthaste.begin_replay('test', jsonb_build_object('subscription', s.name, 'event_type', event_type, 'event_id', id),
        array[id], array[s.subscription_id], reason, null);
    return id;
end
$$;
comment on function posthaste.send_test(text, text, text) is
    'Sends the catalogue''s example of an event type to a subscription, and to nobody else, marked as a test, once. Returns the event''s id: posthaste.attempt_log where event_id = it has the answer, within seconds.';

create function posthaste.cancel(event_id uuid, reason text, subscription text default null) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    event constant uuid := cancel.event_id;
    c posthaste.cancel_request;
    s posthaste.subscription;
    waiting integer;
    tenants text[];
begin
    perform posthaste.because(reason);
    if subscription is not null then
        s := posthaste.subscription_called(subscription);
    end if;
    c.event_id := event;
    c.subscription_id := s.subscription_id;
    c.tenants := posthaste.scope();
    select count(*), array_agg(distinct x.tenant) into waiting, tenants
    from posthaste.unfinished(event) u join posthaste.subscription x using (subscription_id)
    where posthaste.is_meant(c, u.subscription_id);
    -- Intake is read whole where nothing else is found, and by a person alone.
    if waiting = 0 and not exists (
        select from posthaste.intake i join posthaste.outbox o using (event_id) where i.event_id = event and posthaste.is_in_scope(o.tenant)) then
        perform posthaste.refuse('event_id', coalesce(event::text, 'null'), 'none of its deliveries waits; see posthaste.event_history');
    end if;
    insert into posthaste.cancel_request (event_id, subscription_id, tenants, reason, asked_for)
    values (event, s.subscription_id, c.tenants, reason, posthaste.application_user());
    perform posthaste.note('cancel_asked_for', event::text,
        case when s.subscription_id is not null then s.tenant when cardinality(coalesce(tenants, c.tenants)) = 1 then (coalesce(tenants, c.tenants))[1] end, null,
        jsonb_strip_nulls(jsonb_build_object('subscription', s.name, 'waiting', waiting)), reason);
    return waiting;
end
$$;
comment on function posthaste.cancel(uuid, text, text) is
    'Cancels what still waits of an event, or of its delivery to one subscription, and returns how many deliveries that are now; 0 where it is yet to be fanned out. Workers do so within a second. An attempt that is under way is made to its end, and is the last.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- Seals: the digest of a whole partition of history, kept in the audit log
-- ---------------------------------------------------------------------------------------------------------------------------

create function posthaste.partition_digest(partition regclass, up_to xid8 default null) returns table (row_count bigint, digest text)
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC'
    set datestyle = 'ISO, YMD'
    set intervalstyle = 'postgres'
    set extra_float_digits = 1
as $$
begin
    -- A digest a row, then one a minute, then one of all: so the order of rows on disk does not matter, and memory stays small.
    return query execute format(
        $sql$
        with piece as (
            select %s as bucket, sha256(convert_to(h::text, 'UTF8')) as d from %s h
            where $1 is null or age(h.xmin) >= age(($1::text::numeric %% 4294967296)::text::xid)
        ), minute as (
            select bucket, count(*) as n, sha256(string_agg(d, ''::bytea order by d)) as d from piece group by bucket
        )
        select coalesce(sum(n), 0)::bigint,
               encode(sha256(coalesce(string_agg(convert_to(format('%%s:%%s:', bucket, n), 'UTF8') || d, ''::bytea order by bucket collate "C"), '')), 'hex')
        from minute
        $sql$,
        case when partition::text ~ 'outbox' then 'left(h.event_id::text, 8)' else '(extract(epoch from h.started_at)::bigint / 60)::text' end, partition)
        using up_to;
end
$$;
comment on function posthaste.partition_digest(regclass, xid8) is
    'How many rows a partition of outbox or attempt has, and a SHA-256 over all of them; with up_to, over those that no later transaction wrote.';

create function posthaste.closed_partitions() returns table (partition text)
    language sql stable
    set search_path = pg_catalog, pg_temp
begin atomic
    -- Two days after its day, no worker has anything in hand that began on it.
    select c.relname::text from pg_class c
    where c.relnamespace = 'posthaste'::regnamespace and c.relispartition and c.relkind = 'r'
      and c.relname ~ '^(outbox|attempt)_[0-9]{8}$'
      and to_date(right(c.relname::text, 8), 'YYYYMMDD') + 3 <= (now() at time zone 'UTC')::date
    order by 1;
end;
comment on function posthaste.closed_partitions() is 'Partitions of outbox and attempt whose day has been over for two days.';

create function posthaste.newest_seal(partition text) returns posthaste.audit_log
    language sql stable
    set search_path = pg_catalog, pg_temp
begin atomic
    select a from posthaste.audit_log a where a.action = 'partition_sealed' and a.object = newest_seal.partition order by a.entry desc limit 1;
end;
comment on function posthaste.newest_seal(text) is 'The last entry that sealed a partition, if any.';

create function posthaste.seal_partitions(only_partition text default null) returns table (partition text, row_count bigint, digest text)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    seal posthaste.audit_log;
    partitions text[];
    row_counts bigint[];
    digests text[];
begin
    perform posthaste.refuse_scoped();
    -- One at a time; whoever comes second finds what the first has sealed.
    perform pg_advisory_xact_lock(1347375958, 2);
    -- All are read before the first is noted: from then on until we commit, nobody else can act.
    for partition in
        select c.partition from posthaste.closed_partitions() c
        where c.partition = only_partition
           or only_partition is null
              and not exists (select from posthaste.audit_log a where a.action = 'partition_sealed' and a.object = c.partition)
    loop
        seal := posthaste.newest_seal(partition);
        -- A new seal takes in rows that came later. It covers up none that was changed or removed.
        if seal.entry is not null and seal.after ->> 'digest' <> (
            select o.digest from posthaste.partition_digest(format('posthaste.%I', partition)::regclass, (seal.after ->> 'xid')::xid8) o) then
            perform posthaste.refuse('partition', partition, 'its rows are not those that were sealed; see posthaste.verify_seals');
        end if;
        select d.row_count, d.digest into row_count, digest from posthaste.partition_digest(format('posthaste.%I', partition)::regclass) d;
        partitions := partitions || partition;
        row_counts := row_counts || row_count;
        digests := digests || digest;
        continue when digest is distinct from seal.after ->> 'digest';
        perform posthaste.refuse('partition', partition, 'it is sealed, and no row was added since');
    end loop;
    if only_partition is not null and partitions is null then
        perform posthaste.refuse('partition', only_partition, 'no partition of that name whose day has been over for two days');
    end if;
    for partition, row_count, digest in select * from unnest(partitions, row_counts, digests) loop
        perform posthaste.note('partition_sealed', partition, null, null,
            jsonb_build_object('rows', row_count, 'digest', digest, 'xid', pg_current_xact_id()::text), null);
        return next;
    end loop;
end
$$;
comment on function posthaste.seal_partitions(text) is
    'Writes the digest of each closed partition that has none yet into the audit log; or of the one named, anew where rows were added since. Reads them whole: a job for the night, such as `posthaste audit seal`.';

create function posthaste.verify_seals(only_partition text default null)
    returns table (partition text, sealed_at timestamptz, intact boolean, remark text)
    language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    a posthaste.audit_log;
    d record;
begin
    for a in
        select * from posthaste.audit_log l
        where l.action = 'partition_sealed' and (only_partition is null or l.object = only_partition)
          and l.entry = (posthaste.newest_seal(l.object)).entry
        order by l.entry
    loop
        partition := a.object;
        sealed_at := a.at;
        remark := null;
        intact := false;
        if to_regclass(format('posthaste.%I', a.object)) is null then
            intact := exists (select from posthaste.audit_log r where r.action = 'partition_dropped' and r.object = a.object);
            remark := case when not intact then 'it is gone, and no entry of the audit log says so' end;
        elsif not exists (
            select from pg_inherits i
            where i.inhrelid = to_regclass(format('posthaste.%I', a.object))
              and i.inhparent = to_regclass(format('posthaste.%I', regexp_replace(a.object, '_[0-9]{8}$', '')))) then
            remark := 'it is no part of its table any more, so that nobody sees its rows there';
        else
            select * into d from posthaste.partition_digest(format('posthaste.%I', a.object)::regclass);
            -- Were only rows added, those that are older than the seal still have its digest.
            intact := d.digest = a.after ->> 'digest' or a.after ->> 'digest' = (
                select o.digest from posthaste.partition_digest(format('posthaste.%I', a.object)::regclass, (a.after ->> 'xid')::xid8) o);
            remark := case
                when not intact then format('its rows are not those that were sealed: %s then, %s now', a.after ->> 'rows', d.row_count)
                when d.digest <> a.after ->> 'digest' then format('every sealed row is as it was, and %s were added later', d.row_count - (a.after ->> 'rows')::bigint)
            end;
        end if;
        return next;
    end loop;
end
$$;
comment on function posthaste.verify_seals(text) is 'Compares each sealed partition with its newest seal, one row each. Rows that were added later are remarked on: they are no tampering. Reads them whole.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- Who may do what: the whole table. posthaste.apply_access() grants exactly this, posthaste.access_deviation() compares.
-- ---------------------------------------------------------------------------------------------------------------------------

create table posthaste.access (
    object   text primary key,
    producer text not null,
    worker   text not null,
    admin    text not null,
    auditor  text not null
);
comment on table posthaste.access is
    'Which role may do what to which object; every object has its row, and what is not here is for the owner alone. `select(a,b)` means these columns.';

insert into posthaste.access (object, producer, worker, admin, auditor) values
    ('schema posthaste',                     'usage', 'usage', 'usage', 'usage'),
    -- What happened.
    ('table outbox',                         'insert', 'select', '', ''),
    ('table attempt',                        '', 'select insert', '', ''),
    ('table intake',                         '', 'select delete update(xid)', '', ''),
    ('table dedup',                          '', '', '', ''),
    -- What is owed.
    ('table queue',                          '', 'select insert delete', '', ''),
    ('table lease',                          '', 'select insert delete update(holder,ends_at)', '', ''),
    ('table lane',                           '', 'select update(wake_at,rest_until,rate_used_until,hold_until,breaker)', '', ''),
    ('table follower',                       '', 'select insert delete', '', ''),
    ('table ordering',                       '', 'select insert delete update(event_id,replay,held_at)', '', ''),
    ('table skip',                           '', 'select(skip_id)', '', ''),
    ('sequence skip_skip_id_seq',            '', '', '', ''),
    ('table quarantine',                     '', 'select insert(event_id,subscription_id,replay,attempts,reason)', '', ''),
    ('table cancellation',                   '', 'insert', '', ''),
    ('table replay',                         '', 'select(finished_at)', '', ''),
    ('sequence replay_replay_id_seq',        '', '', '', ''),
    ('table replay_part',                    '', '', '', ''),
    ('table replay_item',                    '', '', '', ''),
    ('table replayed',                       '', '', '', ''),
    ('table cancel_request',                 '', 'select(closed_at)', '', ''),
    ('sequence cancel_request_request_id_seq', '', '', '', ''),
    ('table unknown_event_type',             '', 'select insert update(events,last_at,last_event)', '', ''),
    ('table dismissal',                      '', '', '', ''),
    ('sequence dismissal_dismissal_id_seq',  '', '', '', ''),
    ('table worker',                         '', 'select insert update(ended_at,clock_difference,certificate_ends,noted_at)', '', ''),
    ('sequence worker_worker_id_seq',        '', 'usage', '', ''),
    -- What is agreed.
    ('table event_type',                     '', 'select', 'select', 'select'),
    ('table subscription',                   '', 'select', '', ''),
    ('sequence subscription_subscription_id_seq', '', '', '', ''),
    ('table subscription_event_type',        '', 'select', '', ''),
    ('table subscription_revision',          '', 'select(subscription_id,revision,xid)', '', ''),
    ('table subscription_change',            '', '', '', ''),
    ('sequence subscription_change_change_id_seq', '', '', '', ''),
    ('table signing_secret',                 '', 'select', '', ''),
    ('table credential',                     '', 'select', '', ''),
    ('table partner_key',                    '', 'select', '', ''),
    ('table external_id',                    '', 'select', '', ''),
    ('view id_map',                          '', '', 'select', 'select'),
    ('view preparation_log',                 '', '', 'select', 'select'),
    ('view handshake_log',                   '', '', 'select', 'select'),
    ('table envelope',                       '', 'select', 'select', 'select'),
    ('table handshake',                      '', 'select', '', ''),
    ('sequence handshake_handshake_id_seq',  '', '', '', ''),
    ('table preparation',                    '', 'insert', '', ''),
    ('sequence preparation_preparation_id_seq', '', '', '', ''),
    ('view public_key',                      '', '', 'select', 'select'),
    ('table setting',                        '', '', 'select', 'select'),
    ('table partner_scope',                  '', '', 'select', 'select'),
    -- What was done.
    ('table operational_event',              '', '', '', ''),
    ('table audit_log',                      '', '', '', ''),
    ('table audit_head',                     '', '', '', ''),
    ('table migration',                      '', 'select', 'select', 'select'),
    ('table access',                         '', 'select', 'select', 'select'),
    -- What people read.
    ('view event',                           '', '', 'select', 'select(event_id,inserted_at,occurred_at,event_type,tenant,metadata,traceparent,ordering_key,dedup_key,deliver_after,expires_at)'),
    ('view delivery',                        '', '', 'select', 'select'),
    ('view attempt_log',                     '', '', 'select', 'select'),
    ('view dead_letter',                     '', '', 'select', 'select'),
    ('view operations',                      '', '', 'select', 'select'),
    ('view replay_progress',                 '', '', 'select', 'select'),
    ('view subscription_terms',              '', '', 'select', 'select'),
    ('view subscription_overview',           '', '', 'select', 'select'),
    ('view consumer',                        '', '', 'select', 'select'),
    ('view secret_overview',                 '', '', 'select', 'select'),
    ('view change',                          '', '', 'select', 'select'),
    ('view audit',                           '', '', 'select', 'select'),
    ('view unrouted',                        '', '', 'select', 'select'),
    ('view worker_alive',                    '', 'select', 'select', 'select'),
    ('view ordered_key',                     '', '', 'select', 'select'),
    ('view health',                          '', 'select', 'select', 'select'),
    -- What producers call, and what their INSERT runs.
    ('function publish',                     'execute', '', '', ''),
    ('function new_event_id',                'execute', '', '', ''),
    ('function is_event',                    'execute', '', '', ''),
    ('function is_event_id',                 'execute', '', '', ''),
    ('function is_event_type',               'execute', '', '', ''),
    ('function is_tenant',                   'execute', '', '', ''),
    ('function is_object',                   'execute', '', '', ''),
    ('function is_key',                      'execute', '', '', ''),
    ('function is_traceparent',              'execute', '', '', ''),
    ('function refuse',                      'execute', '', 'execute', 'execute'),
    -- What workers call.
    ('function event_time',                  '', 'execute', 'execute', 'execute'),
    ('function first_event_id',              '', '', 'execute', 'execute'),
    ('function patterns',                    '', 'execute', 'execute', 'execute'),
    ('function matches',                     '', 'execute', 'execute', 'execute'),
    ('function create_partitions',           '', 'execute', '', ''),
    ('function settle_lanes',                '', 'execute', '', ''),
    ('function weighed',                     '', '', '', ''),
    ('function weigh',                       '', 'execute', '', ''),
    ('function pause_failing',               '', 'execute', '', ''),
    ('function requeue_released',            '', 'execute', '', ''),
    ('function cancel_removed',              '', 'execute', '', ''),
    ('function expire_waiting',              '', 'execute', '', ''),
    ('function forget_keys',                 '', 'execute', '', ''),
    ('function tell_ended',                  '', 'execute', '', ''),
    ('function tell_breaker',                '', '', '', ''),
    ('function tell_overdue_rotations',      '', 'execute', '', ''),
    ('function queue_replays',               '', 'execute', '', ''),
    ('function carry_out_cancels',           '', 'execute', '', ''),
    ('function follow',                      '', 'execute', '', ''),
    ('function find_leases',                 '', 'execute', '', ''),
    ('function let_wait',                    '', 'execute', '', ''),
    ('function events',                      '', 'execute', '', ''),
    ('function expiry_times',                '', 'execute', '', ''),
    ('function note_unknown',                '', 'execute', '', ''),
    ('function hold_unfiltered',             '', 'execute', '', ''),
    ('function free_keys',                   '', 'execute', '', ''),
    ('function fill_secret',                 '', 'execute', '', ''),
    ('function figures',                     '', 'execute', 'execute', 'execute'),
    ('function table_figures',               '', 'execute', 'execute', 'execute'),
    ('function subscription_figures',        '', 'execute', 'execute', 'execute'),
    ('function recent_rates',                '', 'execute', 'execute', 'execute'),
    ('function findings',                    '', 'execute', 'execute', 'execute'),
    -- What administrators do.
    ('function create_event_type',           '', '', 'execute', ''),
    ('function change_event_type',           '', '', 'execute', ''),
    ('function retry_schedule',              '', '', 'execute', 'execute'),
    ('function exponential_schedule',        '', '', 'execute', 'execute'),
    ('function propose_subscription',        '', '', 'execute', ''),
    ('function propose_change',              '', '', 'execute', ''),
    ('function propose_removal',             '', '', 'execute', ''),
    ('function approve',                     '', '', 'execute', ''),
    ('function reject',                      '', '', 'execute', ''),
    ('function deactivate',                  '', '', 'execute', ''),
    ('function skip_ordered',                '', '', 'execute', ''),
    ('function set_secret_rotation',         '', '', 'execute', ''),
    ('function set_dedup_window',            '', '', 'execute', ''),
    ('function set_partner_scope',           '', '', 'execute', ''),
    ('function rotate_secret',               '', '', 'execute', ''),
    ('function add_secret',                  '', '', 'execute', ''),
    ('function set_credential',              '', '', 'execute', ''),
    ('function propose_envelope',            '', '', 'execute', ''),
    ('function approve_envelope',            '', '', '', ''),
    ('function ask_for_secrets',             '', '', '', ''),
    ('function checked_object',              '', '', '', ''),
    ('function checked_authentication',      '', '', '', ''),
    ('function checked_tls',                 '', '', '', ''),
    ('function checked_handshake',           '', '', '', ''),
    ('function is_field_pointer',            '', '', '', ''),
    ('function checked_mask',                '', '', '', ''),
    ('function envelope_called',             '', '', '', ''),
    ('function wanted_values',               '', '', '', ''),
    ('function checked_envelope',            '', '', '', ''),
    ('function checked_signatures',          '', '', '', ''),
    ('function rates',                       '', '', '', ''),
    ('function delivery_id',                 '', '', 'execute', 'execute'),
    ('function map_id',                      'execute', '', 'execute', ''),
    ('function keep_pseudonyms',             '', 'execute', '', ''),
    ('function keep_handshake',              '', 'execute', '', ''),
    ('function grant_handshake',             '', '', 'execute', ''),
    ('function previewed',                   '', '', '', ''),
    ('function ask_to_preview',              '', '', 'execute', ''),
    ('function preview_source',              '', '', 'execute', ''),
    ('function end_secret',                  '', '', 'execute', ''),
    ('function ask_to_reveal',               '', '', 'execute', ''),
    ('function reveal',                      '', '', 'execute', ''),
    ('function ask_to_reencrypt',            '', '', 'execute', ''),
    ('function secrets_to_reencrypt',        '', '', 'execute', ''),
    ('function reencrypt_secret',            '', '', 'execute', ''),
    ('function release',                     '', '', 'execute', ''),
    ('function discard',                     '', '', 'execute', ''),
    ('function dismiss_unknown',             '', '', 'execute', ''),
    ('function replay_delivery',             '', '', 'execute', ''),
    ('function replay_event',                '', '', 'execute', ''),
    ('function replay_since',                '', '', 'execute', ''),
    ('function replay_where',                '', '', 'execute', ''),
    ('function replay_dead_letters',         '', '', 'execute', ''),
    ('function cancel_replay',               '', '', 'execute', ''),
    ('function send_test',                   '', '', 'execute', ''),
    ('function cancel',                      '', '', 'execute', ''),
    ('function seal_partitions',             '', '', 'execute', ''),
    -- What auditors and administrators ask.
    ('function verify_audit',                '', '', 'execute', 'execute'),
    ('function verify_seals',                '', '', 'execute', 'execute'),
    ('function event_history',               '', '', 'execute', 'execute'),
    ('function access_deviation',            '', 'execute', 'execute', 'execute'),
    ('function scope',                       '', '', 'execute', 'execute'),
    -- What is the owner's alone.
    ('function set_four_eyes',               '', '', '', ''),
    ('function note',                        '', '', '', ''),
    ('function refuse_to_wait',              '', '', '', ''),
    ('function audit_digest',                '', '', '', ''),
    ('function application_user',            '', '', '', ''),
    ('function is_in_scope',                 '', '', '', ''),
    ('function refuse_scoped',               '', '', '', ''),
    ('function refuse_a_sixth_secret',       '', '', '', ''),
    ('function because',                     '', '', '', ''),
    ('function terms',                       '', '', '', ''),
    ('function checked_url',                 '', '', '', ''),
    ('function checked_headers',             '', '', '', ''),
    ('function checked_network',             '', '', '', ''),
    ('function checked_rates',               '', '', '', ''),
    ('function pace',                        '', '', '', ''),
    ('function checked_schedule',            '', '', '', ''),
    ('function checked_breaker',             '', '', '', ''),
    ('function checked_interval',            '', '', '', ''),
    ('function checked_text',                '', '', '', ''),
    ('function checked_event_types',         '', '', '', ''),
    ('function checked_filter',              '', '', '', ''),
    ('function checked_terms',               '', '', '', ''),
    ('function subscription_called',         '', '', '', ''),
    ('function propose',                     '', '', '', ''),
    ('function open_change',                 '', '', '', ''),
    ('function decide',                      '', '', '', ''),
    ('function decide_quarantine',           '', '', '', ''),
    ('function begin_replay',                '', '', '', ''),
    ('function replay_finished',             '', '', '', ''),
    ('function replay_found',                '', '', '', ''),
    ('function checked_rate',                '', '', '', ''),
    ('function enqueue',                     '', '', '', ''),
    ('function still_wants',                 '', '', '', ''),
    ('function unfinished',                  '', '', '', ''),
    ('function is_meant',                    '', '', '', ''),
    ('function partition_digest',            '', '', '', ''),
    ('function closed_partitions',           '', '', '', ''),
    ('function newest_seal',                 '', '', '', ''),
    ('function create_partition',            '', '', '', ''),
    ('function day_of_row',                  '', '', '', ''),
    ('function empty_default',               '', '', '', ''),
    ('function adorn_partition',             '', '', '', ''),
    ('function guard_history',               '', '', '', ''),
    ('function apply_access',                '', '', '', ''),
    ('function access_granted',              '', '', '', ''),
    ('function guard_deviation',             '', '', '', ''),
    ('function shell_word',                  '', '', '', ''),
    ('function oldest_owed',                 '', '', '', ''),
    ('function owed_by_subscription',        '', '', '', ''),
    ('function lane_states',                 '', '', '', ''),
    ('function transaction_time',            '', '', '', ''),
    ('function vacuum_holders',              '', '', '', ''),
    ('function small_tables',                '', '', '', ''),
    ('function partitions_ahead',            '', '', '', ''),
    ('function take_in',                     '', '', '', ''),
    ('function admit',                       '', '', '', ''),
    ('function tell',                        '', '', '', ''),
    ('function spread',                      '', '', '', ''),
    ('function refuse_change',               '', '', '', ''),
    ('function count_revision',              '', '', '', ''),
    ('function keep_revision',               '', '', '', ''),
    ('function guard_change',                '', '', '', ''),
    ('function wake_lane',                   '', '', '', ''),
    ('function note_setting',                '', '', '', ''),
    ('function bound_unknown_types',         '', '', '', ''),
    ('function forget_dismissed',            '', '', '', ''),
    ('function is_dismissed',                '', '', 'execute', 'execute'),
    ('type outcome',                         '', '', '', ''),
    ('type verdict',                         '', '', '', ''),
    ('type breaker',                         '', '', '', ''),
    ('type rule',                            '', '', '', ''),
    ('type delivery_status',                 '', '', '', '');

create function posthaste.apply_access() returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    a posthaste.access;
    target text;
    grantee text;
    privileges text;
    privilege text;
begin
    for a in select * from posthaste.access loop
        target := case split_part(a.object, ' ', 1)
            when 'schema' then 'schema posthaste'
            when 'view' then format('table posthaste.%I', split_part(a.object, ' ', 2))
            when 'function' then 'function ' || format('posthaste.%I', split_part(a.object, ' ', 2))::regproc::regprocedure
            else format('%s posthaste.%I', split_part(a.object, ' ', 1), split_part(a.object, ' ', 2)) end;
        execute format('revoke all on %s from public, posthaste_producer, posthaste_worker, posthaste_admin, posthaste_auditor', target);
        for grantee, privileges in values ('posthaste_producer', a.producer), ('posthaste_worker', a.worker), ('posthaste_admin', a.admin), ('posthaste_auditor', a.auditor) loop
            foreach privilege in array string_to_array(privileges, ' ') loop
                execute format('grant %s on %s to %I', privilege, target, grantee);
            end loop;
        end loop;
    end loop;
end
$$;
comment on function posthaste.apply_access() is 'Grants what posthaste.access says, and nothing else. For whoever owns the schema.';

create function posthaste.access_granted() returns table (object text, grantee text, privilege text)
    language sql stable
    set search_path = pg_catalog, pg_temp
begin atomic
    with acl as (
        select 'schema posthaste' as object, n.nspowner as owner, n.nspacl as acl, acldefault('n', n.nspowner) as by_default, null::name as col
        from pg_namespace n where n.nspname = 'posthaste'
        union all
        select case c.relkind when 'S' then 'sequence ' when 'v' then 'view ' else 'table ' end || c.relname, c.relowner, c.relacl,
               acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner), null
        from pg_class c where c.relnamespace = 'posthaste'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
        union all
        select case c.relkind when 'v' then 'view ' else 'table ' end || c.relname, c.relowner, a.attacl, '{}', a.attname
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attacl is not null
        where c.relnamespace = 'posthaste'::regnamespace
        union all
        select 'function ' || p.proname, p.proowner, p.proacl, acldefault('f', p.proowner), null
        from pg_proc p where p.pronamespace = 'posthaste'::regnamespace
        union all
        select 'type ' || t.typname, t.typowner, t.typacl, acldefault('T', t.typowner), null
        from pg_type t where t.typnamespace = 'posthaste'::regnamespace and t.typtype in ('e', 'd', 'r')
    )
    select acl.object, case when x.grantee = 0 then 'public' else x.grantee::regrole::text end,
           lower(x.privilege_type) || coalesce('(' || acl.col || ')', '') || further.option
    from acl, lateral aclexplode(coalesce(acl.acl, acl.by_default)) x,
         lateral unnest(case when x.is_grantable then array['', ' with grant option'] else array[''] end) further (option)
    where x.grantee <> acl.owner
    union all
    -- Rights that one role would have through another.
    select 'role ' || m.roleid::regrole, m.member::regrole::text, 'member'
    from pg_auth_members m
    where m.member::regrole::text ~ '^posthaste_(owner|producer|worker|admin|auditor)$'
      -- What roles.sql grants where it may: to see since when a transaction has been open.
      and (m.member::regrole::text, m.roleid::regrole::text) <> ('posthaste_owner', 'pg_read_all_stats')
    union all
    select format('future %s', case d.defaclobjtype when 'r' then 'tables' when 'f' then 'functions' when 'S' then 'sequences' else 'others' end),
           case when x.grantee = 0 then 'public' else x.grantee::regrole::text end, lower(x.privilege_type)
    from pg_default_acl d, lateral aclexplode(d.defaclacl) x
    where (d.defaclnamespace = 'posthaste'::regnamespace or d.defaclnamespace = 0 and pg_get_userbyid(d.defaclrole) = 'posthaste_owner')
      and x.grantee <> d.defaclrole;
end;
comment on function posthaste.access_granted() is 'Every grant there is on anything in the schema, but for its owner''s, and every membership of one of our roles in any other.';

create function posthaste.guard_deviation() returns table (object text, grantee text, privilege text, problem text)
    language sql stable
    set search_path = pg_catalog, pg_temp
begin atomic
    with owned (object, owner) as (
        select 'schema posthaste', n.nspowner from pg_namespace n where n.nspname = 'posthaste'
        union all
        select case c.relkind when 'S' then 'sequence ' when 'v' then 'view ' else 'table ' end || c.relname, c.relowner
        from pg_class c where c.relnamespace = 'posthaste'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
        union all
        select 'function ' || p.proname, p.proowner from pg_proc p where p.pronamespace = 'posthaste'::regnamespace
        union all
        select 'type ' || t.typname, t.typowner from pg_type t where t.typnamespace = 'posthaste'::regnamespace and t.typtype in ('e', 'd', 'r')
    ), history (relation, kind) as (
        select h.relation, h.kind from (values
            ('posthaste.outbox'::regclass, 'outbox'), ('posthaste.attempt', 'attempt'), ('posthaste.audit_log', 'history'),
            ('posthaste.subscription_revision', 'history'), ('posthaste.cancellation', 'history'), ('posthaste.replayed', 'history'),
            ('posthaste.operational_event', 'history'),
            ('posthaste.subscription_change', 'change'), ('posthaste.setting', 'setting')) h (relation, kind)
        union all
        select i.inhrelid, case i.inhparent when 'posthaste.outbox'::regclass then 'outbox' else 'attempt' end
        from pg_inherits i where i.inhparent in ('posthaste.outbox'::regclass, 'posthaste.attempt'::regclass)
    ), guard (kinds, name, runs, fires, enabled) as (
        -- When it fires, as in pg_trigger.tgtype: 1 for each row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate.
        values ('{outbox,attempt,history}'::text[], 'no_change', 'posthaste.refuse_change'::regproc, 1 + 2 + 8 + 16, 'A'::"char"),
               ('{outbox,attempt,history,change}', 'no_truncate', 'posthaste.refuse_change', 2 + 32, 'A'),
               ('{change}', 'no_delete', 'posthaste.refuse_change', 1 + 2 + 8, 'A'),
               ('{change}', 'change_is_decided_once', 'posthaste.guard_change', 1 + 2 + 16, 'A'),
               ('{setting}', 'setting_is_noted', 'posthaste.note_setting', 1 + 4 + 8 + 16, 'A'),
               ('{setting}', 'truncation_is_noted', 'posthaste.note_setting', 32, 'A'),
               ('{outbox}', 'outbox_takes_in', 'posthaste.take_in', 4, 'O'),
               ('{outbox}', 'outbox_admits', 'posthaste.admit', 1 + 2 + 4, 'O')
    )
    select o.object, o.owner::regrole::text, 'ownership', 'wider than it should be: everything belongs to posthaste_owner'
    from owned o where o.owner::regrole::text <> 'posthaste_owner'
    union all
    select 'role ' || r.rolname, r.rolname::text, a.name, 'wider than it should be: our roles have no attributes'
    from pg_roles r
    cross join lateral (values ('superuser', r.rolsuper), ('bypassrls', r.rolbypassrls), ('createrole', r.rolcreaterole),
                               ('createdb', r.rolcreatedb), ('replication', r.rolreplication), ('login', r.rolcanlogin)) a (name, is_set)
    where r.rolname ~ '^posthaste_(owner|producer|worker|admin|auditor)$' and a.is_set
    union all
    select 'table ' || c.relname, 'everybody', 'row level security', 'missing'
    from pg_class c where c.oid = 'posthaste.partner_scope'::regclass and not c.relrowsecurity
    union all
    select 'table ' || c.relname, 'everybody', 'policy ' || p.polname, 'wider than the schema has it'
    from pg_policy p join pg_class c on c.oid = p.polrelid
    where c.relnamespace = 'posthaste'::regnamespace and (c.relname, p.polname) <> ('partner_scope', 'scoped_see_their_own')
    union all
    select 'table ' || c.relname, 'everybody', 'trigger ' || g.name, 'missing or not as the schema has it'
    from history h join pg_class c on c.oid = h.relation join guard g on h.kind = any (g.kinds)
    where not exists (
        select from pg_trigger t
        where t.tgrelid = h.relation and t.tgname = g.name and t.tgfoid = g.runs and t.tgtype = g.fires and t.tgenabled = g.enabled
          and cardinality(t.tgattr::smallint[]) = 0
          -- The one guard with a condition; without its brackets, which are Postgres' choice.
          and case when g.name = 'outbox_admits' then position(' WHEN new.dedup_key IS NOT NULL EXECUTE ' in translate(pg_get_triggerdef(t.oid), '()', '')) > 0
                   else t.tgqual is null end);
end;
comment on function posthaste.guard_deviation() is 'What undoes every grant: what belongs to somebody else, roles that may more than roles, row level security that is off, and guards that are missing or asleep.';

create function posthaste.access_deviation() returns table (object text, grantee text, privilege text, problem text)
    language sql stable security definer
    set search_path = pg_catalog, pg_temp
begin atomic
    with expected as (
        select a.object, r.grantee,
               case when p like '%(%' then split_part(p, '(', 1) || '(' || c || ')' else p end as privilege
        from posthaste.access a
        cross join lateral (values ('posthaste_producer', a.producer), ('posthaste_worker', a.worker),
                                   ('posthaste_admin', a.admin), ('posthaste_auditor', a.auditor)) r (grantee, privileges)
        cross join lateral unnest(string_to_array(nullif(r.privileges, ''), ' ')) p
        left join lateral unnest(string_to_array(rtrim(split_part(p, '(', 2), ')'), ',')) c on p like '%(%'
    )
    select g.object, g.grantee, g.privilege, 'wider than posthaste.access says'
    from posthaste.access_granted() g
    where not exists (select from expected e where (e.object, e.grantee, e.privilege) = (g.object, g.grantee, g.privilege))
    union all
    select e.object, e.grantee, e.privilege, 'missing'
    from expected e
    where not exists (select from posthaste.access_granted() g where (e.object, e.grantee, e.privilege) = (g.object, g.grantee, g.privilege))
    union all
    select * from posthaste.guard_deviation();
end;
comment on function posthaste.access_deviation() is 'Where the grants differ from posthaste.access, wider or missing, and what undoes them; see posthaste.guard_deviation. Nothing, if all is well.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- How things stand: figures for graphs and alerts, findings for people. docs/runbook.md has a chapter for each finding.
--
-- One worker at a time asks for the figures, four times a minute, on a session whose planner settings are made for look-ups by key;
-- so these functions bring their own, and none of them writes or locks anything.
-- ---------------------------------------------------------------------------------------------------------------------------

create function posthaste.shell_word(value text) returns text
    language sql immutable
    set search_path = pg_catalog, pg_temp
return case when value ~ '^[A-Za-z0-9_.@:/][A-Za-z0-9_.@:/-]*$' then value else '''' || replace(value, '''', '''\''''') || '''' end;
comment on function posthaste.shell_word(text) is 'A text as one word of a command line.';

create function posthaste.oldest_owed(looks_at_most integer) returns timestamptz
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    best timestamptz;
    since timestamptz;
    last uuid := '00000000-0000-0000-0000-000000000000';
    found_some bigint;
    looked_at bigint := 0;
    next_some integer := 8;
begin
    -- What is still to be queued by a replay is owed since that was asked for.
    select min(r.asked_at) into best
    from posthaste.replay r
    where r.finished_at is null
      and exists (select from posthaste.replay_part p where p.replay_id = r.replay_id and p.queued + p.skipped < p.total);
    -- What is not taken in yet. Those at the beginning, by transaction: an event cannot be older than its transaction's first ones by much.
    select least(best, min(greatest(posthaste.event_time(i.event_id), o.deliver_after))) into best
    from (
        select x.event_id from (select y.event_id from posthaste.intake y order by y.xid limit 1000) x order by x.event_id limit 64
    ) i
    left join lateral (select x.deliver_after from posthaste.outbox x where x.event_id = i.event_id limit 1) o on true;
    -- A delivery is owed since its event was inserted, or later (deliver_after). So whoever goes through them by event may stop where
    -- the events are no older than what was found: at the first as a rule. What waits for its first attempt until later is not owed yet.
    loop
        select count(*), (array_agg(w.event_id order by w.event_id desc))[1], min(greatest(posthaste.event_time(w.event_id), o.deliver_after))
        into found_some, last, since
        from (
            select u.event_id from (
                (select q.event_id from posthaste.queue q
                 where q.event_id > last and q.replay = 0 and not (q.attempts = 0 and q.due_at > now()) order by q.event_id limit next_some)
                union all
                (select f.event_id from posthaste.follower f
                 where f.event_id > last and f.replay = 0 and f.due_at <= now() order by f.event_id limit next_some)
                union all
                (select l.event_id from posthaste.lease l where l.event_id > last and l.replay = 0 order by l.event_id limit next_some)
                union all
                (select q.event_id from posthaste.quarantine q
                 where q.event_id > last and q.replay = 0 and (q.decision is null or q.decision = 'released' and not q.is_requeued)
                 order by q.event_id limit next_some)
            ) u order by u.event_id limit next_some
        ) w
        left join lateral (select x.deliver_after from posthaste.outbox x where x.event_id = w.event_id limit 1) o on true;
        best := least(best, since);
        looked_at := looked_at + found_some;
        exit when found_some < next_some or posthaste.event_time(last) >= best or looked_at >= looks_at_most;
        next_some := next_some * 16;
    end loop;
    -- Replays and tests count from when they were asked for.
    if exists (select from posthaste.replay) then
        select least(best, min(r.asked_at)) into best
        from (
            (select q.event_id, q.subscription_id, q.replay from posthaste.queue q where q.replay <> 0 limit looks_at_most)
            union all
            (select f.event_id, f.subscription_id, f.replay from posthaste.follower f where f.replay <> 0 limit looks_at_most)
            union all
            (select l.event_id, l.subscription_id, l.replay from posthaste.lease l where l.replay <> 0 limit looks_at_most)
            union all
            (select q.event_id, q.subscription_id, q.replay from posthaste.quarantine q
             where q.replay <> 0 and (q.decision is null or q.decision = 'released' and not q.is_requeued) limit looks_at_most)
        ) w
        cross join lateral (
            select x.replay_id from posthaste.replayed x
            where x.event_id = w.event_id and x.subscription_id = w.subscription_id and x.replay = w.replay limit 1
        ) d
        cross join lateral (select x.asked_at from posthaste.replay x where x.replay_id = d.replay_id limit 1) r;
    end if;
    return case when best <= now() then best end;
end
$$;
comment on function posthaste.oldest_owed(integer) is
    'Since when the oldest delivery has been owed, or event not fanned out, whatever keeps it from being sent; null where nothing is. Where so many have a deliver_after or are replays, it looks no further.';

create function posthaste.owed_by_subscription()
    returns table (subscription_id integer, since timestamptz, deliveries bigint)
    language sql stable
    set search_path = pg_catalog, pg_temp
begin atomic
    with waiting as materialized (
        select q.subscription_id, q.event_id, q.replay, q.attempts = 0 and q.due_at > now() as is_postponed from posthaste.queue q
        union all
        select f.subscription_id, f.event_id, f.replay, f.due_at > now() from posthaste.follower f
        union all
        select l.subscription_id, l.event_id, l.replay, false from posthaste.lease l
        union all
        select q.subscription_id, q.event_id, q.replay, false from posthaste.quarantine q
        where q.decision is null or q.decision = 'released' and not q.is_requeued
    ), counted as materialized (
        select w.subscription_id, count(*) as deliveries,
               min(w.event_id::text collate "C") filter (where w.replay = 0 and not w.is_postponed)::uuid as first_event,
               count(*) filter (where w.replay <> 0) as replays
        from waiting w group by w.subscription_id
    ), first as materialized (
        select c.subscription_id, greatest(posthaste.event_time(c.first_event), o.deliver_after) as since, o.deliver_after is not null as is_postponed
        from counted c
        left join lateral (select x.deliver_after from posthaste.outbox x where x.event_id = c.first_event limit 1) o on true
        where c.first_event is not null
    ), asked as (
        select f.subscription_id, f.since from first f
        union all
        -- An event that was postponed may be owed since later than a younger one: only then are all looked up.
        select w.subscription_id, greatest(posthaste.event_time(w.event_id), o.deliver_after)
        from first f
        join waiting w on w.subscription_id = f.subscription_id and w.replay = 0 and not w.is_postponed
        left join lateral (select x.deliver_after from posthaste.outbox x where x.event_id = w.event_id limit 1) o on true
        where f.is_postponed and posthaste.event_time(w.event_id) < f.since
        union all
        select w.subscription_id, r.asked_at
        from waiting w
        join posthaste.replayed d using (event_id, subscription_id, replay)
        join posthaste.replay r using (replay_id)
        where w.replay <> 0 and exists (select from counted c where c.replays > 0)
        union all
        select p.subscription_id, r.asked_at
        from posthaste.replay r join posthaste.replay_part p using (replay_id)
        where r.finished_at is null and p.queued + p.skipped < p.total
    ), to_come as (
        select p.subscription_id, sum(p.total - p.queued - p.skipped) as deliveries
        from posthaste.replay r join posthaste.replay_part p using (replay_id)
        where r.finished_at is null and p.queued + p.skipped < p.total group by p.subscription_id
    )
    select s.subscription_id, case when s.since <= now() then s.since end,
           (coalesce(c.deliveries, 0) + coalesce(t.deliveries, 0))::bigint
    from (
        select x.subscription_id, min(x.since) as since
        from (select a.subscription_id, a.since from asked a union all select k.subscription_id, null from counted k) x group by x.subscription_id
    ) s
    left join counted c using (subscription_id)
    left join to_come t using (subscription_id);
end;
comment on function posthaste.owed_by_subscription() is
    'Of each subscription that anything is owed to: since when, whatever keeps it from being sent (null: not before its deliver_after), and how many deliveries. Reads all that waits.';

create function posthaste.transaction_time(transaction xid) returns timestamptz
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    before timestamptz := now() - interval '30 days';
    after timestamptz := now();
    middle timestamptz;
    first record;
    best timestamptz := now();
begin
    -- Events are inserted all the time, and each row bears the id of its transaction: the first one that is no earlier is looked for by
    -- bisection. Postgres itself does not keep when a transaction began that is not one of its own sessions'.
    while after - before > interval '5 seconds' loop
        middle := before + (after - before) / 2;
        select o.event_id, o.xmin as transaction into first
        from posthaste.outbox o where o.event_id >= posthaste.first_event_id(middle) order by o.event_id limit 1;
        if found and age(first.transaction) > age(transaction_time.transaction) then
            before := middle;
        else
            after := middle;
            best := least(best, posthaste.event_time(first.event_id));
        end if;
    end loop;
    return best;
end
$$;
comment on function posthaste.transaction_time(xid) is
    'About when the transaction with this id began, within the last 30 days: when the first event was inserted by one that is no earlier; where none was inserted since, now. For what holds back vacuum and does not say since when.';

create function posthaste.vacuum_holders()
    returns table (holder text, pid integer, name text, since timestamptz, is_estimated boolean)
    language sql stable
    set search_path = pg_catalog, pg_temp
begin atomic
    with session as materialized (
        select a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'without a name') as name, a.state, a.xact_start, a.backend_xid,
               case when age(a.backend_xid) > age(a.backend_xmin) then a.backend_xid else coalesce(a.backend_xmin, a.backend_xid) end as oldest
        from pg_stat_activity a
        where a.datname = current_database() and a.pid <> pg_backend_pid() and (a.backend_xmin is not null or a.backend_xid is not null)
          and coalesce(a.backend_type, '') not in ('autovacuum worker', 'walsender')
          -- Vacuum holds back no vacuum.
          and not exists (select from pg_stat_progress_vacuum v where v.pid = a.pid)
    ), prepared as materialized (
        select p.gid, p.prepared, p.transaction from pg_prepared_xacts p where p.database = current_database()
    ), open as materialized (
        -- While one of these is open, the snapshots of all others, and what standbys ask for, reach back to it: no fault of theirs.
        select s.backend_xid as transaction from session s where s.backend_xid is not null
        union all
        select p.transaction from prepared p
    )
    select 'session', s.pid, format('%s of %s%s', s.name, s.usename, coalesce(', ' || s.state, '')),
           coalesce(s.xact_start, posthaste.transaction_time(s.oldest)), s.xact_start is null
    from session s
    -- Where the owner of this function may not see when a transaction began, only those that explain themselves are named; our own never last long.
    where s.xact_start is not null
       or s.name <> all ('{posthaste,posthaste listener}') and (s.backend_xid is not null or s.oldest not in (select o.transaction from open o))
    union all
    select 'prepared_transaction', null, p.gid, p.prepared, false from prepared p
    union all
    select 'replication_slot', s.active_pid, s.slot_name::text, posthaste.transaction_time(s.xmin), true
    from pg_replication_slots s where s.xmin is not null and s.xmin not in (select o.transaction from open o)
    union all
    select 'standby', a.pid, coalesce(nullif(a.application_name, ''), 'without a name'), posthaste.transaction_time(a.backend_xmin), true
    from pg_stat_activity a join pg_stat_replication r using (pid)
    where a.backend_xmin is not null and a.backend_xmin not in (select o.transaction from open o);
end;
comment on function posthaste.vacuum_holders() is
    'What keeps vacuum from removing dead rows of this database, and since when: open transactions, prepared ones, replication slots, standbys. An estimate where Postgres does not keep that, or posthaste_owner is not in pg_read_all_stats.';

create function posthaste.small_tables()
    returns table (name text, live bigint, dead bigint, bytes bigint, vacuum_due_since timestamptz)
    language sql stable
    set search_path = pg_catalog, pg_temp
begin atomic
    select t.name, coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0), pg_total_relation_size(c.oid),
           case when s.n_dead_tup > o.threshold + o.scale * greatest(c.reltuples, 0)
                then greatest(s.last_vacuum, s.last_autovacuum, (select min(m.applied_at) from posthaste.migration m)) end
    from unnest('{intake,queue,lease,lane,follower,ordering,dedup,quarantine,replay_item}'::text[]) t (name)
    join pg_class c on c.relname = t.name and c.relnamespace = 'posthaste'::regnamespace
    left join pg_stat_all_tables s on s.relid = c.oid
    cross join lateral (
        select coalesce(max(x.option_value) filter (where x.option_name = 'autovacuum_vacuum_threshold'), current_setting('autovacuum_vacuum_threshold'))::float8 as threshold,
               coalesce(max(x.option_value) filter (where x.option_name = 'autovacuum_vacuum_scale_factor'), current_setting('autovacuum_vacuum_scale_factor'))::float8 as scale
        from pg_options_to_table(c.reloptions) x
    ) o;
end;
comment on function posthaste.small_tables() is 'The tables that hold what is owed: rows, dead rows, bytes with indexes, and since when vacuum has been due, if it is.';

create function posthaste.partitions_ahead(history text) returns integer
    language sql stable
    set search_path = pg_catalog, pg_temp
return (
    select coalesce(min(d.days) filter (where p.oid is null), 400) - 1
    from (select n as days, history || to_char(now() at time zone 'UTC' + n * interval '1 day', '"_"YYYYMMDD') as name from generate_series(0, 400) n) d
    left join (
        select c.oid, c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = format('posthaste.%I', history)::regclass
    ) p on p.relname = d.name);
comment on function posthaste.partitions_ahead(text) is 'For how many days after today outbox or attempt has partitions without a gap; -1 where today''s is missing.';

create function posthaste.lane_states()
    returns table (subscription_id integer, wake_at timestamptz, state text)
    language sql stable
begin atomic
    select l.subscription_id, l.wake_at,
           case when not s.active or not l.active then 'paused'
                when l.breaker <> 'closed' then 'breaker_' || l.breaker
                when l.hold_until > now() then 'held'
                when l.wake_at = 'infinity' then 'idle'
                when l.wake_at > now() then 'asleep'
                when l.rest_until > now() then 'rate_limited'
                else 'due' end
    from posthaste.lane l join posthaste.subscription s using (subscription_id)
    where s.removed_at is null;
end;
comment on function posthaste.lane_states() is 'What each lane does: due, asleep until something is due, idle, rate_limited, held as its receiver asked, breaker_open, breaker_half_open or paused.';

create function posthaste.figures(counts_stop_at bigint)
    returns table (figure text, label text, value float8)
    language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = on
    set enable_bitmapscan = on
    set enable_mergejoin = on
    set jit = off
    set plan_cache_mode = force_custom_plan
as $$
declare
    oldest_intake timestamptz;
    oldest timestamptz;
begin
    perform posthaste.refuse_scoped();
    return query
    select 'workers_alive', null::text, count(*)::float8 from posthaste.worker_alive
    union all
    select 'worker_settings', null, count(distinct (coalesce(w.settings_digest, ''), w.version))::float8 from posthaste.worker_alive w
    union all
    select 'four_eyes', null, t.four_eyes::integer::float8 from posthaste.setting t
    union all
    select 'notification_queue_usage_ratio', null, pg_notification_queue_usage()
    union all
    select 'changes_open', null, count(*)::float8
    from (select from posthaste.subscription_change c where c.decision is null and c.expires_at > now() limit counts_stop_at) c
    union all
    select 'unknown_event_types', null, count(*)::float8
    from (
        select from posthaste.unknown_event_type u
        where not exists (select from posthaste.event_type c where c.event_type = u.event_type and c.active)
          and not posthaste.is_dismissed(u) limit counts_stop_at) u;
    -- As in posthaste.secret_overview, without reading what makes none of these.
    return query
    select f.figure, null::text, f.value
    from (
        select count(*) filter (where k.newest + t.secrets_rotate < now()) as overdue, min(k.newest) filter (where s.active) as oldest,
               count(*) filter (where coalesce(k.live, 0) = 0 or case when s.headers <> '{}' or s.authentication is not null or s.tls ? 'certificate' then (
                   select cardinality(o.credentials_without_value) > 0 from posthaste.secret_overview o where o.subscription_id = s.subscription_id) end) as missing
        from posthaste.subscription s
        cross join posthaste.setting t
        left join (
            select x.subscription_id, max(x.created_at) as newest, count(x.ciphertext) as live
            from posthaste.signing_secret x where x.ends_at is null or x.ends_at > now() group by x.subscription_id
        ) k using (subscription_id)
        where s.removed_at is null
    ) k
    cross join lateral (values ('secrets_overdue', k.overdue::float8), ('secrets_missing', k.missing),
                               ('oldest_signing_secret_seconds', coalesce(extract(epoch from now() - k.oldest), 0))) f (figure, value);
    return query
    select 'vacuum_held_back_seconds', h.holder, coalesce(max(extract(epoch from clock_timestamp() - v.since)), 0)::float8
    from unnest('{session,replication_slot,prepared_transaction,standby}'::text[]) h (holder)
    left join posthaste.vacuum_holders() v using (holder)
    group by h.holder
    union all
    select 'vacuum_holder_pid', null, coalesce((
        select v.pid from posthaste.vacuum_holders() v where v.holder = 'session' order by v.since nulls last limit 1), 0);
    return query
    select 'dead_letters_last_day', null::text, count(*)::float8
    from (
        select from posthaste.operational_event e
        where e.id >= posthaste.first_event_id(now() - interval '1 day') and e.event_type in ('posthaste.delivery.exhausted', 'posthaste.delivery.rejected')
        limit counts_stop_at) e;
    return query
    select 'lanes', s.state, count(l.state)::float8
    from unnest('{due,asleep,idle,rate_limited,held,breaker_open,breaker_half_open,paused}'::text[]) s (state)
    left join posthaste.lane_states() l using (state) group by s.state;
    -- What follows walks what is dead, where vacuum has been held back for long. Whoever asks sets a statement_timeout; that must not
    -- cost the figures that tell why.
    begin
        select min(posthaste.event_time(i.event_id)) into oldest_intake
        from (select x.event_id from posthaste.intake x order by x.xid limit 1000) i;
        oldest := posthaste.oldest_owed(least(counts_stop_at, 10000)::integer);
    exception when query_canceled then
        -- At least as old as this. A lane's scan starts beyond what is dead.
        select min(posthaste.event_time(q.event_id)) into oldest
        from posthaste.lane l
        cross join lateral (
            select x.event_id from posthaste.queue x where x.subscription_id = l.subscription_id and x.due_at >= l.wake_at order by x.due_at limit 1
        ) q
        where l.wake_at < 'infinity';
        oldest := least(oldest, oldest_intake);
    end;
    return query values
        ('oldest_intake_seconds', null::text, greatest(0, coalesce(extract(epoch from now() - oldest_intake), 0))::float8),
        ('oldest_owed_seconds', null, greatest(0, coalesce(extract(epoch from now() - oldest), 0))::float8);
    return query
    with waiting as materialized (
        select count(*) as n, count(*) filter (where l.state = 'due' and q.due_at <= now()) as due
        from (select x.subscription_id, x.due_at from posthaste.queue x limit counts_stop_at) q
        left join posthaste.lane_states() l using (subscription_id)
    ), due as materialized (
        -- Where more waits than is counted, those that are due may lie beyond: some are looked for where they would be found first.
        select count(*) as n
        from (
            select from posthaste.lane_states() l
            cross join lateral (
                select from posthaste.queue q where q.subscription_id = l.subscription_id and q.due_at >= l.wake_at and q.due_at <= now() limit 1000
            ) q
            where l.state = 'due' and (select w.n from waiting w) = counts_stop_at limit 1000
        ) d
    ), counted (state, n) as (
        select 'intake', count(*) from (select from posthaste.intake limit counts_stop_at) i
        union all select 'due', least(counts_stop_at, greatest(w.due, d.n)) from waiting w cross join due d
        union all
        select 'waiting', least(counts_stop_at, w.n - w.due + (
            select coalesce(sum(p.total - p.queued - p.skipped), 0)
            from posthaste.replay r join posthaste.replay_part p using (replay_id) where r.finished_at is null)) from waiting w
        union all select 'ordered', count(*) from (select from posthaste.follower limit counts_stop_at) f
        union all select 'leased', count(*) from (select from posthaste.lease limit counts_stop_at) l
        union all select 'quarantined', count(*) from (select from posthaste.quarantine q where q.decision is null limit counts_stop_at) q
    )
    select 'deliveries_owed', c.state, c.n::float8 from counted c;
end
$$;
comment on function posthaste.figures(bigint) is
    'How things stand in numbers; the metric is posthaste_ and the figure''s name. Counts stop at the number given; where more waits than that, due and waiting are as many as were found among as many. For every few seconds.';

create function posthaste.table_figures()
    returns table (figure text, label text, value float8)
    language sql stable security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = on
    set enable_bitmapscan = on
    set enable_mergejoin = on
    set jit = off
begin atomic
    select posthaste.refuse_scoped();
    select f.figure, t.name, f.value
    from posthaste.small_tables() t
    cross join lateral (values ('table_rows', t.live::float8), ('table_dead_rows', t.dead), ('table_bytes', t.bytes),
                               ('table_vacuum_age_seconds', coalesce(extract(epoch from now() - t.vacuum_due_since), 0))) f (figure, value)
    union all
    select f.figure, h.name, f.value
    from unnest('{outbox,attempt}'::text[]) h (name)
    cross join lateral (
        select sum(pg_total_relation_size(i.inhrelid)) as bytes from pg_inherits i where i.inhparent = format('posthaste.%I', h.name)::regclass
    ) b
    cross join lateral (values
        ('history_bytes', coalesce(b.bytes, 0)::float8),
        ('partitions_ahead_seconds', 86400 * greatest(0, posthaste.partitions_ahead(h.name))),
        ('default_partition_used', case h.name when 'outbox' then exists (select from posthaste.outbox_default)
                                               else exists (select from posthaste.attempt_default) end::integer)) f (figure, value);
end;
comment on function posthaste.table_figures() is 'Sizes, dead rows and partitions in numbers, as posthaste.figures. For once a minute.';

create function posthaste.subscription_figures(most integer, named text[])
    returns table (figure text, label text, value float8)
    language sql stable security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = on
    set enable_bitmapscan = on
    set enable_mergejoin = on
    set jit = off
    set work_mem = '64MB'
begin atomic
    select posthaste.refuse_scoped();
    with owed as materialized (
        select * from posthaste.owed_by_subscription()
    ), standing as materialized (
        select s.subscription_id, s.name, o.since, coalesce(o.deliveries, 0) as deliveries,
               -- Not of one that is paused, as in findings: nobody tries it, so it would seem to fail for ever.
               case when s.active then l.failing_since end as failing_since, case when s.active then l.breaker_since end as breaker_since
        from posthaste.subscription s
        left join owed o using (subscription_id)
        left join posthaste.lane l using (subscription_id)
        where s.removed_at is null
    ), chosen as (
        (select s.subscription_id from standing s where s.since is not null order by s.since, s.subscription_id limit greatest(most, 0))
        union
        (select s.subscription_id from standing s where s.failing_since is not null order by s.failing_since, s.subscription_id limit greatest(most, 0))
        union
        select s.subscription_id from standing s where s.name = any (named)
    )
    select f.figure, s.name, f.value
    from standing s
    cross join lateral (values
        ('subscription_oldest_owed_seconds', coalesce(extract(epoch from now() - s.since), 0)::float8),
        ('subscription_deliveries_owed', s.deliveries),
        ('subscription_failing_seconds', coalesce(extract(epoch from now() - s.failing_since), 0)),
        ('subscription_breaker_open_seconds', coalesce(extract(epoch from now() - s.breaker_since), 0))) f (figure, value)
    where s.subscription_id in (select c.subscription_id from chosen c);
end;
comment on function posthaste.subscription_figures(integer, text[]) is
    'How single subscriptions stand: so many of those to which something has been owed for longest, so many of those that have failed for longest, and those named. Reads all that waits: for now and then.';

create function posthaste.recent_rates(over_seconds float8)
    returns table (figure text, label text, value float8)
    language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_tidscan = on
    set jit = off
as $$
declare
    period constant float8 := least(greatest(coalesce(over_seconds, 10), 1), 60);
    history text;
    tails text;
    is_cut boolean;
begin
    perform posthaste.refuse_scoped();
    foreach history in array '{outbox,attempt}'::text[] loop
        -- History only grows, and has no index by time: what is new is in the last pages of today's partition, and of yesterday's for as
        -- long as a request may take that began there. No more of them are read than a moment takes.
        select string_agg(
                   case history
                       when 'outbox' then format('select %L, posthaste.event_time(h.event_id) from %s h where h.ctid >= %L', 'inserted', p.part, p.first_page)
                       else format('select h.outcome::text, h.started_at + coalesce(h.duration_us, 0) * interval %L from %s h where h.ctid >= %L',
                                   '1 microsecond', p.part, p.first_page)
                   end, ' union all '),
               bool_or(p.is_cut)
        into tails, is_cut
        from (
            select r.part, format('(%s,0)', greatest(r.pages - 256, 0)) as first_page, r.pages > 256 as is_cut
            from (
                select d.part, pg_relation_size(d.part) / current_setting('block_size')::bigint as pages
                from (
                    select distinct coalesce(to_regclass(format('posthaste.%s_%s', history, to_char(day, 'YYYYMMDD'))), format('posthaste.%s_default', history)::regclass) as part
                    from unnest(array[now() at time zone 'UTC', (now() - interval '3 minutes') at time zone 'UTC']) day
                ) d
            ) r
        ) p;
        return query execute format($sql$
            with tail (label, at) as materialized (%s),
            -- Where the pages hold less than the whole period, it is as long as what they hold.
            span as (select coalesce(case when $1 then least($2, greatest(extract(epoch from now() - min(at) filter (where label <> 'abandoned')), 0.1)) end, $2)::float8 as seconds from tail)
            select $3, l.label, count(t.at) / s.seconds
            from unnest($4) l (label)
            cross join span s
            left join tail t on t.label = coalesce(l.label, 'inserted') and t.at > now() - make_interval(secs => s.seconds)
            group by l.label, s.seconds$sql$, tails)
        using is_cut, period, case history when 'outbox' then 'events_per_second' else 'attempts_per_second' end,
              case history when 'outbox' then array[null::text] else enum_range(null::posthaste.outcome)::text[] end;
    end loop;
end
$$;
comment on function posthaste.recent_rates(float8) is
    'Events inserted, and attempts that came to an end by outcome, a second: over so many seconds (1 to 60), or as many as the last 2 MiB of the history hold. For whoever watches.';

create function posthaste.findings()
    returns table (severity text, finding text, subscription text, since timestamptz, detail text, command text, runbook text)
    language sql stable security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = on
    set enable_bitmapscan = on
    set enable_mergejoin = on
    set jit = off
    set work_mem = '64MB'
    set intervalstyle = 'postgres'
    set timezone = 'UTC'
begin atomic
    select posthaste.refuse_scoped();
    with alive as materialized (
        select * from posthaste.worker_alive
    ), intake as materialized (
        select min(posthaste.event_time(i.event_id)) as since
        from (select x.event_id from posthaste.intake x order by x.xid limit 1000) i
    ), found (severity, finding, subscription, since, detail, command) as (
        select 'critical', 'no_worker', null::text,
               (select max(greatest(w.started_at, w.noted_at, w.ended_at)) from posthaste.worker w),
               'no worker is alive: nothing is sent', 'posthaste run'
        where not exists (select from alive)
        union all
        select 'critical', 'events_not_fanned_out', null, i.since,
               format('the oldest event that no worker has taken in was inserted at %s', i.since::timestamptz(0)),
               case when exists (select from alive) then 'posthaste check' else 'posthaste run' end
        from intake i where i.since < now() - interval '1 minute'
        union all
        (select 'warning', 'deliveries_late', s.name, o.since,
                format('%s deliveries are owed, the oldest since %s%s', o.deliveries, o.since::timestamptz(0),
                       case when not s.active then '; it is paused'
                            when l.breaker <> 'closed' then '; its circuit breaker is ' || replace(l.breaker::text, '_', ' ')
                            when l.hold_until > now() then format('; its receiver asked to be left alone until %s', l.hold_until::timestamptz(0))
                            when l.rest_until > now() then '; its rate is used up' else '' end),
                case when not s.active then format('posthaste subscription resume %s --reason ''what was done about it''', posthaste.shell_word(s.name))
                     else format('posthaste subscription show %s', posthaste.shell_word(s.name)) end
         from posthaste.owed_by_subscription() o
         join posthaste.subscription s using (subscription_id)
         left join posthaste.lane l using (subscription_id)
         where o.since < now() - interval '1 hour' and s.removed_at is null
         order by o.since, s.subscription_id limit 20)
        union all
        (select 'warning', 'dead_letters', s.name, d.since, format('%s deliveries were given up within the last hour', d.n),
                format('select error, count(*), max(last_attempt_at) from posthaste.dead_letter where subscription = %L and last_attempt_at > now() - interval ''1 hour'' group by error order by 2 desc', s.name)
         from (
             select e.subscription_id, count(*) as n, min(e.at) as since
             from (select x.subscription_id, x.at from posthaste.operational_event x
                   where x.id >= posthaste.first_event_id(now() - interval '1 hour')
                     and x.event_type in ('posthaste.delivery.exhausted', 'posthaste.delivery.rejected') limit 100000) e
             group by e.subscription_id
         ) d join posthaste.subscription s using (subscription_id)
         order by d.n desc, s.subscription_id limit 20)
        union all
        (select 'warning', 'subscription_failing', s.name, l.failing_since,
                format('nothing was accepted since %s: %s failures in a row', l.failing_since::timestamptz(0), l.failures),
                format('select started_at, outcome, http_status, error from posthaste.attempt_log where subscription = %L and started_at > now() - interval ''1 hour'' order by started_at desc limit 10', s.name)
         from posthaste.lane l join posthaste.subscription s using (subscription_id)
         where l.failing_since < now() - interval '15 minutes' and s.active
         order by l.failing_since, s.subscription_id limit 20)
        union all
        (select 'warning', 'breaker_open', s.name, l.breaker_since,
                format('its circuit breaker is %s; %s', replace(l.breaker::text, '_', ' '),
                       case when l.hold_until > now() then format('the next probe is sent at %s', l.hold_until::timestamptz(0)) else 'the next delivery is the probe' end),
                format('select started_at, outcome, http_status, error from posthaste.attempt_log where subscription = %L and started_at > now() - interval ''1 hour'' order by started_at desc limit 10', s.name)
         from posthaste.lane l join posthaste.subscription s using (subscription_id)
         where l.breaker_since < now() - interval '30 minutes' and s.active
         order by l.breaker_since, s.subscription_id limit 20)
        union all
        (select 'info', 'subscription_paused', s.name, p.at, format('a worker paused it: %s', p.detail ->> 'reason'),
                format('posthaste subscription resume %s --reason ''what was done about it''', posthaste.shell_word(s.name))
         from posthaste.subscription s
         cross join lateral (
             select e.at, e.detail from posthaste.operational_event e
             where e.event_type = 'posthaste.subscription.paused' and e.subscription_id = s.subscription_id order by e.at desc limit 1
         ) p
         where not s.active and s.removed_at is null
           -- Not one that was taken up again since, and that a person then paused.
           and not exists (
               select from posthaste.subscription_revision r
               where r.subscription_id = s.subscription_id and r.since > p.at and r.terms ->> 'active' = 'true')
         order by p.at, s.subscription_id limit 20)
        union all
        (select 'warning', 'quarantined', s.name, min(q.held_at), format('%s deliveries wait for somebody to release or discard them', count(*)),
                'select * from posthaste.unrouted where held_for is not null order by first_at'
         from (select x.subscription_id, x.held_at from posthaste.quarantine x where x.decision is null limit 100000) q
         join posthaste.subscription s using (subscription_id)
         group by s.subscription_id, s.name order by min(q.held_at), s.subscription_id limit 20)
        union all
        select 'warning', 'unknown_event_types', null, min(u.first_at),
               format('%s event types came that the catalogue does not have, or not as active ones, such as %s', count(*), (array_agg(u.event_type order by u.events desc))[1]),
               'select * from posthaste.unrouted where held_for is null order by events desc'
        from posthaste.unknown_event_type u
        where not exists (select from posthaste.event_type c where c.event_type = u.event_type and c.active) and not posthaste.is_dismissed(u)
        having count(*) > 0
        union all
        select 'warning', 'leases_lost', null, min(a.started_at),
               format('%s attempts were recorded late and %s as abandoned within the last 15 minutes: partners may have got some twice',
                      count(*) filter (where a.verdict = 'late'), count(*) filter (where a.outcome = 'abandoned')),
               'select started_at, subscription, event_id, number, outcome, verdict, worker from posthaste.attempt_log where started_at > now() - interval ''15 minutes'' and (verdict = ''late'' or outcome = ''abandoned'') order by started_at desc limit 20'
        from (
            select x.started_at, x.verdict, x.outcome from posthaste.attempt x
            where (x.verdict in ('exhausted', 'rejected', 'late') or x.outcome = 'abandoned')
              and (x.verdict = 'late' or x.outcome = 'abandoned') and x.started_at > now() - interval '15 minutes' limit 100000
        ) a
        having count(*) > 0
        union all
        select case when w.difference > 60 then 'critical' else 'warning' end, 'clock_off', null, null,
               format('the clock of %s differs from the database''s by %s s%s', w.name, round(w.difference::numeric, 1),
                      case when w.workers > 1 then format(', and those of %s other workers', w.workers - 1) else '' end),
               'posthaste check'
        from (
            select a.name, abs(a.clock_difference) as difference, count(*) over () as workers from alive a
            where abs(a.clock_difference) > 5 order by 2 desc limit 1
        ) w
        union all
        select 'critical', 'partitions_missing', null, null,
               format('%s has partitions for %s days ahead%s', h.name, greatest(h.ahead, 0), case when h.is_default_used then ', and rows in its default partition' else '' end),
               case when h.is_default_used then format('select posthaste.empty_default(%L, ''why'')', 'posthaste.' || h.name) else 'select posthaste.create_partitions(7)' end
        from (
            select n.name, posthaste.partitions_ahead(n.name) as ahead,
                   case n.name when 'outbox' then exists (select from posthaste.outbox_default) else exists (select from posthaste.attempt_default) end as is_default_used
            from unnest('{outbox,attempt}'::text[]) n (name)
        ) h where h.ahead < 2 or h.is_default_used
        union all
        (select 'warning', 'vacuum_held_back', null, v.since,
                format('the %s %s%s keeps dead rows from being removed, since %s%s', replace(v.holder, '_', ' '), v.name, coalesce(format(' (pid %s)', v.pid), ''),
                       v.since::timestamptz(0),
                       case when v.is_estimated and v.holder = 'session' then ', as far as can be told while posthaste_owner is not in pg_read_all_stats'
                            when v.is_estimated then ', as far as can be told' else '' end),
                case v.holder when 'session' then format('select pg_terminate_backend(%s)', v.pid)
                              when 'prepared_transaction' then format('rollback prepared %L', v.name)
                              when 'replication_slot' then format('select pg_drop_replication_slot(%L)', v.name)
                              else 'select pid, application_name, client_addr, backend_xmin from pg_stat_replication' end
         from posthaste.vacuum_holders() v where v.since < now() - interval '30 minutes'
         order by v.since limit 20)
        union all
        select 'warning', 'notification_queue', null, null, format('the notification queue is %s %% full; when it is full, commits fail', round(q.usage::numeric * 100)),
               'select pid, application_name, state, xact_start from pg_stat_activity where state ^@ ''idle in transaction'' order by xact_start'
        from (select pg_notification_queue_usage() as usage) q where q.usage > 0.25
        union all
        select 'warning', 'tables_bloated', null, t.vacuum_due_since, format('posthaste.%s has %s dead rows and takes %s', t.name, t.dead, pg_size_pretty(t.bytes)),
               format('vacuum (verbose, analyze) posthaste.%I', t.name)
        from posthaste.small_tables() t where t.dead > 500000 or t.bytes > 1024 * 1024 * 1024
        union all
        (select 'warning', 'rotation_overdue', k.subscription, k.newest_made_at + t.secrets_rotate,
                format('its newest signing secret was made at %s', k.newest_made_at::timestamptz(0)), format('posthaste secret rotate %s', posthaste.shell_word(k.subscription))
         from posthaste.secret_overview k cross join posthaste.setting t where k.is_overdue
         order by k.newest_made_at, k.subscription_id limit 20)
        union all
        (select 'critical', 'secret_missing', k.subscription, null,
                case when k.live = 0 then 'it has no live signing secret: nothing is sent to it'
                     else format('nothing is sent to it without the value of %s', k.credentials_without_value[1]) end,
                case when k.live = 0 then format('posthaste secret rotate %s', posthaste.shell_word(k.subscription))
                     else format('posthaste secret import %s %s --secret-file FILE --reason ''it was missing''', posthaste.shell_word(k.subscription),
                                 case k.credentials_without_value[1] when ':authentication' then '--authentication' when ':client_key' then '--client-key'
                                 else '--header ' || posthaste.shell_word(k.credentials_without_value[1]) end) end
         from posthaste.secret_overview k where k.live = 0 or cardinality(k.credentials_without_value) > 0
         order by k.subscription_id limit 20)
        union all
        select case when c.ends < now() + interval '2 days' then 'critical' else 'warning' end, 'certificate_expiring', null, c.ends - interval '14 days',
               format('the first client certificate that workers show %s at %s', case when c.ends < now() then 'has ended' else 'ends' end, c.ends::timestamptz(0)),
               'posthaste check'
        from (select min(a.certificate_ends) as ends from alive a) c where c.ends < now() + interval '14 days'
        union all
        select 'warning', 'config_drift', null, d.since, format('the workers alive run with %s different settings or versions', d.settings),
               'select name, version, settings_digest, started_at from posthaste.worker_alive order by version, settings_digest, started_at'
        from (
            -- Since the second of them came.
            select count(*) as settings, (array_agg(g.since order by g.since))[2] as since
            from (select min(a.started_at) as since from alive a group by coalesce(a.settings_digest, ''), a.version) g
        ) d where d.settings > 1 and d.since < now() - interval '15 minutes'
        union all
        select 'info', 'four_eyes_off', null, null, 'one administrator may approve alone', 'select posthaste.set_four_eyes(true, ''why'')'
        from posthaste.setting t where not t.four_eyes
        union all
        select 'info', 'changes_open', null, min(c.proposed_at), format('%s changes wait for a decision', count(*)), 'posthaste subscription changes'
        from (select x.proposed_at from posthaste.subscription_change x where x.decision is null and x.expires_at > now() limit 10000) c
        having count(*) > 0
        union all
        select 'critical', 'access_deviates', null, null,
               format('%s rights or guards are not as the schema has them, such as %s of %s on %s: %s', count(*), min(a.privilege), min(a.grantee), min(a.object), min(a.problem)),
               'select * from posthaste.access_deviation()'
        from posthaste.access_deviation() a having count(*) > 0
    )
    select f.severity, f.finding, f.subscription, f.since, f.detail, f.command, 'docs/runbook.md#' || f.finding
    from found f
    order by array_position('{critical,warning,info}', f.severity), f.since nulls last, f.finding, f.subscription;
end;
comment on function posthaste.findings() is 'What an operator should see to, worst first: since when, for whom, and a command that helps. Nothing, if all is well. Where a million deliveries wait, it takes half a second of processor time, and some seconds on a busy machine.';

create view posthaste.health with (security_barrier) as
select f.severity, f.finding, f.subscription, f.since, f.detail, f.command, f.runbook
from posthaste.findings() f;
comment on view posthaste.health is 'What an operator should see to; see posthaste.findings. Whoever is scoped to partners is refused.';

select posthaste.apply_access();
