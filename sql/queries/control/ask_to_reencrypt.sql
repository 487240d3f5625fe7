-- Writes into the audit log that the stored secrets are taken to be encrypted anew. Called by: `secret reencrypt`. Returns the entry.
-- Relies on: autocommit, as ask_to_reveal.sql does.
-- $1 reason
select posthaste.ask_to_reencrypt($1::text)
