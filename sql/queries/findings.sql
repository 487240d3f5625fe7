-- What an operator should see to, worst first. Called by: the `status` command.
select * from posthaste.findings()
