-- Registers a worker under an id whose advisory lock this session holds.
-- Called by: presence. $1 worker_id   $2 name   $3 version   $4 lease in seconds   $5 what its settings come to, or null
insert into posthaste.worker (worker_id, name, version, lease, settings_digest) overriding system value
values ($1::integer, $2::text, $3::text, make_interval(secs => $4::float8), $5::text)
