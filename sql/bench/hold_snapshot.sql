-- Reads in a transaction that stays open, as a long report does: vacuum may remove nothing that dies from now on.
-- Called by: bench, in a session of its own.
begin isolation level repeatable read;
select count(*) from posthaste.event_type;
