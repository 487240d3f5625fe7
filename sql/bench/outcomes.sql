-- What attempts met, and how many met it. Called by: bench, after a run.
select outcome::text, count(*) from posthaste.attempt group by outcome order by outcome
