-- The live secrets, encrypted, that an entry of the audit log says were shown. Called by: `secret reveal` and `rotate`, after
-- ask_to_reveal.sql. $1 entry
select subscription_id, secret_id, number, kind, key_id, ciphertext from posthaste.reveal($1::bigint)
