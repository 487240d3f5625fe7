-- Deletes dedup keys that have expired; how many, and when the last of them did. Called by: worker, now and then.
-- $1 where to start, null for the beginning    $2 how many at most
select forgotten, up_to from posthaste.forget_keys($1::timestamptz, $2::integer)
