-- Makes pseudonyms the external ids of what has none, and returns the ids that stand then. Called by: masks.
-- $1 subscription id   $2 kinds   $3 internal ids   $4 pseudonyms
select kind, internal, external from posthaste.keep_pseudonyms($1::integer, $2::text[], $3::text[], $4::text[])
