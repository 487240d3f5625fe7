-- The schema and the ledger of its migrations: run before every migration, changes nothing where they are there.
create schema if not exists posthaste;
comment on schema posthaste is 'Transactional outbox and webhook deliveries. Insert into outbox; read delivery and attempt.';

create table if not exists posthaste.migration (
    version    integer     primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default now()
);
comment on table posthaste.migration is 'Which migrations made this schema, and the SHA-256 of each one''s text.';

