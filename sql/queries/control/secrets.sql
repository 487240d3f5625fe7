-- How many secrets each subscription has, and how old they are. Called by: the `secret` commands. $1 one subscription's name, or null
select to_jsonb(k)::text
from posthaste.secret_overview k
where $1::text is null or k.subscription = $1::text
order by k.subscription
