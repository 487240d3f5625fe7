-- Those events have been delivered long ago: nothing waits any more, and the intake is as new. Called by: bench, after past_events.sql.
truncate posthaste.intake
