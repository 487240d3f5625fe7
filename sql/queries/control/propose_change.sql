-- Proposes to change terms of a subscription.
-- Called by: `subscription change` and `resume`. Returns the change's id, and whether another administrator must approve it.
-- $1 subscription   $2 the terms that change, a JSON object   $3 reason
select jsonb_build_object(
    'change_id', posthaste.propose_change($1::text, $2::text::jsonb, $3::text),
    'four_eyes', (select four_eyes from posthaste.setting))::text
