-- Writes down what a receiver granted; false where its subscription does not ask for that any more. Called by: recorder.
-- $1 subscription id   $2 URL   $3 origin   $4 requests a minute, or null for any
select posthaste.keep_handshake($1::integer, $2::text, $3::text, $4::integer)
