-- How many events and deliveries are still owed. Called by: bench, when the receiver has counted them all.
select (select count(*) from posthaste.intake) + (select count(*) from posthaste.queue) + (select count(*) from posthaste.lease)
