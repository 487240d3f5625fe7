-- Which subscriptions have a new revision since the last look, whether anything was released from quarantine, and whether any signing
-- secret was asked for that nobody has made, and whether any ordering key is to go on.
--
-- Called by: worker, twice a second. Returns at least one row, whose subscription_id is null: where the next look starts. A change
-- that was not committed yet when we looked lies at or beyond that point.
-- Relies on: subscription_revision_by_xid, quarantine_open, signing_secret_asked_for.
-- $1 where to start: a transaction's id, in decimal
select null::integer as subscription_id, null::integer as revision, pg_snapshot_xmin(pg_current_snapshot())::text as watermark,
       exists (select from posthaste.quarantine where decision = 'released' and not is_requeued) as released,
       exists (select from posthaste.signing_secret where ciphertext is null and (ends_at is null or ends_at > now())) as asked_for,
       exists (select skip_id from posthaste.skip) as skips
union all
-- Ids that this server has not given out yet come with a restored dump, and mean nothing.
(select subscription_id, max(revision), null::text, null::boolean, null::boolean, null::boolean from posthaste.subscription_revision
 where xid >= $1::text::xid8 and xid < pg_snapshot_xmax(pg_current_snapshot()) group by subscription_id)
