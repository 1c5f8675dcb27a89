/* sql/minimax_m1--0.2--0.3.sql */

\echo Use "ALTER EXTENSION minimax_m1 UPDATE TO '0.3'" to load this file. \quit

-- The update from 0.1 gave prefix_cache_row() to who could read the stats view. A dump leaves out what a script has
-- granted, as if every database had it; but those roles are this database's, and a dump is to carry what they may do.
UPDATE pg_catalog.pg_init_privs i
SET initprivs = ARRAY[pg_catalog.makeaclitem(p.proowner, p.proowner, 'EXECUTE', false)]
FROM pg_catalog.pg_proc p
WHERE p.oid = '@extschema@.prefix_cache_row()'::pg_catalog.regprocedure
  AND i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = p.oid;
-- Since PostgreSQL 17 such a grant stands among what keeps a role from being dropped, too.
DELETE FROM pg_catalog.pg_shdepend
WHERE classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  AND objid = '@extschema@.prefix_cache_row()'::pg_catalog.regprocedure AND deptype = 'i'
  AND dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database());

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

-- Locks are taken in the order of DROP TABLE: the table, then what is here of its annotators.

CREATE FUNCTION _lock_annotated(source regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation text := (SELECT format('%I.%I', n.nspname, c.relname)
                      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source);
BEGIN
    IF relation IS NOT NULL THEN
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', relation);
    END IF;
EXCEPTION WHEN undefined_table THEN
    NULL;  -- dropped meanwhile, and its annotators with it
END
$$;


CREATE OR REPLACE FUNCTION _create_annotator(
    caller oid, name name, source regclass, target_column name, template text, reasoning_column name,
    status_column name, json_schema jsonb, mode text, max_attempts int, fire text, system_prompt text, max_tokens int,
    thinking_budget int, temperature float8, top_p float8)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
BEGIN
    IF name IS NULL OR source IS NULL OR target_column IS NULL OR template IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'minimax_m1: an annotator needs a name, a table, a column to fill and a template';
    END IF;
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction',
            MESSAGE = 'minimax_m1: annotators cannot be created on a standby',
            HINT = 'Create them on the primary.';
    END IF;
    -- asks the engine: nothing is locked yet
    PERFORM @extschema@._check_json_schema(caller, json_schema);
    a.id := nextval('@extschema@.annotator_id_seq');
    a.name := name;
    a.owner := caller;
    a.source := source;
    -- nothing that the checks look at changes until the triggers are there
    PERFORM @extschema@._run_as(caller, format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', source)) WHERE has_table_privilege(caller, source, 'UPDATE');
    SELECT array_agg(att.attname ORDER BY k.ord) INTO a.key_columns
    FROM pg_index x, unnest(x.indkey::int2[]) WITH ORDINALITY AS k(attnum, ord)
    JOIN pg_attribute att ON att.attnum = k.attnum
    WHERE x.indrelid = source AND x.indisprimary AND x.indimmediate AND att.attrelid = source AND k.ord <= x.indnkeyatts;
    a.target_column := target_column;
    a.reasoning_column := reasoning_column;
    a.status_column := status_column;
    a.template := template;
    a.json_schema := json_schema;
    a.mode := coalesce(mode, 'async');
    a.max_attempts := coalesce(max_attempts, 5);
    a.fire := coalesce(fire, 'origin');
    a.enabled := true;
    a.system_prompt := system_prompt;
    a.max_tokens := max_tokens;
    a.thinking_budget := thinking_budget;
    a.temperature := temperature;
    a.top_p := top_p;
    PERFORM @extschema@._annotator_check(a);
    BEGIN
        INSERT INTO @extschema@.annotator VALUES (a.*);
    EXCEPTION WHEN unique_violation THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = format('minimax_m1: annotator "%s" already exists', a.name);
    END;
    PERFORM @extschema@._annotator_make_triggers(a);
END
$$;


CREATE OR REPLACE FUNCTION _alter_annotator(
    caller oid, annotator name, template text, json_schema jsonb, mode text, max_attempts int, fire text,
    enabled boolean, system_prompt text, max_tokens int, thinking_budget int, temperature float8, top_p float8)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o @extschema@.annotator := @extschema@._annotator_of(caller, annotator);
    a @extschema@.annotator := o;
BEGIN
    a.template := coalesce(template, o.template);
    a.json_schema := coalesce(json_schema, o.json_schema);
    a.mode := coalesce(mode, o.mode);
    a.max_attempts := coalesce(max_attempts, o.max_attempts);
    a.fire := coalesce(fire, o.fire);
    a.enabled := coalesce(enabled, o.enabled);
    a.system_prompt := coalesce(system_prompt, o.system_prompt);
    a.max_tokens := coalesce(max_tokens, o.max_tokens);
    a.thinking_budget := coalesce(thinking_budget, o.thinking_budget);
    a.temperature := coalesce(temperature, o.temperature);
    a.top_p := coalesce(top_p, o.top_p);
    IF (a.mode, a.fire) IS DISTINCT FROM (o.mode, o.fire) THEN
        PERFORM @extschema@._lock_annotated(o.source), @extschema@._annotator_of(caller, annotator);
    END IF;
    PERFORM @extschema@._annotator_check(a);
    IF a.json_schema IS DISTINCT FROM o.json_schema THEN
        PERFORM @extschema@._check_json_schema(caller, a.json_schema);
    END IF;
    UPDATE @extschema@.annotator u
    SET (template, json_schema, mode, max_attempts, fire, enabled, system_prompt, max_tokens, thinking_budget, temperature, top_p) =
        (a.template, a.json_schema, a.mode, a.max_attempts, a.fire, a.enabled, a.system_prompt, a.max_tokens,
         a.thinking_budget, a.temperature, a.top_p)
    WHERE u.id = a.id;
    IF (a.mode, a.fire) IS DISTINCT FROM (o.mode, o.fire) THEN
        PERFORM @extschema@._annotator_drop_triggers(o), @extschema@._annotator_make_triggers(a);
    ELSE
        PERFORM @extschema@._annotator_bind(a.id);
    END IF;
    UPDATE @extschema@.job j
    SET state = CASE WHEN a.enabled THEN 'pending' ELSE 'held' END, max_attempts = a.max_attempts, answered = NULL
    WHERE j.annotator_id = a.id AND j.state IN ('pending', 'held');
    PERFORM @extschema@._queue_changed();
END
$$;


CREATE OR REPLACE FUNCTION _drop_annotator(caller oid, annotator name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator := @extschema@._annotator_of(caller, annotator);
BEGIN
    PERFORM @extschema@._lock_annotated(a.source);
    a := @extschema@._annotator_of(caller, annotator);
    PERFORM @extschema@._annotator_drop_triggers(a), @extschema@._forget_annotator(a.id);
END
$$;


-- Virtual generated columns cannot be in a template.

CREATE OR REPLACE FUNCTION _annotator_check(a annotator) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    inputs name[] := @extschema@._template_columns(a.template);
    targets name[] := array_remove(ARRAY[a.target_column, a.reasoning_column, a.status_column], NULL);
    c record;
    cycle text;
BEGIN
    IF a.name::text !~ '^[A-Za-z_][A-Za-z0-9_]*$' OR length(a.name) > 40 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_name',
            MESSAGE = format('minimax_m1: "%s" is not a name for an annotator', a.name),
            DETAIL = 'It must have letters, digits and underscores, at most 40, and not begin with a digit.';
    END IF;
    SELECT r.relkind, r.relpersistence, n.nspname INTO c
    FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = a.source;
    IF c.relkind NOT IN ('r', 'p') OR c.relpersistence = 't' OR c.nspname IN ('pg_catalog', 'information_schema', '@extschema@') THEN
        RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
            MESSAGE = format('minimax_m1: "%s" cannot be annotated', a.source),
            DETAIL = 'It must be an ordinary or a partitioned table, and not a temporary one.';
    END IF;
    IF a.mode NOT IN ('async', 'sync') OR a.fire NOT IN ('origin', 'always') OR a.max_attempts NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: an option is out of range',
            DETAIL = format('mode is "%s", fire is "%s", max_attempts is %s.', a.mode, a.fire, a.max_attempts),
            HINT = 'mode is async or sync, fire is origin or always, max_attempts is between 1 and 100.';
    END IF;
    PERFORM @extschema@._check_options(a.system_prompt, a.max_tokens, a.thinking_budget, a.temperature, a.top_p, NULL, NULL);
    IF a.key_columns IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('minimax_m1: table "%s" has no primary key', a.source),
            HINT = 'A primary key, not deferrable, is what finds the row again when its annotation is ready.';
    END IF;
    FOR c IN
        SELECT u.name, u.filled, att.attnum, att.attgenerated
        FROM (SELECT i, false FROM unnest(inputs) i UNION ALL SELECT t, true FROM unnest(targets) t) u(name, filled)
        LEFT JOIN pg_attribute att ON att.attrelid = a.source AND att.attname = u.name
                                      AND att.attnum > 0 AND NOT att.attisdropped
    LOOP
        IF c.attnum IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_column',
                MESSAGE = format('minimax_m1: column "%s" of relation "%s" does not exist', c.name, a.source),
                HINT = 'Write {{ and }} for braces that are not placeholders.';
        END IF;
        IF c.filled AND c.name = ANY (a.key_columns || inputs) OR c.filled AND c.attgenerated <> '' THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('minimax_m1: column "%s" cannot be filled', c.name),
                DETAIL = 'It is generated, or belongs to the primary key or the template.';
        END IF;
        -- a virtual one (v) is not there for any trigger
        IF c.attgenerated = 'v' OR c.attgenerated <> '' AND @extschema@._annotator_looks_before(a) THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('minimax_m1: the generated column "%s" cannot be in the template of this annotator', c.name),
                DETAIL = 'It is computed after the annotator looks at the row, which is synchronous, has a status column, or is for a partitioned table; or it is virtual.';
        END IF;
    END LOOP;
    PERFORM @extschema@._annotator_check_rights(a, inputs, targets);
    IF cardinality(targets) <> (SELECT count(DISTINCT t) FROM unnest(targets) t) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: one column cannot be filled with two things';
    END IF;
    IF EXISTS (SELECT FROM @extschema@.annotator o
               WHERE o.source = a.source AND o.id IS DISTINCT FROM a.id
                 AND ARRAY[o.target_column, o.reasoning_column, o.status_column] && targets) THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = 'minimax_m1: another annotator fills the same column';
    END IF;
    -- an annotation that changes the input of its own would be made for ever
    WITH RECURSIVE reach(columns) AS (
        SELECT targets
        UNION
        SELECT array_remove(ARRAY[o.target_column, o.reasoning_column, o.status_column], NULL)
        FROM reach r JOIN @extschema@.annotator o ON o.source = a.source AND o.id IS DISTINCT FROM a.id
             AND @extschema@._template_columns(o.template)::name[] && r.columns)
    SELECT string_agg(DISTINCT i::text, ', ') INTO cycle
    FROM reach r, unnest(r.columns) i WHERE i = ANY (inputs);
    IF cycle IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: the annotation would change its own input',
            DETAIL = format('Filling the target leads, through other annotators, to column %s of the template.', cycle);
    END IF;
END
$$;

-- What is new is for nobody but its owner, whatever default privileges say.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT p.oid::pg_catalog.regprocedure AS function,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee
        FROM pg_catalog.pg_proc p
        CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        WHERE p.oid = ANY ('{@extschema@._check_annotated_table(oid\,oid), @extschema@._lock_annotated(regclass)}'::pg_catalog.regprocedure[])
          AND a.grantee <> p.proowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s', r.function, r.grantee);
    END LOOP;
END
$$;

-- An answer that cannot be written yet is kept: the hash of the prompt that content answers.
ALTER TABLE job ADD COLUMN answered bytea;
