-- Who we are, and whether that is more than a worker needs. Called by: the `check` command.
select r.rolname::text as login, r.rolsuper as is_superuser,
       array(select o.rolname::text from pg_roles o
             where o.rolname = any ('{posthaste_owner,posthaste_admin}')
               -- From Postgres 16 on, a member may be one that can only make others members.
               and (pg_has_role(r.oid, o.oid, 'usage')
                    or pg_has_role(r.oid, o.oid, case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end))
             order by o.rolname desc) as member_of
from pg_roles r
where r.rolname = session_user
