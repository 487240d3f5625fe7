-- A subscription's id by its name. Called by: the `secret` command. $1 name
select subscription_id from posthaste.subscription where name = $1::text
