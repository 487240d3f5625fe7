-- The public keys that verify our signatures, at most $1, each with its subscription.
-- Called by: the worker, for the listener's key sets, when terms have changed and once a minute. Never per request.
select subscription, key_id, public_key
from posthaste.public_key
order by subscription, number
limit $1::bigint
