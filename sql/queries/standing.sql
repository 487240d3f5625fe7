-- How things stand, in one row. Called by: the `status` command. $1 where counting stops
select * from posthaste.standing($1::bigint)
