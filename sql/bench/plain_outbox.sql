-- The table that a hand-written loop works on, as people write it. Called by: bench, before the loop runs.
create table plain_outbox (
    id         bigserial   primary key,
    payload    jsonb       not null,
    status     text        not null default 'pending',
    created_at timestamptz not null default now(),
    sent_at    timestamptz
);
create index plain_outbox_pending on plain_outbox (id) where status = 'pending'
