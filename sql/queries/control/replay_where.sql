-- Asks for the dead letters that a predicate finds to be delivered once more. Called by: `replay where`. Returns as
-- replay_delivery.sql.
-- $1 predicate   $2 reason   $3 dry run   $4 deliveries a second, or null
select replay_id, deliveries from posthaste.replay_where($1::text, $2::text, $3::boolean, $4::integer)
