-- How each delivery stands, to be compared with what each partner was promised.
select subscription, event_id, status::text as status from posthaste.delivery
