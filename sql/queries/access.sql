-- Grants that are wider or narrower than the schema says. Called by: the `check` command.
select object, grantee, privilege, problem from posthaste.access_deviation()
