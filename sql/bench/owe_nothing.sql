-- As if everything had been delivered and vacuumed. Called by: bench, between two turns that share a database.
truncate posthaste.intake, posthaste.queue, posthaste.lease;
update posthaste.lane set wake_at = 'infinity' where wake_at < 'infinity';
