-- Whether sealed partitions are as they were sealed. Called by: `audit verify-seals`. $1 one partition, or null for all
select to_jsonb(s)::text from posthaste.verify_seals($1::text) s
