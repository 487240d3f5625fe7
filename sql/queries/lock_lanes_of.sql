-- Locks the lanes of subscriptions of whose keys something waits to come up, for advance.sql in the same transaction.
--
-- Two statements on purpose: advance.sql may decide which delivery is next only under a snapshot taken after the lock.
-- Where nothing waits behind a key, nothing is locked: whoever adds to it later asks again after their commit.
-- Called by: worker. Relies on: follower_by_key.
--
-- $1, $2 arrays of equal length: subscription ids and ordering keys
select subscription_id from posthaste.lane
where subscription_id = any (array(
    select k.subscription_id from unnest($1::integer[], $2::text[]) k (subscription_id, ordering_key)
    cross join lateral (
        select from posthaste.follower
        where follower.subscription_id = k.subscription_id and follower.ordering_key = k.ordering_key
        limit 1
    ) f))
-- In one order everywhere, so that two workers never wait for each other.
order by subscription_id for update
