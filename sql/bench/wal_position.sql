-- How much WAL was ever written, in bytes, and which checkpoint was the last. Called by: bench, before and after a run.
select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, (select redo_lsn::text from pg_control_checkpoint())
