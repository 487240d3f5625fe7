-- Whether we may make a database of our own on the server that was given, and who we are there.
select rolname::text as role, rolcreatedb or rolsuper as may from pg_roles where rolname = current_user
