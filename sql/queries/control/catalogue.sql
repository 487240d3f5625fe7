-- The catalogue as receivers are shown it: schemas and examples as the texts that they were given as. Called by: `event-type docs`.
-- $1 event types and patterns, as in a subscription   $2 whether those that are not active are shown, too
select jsonb_build_object('event_type', t.event_type, 'description', t.description, 'active', t.active, 'revision', t.revision,
                          'schema', t.schema::text, 'example', t.example::text)::text
from posthaste.event_type t
where posthaste.patterns(t.event_type) && $1::text[] and (t.active or $2::boolean)
order by t.event_type collate "C"
