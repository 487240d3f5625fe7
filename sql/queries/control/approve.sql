-- Makes a proposal so. Called by: `subscription approve`. $1 change id   $2 reason
select posthaste.approve($1::bigint, $2::text)
