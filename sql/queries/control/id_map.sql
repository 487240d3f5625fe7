-- What a partner calls some of our things; nothing for those that have no external id. Called by: `preview`.
-- $1 partner   $2 kinds   $3 internal ids
select m.kind, m.internal, m.external
from posthaste.id_map m
join unnest($2::text[], $3::text[]) as w (kind, internal) on m.kind = w.kind and m.internal = w.internal
where m.partner = $1::text
