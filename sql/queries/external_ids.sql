-- What a partner calls some of our things; nothing for those that have no external id. Called by: masks. Relies on: external_id_pkey.
-- $1 partner   $2 kinds   $3 internal ids
select w.kind, w.internal, e.external
from unnest($2::text[], $3::text[]) as w (kind, internal)
cross join lateral (
    select external from posthaste.external_id
    where external_id.partner = $1::text and external_id.kind = w.kind and external_id.internal = w.internal limit 1
) e
