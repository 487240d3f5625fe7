-- Those events have been delivered long ago: nothing waits any more. Called by: bench, after past_events.sql. $1 how many days
delete from posthaste.intake where $1::integer > 0
