-- One pending row, locked until the loop's transaction ends. Called by: the hand-written loop.
select id, payload::text from plain_outbox
where status = 'pending' order by id limit 1 for update skip locked
