-- Writes the digests of closed partitions into the audit log. Called by: `audit seal`. One row for each that was sealed now.
select to_jsonb(s)::text from posthaste.seal_partitions($1::text) s
