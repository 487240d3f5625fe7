-- One subscription, how it fares, its terms of today and its secrets; of several that bore the name, the one that was not removed.
-- Called by: `subscription show`. $1 name
select jsonb_build_object(
    'overview', to_jsonb(v),
    'terms', (select to_jsonb(t) from posthaste.subscription_terms t where t.subscription_id = v.subscription_id order by t.revision desc limit 1),
    'secrets', (select to_jsonb(k) from posthaste.secret_overview k where k.subscription_id = v.subscription_id),
    'open_changes', (select coalesce(jsonb_agg(to_jsonb(c) order by c.change_id), '[]') from posthaste.change c
                     where c.subscription = v.subscription and c.state = 'open'))::text
from posthaste.subscription_overview v
where v.subscription = $1::text
order by v.state = 'removed', v.subscription_id desc
limit 1
