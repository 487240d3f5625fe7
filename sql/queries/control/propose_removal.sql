-- Proposes to end a subscription.
-- Called by: `subscription remove`. Returns the change's id, and whether another administrator must approve it.
-- $1 subscription   $2 reason
select jsonb_build_object(
    'change_id', posthaste.propose_removal($1::text, $2::text),
    'four_eyes', (select four_eyes from posthaste.setting))::text
