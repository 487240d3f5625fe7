-- Pauses a subscription at once. Called by: `subscription pause`. $1 subscription   $2 reason
select posthaste.deactivate($1::text, $2::text)
