-- Whether the audit log is as it was written. Called by: `audit verify`. $1 an entry known from elsewhere, or null   $2 its digest
select to_jsonb(v)::text from posthaste.verify_audit($1::bigint, $2::text) v
