-- A schema full of traps: everything in it bears the name of something of ours or of Postgres' own, tells when it is used, and then
-- does as the real one. Called by: tests/attacks.rs, as a login that owns schema lair.
set search_path = pg_catalog, pg_temp;
create sequence lair.stolen;
create sequence lair.diverted;
grant usage on schema lair to public;
grant all on all sequences in schema lair to public;

-- Sequences, since no rollback takes back what they counted.
create function lair.spring() returns boolean language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform nextval(case when current_user = session_user then 'lair.diverted' else 'lair.stolen' end::regclass);
    return true;
end
$$;

create function pg_temp.attempt(statement text) returns boolean language plpgsql as $$
begin
    execute statement;
    return true;
exception when others then
    return false;
end
$$;

-- Functions of the same signature as each of pg_catalog's that our own ones use, in the schema and for the session.
create temporary table trap as
with word as (
    select distinct word from pg_proc p, regexp_split_to_table(pg_get_functiondef(p.oid), '[^a-z0-9_]+') word
    where p.pronamespace = 'posthaste'::regnamespace
)
select pg_temp.attempt(format(
    'create function %s.%I(%s) returns %s language plpgsql as $f$ begin perform lair.spring(); return pg_catalog.%I(%s); end $f$',
    place, p.proname, pg_get_function_identity_arguments(p.oid), format_type(p.prorettype, null), p.proname,
    (select string_agg('$' || n, ', ') from generate_series(1, p.pronargs) n))) as is_set
from pg_proc p, (values ('lair'), ('pg_temp')) v (place)
where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and not p.proretset and p.provariadic = 0
  and p.proname in (select word from word);

-- Functions that take anything, for the types that we give them.
insert into trap
select pg_temp.attempt(format('create function lair.%I(%s) returns %s language plpgsql as $f$ begin perform lair.spring(); return null; end $f$', name, arguments, result))
from (values ('format', 'text, text', 'text'), ('format', 'text, text, text', 'text'), ('format', 'text, text, bigint', 'text'),
             ('format', 'text, bigint', 'text'), ('format', 'text, name', 'text'), ('cardinality', 'text[]', 'integer'),
             ('array_to_string', 'text[], text', 'text'), ('array_position', 'text[], text', 'integer'), ('to_jsonb', 'text[]', 'jsonb'),
             ('jsonb_build_object', 'text, text', 'jsonb'), ('jsonb_build_object', 'text, bigint', 'jsonb'), ('unnest', 'text[]', 'setof text'),
             ('jsonb_each', 'jsonb', 'table (key text, value jsonb)'), ('jsonb_object_keys', 'jsonb', 'setof text'),
             ('jsonb_array_elements', 'jsonb', 'setof jsonb'), ('jsonb_array_elements_text', 'jsonb', 'setof text'),
             ('terms', 'posthaste.subscription', 'jsonb'), ('note', 'text, text, text, jsonb, jsonb, text', 'bigint'),
             ('refuse', 'text, text, text', 'boolean'), ('scope', '', 'text[]')) f (name, arguments, result);

-- Operators on every pair of types that ours stand between.
insert into trap
select pg_temp.attempt(format('create function lair.trap_%s(a %2$s, b %3$s) returns %4$s language plpgsql as $f$
           begin perform lair.spring(); return a operator(pg_catalog.%5$s) b; end $f$',
           o.oid, o.oprleft::regtype, o.oprright::regtype, o.oprresult::regtype, o.oprname))
   and pg_temp.attempt(format('create operator lair.%s (leftarg = %s, rightarg = %s, function = lair.trap_%s)',
           o.oprname, o.oprleft::regtype, o.oprright::regtype, o.oid))
from pg_operator o
where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprkind = 'b'
  and o.oprleft::regtype::text = any (array['text', 'name', 'jsonb', 'integer', 'bigint', 'smallint', 'uuid', 'timestamp with time zone', 'interval',
      'bytea', 'boolean', 'xid8', 'real', 'double precision', 'numeric', 'date', 'inet', 'oid', 'text[]', 'anyarray', '"char"']);

-- Types that check what is cast to them, where a name is looked for first; and a cast of our own making.
insert into trap
select pg_temp.attempt(format('create domain %s.%I as pg_catalog.%I check (lair.spring())', place, type, type))
from unnest('{text,jsonb,json,uuid,inet,cidr,jsonpath,bytea,timestamptz,date,regclass,xid8,name}'::text[]) type, (values ('lair'), ('pg_temp')) v (place);
create type lair.word as (word pg_catalog.text);
create function lair.as_text(w lair.word) returns pg_catalog.text language plpgsql as $$ begin perform lair.spring(); return 'x'; end $$;
create cast (lair.word as pg_catalog.text) with function lair.as_text(lair.word) as implicit;

-- Relations: whoever reads one springs the trap.
insert into trap
select pg_temp.attempt(format('create %s view %s%I as select lair.spring() as is_sprung, x.* from %s x', temporary, place, c.relname, c.oid::regclass))
    or pg_temp.attempt(format('create %s view %s%I as select lair.spring() as is_sprung', temporary, place, c.relname))
from pg_class c, (values ('', 'lair.'), ('temporary', '')) v (temporary, place)
where c.relkind in ('r', 'p', 'v') and not c.relispartition
  and (c.relnamespace = 'posthaste'::regnamespace or c.relname in ('pg_class', 'pg_roles', 'pg_namespace', 'pg_proc', 'pg_locks', 'pg_database', 'pg_trigger'));
