-- Sizes, dead rows and partitions, in numbers. Called by: the worker that observes, at most once a minute.
select * from posthaste.table_figures()
