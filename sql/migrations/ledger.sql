-- The schema and the ledger of its migrations: run before every migration, after the roles, changes nothing where they are there.
-- Needs CREATE on the database the first time.
do $$
begin
    if not exists (select from pg_namespace where nspname = 'posthaste') then
        create schema posthaste authorization posthaste_owner;
    end if;
end
$$;
set role posthaste_owner;
comment on schema posthaste is 'Transactional outbox and webhook deliveries. Insert into outbox; read event, delivery and attempt_log.';

create table if not exists posthaste.migration (
    version    integer     primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default now()
);
comment on table posthaste.migration is 'Which migrations made this schema, and the SHA-256 of each one''s text.';
