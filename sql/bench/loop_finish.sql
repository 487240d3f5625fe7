-- The row's request was answered with a 2xx. Called by: the hand-written loop, in the same transaction. $1 id
update plain_outbox set status = 'sent', sent_at = now() where id = $1
