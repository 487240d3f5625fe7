-- What we must know of the server before we work on it. Called by: the `check` command.
select current_setting('server_version_num')::integer as version,
       current_setting('server_version') as version_text,
       extract(epoch from clock_timestamp())::float8 as clock,
       pg_notification_queue_usage() as notification_queue,
       to_regclass('posthaste.outbox' || to_char(now() at time zone 'UTC' + interval '1 day', '"_"YYYYMMDD')) is not null as tomorrow
