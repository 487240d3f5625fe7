-- A table of the outbox's shape, as one would make it without Posthaste: the same columns, defaults, primary key and partitions, the
-- same checks written plainly (but for the one of names that Posthaste keeps to itself), and no trigger, so nothing behind an insert.
-- What an insert into the outbox costs more than one here is what Posthaste costs the producer.
-- Called by: bench, once, into the database that every turn gets a copy of. Relies on: the outbox's partitions are made.
create table same_shape (
    event_id      uuid        not null default posthaste.new_event_id() primary key,
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
    check (substring(uuid_send(event_id) from 7 for 1) between '\x70' and '\x7f'),
    check (event_type ~ '^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$' and length(event_type) <= 128),
    check (length(tenant) between 1 and 128),
    check (json_typeof(metadata) = 'object'),
    check (traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    check (length(ordering_key) between 1 and 256),
    check (length(dedup_key) between 1 and 256),
    check (expires_at > deliver_after)
) partition by range (event_id);

do $$
declare
    partition record;
begin
    for partition in
        select row_number() over () as number, pg_get_expr(c.relpartbound, c.oid) as bound
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'posthaste.outbox'::regclass
    loop
        execute format('create table same_shape_%s partition of same_shape %s', partition.number, partition.bound);
    end loop;
end
$$
