-- Tries to say `a worker sleeps`, so that the next insert into the outbox notifies every listener. Never waits: a session that
-- waits for an advisory lock holds vacuum back.
-- Called by: presence, when the worker ran dry; it looks once more before it really sleeps. See posthaste.take_in.
-- Returns `asleep`; or `another`, where another worker has said so already; or `restless`, while an insert is under way, whose
-- shared lock stands in the way of ours but not of a second shared one.
select case
    when pg_try_advisory_lock(1347375956, 0) then 'asleep'
    when not pg_try_advisory_lock_shared(1347375956, 0) then 'another'
    when pg_advisory_unlock_shared(1347375956, 0) then 'restless'
end
