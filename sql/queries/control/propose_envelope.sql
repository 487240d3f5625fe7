-- Proposes an envelope. Called by: `envelope propose`. Returns the change's id, and whether another administrator must approve it.
-- $1 name   $2 template   $3 content type   $4 headers, a JSON object   $5 description   $6 reason
select jsonb_build_object(
    'change_id', posthaste.propose_envelope($1::text, $2::text, $3::text, $4::text::jsonb, $5::text, $6::text),
    'four_eyes', (select four_eyes from posthaste.setting))::text
