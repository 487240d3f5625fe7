-- The last entries of the audit log, the oldest of them first. Called by: `audit show`. $1 how many   $2 of which object, or null
select to_jsonb(e)::text
from (
    select * from posthaste.audit a
    where $2::text is null or a.object = $2::text
    order by a.entry desc limit $1::bigint
) e
order by e.entry
