-- Whether a worker has done what it does once for new subscriptions: a lane and a secret for each. Called by: bench, before a clock starts.
select not exists (select from posthaste.signing_secret where ciphertext is null)
   and not exists (select from posthaste.subscription s where not exists (select from posthaste.lane l where l.subscription_id = s.subscription_id))
