-- The settings of the server that decide what a benchmark measures. Called by: bench, for its output.
select name::text, current_setting(name) from pg_settings
where name in ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'wal_level', 'wal_compression', 'max_wal_size',
               'checkpoint_timeout', 'autovacuum', 'data_checksums', 'max_connections', 'shared_preload_libraries')
order by name
