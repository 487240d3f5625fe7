-- How single subscriptions stand, in numbers. Called by: the worker that observes, which rests long after it.
-- $1 how many of those that are worst off   $2 names of others
select * from posthaste.subscription_figures($1::integer, $2::text[])
