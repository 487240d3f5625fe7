-- The catalogues' account of schema posthaste, one line per fact. Called by: tests/schema.rs, for two databases that must agree.
with relation as (
    select c.* from pg_class c where c.relnamespace = 'posthaste'::regnamespace
), function as (
    select p.* from pg_proc p where p.pronamespace = 'posthaste'::regnamespace
), type as (
    -- Types that do not merely come with a table.
    select t.* from pg_type t left join pg_class c on c.oid = t.typrelid
    where t.typnamespace = 'posthaste'::regnamespace and t.typelem = 0 and (c.oid is null or c.relkind = 'c')
)
select format('relation %s kind=%s persistence=%s options=%s bound=%s key=%s acl=%s rls=%s/%s comment=%s', r.oid::regclass, r.relkind,
              r.relpersistence, r.reloptions, pg_get_expr(r.relpartbound, r.oid), pg_get_partkeydef(r.oid), r.relacl,
              r.relrowsecurity, r.relforcerowsecurity, obj_description(r.oid, 'pg_class'))
from relation r where r.relkind <> 'i'
union all
select format('column %s %s %s %s not_null=%s default=%s identity=%s generated=%s storage=%s collation=%s acl=%s options=%s statistics=%s comment=%s',
              r.oid::regclass, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
              a.attidentity, a.attgenerated, a.attstorage, a.attcollation::regcollation, a.attacl, a.attoptions, a.attstattarget,
              col_description(r.oid, a.attnum))
from relation r
join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
where r.relkind in ('r', 'p', 'v', 'c')
union all
select format('constraint %s on %s%s: %s validated=%s inherited=%s comment=%s', c.conname, nullif(c.conrelid, 0)::regclass,
              nullif(c.contypid, 0)::regtype, pg_get_constraintdef(c.oid), c.convalidated, c.coninhcount, obj_description(c.oid, 'pg_constraint'))
from pg_constraint c where c.connamespace = 'posthaste'::regnamespace
union all
select format('index %s options=%s valid=%s comment=%s', pg_get_indexdef(i.indexrelid), r.reloptions, i.indisvalid,
              obj_description(i.indexrelid, 'pg_class'))
from pg_index i join relation r on r.oid = i.indexrelid
union all
select format('trigger %s enabled=%s internal=%s comment=%s', pg_get_triggerdef(t.oid), t.tgenabled, t.tgisinternal,
              obj_description(t.oid, 'pg_trigger'))
from pg_trigger t join relation r on r.oid = t.tgrelid where not t.tgisinternal
union all
select format('function %s %s acl=%s comment=%s', f.oid::regprocedure, pg_get_functiondef(f.oid), f.proacl, obj_description(f.oid, 'pg_proc'))
from function f
union all
select format('type %s %s labels=%s acl=%s comment=%s', t.oid::regtype, t.typtype,
              array(select enumlabel from pg_enum where enumtypid = t.oid order by enumsortorder), t.typacl, obj_description(t.oid, 'pg_type'))
from type t
union all
select format('view %s %s', r.oid::regclass, pg_get_viewdef(r.oid)) from relation r where r.relkind = 'v'
union all
select format('inherits %s from %s', i.inhrelid::regclass, i.inhparent::regclass)
from pg_inherits i join relation r on r.oid = i.inhrelid
union all
select format('sequence %s %s %s..%s by %s cycle=%s', s.seqrelid::regclass, s.seqtypid::regtype, s.seqmin, s.seqmax, s.seqincrement, s.seqcycle)
from pg_sequence s join relation r on r.oid = s.seqrelid
union all
select format('rule %s', pg_get_ruledef(w.oid)) from pg_rewrite w join relation r on r.oid = w.ev_class where w.rulename <> '_RETURN'
union all
select format('policy %s on %s for %s to %s using %s with %s', p.polname, p.polrelid::regclass, p.polcmd, p.polroles::regrole[],
              pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
from pg_policy p join relation r on r.oid = p.polrelid
union all
select format('schema acl=%s comment=%s', n.nspacl, obj_description(n.oid, 'pg_namespace')) from pg_namespace n where n.nspname = 'posthaste'
union all
select format('extension %s', e.extname) from pg_extension e
union all
select format('another schema %s', n.nspname) from pg_namespace n where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'posthaste')
union all
select format('event trigger %s', e.evtname) from pg_event_trigger e
