-- What this transaction has touched so far, by relation: buffers, and rows or index entries that scans went over, dead ones too.
-- A partition goes under its parent's name. Called by: session.rs, before and after the statement that is measured.
select replace(regexp_replace(c.relname, '_\d{8}|_default', ''), '_idx', ''),
       sum(pg_stat_get_xact_blocks_fetched(c.oid))::float8, sum(pg_stat_get_xact_tuples_returned(c.oid))::float8
from pg_class c
where c.relnamespace = 'posthaste'::regnamespace and c.relkind in ('r', 'i')
group by 1 order by 1
