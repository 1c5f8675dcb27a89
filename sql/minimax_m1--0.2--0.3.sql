/* sql/minimax_m1--0.2--0.3.sql */

\echo Use "ALTER EXTENSION minimax_m1 UPDATE TO '0.3'" to load this file. \quit

-- The update from 0.1 gave prefix_cache_row() to who could read the stats view. A dump leaves out what a script has
-- granted, as if every database had it; but those roles are this database's, and a dump is to carry what they may do.
UPDATE pg_catalog.pg_init_privs i
SET initprivs = ARRAY[pg_catalog.makeaclitem(p.proowner, p.proowner, 'EXECUTE', false)]
FROM pg_catalog.pg_proc p
WHERE p.oid = '@extschema@.prefix_cache_row()'::pg_catalog.regprocedure
  AND i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = p.oid;

-- What an annotator does to its table is done as the table's owner, once the annotator's has been found to have the
-- rights: it used to be the annotator's, with whose rights the table's own code was run.
CREATE FUNCTION _check_annotated_table(role oid, source oid) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_annotated_table' LANGUAGE C STRICT;

CREATE OR REPLACE FUNCTION _annotator_check_rights(a annotator, inputs name[], targets name[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing text;
BEGIN
    SELECT string_agg(DISTINCT format('%s (%I)', u.privilege, u.name), ', ') INTO missing
    FROM (SELECT i, 'SELECT' FROM unnest(inputs || targets[1] || a.key_columns) i
          UNION ALL SELECT t, 'UPDATE' FROM unnest(targets) t) u(name, privilege)
    WHERE NOT has_column_privilege(a.owner::oid, a.source::oid, u.name::text, u.privilege);
    IF missing IS NOT NULL OR NOT has_table_privilege(a.owner::oid, a.source::oid, 'TRIGGER')
       OR NOT has_schema_privilege(a.owner::oid, (SELECT relnamespace FROM pg_class WHERE oid = a.source), 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = format('permission denied for table %s', a.source),
            DETAIL = format('The owner of the annotator, "%s", lacks %s.', a.owner, coalesce(missing, 'TRIGGER on the table, or USAGE on its schema'));
    END IF;
    PERFORM @extschema@._check_annotated_table(a.owner, a.source);
END
$$;

-- Owners take turns; each one's jobs go by priority, which used to go before all others'.
DROP INDEX job_due;
CREATE INDEX job_due ON job (owner, priority DESC, run_at, id) WHERE state = 'pending';

-- The partition of a row is told with its inputs.
CREATE OR REPLACE FUNCTION _annotator_sql(
    annotator_id int,
    OUT read_sql text,
    OUT lock_sql text,
    OUT write_sql text,
    OUT status_sql text,
    OUT keys_sql text,
    OUT keys_after_sql text,
    OUT key_types oid[],
    OUT target_types oid[],
    OUT target_typmods int[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
    kind "char";
    relation text;
    inputs text;
    matches text;
    greater text;
    greater_prefix text := '';
    ordering text;
    keys text;
    sets text;
    k record;
BEGIN
    SELECT * INTO STRICT a FROM @extschema@.annotator WHERE id = annotator_id;
    SELECT c.relkind, format('%s %I.%I', CASE c.relkind WHEN 'r' THEN 'ONLY' END, n.nspname, c.relname)
    INTO kind, relation
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = a.source;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_table',
            MESSAGE = format('minimax_m1: the table of annotator "%s" does not exist', a.name);
    END IF;
    SELECT string_agg(format('t.%I', i.name), ', ' ORDER BY i.ord) INTO inputs
    FROM unnest(@extschema@._template_columns(a.template)) WITH ORDINALITY AS i(name, ord);
    -- the primary key's own operators, whatever search_path says
    FOR k IN
        SELECT i.name, i.ord, att.atttypid,
               format('OPERATOR(%I.%s)', eqn.nspname, eqo.oprname) AS eq,
               format('OPERATOR(%I.%s)', gtn.nspname, gto.oprname) AS gt,
               format('OPERATOR(%I.%s)', ltn.nspname, lto.oprname) AS lt
        FROM unnest(a.key_columns) WITH ORDINALITY AS i(name, ord)
        JOIN pg_attribute att ON att.attrelid = a.source AND att.attname = i.name AND NOT att.attisdropped
        JOIN pg_index x ON x.indrelid = a.source AND x.indisprimary AND x.indkey[i.ord - 1] = att.attnum
        JOIN pg_opclass c ON c.oid = x.indclass[i.ord - 1]
        JOIN pg_amop eq ON eq.amopfamily = c.opcfamily AND eq.amoplefttype = c.opcintype
             AND eq.amoprighttype = c.opcintype AND eq.amopstrategy = 3
        JOIN pg_operator eqo ON eqo.oid = eq.amopopr
        JOIN pg_namespace eqn ON eqn.oid = eqo.oprnamespace
        JOIN pg_amop gt ON gt.amopfamily = c.opcfamily AND gt.amoplefttype = c.opcintype
             AND gt.amoprighttype = c.opcintype AND gt.amopstrategy = 5
        JOIN pg_operator gto ON gto.oid = gt.amopopr
        JOIN pg_namespace gtn ON gtn.oid = gto.oprnamespace
        JOIN pg_amop lt ON lt.amopfamily = c.opcfamily AND lt.amoplefttype = c.opcintype
             AND lt.amoprighttype = c.opcintype AND lt.amopstrategy = 1
        JOIN pg_operator lto ON lto.oid = lt.amopopr
        JOIN pg_namespace ltn ON ltn.oid = lto.oprnamespace
        ORDER BY i.ord
    LOOP
        key_types := key_types || k.atttypid;
        matches := concat_ws(' AND ', matches, format('t.%I %s $%s', k.name, k.eq, k.ord));
        greater := concat_ws(' OR ', greater, format('(%st.%I %s $%s)', greater_prefix, k.name, k.gt, k.ord));
        greater_prefix := greater_prefix || format('t.%I %s $%s AND ', k.name, k.eq, k.ord);
        ordering := concat_ws(', ', ordering, format('t.%I USING %s', k.name, k.lt));
        keys := concat_ws(', ', keys, format('t.%I', k.name));
    END LOOP;
    IF cardinality(key_types) IS DISTINCT FROM cardinality(a.key_columns) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('minimax_m1: the primary key of %s is not what annotator "%s" was made for',
                             a.source, a.name),
            HINT = 'Drop the annotator and create it anew.';
    END IF;
    SELECT string_agg(format('%I = $%s', i.name, cardinality(key_types) + i.ord), ', ' ORDER BY i.ord),
           array_agg(att.atttypid ORDER BY i.ord), array_agg(att.atttypmod ORDER BY i.ord)
    INTO sets, target_types, target_typmods
    FROM unnest(array_remove(ARRAY[a.target_column, a.reasoning_column, a.status_column], NULL))
         WITH ORDINALITY AS i(name, ord)
    JOIN pg_attribute att ON att.attrelid = a.source AND att.attname = i.name AND NOT att.attisdropped;
    read_sql := format('SELECT %s FROM %s t WHERE %s', concat_ws(', ', 't.tableoid', inputs), relation, matches);
    lock_sql := read_sql || ' FOR NO KEY UPDATE SKIP LOCKED';
    write_sql := format('UPDATE %s t SET %s WHERE %s', relation, sets, matches);
    IF a.status_column IS NOT NULL THEN
        status_sql := format('UPDATE %s t SET %I = $%s WHERE %s', relation, a.status_column,
                             cardinality(key_types) + 1, matches);
    END IF;
    keys_sql := format('SELECT %s FROM %s t WHERE t.%I IS NULL ORDER BY %s', keys, relation, a.target_column, ordering);
    keys_after_sql := format('SELECT %s FROM %s t WHERE t.%I IS NULL AND (%s) ORDER BY %s', keys, relation,
                             a.target_column, greater, ordering);
END
$$;

-- What is new is for nobody but its owner, whatever default privileges say.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee
        FROM pg_catalog.pg_proc p
        CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        WHERE p.oid = '@extschema@._check_annotated_table(oid, oid)'::pg_catalog.regprocedure
          AND a.grantee <> p.proowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION @extschema@._check_annotated_table FROM %s', r.grantee);
    END LOOP;
END
$$;

-- An answer that cannot be written yet is kept: the hash of the prompt that content answers.
ALTER TABLE job ADD COLUMN answered bytea;
