-- Ends a replay; how many deliveries it leaves out. Called by: `replay cancel`. $1 replay_id   $2 reason
select posthaste.cancel_replay($1::bigint, $2::text)
