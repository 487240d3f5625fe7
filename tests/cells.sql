-- Every cell of object x verb for one role: a statement that needs this one right, and whether posthaste.access gives it. $1 is
-- producer, worker, admin, auditor, or another word for a login without a role. Called by: tests/roles.rs, as a superuser.
with relation as (
    select c.oid, c.relname, c.relkind, c.oid::regclass::text as target,
           -- A partition has no row of its own: it is for the owner alone.
           case c.relkind when 'S' then 'sequence ' when 'v' then 'view ' else 'table ' end || c.relname as object
    from pg_class c where c.relnamespace = 'posthaste'::regnamespace and c.relkind in ('r', 'p', 'v', 'S')
), decided as (
    select a.object, string_to_array(coalesce(to_jsonb(a) ->> $1::text, ''), ' ') as rights from posthaste.access a
), given as (
    -- 'select(a,b)' becomes 'select(a)' and 'select(b)'.
    select d.object, case when r like '%(%' then format('%s(%s)', split_part(r, '(', 1), c) else r end as right
    from decided d, unnest(d.rights) r, unnest(string_to_array(rtrim(substring(r from '\((.*)\)'), ')'), ',')) c where r like '%(%'
    union all
    select d.object, r from decided d, unnest(d.rights) r where r not like '%(%'
), cell (object, "right", statement) as (
    select 'schema posthaste', 'usage', 'select from posthaste.no_such_table'
    union all
    select 'schema posthaste', 'create', 'create table posthaste.intruder ()'
    union all
    select r.object, v.right, format(v.statement, r.target)
    from relation r, (values ('delete', 'delete from %s where false'), ('truncate', 'truncate %s')) v ("right", statement)
    where r.relkind <> 'S'
    union all
    select r.object, format('%s(%s)', v.right, a.attname), format(v.statement, r.target, a.attname, format_type(a.atttypid, a.atttypmod))
    from relation r
    join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped,
    (values ('select', 'select %2$I from %1$s limit 0'),
            ('insert', 'insert into %1$s (%2$I) overriding system value select null::%3$s where false'),
            ('update', 'update %1$s set %2$I = default where false')) v ("right", statement)
    -- Nobody can say what a generated column holds.
    where r.relkind <> 'S' and (a.attgenerated = '' or v.right <> 'insert')
    union all
    select r.object, v.right, format(v.statement, r.target)
    from relation r, (values ('usage', 'select nextval(%L)'), ('update', 'select setval(%L, 1)'), ('select', 'select last_value from %s')) v ("right", statement)
    where r.relkind = 'S'
    union all
    select 'function ' || p.proname, 'execute', format('select %s(%s)', p.oid::regproc,
        (select string_agg('null::' || format_type(t, null), ', ' order by n) from unnest(p.proargtypes) with ordinality u (t, n)))
    from pg_proc p where p.pronamespace = 'posthaste'::regnamespace
    union all
    select 'type ' || t.typname, 'usage', format('create temporary table intruder (a %s)', t.oid::regtype)
    from pg_type t where t.typnamespace = 'posthaste'::regnamespace and t.typtype in ('e', 'd', 'r')
)
select c.object, c.right, c.statement,
       exists (select from given g where g.object = c.object and g.right in (c.right, split_part(c.right, '(', 1)))
from cell c order by 1, 2
