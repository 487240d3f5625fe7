-- Opens a transaction that has an id, as one that writes does, and leaves it open: vacuum may remove nothing that dies from now
-- on, and every later snapshot must count it among those still running. Called by: bench, in a session of its own.
begin;
select pg_current_xact_id();
