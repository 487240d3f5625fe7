-- Events to take and deliveries owed, waiting and under way, as many as were there at some time before. Called by: bench, before
-- past_done.sql. $1 how many
with events as (
    insert into posthaste.intake (event_id) select posthaste.new_event_id() from generate_series(1, $1::integer) returning event_id
), waiting as (
    insert into posthaste.queue (event_id, subscription_id, due_at) select event_id, 1, now() from events
)
insert into posthaste.lease (event_id, subscription_id, holder, ends_at)
select event_id, 1, 0, now() + interval '1 minute' from events
