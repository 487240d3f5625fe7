-- Lets the next delivery of each of these keys come up, where the key is free: from follower into the queue, or into quarantine if it
-- must, with a row in ordering that names it as the head.
--
-- An event must not overtake one that was committed before it was inserted. Such a one is visible here: it is among the followers,
-- which go by their event ids, or still in intake, because nobody has taken it yet or because whoever took it has not committed.
-- Then this key waits, and is asked for again.
-- Where a dead letter holds a key, nothing but a replay of that same event comes up.
--
-- Called by: worker, after lock_lanes_of.sql in the same transaction. Returns one row per key that has to wait, and one (the first,
-- whose subscription_id is null) that tells how many came up and where the next call may start.
-- Relies on: the lock on the lanes, which makes us the only one to insert into ordering, and a snapshot from after it; follower_by_key;
-- ordering_pkey; intake_by_ordering; intake_by_xid.
--
-- $1, $2 arrays of equal length: subscription ids and ordering keys, each once
-- $3 watermark: no event of a transaction below it was left when we last looked, bar those of the transactions in $4. Unlike the one of
--    take.sql it counts what others have locked as left, so it is true for good.
with settled as materialized (
    -- What is dead lies below, however long something keeps vacuum from removing it.
    -- Nor beyond the ids that this server has given out: a restored dump may hold such.
    select least((select xid from posthaste.intake where xid >= $3::text::xid8 order by xid limit 1),
                 pg_snapshot_xmax(pg_current_snapshot())) as watermark
), open as materialized (
    select x as xid from pg_snapshot_xip(pg_current_snapshot()) x where x < (select watermark from settled)
    union
    select x.xid from unnest($4::text[]::xid8[]) x (xid)
    cross join lateral (select from posthaste.intake where intake.xid = x.xid limit 1) i
), asked as materialized (
    select k.subscription_id, k.ordering_key, h.event_id as head, h.replay as head_replay, h.held_at is not null as is_held
    from unnest($1::integer[], $2::text[]) k (subscription_id, ordering_key)
    cross join lateral (select removed_at from posthaste.subscription where subscription.subscription_id = k.subscription_id limit 1) s
    left join lateral (
        select * from posthaste.ordering
        where ordering.subscription_id = k.subscription_id and ordering.ordering_key = k.ordering_key
        limit 1
    ) h on true
    where s.removed_at is null
), next as materialized (
    select a.*, f.* from asked a
    cross join lateral (
        select ctid as address, event_id, due_at from posthaste.follower
        where follower.subscription_id = a.subscription_id and follower.ordering_key = a.ordering_key
        order by subscription_id, ordering_key, event_id, replay limit 1
    ) f
    where a.head is null
    union all
    select a.*, f.* from asked a
    cross join lateral (
        select ctid as address, event_id, due_at from posthaste.follower
        where follower.subscription_id = a.subscription_id and follower.ordering_key = a.ordering_key
          and follower.event_id = a.head and follower.replay > a.head_replay
        order by subscription_id, ordering_key, event_id, replay limit 1
    ) f
    where a.is_held
), judged as materialized (
    select n.*, exists (
        -- Compared as rows: no other index serves that.
        select from posthaste.intake i
        where i.ordering_hash is not null and i.ordering_hash <= hashtext(n.ordering_key)
          and (i.ordering_hash, i.xid) >= (hashtext(n.ordering_key), (select watermark from settled))
          and i.event_id < n.event_id
    ) or exists (
        select from open x
        cross join lateral (
            select from posthaste.intake i
            where i.ordering_hash is not null
              and (i.ordering_hash, i.xid) >= (hashtext(n.ordering_key), x.xid) and (i.ordering_hash, i.xid) <= (hashtext(n.ordering_key), x.xid)
              and i.event_id < n.event_id
            limit 1
        ) i
    ) as must_wait
    from next n
), risen as (
    delete from posthaste.follower where ctid = any (array(select address from judged where not must_wait))
    returning event_id, subscription_id, replay, ordering_key, due_at, expires_at, quarantine
), crowned as (
    insert into posthaste.ordering (subscription_id, ordering_key, event_id, replay)
    select subscription_id, ordering_key, event_id, replay from risen
    where (subscription_id, ordering_key) not in (select subscription_id, ordering_key from judged where is_held)
), crowned_anew as (
    insert into posthaste.ordering (subscription_id, ordering_key, event_id, replay)
    select subscription_id, ordering_key, event_id, replay from risen
    -- `is true` keeps this from becoming a join: it is a hashed look-up.
    where ((subscription_id, ordering_key) in (select subscription_id, ordering_key from judged where is_held)) is true
    on conflict (subscription_id, ordering_key) do update set event_id = excluded.event_id, replay = excluded.replay, held_at = null
), held as (
    insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason)
    select event_id, subscription_id, replay, 0, quarantine from risen where quarantine is not null
), lane as materialized (
    select l.* from (select distinct subscription_id from risen) r
    cross join lateral (select subscription_id, wake_at from posthaste.lane where lane.subscription_id = r.subscription_id limit 1) l
), queued as (
    insert into posthaste.queue (event_id, subscription_id, replay, ordering_key, expires_at, due_at)
    select r.event_id, r.subscription_id, r.replay, r.ordering_key, r.expires_at,
           -- Among what waits in its lane it takes the place that its age gives it, but none before wake_at: what lies there is dead.
           case when r.due_at > now() then r.due_at else least(now(), greatest(r.due_at, l.wake_at)) end
    -- A full join that no condition turns into another can be done by hash alone: never each delivery against each lane.
    from risen r full join lane l on l.subscription_id = r.subscription_id
    where coalesce(r.subscription_id, 0) > 0 and r.quarantine is null
    returning subscription_id, due_at
), lowest as materialized (
    select subscription_id, min(due_at) as due_at from queued group by subscription_id
), woken as (
    update posthaste.lane l
    set wake_at = least(l.wake_at, (select w.due_at from lowest w where w.subscription_id = l.subscription_id))
    where l.subscription_id = any (array(select subscription_id from lowest))
)
select null::integer as subscription_id, null::text as ordering_key, (select count(*) from risen) as risen,
       (select watermark::text from settled) as watermark, array(select xid::text from open) as still_open
union all
select subscription_id, ordering_key, null, null, null from judged where must_wait
