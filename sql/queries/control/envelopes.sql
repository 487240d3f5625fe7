-- The envelopes, or those of one name, or one version of it, the newest last. Called by: the `envelope` commands and `preview`.
-- $1 name, or name@version, or null
select jsonb_build_object('envelope', e.name || '@' || e.version, 'name', e.name, 'version', e.version, 'template', e.template,
    'content_type', e.content_type, 'headers', e.headers, 'description', e.description, 'created_at', e.created_at, 'created_by', e.created_by)::text
from posthaste.envelope e
where $1::text is null or $1::text in (e.name, e.name || '@' || e.version)
order by e.name, e.version
