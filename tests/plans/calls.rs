//! The hot statements, each with arguments as a busy worker would give, and the indexes that it is to go by.

/// One hot statement, called in one way.
pub(crate) struct Call {
    /// What it is called in messages, and in the session that prepares it.
    pub(crate) name: &'static str,
    /// The statement.
    pub(crate) text: &'static str,
    /// SQL that makes an array of its arguments, in their order, out of what the database holds. Leases are
    /// to end after all that stand: what one call leaves behind is in no other's way then.
    pub(crate) arguments: &'static str,
    /// The indexes that it goes by, and no others. Those of a partitioned table are named after the parent.
    pub(crate) indexes: &'static [&'static str],
    /// Tables that it reads whole: they hold what workers have in their hands, or the workers themselves.
    pub(crate) reads_whole: &'static [&'static str],
    /// How many rows it returns once there is enough for a batch.
    pub(crate) returns: f64,
}

/// Rows to a batch, here as in a worker's default settings.
pub(crate) const BATCH: f64 = 512.0;

pub(crate) const TAKE: Call = Call {
    name: "take",
    text: include_str!("../../sql/queries/take.sql"),
    // watermark, transactions open below it, events, worker, lease, deliveries, bytes, longest payload, lanes with room of their
    // own, their room, others' room, smallest and largest event id
    arguments: "select array['0', '{}', '512', '1', '7200', '2048', '67108864', '1048576', '{}', '{}', '2048', '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']",
    indexes: &[
        "event_type_pkey",
        "intake_by_xid",
        "lane_pkey",
        "outbox_pkey",
        "subscription_event_type_pkey",
        "subscription_pkey",
    ],
    reads_whole: &[],
    returns: BATCH + 1.0,
};

/// With room for none of what it takes: all of it waits.
pub(crate) const TAKE_WITHOUT_ROOM: Call = Call {
    name: "take_without_room",
    arguments: "select array['0', '{}', '512', '1', '7200', '2048', '67108864', '1048576', '{1}', '{0}', '2048', '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']",
    returns: 1.0,
    ..TAKE
};

pub(crate) const LOCK_LANES: Call = Call {
    name: "lock_lanes",
    text: include_str!("../../sql/queries/lock_lanes.sql"),
    // lanes, full ones, where to start
    arguments: "select array['64', '{}', null]",
    indexes: &["lane_by_next_claim"],
    reads_whole: &[],
    // One tells where to start next.
    returns: 65.0,
};

/// From where a look ended that was made a moment ago.
pub(crate) const LOCK_LANES_FROM: Call = Call {
    name: "lock_lanes_from",
    arguments: "select array['64', '{}', (now() - interval '10 seconds')::text]",
    returns: 1.0,
    ..LOCK_LANES
};

/// Keys of which something may come up, the deep one among them.
pub(crate) const LOCK_LANES_OF: Call = Call {
    name: "lock_lanes_of",
    text: include_str!("../../sql/queries/lock_lanes_of.sql"),
    // subscriptions, keys
    arguments: "select array[trial.each(array_agg(subscription_id)), trial.each(array_agg(ordering_key))] from trial.free_key()",
    indexes: &["follower_by_key", "lane_pkey"],
    reads_whole: &[],
    returns: 29.0,
};

pub(crate) const ADVANCE: Call = Call {
    name: "advance",
    text: include_str!("../../sql/queries/advance.sql"),
    // subscriptions, keys, watermark, transactions open below it
    arguments: "select array[trial.each(array_agg(subscription_id)), trial.each(array_agg(ordering_key)), '0', '{}'] from trial.free_key()",
    indexes: &[
        "follower_by_key",
        "intake_by_ordering",
        "intake_by_xid",
        "lane_pkey",
        "ordering_pkey",
        "subscription_pkey",
    ],
    reads_whole: &[],
    returns: 1.0,
};

/// From the beginning: free keys and busy ones.
pub(crate) const IDLE_KEYS: Call = Call {
    name: "idle_keys",
    text: include_str!("../../sql/queries/idle_keys.sql"),
    // subscription and key to start after, keys
    arguments: "select array['-2147483648', '', '512']",
    indexes: &["follower_by_key", "ordering_pkey"],
    reads_whole: &[],
    returns: BATCH,
};

pub(crate) const FREE_HEADS: Call = Call {
    name: "free_heads",
    text: include_str!("../../sql/queries/free_heads.sql"),
    // event, subscription, replay, key, whether dead
    arguments: "select array[
            trial.each(array_agg(event_id)), trial.each(array_agg(subscription_id)), trial.all(0, count(*)),
            trial.each(array_agg(ordering_key)), trial.all(true, count(*))]
        from (select * from posthaste.ordering order by subscription_id, ordering_key limit 512) o",
    indexes: &["ordering_pkey", "subscription_pkey"],
    reads_whole: &[],
    returns: 0.0,
};

pub(crate) const NEXT_LANE: Call = Call {
    name: "next_lane",
    text: include_str!("../../sql/queries/next_lane.sql"),
    // full ones
    arguments: "select array['{}']",
    indexes: &["lane_by_next_claim"],
    reads_whole: &[],
    returns: 0.0,
};

/// From many lanes, a few of each.
pub(crate) const CLAIM_WAITING: Call = Call {
    name: "claim_waiting",
    text: include_str!("../../sql/queries/claim_waiting.sql"),
    // lanes, room of each, worker, lease, deliveries, bytes, longest payload
    arguments: "select array[
            trial.each(array_agg(subscription_id)), trial.all(8, count(*)),
            '1', '7200', '512', '67108864', '1048576']
        from (select subscription_id from posthaste.lane where wake_at <= now() order by wake_at limit 64) l",
    indexes: &[
        "event_type_pkey",
        "lane_pkey",
        "queue_by_due",
        "subscription_pkey",
    ],
    reads_whole: &[],
    returns: BATCH,
};

/// From one lane that is as deep as a quarter of all that waits.
pub(crate) const CLAIM_WAITING_OF_ONE: Call = Call {
    name: "claim_waiting_of_one",
    arguments: "select array['{1}', '{512}', '1', '7200', '512', '67108864', '1048576']",
    ..CLAIM_WAITING
};

/// Fifteen of sixteen are done, the others are to be tried again.
pub(crate) const RECORD: Call = Call {
    name: "record",
    text: include_str!("../../sql/queries/record.sql"),
    // event, subscription, replay, number, holder, worker, revision, age, retry in, five durations, outcome, verdict, status,
    // address of the endpoint, secrets, error, response, rule, whether it expires, address of the lease, ordering keys
    arguments: "select array[
            trial.each(array_agg(event_id)), trial.each(array_agg(subscription_id)),
            trial.all(0, count(*)), trial.all(1, count(*)),
            trial.all(1, count(*)), trial.all(1, count(*)), trial.all(1, count(*)),
            trial.all(0.1, count(*)), trial.each(array_agg(case when fails then 60 end)),
            trial.all(100, count(*)),
            trial.all(null::text, count(*)), trial.all(null::text, count(*)), trial.all(null::text, count(*)),
            trial.all(null::text, count(*)),
            trial.each(array_agg(case when fails then 'rejected' else 'accepted' end)),
            trial.each(array_agg(case when fails then 'retry' else 'done' end)),
            trial.each(array_agg(case when fails then 500 else 200 end)),
            trial.all(null::text, count(*)), trial.all(null::text, count(*)),
            trial.each(array_agg(case when fails then 'no' end)), trial.all(null::text, count(*)),
            trial.each(array_agg(case when fails then 'interval' end)), trial.all(false, count(*)), trial.each(array_agg(address)), '{}']
        from (select event_id, subscription_id, ctid as address, row_number() over (order by event_id) % 16 = 0 as fails
              from posthaste.lease where holder = 1 order by event_id limit 512) q",
    indexes: &[],
    reads_whole: &[],
    returns: 0.0,
};

/// Every other lease lies elsewhere than where it was written.
pub(crate) const RECORD_MOVED: Call = Call {
    name: "record_moved",
    arguments: "select array[
            trial.each(array_agg(event_id)), trial.each(array_agg(subscription_id)),
            trial.all(0, count(*)), trial.all(1, count(*)),
            trial.all(1, count(*)), trial.all(1, count(*)), trial.all(1, count(*)),
            trial.all(0.1, count(*)), trial.all(null::text, count(*)),
            trial.all(100, count(*)),
            trial.all(null::text, count(*)), trial.all(null::text, count(*)), trial.all(null::text, count(*)),
            trial.all(null::text, count(*)),
            trial.all('accepted'::text, count(*)), trial.all('done'::text, count(*)), trial.all(200, count(*)),
            trial.all(null::text, count(*)), trial.all(null::text, count(*)),
            trial.all(null::text, count(*)), trial.all(null::text, count(*)),
            trial.all(null::text, count(*)), trial.all(false, count(*)), trial.each(array_agg(address)), '{}']
        from (select event_id, subscription_id, case when row_number() over (order by event_id) % 2 = 0 then ctid else '(1000000,1)' end as address
              from posthaste.lease where holder = 1 order by event_id limit 512) q",
    ..RECORD
};

pub(crate) const RECORDED_ALREADY: Call = Call {
    name: "recorded_already",
    text: include_str!("../../sql/queries/recorded_already.sql"),
    // event, subscription, replay, number, worker, outcome
    arguments: "select array[
            trial.each(array_agg(event_id)), trial.all(1, count(*)), trial.all(0, count(*)),
            trial.all(1, count(*)), trial.all(1, count(*)), trial.all('accepted'::text, count(*))]
        from (select event_id from posthaste.attempt order by event_id limit 512) a",
    indexes: &["attempt_event_id"],
    reads_whole: &[],
    returns: BATCH,
};

pub(crate) const GIVE_BACK: Call = Call {
    name: "give_back",
    text: include_str!("../../sql/queries/give_back.sql"),
    // event, subscription, replay, number, holder, address
    arguments: "select array[
            trial.each(array_agg(event_id)), trial.each(array_agg(subscription_id)),
            trial.all(0, count(*)), trial.all(1, count(*)), trial.all(1, count(*)), trial.each(array_agg(address))]
        from (select event_id, subscription_id, ctid as address from posthaste.lease where holder = 1 order by event_id limit 512) q",
    indexes: &[],
    reads_whole: &[],
    returns: 1.0,
};

/// Every other lease lies elsewhere than where it was written.
pub(crate) const GIVE_BACK_MOVED: Call = Call {
    name: "give_back_moved",
    arguments: "select array[
            trial.each(array_agg(event_id)), trial.each(array_agg(subscription_id)),
            trial.all(0, count(*)), trial.all(1, count(*)), trial.all(1, count(*)), trial.each(array_agg(address))]
        from (select event_id, subscription_id, case when row_number() over (order by event_id) % 2 = 0 then ctid else '(1000000,1)' end as address
              from posthaste.lease where holder = 1 order by event_id limit 512) q",
    ..GIVE_BACK
};

pub(crate) const EXPIRE: Call = Call {
    name: "expire",
    text: include_str!("../../sql/queries/expire.sql"),
    indexes: &["lane_pkey", "ordering_pkey"],
    ..GIVE_BACK
};

/// None of what waits is too old.
pub(crate) const EXPIRE_WAITING: Call = Call {
    name: "expire_waiting",
    text: include_str!("../../sql/queries/expire_waiting.sql"),
    // deliveries
    arguments: "select array['512']",
    indexes: &[],
    reads_whole: &[],
    returns: 1.0,
};

/// No subscription was removed.
pub(crate) const CANCEL_REMOVED: Call = Call {
    name: "cancel_removed",
    text: include_str!("../../sql/queries/cancel_removed.sql"),
    ..EXPIRE_WAITING
};

/// Nothing was released.
pub(crate) const REQUEUE_RELEASED: Call = Call {
    name: "requeue_released",
    text: include_str!("../../sql/queries/requeue_released.sql"),
    ..EXPIRE_WAITING
};

/// With room of its own for each of many lanes.
pub(crate) const TAKE_WITH_LANES: Call = Call {
    name: "take_with_lanes",
    arguments: "select array['0', '{}', '512', '1', '7200', '2048', '67108864', '1048576', (select array_agg(n)::text from generate_series(1, 2000) n),
        (select array_agg(1000)::text from generate_series(1, 2000) n), '0', '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']",
    ..TAKE
};

/// Nothing has changed.
pub(crate) const CHANGED_TERMS: Call = Call {
    name: "changed_terms",
    text: include_str!("../../sql/queries/changed_terms.sql"),
    // where to start, seconds
    arguments: "select array[pg_snapshot_xmin(pg_current_snapshot())::text, '10']",
    indexes: &[
        "cancel_request_open",
        "lane_by_weighing",
        "lane_to_pause",
        "partner_key_asked_for",
        "quarantine_released",
        "replay_under_way",
        "signing_secret_asked_for",
        "skip_pkey",
        "subscription_revision_by_xid",
    ],
    reads_whole: &[],
    returns: 1.0,
};

pub(crate) const HOLD: Call = Call {
    name: "hold",
    text: include_str!("../../sql/queries/hold.sql"),
    // event, subscription, replay, number, holder, address, reason
    arguments: "select array[
            trial.each(array_agg(event_id)), trial.each(array_agg(subscription_id)),
            trial.all(0, count(*)), trial.all(1, count(*)), trial.all(1, count(*)), trial.each(array_agg(address)), trial.all('broken'::text, count(*))]
        from (select event_id, subscription_id, ctid as address from posthaste.lease where holder = 1 order by event_id limit 512) q",
    indexes: &["lane_pkey", "quarantine_pkey"],
    reads_whole: &[],
    returns: 0.0,
};

/// Leases that have ended, beside those that stand.
pub(crate) const ADOPT: Call = Call {
    name: "adopt",
    text: include_str!("../../sql/queries/adopt.sql"),
    // worker, lease, workers that are gone, leases
    arguments: "select array['1', '7200', '{}', '200']",
    indexes: &["subscription_pkey", "worker_pkey"],
    reads_whole: &["lease"],
    returns: 200.0,
};

pub(crate) const TERMS: Call = Call {
    name: "terms",
    text: include_str!("../../sql/queries/terms.sql"),
    // subscriptions
    arguments: "select array[trial.each(array_agg(subscription_id))]
        from (select subscription_id from posthaste.subscription order by subscription_id limit 64) s",
    indexes: &["envelope_pkey", "handshake_by_subscription", "one_value_for_a_name", "partner_key_pkey", "secrets_are_numbered_within_a_subscription", "subscription_pkey"],
    reads_whole: &[],
    returns: 64.0,
};

pub(crate) const GONE_WORKERS: Call = Call {
    name: "gone_workers",
    text: include_str!("../../sql/queries/gone_workers.sql"),
    // worker
    arguments: "select array['1']",
    indexes: &["worker_not_ended"],
    reads_whole: &[],
    returns: 3.0,
};

/// Of workers that hold leases still: they are not noted as ended.
pub(crate) const END_WORKERS: Call = Call {
    name: "end_workers",
    text: include_str!("../../sql/queries/end_workers.sql"),
    // workers, the one that says so of itself
    arguments: "select array['{1,2}', null]",
    indexes: &["worker_not_ended"],
    reads_whole: &["lease"],
    returns: 0.0,
};

/// What a producer pays, trigger and all.
pub(crate) const INSERT: Call = Call {
    name: "insert",
    text: "insert into posthaste.outbox (event_type, payload) select $1, $2::json from generate_series(1, 512)",
    arguments: "select array['thing.happened', '{}']",
    indexes: &[],
    reads_whole: &[],
    returns: 0.0,
};

/// As a worker looks while it is at work: from where its last look left nothing behind, see [`Stock::note_watermark`].
///
/// [`Stock::note_watermark`]: super::stock::Stock::note_watermark
pub(crate) const TAKE_FROM_WATERMARK: Call = Call {
    name: "take_from_watermark",
    arguments: "select array[xid, open::text, '512', '1', '7200', '2048', '67108864', '1048576', '{}', '{}', '2048', '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff'] from trial.watermark",
    ..TAKE
};

/// All of them.
pub(crate) const CALLS: &[&Call] = &[
    &END_WORKERS,
    &ADOPT,
    &TAKE,
    &TAKE_FROM_WATERMARK,
    &TAKE_WITHOUT_ROOM,
    &TAKE_WITH_LANES,
    &LOCK_LANES,
    &LOCK_LANES_FROM,
    &LOCK_LANES_OF,
    &ADVANCE,
    &IDLE_KEYS,
    &FREE_HEADS,
    &NEXT_LANE,
    &CLAIM_WAITING,
    &CLAIM_WAITING_OF_ONE,
    &RECORD,
    &RECORD_MOVED,
    &RECORDED_ALREADY,
    &GIVE_BACK,
    &GIVE_BACK_MOVED,
    &EXPIRE,
    &HOLD,
    &EXPIRE_WAITING,
    &CANCEL_REMOVED,
    &REQUEUE_RELEASED,
    &CHANGED_TERMS,
    &TERMS,
    &GONE_WORKERS,
    &INSERT,
];
