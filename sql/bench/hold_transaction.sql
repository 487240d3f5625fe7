-- Opens a transaction that has an id, and leaves it open: vacuum may remove nothing that dies from now on.
-- Called by: bench, in a session of its own.
begin;
select pg_current_xact_id();
