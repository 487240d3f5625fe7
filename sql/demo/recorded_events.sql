-- What the outbox holds, to be compared with what the producers committed and with what the partners got.
select event_id, event_type, payload::text as payload from posthaste.outbox
