-- The five roles, where they are not there yet: run before every migration. Roles belong to the whole server, not to one database.
-- Needs CREATEROLE the first time; or let somebody who has it run these lines, and grant posthaste_owner to whoever migrates.
do $$
declare
    role text;
begin
    -- Owns the schema, and nobody logs in as it: its functions run as one that is no superuser, and holds nothing else.
    -- The others are for logins to be members of: grant posthaste_worker to outbox_worker.
    foreach role in array '{posthaste_owner,posthaste_producer,posthaste_worker,posthaste_admin,posthaste_auditor}'::text[] loop
        if not exists (select from pg_roles where rolname = role) then
            begin
                execute format('create role %I nologin', role);
            exception when duplicate_object or unique_violation then
                null; -- Another database of this server is being migrated, too.
            end;
        end if;
    end loop;
    -- So that posthaste.figures can say since when a transaction has held back vacuum. Where that may not be granted it is estimated,
    -- and posthaste.health says so.
    if not pg_has_role('posthaste_owner', 'pg_read_all_stats', 'member') then
        begin
            grant pg_read_all_stats to posthaste_owner;
        exception when insufficient_privilege or unique_violation or internal_error then
            null;
        end;
    end if;
    -- Tried, not asked for: from Postgres 16 on, whoever made a role is a member of it that may grant it, and not become it.
    begin
        set local role posthaste_owner;
        reset role;
    exception when insufficient_privilege then
        execute format('grant posthaste_owner to %I', current_user);
    end;
end
$$;
