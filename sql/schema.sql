-- Posthaste's schema as it stands today. Read it top to bottom: what happened, what is agreed, what is still owed.
--
-- A database gets here through sql/migrations; a test builds one database from them and one from this file and compares the
-- two catalogues. Postgres 14 or later, no extension, no superuser.
--
-- Three promises hold for whoever reads or writes here:
--   * A producer pays one INSERT into posthaste.outbox. Nothing in it looks up a subscription, and nothing a partner, a worker
--     or a subscription does can make it fail or wait.
--   * posthaste.outbox and posthaste.attempt are history: UPDATE, DELETE and TRUNCATE are refused for everyone, the owner included.
--   * posthaste.intake, queue and lease hold what is still owed and nothing else. They are empty when all is done.

create schema posthaste;
comment on schema posthaste is 'Transactional outbox and webhook deliveries. Insert into outbox; read delivery and attempt.';

create table posthaste.migration (
    version    integer     primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default now()
);
comment on table posthaste.migration is 'Which migrations made this schema, and the SHA-256 of each one''s text.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- Helpers that tables rely on
-- ---------------------------------------------------------------------------------------------------------------------------

create function posthaste.new_event_id() returns uuid
    language sql volatile parallel safe
return encode(
    set_bit(set_bit(
        overlay(
            uuid_send(gen_random_uuid())
            placing substring(int8send((date_part('epoch', clock_timestamp()) * 1000)::bigint) from 3)
            from 1 for 6),
        52, 1), 53, 1),
    'hex')::uuid;
comment on function posthaste.new_event_id() is
    'A UUID version 7: 48 bits of Unix milliseconds, then random bits. Not from a sequence, so a restored backup never gives an old id to a new event.';

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

-- The rules of the columns below, one function each, called by name from their CHECK constraints. Postgres reads a constraint's
-- expression anew for every statement, and compiles a function once a session: spelled out in the constraints, these five rules
-- made an INSERT of one event cost a third more processor time. Operators are qualified, so that nobody's search_path bends a rule.

create function posthaste.is_event_id(value uuid) returns boolean
    language plpgsql immutable parallel safe
as $$
begin
    return case when pg_catalog.substring(pg_catalog.uuid_send(value), 7, 1) operator(pg_catalog.>=) '\x70'
                 and pg_catalog.substring(pg_catalog.uuid_send(value), 7, 1) operator(pg_catalog.<) '\x80' then true
           else posthaste.refuse('event_id', value::text, 'it must be a UUID version 7; leave it out to get one') end;
end
$$;
comment on function posthaste.is_event_id(uuid) is 'True for a UUID version 7; raises otherwise.';

create function posthaste.is_event_type(value text) returns boolean
    language plpgsql immutable parallel safe
as $$
begin
    return case when value operator(pg_catalog.~) '^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$' and pg_catalog.length(value) operator(pg_catalog.<=) 128 then true
           else posthaste.refuse('event_type', value,
               'up to 128 characters, words of A-Z a-z 0-9 _ joined by dots, such as certificate.issued or CERTIFICATE_ISSUED') end;
end
$$;
comment on function posthaste.is_event_type(text) is 'True for a name such as certificate.issued or CERTIFICATE_ISSUED; raises otherwise.';

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
           else posthaste.refuse(name, value::text, 'a JSON object, or null') end;
end
$$;
comment on function posthaste.is_object(text, json) is 'True for a JSON object; raises otherwise, naming the column.';

create function posthaste.is_traceparent(value text) returns boolean
    language plpgsql immutable parallel safe
as $$
begin
    return case when value operator(pg_catalog.~) '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' then true
           else posthaste.refuse('traceparent', value, 'the W3C form 00-<32 hex>-<16 hex>-<2 hex>, or null') end;
end
$$;
comment on function posthaste.is_traceparent(text) is 'True for the W3C form of a trace context; raises otherwise.';

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
    event_id    uuid        not null default posthaste.new_event_id(),
    occurred_at timestamptz not null default clock_timestamp(),
    event_type  text        not null,
    payload     json        not null,
    tenant      text,
    metadata    json,
    traceparent text,
    constraint outbox_pkey primary key (event_id),
    constraint event_id_is_a_uuid_version_7 check (posthaste.is_event_id(event_id)),
    constraint event_type_is_dotted_words check (posthaste.is_event_type(event_type)),
    constraint tenant_has_1_to_128_characters check (tenant is null or posthaste.is_tenant(tenant)),
    constraint metadata_is_an_object check (metadata is null or posthaste.is_object('metadata', metadata)),
    constraint traceparent_is_w3c check (traceparent is null or posthaste.is_traceparent(traceparent))
) partition by range (event_id);

comment on table posthaste.outbox is
    'What happened, one immutable row per event, inserted by the platform in the transaction that made it true. Partitioned by the day inside event_id.';
comment on column posthaste.outbox.event_id is 'What partners see as webhook-id: the same on every attempt and every replay.';
comment on column posthaste.outbox.occurred_at is 'When it happened, for partners to read. Has no influence on when or in which order it is sent.';
comment on column posthaste.outbox.event_type is 'Such as certificate.issued. An event of a type that nobody subscribes to is kept and delivered to nobody.';
comment on column posthaste.outbox.payload is 'Sent byte for byte as inserted: json keeps spaces, key order and every digit, jsonb would not.';
comment on column posthaste.outbox.tenant is 'Whose event it is. A subscription with a tenant gets only that tenant''s events.';
comment on column posthaste.outbox.metadata is 'Kept with the event for auditors. Not sent.';
comment on column posthaste.outbox.traceparent is 'The producer''s W3C trace context. Kept with the event. Not sent.';

create table posthaste.intake (
    event_id uuid not null,
    xid      xid8 not null default pg_current_xact_id()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
-- Serves take.sql: `where xid >= <watermark> order by xid`, and the transactions below it that were still open, each by its id.
-- So a scan never visits the dead entries of events already taken, however long some transaction keeps vacuum from removing them.
create index intake_by_xid on posthaste.intake (xid);
comment on table posthaste.intake is
    'Events that have not been fanned out yet: one thin row per event, deleted by the worker that makes its deliveries.';

create function posthaste.take_in() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into posthaste.intake (event_id) select event_id from inserted;
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

-- ---------------------------------------------------------------------------------------------------------------------------
-- What happened: attempts
-- ---------------------------------------------------------------------------------------------------------------------------

create type posthaste.outcome as enum (
    'accepted',     -- a complete response head with a 2xx status
    'rejected',     -- a complete response head with any other status
    'timed_out',    -- the deadline passed before the response head was complete
    'unreachable',  -- no response: DNS, connection, TLS or HTTP failed
    'blocked',      -- not sent: an address, URL or size that we refuse
    'abandoned'     -- the worker died or lost its lease before recording; whether the request was sent is not known
);
comment on type posthaste.outcome is 'What an attempt met.';

create type posthaste.verdict as enum (
    'done',         -- accepted: the delivery is finished, SUCCESS
    'retry',        -- another attempt is due at next_attempt_at: FAILED for now
    'exhausted',    -- the last attempt of the retry policy failed: the delivery is finished, RETRY_EXHAUSTED
    'rejected',     -- refused for good: the delivery is finished, REJECTED
    'late'          -- the lease was lost before this was recorded: it changed nothing, another attempt decides
);
comment on type posthaste.verdict is 'What an attempt meant for its delivery.';

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
    constraint blocked_or_abandoned_has_no_status check (outcome not in ('blocked', 'abandoned') or http_status is null),
    constraint done_iff_accepted_in_time check ((verdict = 'done') = (outcome = 'accepted' and verdict <> 'late')),
    constraint anything_but_accepted_says_why check (outcome = 'accepted' or error is not null),
    constraint response_is_bounded check (length(response) <= 65536),
    constraint error_is_bounded check (length(error) <= 2048)
) partition by range (started_at);

-- Serves the delivery view, an event's story, and the proof that an abandoned attempt was recorded.
create index attempt_by_event on posthaste.attempt (event_id);
-- Serves dead letters. Small: most attempts succeed.
create index attempt_by_dead_letter on posthaste.attempt (subscription_id, started_at) where verdict in ('exhausted', 'rejected');

comment on table posthaste.attempt is
    'One immutable row for every HTTP request a worker made, or may have made. Partitioned by day.';
comment on column posthaste.attempt.started_at is 'When the request began; for an abandoned one, when its lease began.';
comment on column posthaste.attempt.subscription_revision is 'Under which terms it was sent.';
comment on column posthaste.attempt.duration_us is 'Microseconds from name resolution, or from sending on a pooled connection, to the end. Null when abandoned.';
comment on column posthaste.attempt.dns_us is 'Microseconds of name resolution. Null on a pooled connection, as are connect_us and tls_us. What the phases leave of duration_us is the wait for the response head; see attempt_log.';
comment on column posthaste.attempt.body_us is 'Microseconds from the complete response head to the end of what was read of the body. Null where there was none.';
comment on column posthaste.attempt.replay is '0 for the delivery that the event itself caused, 1 and up for replays.';
comment on column posthaste.attempt.number is 'Attempts of a delivery count from 1. Two rows bear the same number only where one says abandoned and the other, late, what really came of it.';
comment on column posthaste.attempt.remote_address is 'The address connected to, or refused.';
comment on column posthaste.attempt.signed_with is 'The numbers of the subscription''s signing secrets that signed it, joined by commas: 1, or 1,2 during a rotation. Null where nothing was signed.';
comment on column posthaste.attempt.error is 'Why it was not accepted, in one line.';
comment on column posthaste.attempt.response is 'The start of the response body, control characters escaped.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- What is agreed
-- ---------------------------------------------------------------------------------------------------------------------------

create table posthaste.event_type (
    event_type  text primary key,
    description text not null,
    schema      json,
    example     json,
    created_at  timestamptz not null default now(),
    created_by  text not null default session_user,
    constraint event_type_is_dotted_words check (posthaste.is_event_type(event_type)),
    constraint description_is_not_blank check (btrim(description) <> '')
);
comment on table posthaste.event_type is 'The catalogue: what can be subscribed to. A producer is never held to it.';
comment on column posthaste.event_type.schema is 'JSON Schema of the payload, for people and their tools.';
comment on column posthaste.event_type.example is 'An example payload.';

create table posthaste.subscription (
    subscription_id integer generated always as identity primary key,
    name            text        not null unique,
    url             text        not null,
    tenant          text,
    retry_intervals interval[]  not null,
    retry_jitter    real        not null,
    revision        integer     not null default 1,
    created_at      timestamptz not null default now(),
    created_by      text        not null default session_user,
    constraint name_is_1_to_100_visible_characters check (name ~ '^[[:graph:]]([[:graph:] ]{0,98}[[:graph:]])?$'),
    constraint tenant_has_1_to_128_characters check (tenant is null or posthaste.is_tenant(tenant)),
    constraint at_most_50_retries check (cardinality(retry_intervals) <= 50),
    constraint retry_intervals_is_a_flat_list check (coalesce(array_ndims(retry_intervals), 1) = 1),
    constraint jitter_is_a_fraction check (retry_jitter between 0 and 1)
);
comment on table posthaste.subscription is 'What a partner gets, where, and how often we try. Made by posthaste.create_subscription alone.';
comment on column posthaste.subscription.tenant is 'If set, only events of this tenant match.';
comment on column posthaste.subscription.retry_intervals is 'How long to wait after the first, second, ... failed attempt. When the list ends, the delivery is RETRY_EXHAUSTED.';
comment on column posthaste.subscription.retry_jitter is 'Each interval is stretched or shrunk at random by up to this fraction.';
comment on column posthaste.subscription.revision is 'Counts up with every change of the subscription or its secrets. Workers read the terms anew when it differs from the one they hold.';

create table posthaste.subscription_event_type (
    event_type      text    not null,
    subscription_id integer not null references posthaste.subscription,
    -- Serves take.sql: which subscriptions does an event of this type go to?
    primary key (event_type, subscription_id)
);
comment on table posthaste.subscription_event_type is 'Which event types a subscription gets: a name from the catalogue, or * for all.';

create table posthaste.signing_secret (
    secret_id       uuid        primary key,
    subscription_id integer     not null references posthaste.subscription,
    number          smallint    not null,
    key_id          text        not null,
    ciphertext      bytea       not null,
    created_at      timestamptz not null default now(),
    ends_at         timestamptz,
    -- Serves terms.sql: the live secrets of a subscription, oldest first.
    constraint secrets_are_numbered_within_a_subscription unique (subscription_id, number),
    constraint numbers_count_from_1 check (number >= 1),
    constraint ends_after_it_begins check (ends_at > created_at)
);
comment on table posthaste.signing_secret is
    'Secrets that sign a subscription''s requests; every live one signs. Encrypted by the worker''s key, which Postgres never sees, and bound to this row: moved elsewhere it does not decrypt.';
comment on column posthaste.signing_secret.key_id is 'Which of the worker''s keys encrypted it.';
comment on column posthaste.signing_secret.ends_at is 'No longer signs from then on. Null: no end agreed.';

create function posthaste.count_revision() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_table_name = 'subscription' then
        new.revision := old.revision + 1;
        return new;
    end if;
    -- A change of a secret is a change of the terms: the update counts it.
    update posthaste.subscription s set revision = s.revision
    where s.subscription_id = case when tg_op = 'DELETE' then old.subscription_id else new.subscription_id end;
    return null;
end
$$;
comment on function posthaste.count_revision() is 'Counts every change of a subscription or of its secrets, so that workers read the terms anew.';

create trigger subscription_counts_revision before update on posthaste.subscription
    for each row execute function posthaste.count_revision();
create trigger signing_secret_counts_revision after insert or update or delete on posthaste.signing_secret
    for each row execute function posthaste.count_revision();

-- ---------------------------------------------------------------------------------------------------------------------------
-- What is still owed
-- ---------------------------------------------------------------------------------------------------------------------------

create table posthaste.queue (
    event_id        uuid        not null,
    due_at          timestamptz not null,
    subscription_id integer     not null,
    replay          smallint    not null default 0,
    attempts        smallint    not null default 0,
    -- Serves people who ask by event; and no delivery can wait twice.
    constraint queue_pkey primary key (event_id, subscription_id, replay),
    constraint attempts_count_from_0 check (attempts >= 0)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
-- Serves claim_waiting.sql: one subscription's waiting deliveries from its lane's wake_at on, soonest first.
create index queue_by_due on posthaste.queue (subscription_id, due_at);
comment on table posthaste.queue is
    'One row per delivery that waits: for its time, or for room at a worker. To claim it is to move it into lease.';
comment on column posthaste.queue.due_at is 'Not to be attempted before.';
comment on column posthaste.queue.attempts is 'Attempts recorded so far.';

create table posthaste.lease (
    event_id        uuid        not null,
    ends_at         timestamptz not null,
    holder          integer     not null,
    subscription_id integer     not null,
    replay          smallint    not null default 0,
    number          smallint    not null default 1,
    -- Serves record.sql, which finds the lease of each finished attempt; and no delivery can be under way twice.
    constraint lease_pkey primary key (event_id, subscription_id, replay),
    constraint attempts_are_numbered_from_1 check (number >= 1)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
-- No other index: the table holds no more than what workers have in their hands, so adopt.sql reads all of it, and each
-- delivery pays for one index less.
comment on table posthaste.lease is
    'One row per delivery under way: the holder alone may make this one attempt, until the lease ends. Deleted by the statement that records the attempt.';
comment on column posthaste.lease.ends_at is 'From then on anyone may adopt it; its attempt is recorded as abandoned.';
comment on column posthaste.lease.holder is 'worker_id of the worker that may make the attempt.';
comment on column posthaste.lease.number is 'The attempt that it is for. With the delivery and the holder, the lease''s identity.';

create table posthaste.lane (
    subscription_id integer     primary key references posthaste.subscription,
    wake_at         timestamptz not null default 'infinity'
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
-- Serves lock_lanes.sql: lanes that have something due.
create index lane_by_wake_at on posthaste.lane (wake_at) where wake_at < 'infinity';
comment on table posthaste.lane is
    'One row per subscription: no waiting delivery of it is due before wake_at. The backlog of a lane that sleeps is never scanned.';
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

create table posthaste.worker (
    worker_id  integer generated always as identity primary key,
    name       text        not null,
    version    text        not null,
    lease      interval    not null,
    started_at timestamptz not null default now(),
    ended_at   timestamptz
);
-- Serves gone_workers.sql, twice a second: the few that may be alive among all that ever were.
create index worker_not_ended on posthaste.worker (worker_id) where ended_at is null;
comment on table posthaste.worker is
    'Every worker that ever registered. One without ended_at is alive while it holds the session advisory lock (1347375957, worker_id); see the view worker_alive.';
comment on column posthaste.worker.lease is 'How long its leases last; lease.ends_at - lease is when a lease began.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- Views for people
-- ---------------------------------------------------------------------------------------------------------------------------

create type posthaste.delivery_status as enum (
    'PENDING',          -- no attempt recorded yet
    'SUCCESS',          -- an attempt was accepted
    'FAILED',           -- attempts failed, another is due
    'RETRY_EXHAUSTED',  -- the last attempt of the retry policy failed
    'REJECTED'          -- refused for good
);
comment on type posthaste.delivery_status is 'Where a delivery stands.';

create view posthaste.delivery as
select q.event_id, q.subscription_id, q.replay, s.name as subscription, o.event_type,
       (case when q.attempts = 0 then 'PENDING' else 'FAILED' end)::posthaste.delivery_status as status,
       q.attempts, q.due_at as next_attempt_at, null::integer as leased_to, null::timestamptz as finished_at
from posthaste.queue q
join posthaste.subscription s using (subscription_id)
left join posthaste.outbox o using (event_id)
union all
select l.event_id, l.subscription_id, l.replay, s.name, o.event_type,
       (case when l.number = 1 then 'PENDING' else 'FAILED' end)::posthaste.delivery_status,
       (l.number - 1)::smallint, null, l.holder, null
from posthaste.lease l
join posthaste.subscription s using (subscription_id)
left join posthaste.outbox o using (event_id)
union all
select a.event_id, a.subscription_id, a.replay, s.name, o.event_type,
       (case a.verdict when 'done' then 'SUCCESS' when 'exhausted' then 'RETRY_EXHAUSTED' else 'REJECTED' end)::posthaste.delivery_status,
       a.number, null, null, a.started_at + make_interval(secs => coalesce(a.duration_us, 0) / 1000000.0)
from posthaste.attempt a
join posthaste.subscription s using (subscription_id)
left join posthaste.outbox o using (event_id)
where a.verdict in ('done', 'exhausted', 'rejected');
comment on view posthaste.delivery is 'Every delivery, finished or not, with its status.';

create view posthaste.attempt_log as
select a.event_id, a.subscription_id, s.name as subscription, a.replay, a.number, a.started_at, a.outcome, a.verdict, a.http_status,
       a.error, a.next_attempt_at, a.duration_us, a.dns_us, a.connect_us, a.tls_us,
       -- The phases follow upon each other: the wait for the response head is what the others leave.
       case when a.http_status is not null then
           a.duration_us - coalesce(a.dns_us, 0) - coalesce(a.connect_us, 0) - coalesce(a.tls_us, 0) - coalesce(a.body_us, 0)
       end as first_byte_us,
       a.body_us, a.remote_address, a.signed_with, a.response, a.subscription_revision, a.worker_id, w.name as worker
from posthaste.attempt a
left join posthaste.subscription s using (subscription_id)
left join posthaste.worker w using (worker_id);
comment on view posthaste.attempt_log is 'Every attempt with the names of its subscription and its worker, and with the time from sending to the complete response head.';

create view posthaste.worker_alive as
select w.worker_id, w.name, w.version, w.started_at
from posthaste.worker w
where w.ended_at is null
  and exists (
      select from pg_locks l
      where l.locktype = 'advisory' and l.granted and l.objsubid = 2
        and l.database = (select oid from pg_database where datname = current_database())
        and l.classid = 1347375957 and l.objid = w.worker_id::oid);
comment on view posthaste.worker_alive is 'Workers whose session advisory lock stands: alive this very moment.';

-- ---------------------------------------------------------------------------------------------------------------------------
-- Functions for people
-- ---------------------------------------------------------------------------------------------------------------------------

create function posthaste.publish(
    event_type text,
    payload json,
    occurred_at timestamptz default clock_timestamp(),
    tenant text default null,
    metadata json default null,
    traceparent text default null
) returns uuid
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    id uuid := posthaste.new_event_id();
begin
    insert into posthaste.outbox (event_id, event_type, payload, occurred_at, tenant, metadata, traceparent)
    values (id, publish.event_type, publish.payload, publish.occurred_at, publish.tenant, publish.metadata, publish.traceparent);
    return id;
end
$$;
comment on function posthaste.publish(text, json, timestamptz, text, json, text) is
    'Inserts one event into the outbox and returns its id. The same as the plain INSERT, for those who prefer a call.';

create function posthaste.create_event_type(
    event_type text,
    description text,
    schema json default null,
    example json default null
) returns void
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    insert into posthaste.event_type (event_type, description, schema, example)
    values (create_event_type.event_type, create_event_type.description, create_event_type.schema, create_event_type.example)
$$;
comment on function posthaste.create_event_type(text, text, json, json) is 'Adds an event type to the catalogue, so that it can be subscribed to.';

create function posthaste.create_subscription(
    name text,
    url text,
    event_types text[],
    tenant text default null,
    retry_intervals interval[] default '{5 seconds,5 minutes,30 minutes,2 hours,5 hours,10 hours,14 hours,20 hours,24 hours}',
    retry_jitter real default 0.1
) returns integer
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    id integer;
    host_and_port constant text :=
        '([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?';
    unknown text;
    wait interval;
begin
    if name is null or name !~ '^[[:graph:]]([[:graph:] ]{0,98}[[:graph:]])?$' then
        perform posthaste.refuse('name', name, '1 to 100 visible characters, with spaces only between them');
    end if;
    if url is null or length(url) > 2048 or url !~ ('^https://' || host_and_port || '([/?][!-"$-\[\]-~]*)?$') then
        -- Plain http to this very machine is for trials: every worker refuses it too, unless its configuration allows it.
        if url is null or url !~ ('^http://(localhost|127\.[0-9.]+|\[::1\])(:[1-9][0-9]{0,4})?([/?][!-"$-\[\]-~]*)?$') then
            perform posthaste.refuse('url', url,
                'https://host[:port][/path][?query], lower-case ASCII host, no user, no fragment, no spaces, at most 2048 characters');
        end if;
    end if;
    if coalesce(cardinality(event_types), 0) = 0 or array_position(event_types, null) is not null then
        perform posthaste.refuse('event_types', event_types::text, 'at least one name from posthaste.event_type, or {*} for all');
    end if;
    if '*' = any (event_types) and cardinality(event_types) > 1 then
        perform posthaste.refuse('event_types', event_types::text, '* stands for all and stands alone');
    end if;
    select t into unknown from unnest(event_types) t
    where t <> '*' and not exists (select from posthaste.event_type c where c.event_type = t) limit 1;
    if found then
        perform posthaste.refuse('event_type', unknown, 'it is not in the catalogue; see posthaste.create_event_type');
    end if;
    if tenant is not null then
        perform posthaste.is_tenant(tenant);
    end if;
    if retry_intervals is null or cardinality(retry_intervals) > 50 or coalesce(array_ndims(retry_intervals), 1) <> 1 then
        perform posthaste.refuse('retry_intervals', retry_intervals::text, 'a list of at most 50 intervals; {} to try once');
    end if;
    foreach wait in array retry_intervals loop
        if wait is null or extract(epoch from wait) not between 0 and 2592000 then
            perform posthaste.refuse('retry_intervals', coalesce(wait::text, 'null'), 'each from 0 to 30 days');
        end if;
    end loop;
    if retry_jitter is null or retry_jitter not between 0 and 1 then
        perform posthaste.refuse('retry_jitter', retry_jitter::text, 'a fraction from 0 to 1');
    end if;

    insert into posthaste.subscription (name, url, tenant, retry_intervals, retry_jitter)
    values (create_subscription.name, create_subscription.url, create_subscription.tenant,
            create_subscription.retry_intervals, create_subscription.retry_jitter)
    returning subscription_id into id;
    insert into posthaste.subscription_event_type (event_type, subscription_id) select distinct t, id from unnest(event_types) t;
    insert into posthaste.lane (subscription_id) values (id);
    return id;
end
$$;
comment on function posthaste.create_subscription(text, text, text[], text, interval[], real) is
    'The only door through which a subscription comes to be. Gets every event committed from now on. Its signing secret is made at its first delivery, or by `posthaste secret`, whichever comes first.';

create function posthaste.add_signing_secret(
    subscription_id integer,
    secret_id uuid,
    key_id text,
    ciphertext bytea,
    only_if_none boolean default false
) returns smallint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    free_number smallint;
begin
    -- The row lock makes two that add at once take turns, so that numbers never clash and `only_if_none` means it.
    perform from posthaste.subscription s where s.subscription_id = add_signing_secret.subscription_id for update;
    if not found then
        perform posthaste.refuse('subscription_id', subscription_id::text, 'there is no such subscription');
    end if;
    select coalesce(max(s.number), 0) + 1 into free_number
    from posthaste.signing_secret s where s.subscription_id = add_signing_secret.subscription_id;
    if only_if_none and free_number > 1 then
        return null;
    end if;
    insert into posthaste.signing_secret (secret_id, subscription_id, number, key_id, ciphertext)
    values (add_signing_secret.secret_id, add_signing_secret.subscription_id, free_number, add_signing_secret.key_id, add_signing_secret.ciphertext);
    return free_number;
end
$$;
comment on function posthaste.add_signing_secret(integer, uuid, text, bytea, boolean) is
    'Stores an encrypted secret and returns its number; with only_if_none, null where the subscription has one already. Encryption happens in the program, which holds the key.';

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

create function posthaste.create_partition(history regclass, day date) returns boolean
    language plpgsql
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
comment on function posthaste.create_partition(regclass, date) is
    'Makes the partition of outbox or attempt for a day (UTC); false if it was there.';

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
    language plpgsql
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
            raise warning 'no partition of % for %: the default partition is large, and inserts would wait while it is read; call posthaste.create_partition in a quiet hour', history, day;
            continue;
        end if;
        begin
            made := made + posthaste.create_partition(history, day)::int;
        exception when check_violation then
            -- The default partition holds rows of that day already. It goes on taking them; the other days get theirs.
            raise warning 'no partition of % for %: the default partition holds rows of that day', history, day;
        end;
    end loop;
    return made;
end
$$;
comment on function posthaste.create_partitions(integer) is
    'Makes the partitions of today and of the coming days and returns how many were missing. Workers call it hourly. What comes without a partition lands in the default one and is delivered all the same.';

create table posthaste.outbox_default partition of posthaste.outbox default;
create table posthaste.attempt_default partition of posthaste.attempt default;
comment on table posthaste.outbox_default is 'Takes what no day''s partition covers, so that no insert fails for want of one. Normally empty.';
comment on table posthaste.attempt_default is 'Takes what no day''s partition covers, so that no insert fails for want of one. Normally empty.';

select posthaste.guard_history('posthaste.outbox');
select posthaste.guard_history('posthaste.attempt');
select posthaste.adorn_partition('posthaste.outbox', 'posthaste.outbox_default');
select posthaste.adorn_partition('posthaste.attempt', 'posthaste.attempt_default');

-- PUBLIC has nothing; Postgres grants EXECUTE to it by default.
revoke all on all functions in schema posthaste from public;
