-- Writes into the audit log that the secrets are about to be shown. Called by: `secret reveal` and `rotate`. Returns the entry.
-- Relies on: autocommit; reveal.sql takes an entry of an earlier transaction alone.
-- $1 subscription   $2 reason
select posthaste.ask_to_reveal($1::text, $2::text)
