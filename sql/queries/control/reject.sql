-- Ends a proposal. Called by: `subscription reject`. $1 change id   $2 reason
select posthaste.reject($1::bigint, $2::text)
