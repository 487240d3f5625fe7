-- Writes into the audit log that somebody looks at an event as a subscription would get it. Called by: `preview`. Returns the entry.
-- $1 subscription   $2 event id   $3 reason   $4 change id, or null
select posthaste.ask_to_preview($1::text, $2::uuid, $3::text, $4::bigint)
