-- One proposal. Called by: `subscription approve` and `reject`, to say what was decided. $1 change id
select to_jsonb(c)::text from posthaste.change c where c.change_id = $1::bigint
