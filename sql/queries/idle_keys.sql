-- Keys of which something waits though none of their deliveries is under way: a worker died before it could let them go on. It steps
-- from key to key, so it reads as much with a million followers as with one.
--
-- Called by: worker, now and then, page by page. Returns every key that it stepped on and whether it is idle; none at the end.
-- Relies on: follower_by_key, ordering_pkey.
-- $1, $2 the key after which to start   $3 how many keys at most
with recursive step as (
    (select subscription_id, ordering_key, 1 as place from posthaste.follower
     where (subscription_id, ordering_key) > ($1::integer, $2::text)
     order by subscription_id, ordering_key limit 1)
    union all
    select f.subscription_id, f.ordering_key, s.place + 1 from step s
    cross join lateral (
        select subscription_id, ordering_key from posthaste.follower
        where (follower.subscription_id, follower.ordering_key) > (s.subscription_id, s.ordering_key)
        order by subscription_id, ordering_key limit 1
    ) f
    where s.place < $3::integer
)
select s.subscription_id, s.ordering_key,
       -- A key that a dead letter holds goes on by a replay of that.
       o.event_id is null or r.event_id is not null as is_idle
from step s
left join lateral (
    select event_id, replay, held_at from posthaste.ordering
    where ordering.subscription_id = s.subscription_id and ordering.ordering_key = s.ordering_key
    limit 1
) o on true
left join lateral (
    select event_id from posthaste.follower
    where follower.subscription_id = s.subscription_id and follower.ordering_key = s.ordering_key
      and follower.event_id = o.event_id and follower.replay > o.replay and o.held_at is not null
    order by subscription_id, ordering_key, event_id, replay limit 1
) r on true
order by s.place
