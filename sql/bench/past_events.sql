-- 2,000 events in each of the days before today, their ids made on that day. Called by: bench, after past_partitions.sql. $1 how many days
insert into posthaste.outbox (event_id, occurred_at, event_type, payload)
select overlay(posthaste.new_event_id()::text placing left(posthaste.first_event_id(at)::text, 13) from 1 for 13)::uuid,
       at, 'bench.event', '{"place": 0}'
from generate_series(1, $1::integer) n, generate_series(1, 2000) second,
     lateral (select date_trunc('day', now(), 'UTC') - make_interval(days => n) + make_interval(secs => 40 * second)) day (at)
