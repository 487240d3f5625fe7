-- Lets keys go on whose head people skipped or discarded, and those that are held no longer; which. Called by: worker. $1 how many at most
select * from posthaste.free_keys($1::integer)
