-- Makes the partitions of the coming days; how many were missing. Called by: worker, at its start and hourly. $1 days ahead
select posthaste.create_partitions($1::integer)
