-- How things stand, in one row. Counts stop at $1, so that a look at a huge backlog costs no more than one at a small one.
-- Called by: the `status` command. $1 where counting stops
select
    (select count(*) from (select from posthaste.intake limit $1::bigint) i) as intake,
    (select count(*) from (select from posthaste.queue limit $1::bigint) q) as waiting,
    (select count(*) from (select from posthaste.lease limit $1::bigint) l) as leased,
    (select extract(epoch from now() - posthaste.event_time(event_id))::float8
     from ((select event_id from posthaste.queue order by event_id limit 1)
           union all
           (select event_id from posthaste.lease order by event_id limit 1) order by event_id limit 1) o) as oldest_delivery,
    (select extract(epoch from now() - posthaste.event_time(event_id))::float8
     from (select event_id from posthaste.intake order by xid limit 1) i) as oldest_intake,
    (select count(*) from posthaste.lane where wake_at <= now()) as lanes_awake,
    (select count(*) from posthaste.lane where wake_at > now() and wake_at < 'infinity') as lanes_asleep,
    (select count(*) from posthaste.lane where wake_at = 'infinity') as lanes_idle,
    (select count(*) from (
        select from posthaste.attempt
        where verdict in ('exhausted', 'rejected') and started_at > now() - interval '24 hours' limit $1::bigint) a) as dead_letters,
    exists (select from posthaste.outbox_default) or exists (select from posthaste.attempt_default) as in_default_partition,
    extract(epoch from clock_timestamp())::float8 as clock
