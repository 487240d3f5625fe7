-- Event types that no event of the run has. Called by: bench, before other_subscriptions.sql. $1 how many
insert into posthaste.event_type (event_type, description)
select 'bench.other_' || n, 'measured' from generate_series(1, $1::integer) n
