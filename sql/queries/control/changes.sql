-- What was proposed and is open; where $1, also what was decided or has expired. Oldest first.
-- Called by: `subscription changes`. $1 decided ones too
select to_jsonb(c)::text
from posthaste.change c
where c.state = 'open' or $1::boolean
order by c.change_id
