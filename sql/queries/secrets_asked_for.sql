-- Signing secrets and partners' keys that were asked for and that nobody has made yet, at most $1. A partner's key is of no subscription: 0.
-- Called by: directory. Relies on: signing_secret_asked_for, partner_key_asked_for.
(select subscription_id, secret_id, kind from posthaste.signing_secret
 where ciphertext is null and (ends_at is null or ends_at > now())
 order by subscription_id limit $1::bigint)
union all
(select 0, secret_id, 'partner' from posthaste.partner_key where ciphertext is null limit $1::bigint)
