-- Asks for a test; the event's id. Called by: `subscription test`. $1 subscription   $2 event type   $3 reason
select posthaste.send_test($1::text, $2::text, $3::text)
