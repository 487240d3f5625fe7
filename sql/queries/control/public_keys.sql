-- The public keys that verify our signatures, while they sign, of one subscription or of all, at most $2.
-- Called by: `secret jwks`. $1 one subscription's name, or null   $2 how many
select subscription, key_id, public_key
from posthaste.public_key
where $1::text is null or subscription = $1::text
order by subscription, number
limit $2::bigint
