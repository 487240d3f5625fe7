-- The bench is its own administrator. Called by: bench, in the database that all others are made from.
select posthaste.set_four_eyes(false, 'a benchmark with one administrator')
