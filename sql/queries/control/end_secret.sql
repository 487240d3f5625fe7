-- Ends a signing secret now. Called by: `secret end`. $1 subscription   $2 number   $3 reason
select posthaste.end_secret($1::text, $2::smallint, $3::text)
