-- Writes down requests that were made to be able to deliver. Called by: recorder.
-- $1.. arrays of equal length: subscription id, kind, URL, duration in microseconds, outcome, HTTP status, error   $8 worker id
insert into posthaste.preparation (subscription_id, kind, url, duration_us, outcome, http_status, error, worker_id)
select p.subscription_id, p.kind, p.url, p.duration_us, p.outcome::posthaste.outcome, p.http_status, p.error, $8::integer
from unnest($1::integer[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::smallint[], $7::text[])
    as p (subscription_id, kind, url, duration_us, outcome, http_status, error)
