-- An event, and the terms that it would be sent on. Called by: `preview`. $1 subscription   $2 event id   $3 reason   $4 change id, or null
select subscription_id, terms::text, event_type, occurred_at, payload, metadata, tenant, traceparent, is_meant,
       partner_secret_id, partner_key_id, partner_ciphertext
from posthaste.preview_source($1::text, $2::uuid, $3::text, $4::bigint)
