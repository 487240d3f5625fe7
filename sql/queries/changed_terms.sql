-- Which subscriptions have a new revision since the last look, whether anything was released from quarantine, whether any signing
-- secret was asked for that nobody has made, whether any subscription is to be paused, whether a replay is under way or an event is to
-- be cancelled, whether any ordering key is to go on, and how endpoints fare that some worker has weighed a moment ago; at the first
-- look, all that do not fare well.
--
-- Called by: worker, twice a second. Returns at least one row, whose subscription_id is null: where the next look starts. A change
-- that was not committed yet when we looked lies at or beyond that point.
-- Relies on: subscription_revision_by_xid, quarantine_released, signing_secret_asked_for, partner_key_asked_for, lane_to_pause, lane_by_weighing, replay_under_way,
-- cancel_request_open.
-- $1 where to start: a transaction's id, in decimal   $2 how many seconds to look back for what was weighed
with fresh as materialized (
    -- Apart from its GROUP BY: a planner that believes the table small would read the primary key from end to end to have that order.
    -- Ids that this server has not given out yet come with a restored dump, and mean nothing.
    select subscription_id, revision from posthaste.subscription_revision
    where xid >= $1::text::xid8 and xid < pg_snapshot_xmax(pg_current_snapshot())
)
select null::integer as subscription_id, null::integer as revision, pg_snapshot_xmin(pg_current_snapshot())::text as watermark,
       exists (select from posthaste.quarantine where decision = 'released' and not is_requeued) as released,
       exists (select from posthaste.signing_secret where ciphertext is null and (ends_at is null or ends_at > now()))
           or exists (select from posthaste.partner_key where ciphertext is null) as asked_for,
       exists (select from posthaste.lane where to_pause is not null and active) as to_pause,
       exists (select from posthaste.replay where finished_at is null) as replays,
       exists (select from posthaste.cancel_request where closed_at is null) as cancels,
       exists (select skip_id from posthaste.skip) as skips,
       null::text as breaker, null::text as before, null::float8 as held_for, null::boolean as is_well
union all
(select subscription_id, max(revision), null::text, null::boolean, null::boolean, null::boolean, null::boolean, null::boolean, null::boolean,
        null::text, null::text, null::float8, null::boolean
 from fresh group by subscription_id)
union all
(select subscription_id, null::integer, null::text, null::boolean, null::boolean, null::boolean, null::boolean, null::boolean, null::boolean, breaker::text, breaker::text,
        extract(epoch from greatest(hold_until, now()) - now())::float8, breaker = 'closed' and failures = 0 and window_since is null
 from posthaste.lane
 -- A worker that looks for the first time, from beyond every id, learns what failed
 -- before it came, or it would not tell anybody that it is well again.
 where weighed_at > case when $1::text = '18446744073709551615' then '-infinity' else now() - make_interval(secs => $2::float8) end
   and ($1::text <> '18446744073709551615' or breaker <> 'closed' or failures > 0 or window_since is not null)
 order by weighed_at desc limit case when $1::text <> '18446744073709551615' then 5000 end)
