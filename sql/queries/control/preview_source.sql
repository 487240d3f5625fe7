-- An event, and the terms that it would be sent on. Called by: `preview`, after ask_to_preview.sql. $1 entry
select subscription_id, terms::text, event_type, occurred_at, payload, metadata, tenant, traceparent, is_meant,
       partner_secret_id, partner_key_id, partner_ciphertext
from posthaste.preview_source($1::bigint)
