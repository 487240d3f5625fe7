-- How each subscription fares; those that were removed only where $1.
-- Called by: `subscription list`. $1 removed ones too
select to_jsonb(v)::text
from posthaste.subscription_overview v
where v.state <> 'removed' or $1::boolean
order by v.state = 'removed', v.subscription, v.subscription_id
