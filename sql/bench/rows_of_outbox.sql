-- How many events there are. Called by: bench, before and after clients inserted some.
select count(*) from posthaste.outbox
