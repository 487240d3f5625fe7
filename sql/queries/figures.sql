-- How things stand, in numbers. Called by: the worker that observes, every few seconds. $1 where counting stops
select * from posthaste.figures($1::bigint)
