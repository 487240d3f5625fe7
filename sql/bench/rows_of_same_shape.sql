-- How many rows the plain table of the outbox's shape has. Called by: bench, before and after clients inserted some.
select count(*) from same_shape
