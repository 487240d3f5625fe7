-- Tries to say `a worker sleeps`, so that the next insert into the outbox notifies. False while an insert is under way, or
-- while another worker sleeps already. Never waits: a session that waits for an advisory lock holds vacuum back.
-- Called by: presence, when the worker ran dry; it looks once more before it really sleeps. See posthaste.take_in.
select pg_try_advisory_lock(1347375956, 0)
