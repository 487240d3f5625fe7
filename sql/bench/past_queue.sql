-- Events to take and deliveries owed, as many as were there at some time before. Called by: bench, before past_done.sql. $1 how many
with events as (
    insert into posthaste.intake (event_id) select posthaste.new_event_id() from generate_series(1, $1::integer) returning event_id
)
insert into posthaste.queue (event_id, subscription_id, due_at, lease_holder, lease_ends_at)
select event_id, 1, now(), 0, now() + interval '1 minute' from events
