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
CREATE INDEX job_due ON job (owner, priority DESC, run_at, id) WHERE state = 'pending' AND losses < 3;
CREATE INDEX job_next ON job (run_at) WHERE state = 'pending';
DROP INDEX job_finished;
CREATE INDEX job_finished ON job (finished_at)
    WHERE state IN ('done', 'failed', 'cancelled') AND (annotator_id IS NULL OR state = 'cancelled');

-- The partition of a row is told with its inputs, and what is in all columns that are filled.
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
    targets text;
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
           string_agg(format('t.%I', i.name), ', ' ORDER BY i.ord),
           array_agg(att.atttypid ORDER BY i.ord), array_agg(att.atttypmod ORDER BY i.ord)
    INTO sets, targets, target_types, target_typmods
    FROM unnest(array_remove(ARRAY[a.target_column, a.reasoning_column, a.status_column], NULL))
         WITH ORDINALITY AS i(name, ord)
    JOIN pg_attribute att ON att.attrelid = a.source AND att.attname = i.name AND NOT att.attisdropped;
    read_sql := format('SELECT %s FROM %s t WHERE %s',
                       concat_ws(', ', 't.tableoid', inputs, targets), relation, matches);
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


-- Triggers of annotators are found by what they do, not by their names.

ALTER TABLE annotator_binding ADD COLUMN triggers oid[];

-- The triggers of an annotator, whatever they are called.
CREATE FUNCTION _annotator_triggers(source regclass, annotator name) RETURNS SETOF oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT oid FROM pg_trigger
    WHERE tgrelid = source AND NOT tgisinternal
      AND tgfoid IN ('@extschema@.enqueue_annotation()'::regprocedure, '@extschema@.annotate_row()'::regprocedure)
      AND tgargs = convert_to(annotator::text, 'UTF8') || decode('00', 'hex')
$$;

UPDATE annotator_binding b SET triggers = ARRAY(SELECT @extschema@._annotator_triggers(a.source, a.name))
FROM annotator a WHERE a.id = b.annotator_id;
ALTER TABLE annotator_binding ALTER triggers SET NOT NULL;

CREATE OR REPLACE FUNCTION _annotator_bind(id_ int) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
    used name[];
    numbers int2[];
    names name[];
    triggers oid[] := ARRAY(SELECT @extschema@._annotator_triggers(source, name) FROM @extschema@.annotator WHERE id = id_);
    t oid;
BEGIN
    SELECT * INTO STRICT a FROM @extschema@.annotator WHERE id = id_;
    used := array_remove(@extschema@._template_columns(a.template)::name[] || a.key_columns ||
                         ARRAY[a.target_column, a.reasoning_column, a.status_column], NULL);
    SELECT array_agg(attname), array_agg(attnum) INTO names, numbers
    FROM pg_attribute WHERE attrelid = a.source AND attname = ANY (used) AND NOT attisdropped;
    INSERT INTO @extschema@.annotator_binding AS b VALUES (a.id, names, numbers, triggers)
    ON CONFLICT (annotator_id) DO UPDATE
    SET columns = excluded.columns, numbers = excluded.numbers, triggers = excluded.triggers;
    FOREACH t IN ARRAY triggers LOOP
        PERFORM @extschema@._depend(t, 'pg_class'::regclass, a.source, numbers);
        PERFORM @extschema@._depend(t, 'pg_constraint'::regclass, c.oid, '{0}')
        FROM pg_constraint c WHERE c.conrelid = a.source AND c.contype = 'p';
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION _annotator_drop_triggers(a annotator) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t record;
BEGIN
    DELETE FROM @extschema@.annotator_binding WHERE annotator_id = a.id;
    FOR t IN SELECT tgname FROM pg_trigger
             WHERE tgparentid = 0 AND oid IN (SELECT @extschema@._annotator_triggers(a.source, a.name))
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, a.source);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION _follow_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    a record;
BEGIN
    FOR r IN
        SELECT b.annotator_id, u.old, att.attname AS new
        FROM @extschema@.annotator_binding b
        JOIN @extschema@.annotator t ON t.id = b.annotator_id,
             unnest(b.columns, b.numbers) u(old, number)
        JOIN pg_attribute att ON att.attnum = u.number
        WHERE att.attrelid = t.source AND att.attname <> u.old AND NOT att.attisdropped
    LOOP
        UPDATE @extschema@.annotator
        SET target_column = CASE target_column WHEN r.old THEN r.new ELSE target_column END,
            reasoning_column = CASE reasoning_column WHEN r.old THEN r.new ELSE reasoning_column END,
            status_column = CASE status_column WHEN r.old THEN r.new ELSE status_column END,
            key_columns = array_replace(key_columns, r.old, r.new),
            template = @extschema@._template_rename(template, r.old, r.new)
        WHERE id = r.annotator_id;
        UPDATE @extschema@.annotator_binding SET columns = array_replace(columns, r.old, r.new)
        WHERE annotator_id = r.annotator_id;
    END LOOP;
    -- a partition may bring annotators of its own
    IF tg_tag = 'ALTER TABLE' THEN
        PERFORM @extschema@._annotator_check_fills(t) FROM @extschema@.annotator t
        WHERE EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c, LATERAL pg_partition_tree(c.objid::regclass) p
                      WHERE c.classid = 'pg_class'::regclass AND p.relid = t.source);
    END IF;
    -- a restore makes the triggers after the definitions
    IF tg_tag = 'CREATE TRIGGER' THEN
        FOR a IN
            SELECT t.id FROM @extschema@.annotator t
            JOIN pg_event_trigger_ddl_commands() c ON c.classid = 'pg_trigger'::regclass
            WHERE c.objid IN (SELECT @extschema@._annotator_triggers(t.source, t.name))
        LOOP
            PERFORM @extschema@._annotator_bind(a.id);
        END LOOP;
    END IF;
END
$$;

DROP EVENT TRIGGER minimax_m1_follow_ddl;
-- All of these rename columns: ALTER TYPE those of typed tables, and ALTER VIEW those of anything.
CREATE EVENT TRIGGER minimax_m1_follow_ddl ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER TYPE', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'CREATE TRIGGER')
    EXECUTE FUNCTION _follow_ddl();
ALTER EVENT TRIGGER minimax_m1_follow_ddl ENABLE ALWAYS;

CREATE OR REPLACE FUNCTION _follow_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
BEGIN
    FOR a IN
        SELECT t.* FROM @extschema@.annotator t
        -- alter_annotator() and drop_annotator() forget this before they drop its triggers
        JOIN @extschema@.annotator_binding b ON b.annotator_id = t.id
        WHERE EXISTS (
            SELECT FROM pg_event_trigger_dropped_objects() d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = t.source AND d.objsubid = 0
               OR d.classid = 'pg_trigger'::regclass AND d.objid = ANY (b.triggers))
    LOOP
        PERFORM @extschema@._forget_annotator(a.id);
        IF EXISTS (SELECT FROM pg_class WHERE oid = a.source) THEN
            PERFORM @extschema@._annotator_drop_triggers(a);
        END IF;
    END LOOP;
END
$$;

-- Virtual generated columns cannot be in a template, and what is always an identity cannot be filled.

-- The table, what it is a partition of, and its partitions: they have rows in common.
CREATE FUNCTION _annotator_family(source regclass) RETURNS SETOF regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT source UNION SELECT relid FROM pg_partition_ancestors(source) UNION SELECT relid FROM pg_partition_tree(source)
$$;

-- Raises an error when an annotator fills what another one does, or leads to what it is asked by itself.
CREATE FUNCTION _annotator_check_fills(a annotator) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    inputs name[] := @extschema@._template_columns(a.template);
    targets name[] := array_remove(ARRAY[a.target_column, a.reasoning_column, a.status_column], NULL);
    cycle text;
BEGIN
    IF EXISTS (SELECT FROM @extschema@.annotator o
               WHERE o.source IN (SELECT @extschema@._annotator_family(a.source)) AND o.id IS DISTINCT FROM a.id
                 AND ARRAY[o.target_column, o.reasoning_column, o.status_column] && targets) THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = 'minimax_m1: another annotator fills the same column';
    END IF;
    -- an annotation that changes the input of its own would be made for ever; the rows are those of the smallest part
    WITH RECURSIVE reach(columns, part) AS (
        SELECT targets, a.source
        UNION
        SELECT array_remove(ARRAY[o.target_column, o.reasoning_column, o.status_column], NULL),
               CASE WHEN o.source IN (SELECT relid FROM pg_partition_tree(r.part)) THEN o.source ELSE r.part END
        FROM reach r JOIN @extschema@.annotator o
             ON o.source IN (SELECT @extschema@._annotator_family(r.part)) AND o.id IS DISTINCT FROM a.id
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

CREATE OR REPLACE FUNCTION _annotator_check(a annotator) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    inputs name[] := @extschema@._template_columns(a.template);
    targets name[] := array_remove(ARRAY[a.target_column, a.reasoning_column, a.status_column], NULL);
    c record;
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
        SELECT u.name, u.filled, att.attnum, att.attgenerated, att.attidentity
        -- a name that is longer than any column's would be cut to one that there is
        FROM (SELECT i, false FROM unnest(@extschema@._template_columns(a.template)) i
              UNION ALL SELECT t::text, true FROM unnest(targets) t) u(name, filled)
        LEFT JOIN pg_attribute att ON att.attrelid = a.source AND att.attname::text = u.name
                                      AND att.attnum > 0 AND NOT att.attisdropped
    LOOP
        IF c.attnum IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_column',
                MESSAGE = format('minimax_m1: column "%s" of relation "%s" does not exist', c.name, a.source),
                HINT = 'Write {{ and }} for braces that are not placeholders.';
        END IF;
        IF c.filled AND (c.name::name = ANY (a.key_columns || inputs) OR c.attgenerated <> '' OR c.attidentity = 'a') THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('minimax_m1: column "%s" cannot be filled', c.name),
                DETAIL = 'It is generated, or always an identity, or belongs to the primary key or the template.';
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
    PERFORM @extschema@._annotator_check_fills(a);
END
$$;

-- Schemas, messages and tools keep the order in which they are written: what was jsonb is json_text.

-- The functions that are made anew, until their grants have been copied.
DO $$
DECLARE
    f record;
BEGIN
    FOR f IN
        SELECT p.oid::pg_catalog.regprocedure AS function, p.proname
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'minimax_m1'
        JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
        WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
          AND 'pg_catalog.jsonb'::pg_catalog.regtype = ANY (p.proargtypes)
    LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s RENAME TO %I', f.function, '_old_' || f.proname);
    END LOOP;
END
$$;

-- JSON as it was written: what is given as json or jsonb becomes it, as does a literal. Its order is that of the text,
-- which jsonb has not, and a program's parameter of no known type becomes it, as it would not where both are accepted.
CREATE TYPE json_text;

CREATE FUNCTION _json_text_in(cstring) RETURNS json_text
AS 'json_in' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION _json_text_out(json_text) RETURNS cstring
AS 'json_out' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION _json_text_recv(internal) RETURNS json_text
AS 'json_recv' LANGUAGE internal STABLE STRICT PARALLEL SAFE;

CREATE FUNCTION _json_text_send(json_text) RETURNS bytea
AS 'json_send' LANGUAGE internal STABLE STRICT PARALLEL SAFE;

CREATE TYPE json_text (
    INPUT = _json_text_in,
    OUTPUT = _json_text_out,
    RECEIVE = _json_text_recv,
    SEND = _json_text_send,
    LIKE = pg_catalog.json);

COMMENT ON TYPE json_text IS 'JSON in the order of its text; json and jsonb become it';

CREATE CAST (json AS json_text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (jsonb AS json_text) WITH INOUT AS IMPLICIT;
CREATE CAST (json_text AS json) WITHOUT FUNCTION AS ASSIGNMENT;

CREATE FUNCTION complete(
    prompt text DEFAULT NULL,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL,
    messages json_text DEFAULT NULL,
    tools json_text DEFAULT NULL,
    tool_choice text DEFAULT NULL,
    json_schema json_text DEFAULT NULL,
    choices text[] DEFAULT NULL,
    regex text DEFAULT NULL,
    top_k int DEFAULT NULL,
    logprobs boolean DEFAULT NULL,
    top_logprobs int DEFAULT NULL,
    n int DEFAULT NULL,
    presence_penalty float8 DEFAULT NULL,
    frequency_penalty float8 DEFAULT NULL,
    logit_bias json_text DEFAULT NULL,
    OUT content text,
    OUT reasoning text,
    OUT tool_calls json,
    OUT finish_reason text,
    OUT prompt_tokens int,
    OUT cached_tokens int,
    OUT reasoning_tokens int,
    OUT completion_tokens int,
    OUT seed bigint,
    OUT model text,
    OUT queue_ms float8,
    OUT prefill_ms float8,
    OUT decode_ms float8,
    OUT logprobs json)
RETURNS record
AS 'MODULE_PATHNAME', 'm1pg_complete'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION complete IS 'answers a prompt or a conversation, with reasoning, tool calls and counts';

CREATE FUNCTION complete_stream(
    prompt text DEFAULT NULL,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL,
    messages json_text DEFAULT NULL,
    tools json_text DEFAULT NULL,
    tool_choice text DEFAULT NULL,
    json_schema json_text DEFAULT NULL,
    choices text[] DEFAULT NULL,
    regex text DEFAULT NULL,
    top_k int DEFAULT NULL,
    logprobs boolean DEFAULT NULL,
    top_logprobs int DEFAULT NULL,
    n int DEFAULT NULL,
    presence_penalty float8 DEFAULT NULL,
    frequency_penalty float8 DEFAULT NULL,
    logit_bias json_text DEFAULT NULL,
    OUT seq int,
    OUT channel text,
    OUT delta text,
    OUT tool_calls json,
    OUT finish_reason text,
    OUT prompt_tokens int,
    OUT cached_tokens int,
    OUT reasoning_tokens int,
    OUT completion_tokens int,
    OUT seed bigint,
    OUT model text,
    OUT queue_ms float8,
    OUT prefill_ms float8,
    OUT decode_ms float8,
    OUT logprobs json)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_complete_stream'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support ROWS 100;

COMMENT ON FUNCTION complete_stream IS 'answers as complete does, piece by piece, when called in the select list; then tells what complete tells';

CREATE FUNCTION generate_json(
    prompt text,
    json_schema json_text,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'm1pg_generate_json'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION generate_json IS 'answers a prompt with JSON that a schema describes';

CREATE FUNCTION submit(
    prompt text,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL,
    priority int DEFAULT 0,
    dedupe_key text DEFAULT NULL,
    max_attempts int DEFAULT 5,
    json_schema json_text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_submit'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION submit IS 'queues a prompt, to be answered after this transaction; returns the job';

CREATE FUNCTION _create_annotator(
    caller oid, name name, source regclass, target_column name, template text, reasoning_column name,
    status_column name, json_schema json_text, mode text, max_attempts int, fire text, system_prompt text, max_tokens int,
    thinking_budget int, temperature float8, top_p float8, adapter name)
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
    a.adapter := nullif(adapter, 'base');
    PERFORM @extschema@._check_adapter(caller, a.adapter);
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

CREATE FUNCTION create_annotator(
    name name,
    source regclass,
    target_column name,
    template text,
    reasoning_column name DEFAULT NULL,
    status_column name DEFAULT NULL,
    json_schema json_text DEFAULT NULL,
    mode text DEFAULT 'async',
    max_attempts int DEFAULT 5,
    fire text DEFAULT 'origin',
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    adapter name DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION create_annotator IS 'keeps a column of a table filled from a prompt over other columns';

CREATE FUNCTION _alter_annotator(
    caller oid, annotator name, template text, json_schema json_text, mode text, max_attempts int, fire text,
    enabled boolean, system_prompt text, max_tokens int, thinking_budget int, temperature float8, top_p float8, adapter name)
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
    a.adapter := nullif(coalesce(adapter, o.adapter), 'base');
    IF (a.mode, a.fire) IS DISTINCT FROM (o.mode, o.fire) THEN
        PERFORM @extschema@._lock_annotated(o.source), @extschema@._annotator_of(caller, annotator);
    END IF;
    PERFORM @extschema@._annotator_check(a);
    IF a.json_schema::text IS DISTINCT FROM o.json_schema::text THEN
        PERFORM @extschema@._check_json_schema(caller, a.json_schema);
    END IF;
    IF a.adapter IS DISTINCT FROM o.adapter THEN
        PERFORM @extschema@._check_adapter(a.owner, a.adapter);
    END IF;
    UPDATE @extschema@.annotator u
    SET (template, json_schema, mode, max_attempts, fire, enabled, system_prompt, max_tokens, thinking_budget, temperature, top_p,
         adapter) =
        (a.template, a.json_schema, a.mode, a.max_attempts, a.fire, a.enabled, a.system_prompt, a.max_tokens,
         a.thinking_budget, a.temperature, a.top_p, a.adapter)
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

CREATE FUNCTION alter_annotator(
    name name,
    template text DEFAULT NULL,
    json_schema json_text DEFAULT NULL,
    mode text DEFAULT NULL,
    max_attempts int DEFAULT NULL,
    fire text DEFAULT NULL,
    enabled boolean DEFAULT NULL,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    adapter name DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION alter_annotator IS 'changes what is not NULL; enabled => false holds its rows back';

CREATE FUNCTION _check_json_schema(caller oid, json_schema json_text) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_json_schema' LANGUAGE C STRICT;

-- A quota is a setting of the role; the owner of the function is a superuser, who may set it.
CREATE OR REPLACE FUNCTION set_quota(role regrole, tokens_per_hour bigint DEFAULT NULL, max_concurrent int DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM @extschema@._check_role(role);
    IF tokens_per_hour NOT BETWEEN 0 AND 999999999999999999 THEN
        RAISE EXCEPTION 'minimax_m1: tokens_per_hour is out of range'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s; it must be at least 0, or NULL for no limit.', tokens_per_hour);
    END IF;
    IF max_concurrent < 0 THEN
        RAISE EXCEPTION 'minimax_m1: max_concurrent is out of range'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s; it must be at least 0, or NULL for no limit.', max_concurrent);
    END IF;
    EXECUTE CASE WHEN tokens_per_hour IS NULL
        THEN format('ALTER ROLE %s RESET minimax_m1.quota_tokens_per_hour', role)
        ELSE format('ALTER ROLE %s SET minimax_m1.quota_tokens_per_hour = %L', role, tokens_per_hour) END;
    EXECUTE CASE WHEN max_concurrent IS NULL
        THEN format('ALTER ROLE %s RESET minimax_m1.quota_max_concurrent', role)
        ELSE format('ALTER ROLE %s SET minimax_m1.quota_max_concurrent = %L', role, max_concurrent) END;
END
$$;

SELECT pg_catalog.set_config('minimax_m1_update.annotators', c.relacl::text, true)
FROM pg_catalog.pg_class c WHERE c.oid = '@extschema@.annotators'::pg_catalog.regclass;
CREATE OR REPLACE FUNCTION grant_usage(role regrole)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fn regprocedure;
    vw regclass;
BEGIN
    PERFORM @extschema@._check_role(role);
    EXECUTE format('GRANT USAGE ON SCHEMA @extschema@ TO %s', role);
    FOR fn IN
        SELECT p.oid
        FROM pg_proc p
        WHERE p.pronamespace = '@extschema@'::regnamespace
          AND p.proname NOT IN ('grant_usage', 'stats_reset', 'set_quota', 'set_price', 'usage_reset', 'grant_training',
                                'revoke_training')
          -- what makes a json_text of jsonb, an agent, an evaluation, a plot or a task is called in the caller's name
          AND p.proname !~ '^_(?!(json_text|agent|evaluation|plot|task)_)'
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', fn, role);
    END LOOP;
    FOR vw IN
        SELECT c.oid
        FROM pg_class c
        WHERE c.relnamespace = '@extschema@'::regnamespace
          AND c.relkind = 'v'
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO %s', vw, role);
    END LOOP;
END
$$;

DROP VIEW annotators;
ALTER TABLE job ALTER json_schema TYPE json;
ALTER TABLE annotator ALTER json_schema TYPE json;
ALTER TABLE annotator ADD COLUMN adapter name;

CREATE VIEW annotators WITH (security_barrier) AS
SELECT a.name, a.source, a.target_column, a.reasoning_column, a.status_column, a.template, a.mode, a.fire, a.enabled,
       a.max_attempts, a.system_prompt, a.max_tokens, a.thinking_budget, a.temperature, a.top_p, a.json_schema,
       a.adapter, a.owner, q.pending, q.running, q.failed, q.oldest_age,
       -- others would run the policies of the table with their own rights
       CASE WHEN pg_get_userbyid(a.owner) = current_user
            THEN @extschema@.coverage(a.source, a.target_column) END AS coverage,
       coalesce(p.done, 0) AS done,
       coalesce(p.rate * exp(- extract(epoch FROM clock_timestamp() - p.last_done) / 60), 0)::float8 AS rate
FROM @extschema@.annotator a
LEFT JOIN @extschema@.annotator_progress p ON p.annotator_id = a.id
CROSS JOIN LATERAL (
    SELECT count(DISTINCT j.key) FILTER (WHERE j.state IN ('pending', 'held')) AS pending,
           count(DISTINCT j.key) FILTER (WHERE j.state = 'running') AS running,
           count(DISTINCT j.key) FILTER (WHERE j.state = 'failed') AS failed,
           clock_timestamp()
               - min(j.submitted_at) FILTER (WHERE j.state IN ('pending', 'held', 'running')) AS oldest_age
    FROM @extschema@.job j WHERE j.annotator_id = a.id) q
WHERE pg_has_role(a.owner::oid, 'USAGE');

COMMENT ON VIEW annotators IS 'one''s annotators, and how far they are';

-- What is new is for nobody but its owner, whatever default privileges say.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT o.object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee
        FROM (SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure) AS object, p.proowner AS owner,
                     coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) AS acl
              FROM pg_catalog.pg_proc p
              WHERE p.oid = ANY ('{@extschema@._check_annotated_table(oid\,oid), @extschema@._lock_annotated(regclass), @extschema@._annotator_triggers(regclass\,name), @extschema@._annotator_family(regclass), @extschema@._annotator_check_fills(@extschema@.annotator)}'::pg_catalog.regprocedure[])
                 OR p.prorettype = '@extschema@.json_text'::pg_catalog.regtype
                 OR '@extschema@.json_text'::pg_catalog.regtype = ANY (p.proargtypes)
              UNION ALL
              SELECT 'TYPE @extschema@.json_text', t.typowner,
                     coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
              FROM pg_catalog.pg_type t WHERE t.oid = '@extschema@.json_text'::pg_catalog.regtype
              UNION ALL
              SELECT 'TABLE @extschema@.annotators', c.relowner, c.relacl
              FROM pg_catalog.pg_class c WHERE c.oid = '@extschema@.annotators'::pg_catalog.regclass) o
        CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
        WHERE a.grantee <> o.owner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', r.object, r.grantee);
    END LOOP;
END
$$;

-- Who could use what was made anew can use it. A dump leaves out what a script has granted, as if every database had it;
-- but those roles are this database's, and a dump is to carry what they may do.
DO $$
DECLARE
    o record;
    g record;
    noted aclitem[];
BEGIN
    FOR o IN
        SELECT 'FUNCTION ' || n.oid::pg_catalog.regprocedure AS object, n.oid AS id,
               'pg_catalog.pg_proc'::pg_catalog.regclass AS class, p.proacl AS acl, p.proowner AS owner,
               'DROP FUNCTION ' || p.oid::pg_catalog.regprocedure AS forget
        FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_proc n ON n.pronamespace = p.pronamespace AND '_old_' || n.proname = p.proname
        WHERE p.pronamespace = '@extschema@'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'FUNCTION ' || n.oid::pg_catalog.regprocedure, n.oid, 'pg_catalog.pg_proc'::pg_catalog.regclass, p.proacl,
               p.proowner, NULL
        FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_proc n ON n.pronamespace = p.pronamespace AND n.proname LIKE '\_json\_text\_%'
        WHERE p.pronamespace = '@extschema@'::pg_catalog.regnamespace AND p.proname = '_old_generate_json'
        UNION ALL
        SELECT 'TABLE @extschema@.annotators', c.oid, 'pg_catalog.pg_class'::pg_catalog.regclass,
               nullif(pg_catalog.current_setting('minimax_m1_update.annotators', true), '')::aclitem[], c.relowner, NULL
        FROM pg_catalog.pg_class c WHERE c.oid = '@extschema@.annotators'::pg_catalog.regclass
    LOOP
        SELECT i.initprivs INTO noted FROM pg_catalog.pg_init_privs i
        WHERE i.classoid = o.class AND i.objoid = o.id AND i.objsubid = 0;
        FOR g IN
            SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee,
                   CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS option
            FROM pg_catalog.aclexplode(o.acl) a WHERE a.grantee <> o.owner
        LOOP
            EXECUTE pg_catalog.format('GRANT %s ON %s TO %s%s', g.privilege_type, o.object, g.grantee, g.option);
        END LOOP;
        DELETE FROM pg_catalog.pg_init_privs i
        WHERE noted IS NULL AND i.classoid = o.class AND i.objoid = o.id AND i.objsubid = 0;
        UPDATE pg_catalog.pg_init_privs i SET initprivs = noted
        WHERE noted IS NOT NULL AND i.classoid = o.class AND i.objoid = o.id AND i.objsubid = 0;
        -- since PostgreSQL 17, who was noted is there, too
        DELETE FROM pg_catalog.pg_shdepend s
        WHERE s.classid = o.class AND s.objid = o.id AND s.objsubid = 0 AND s.deptype = 'i'
          AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
          AND s.refobjid NOT IN (SELECT a.grantee FROM pg_catalog.aclexplode(noted) a);
        IF o.forget IS NOT NULL THEN
            EXECUTE o.forget;
        END IF;
    END LOOP;
END
$$;

-- An answer that cannot be written yet is kept: the hash of the prompt that content answers.
ALTER TABLE job ADD COLUMN answered bytea;

-- Jobs and annotators use adapters.
ALTER TABLE job ADD COLUMN adapter name;

CREATE OR REPLACE VIEW jobs WITH (security_barrier) AS
SELECT j.id, a.name AS annotator, j.key, j.state, j.priority, j.dedupe_key, j.attempts, j.max_attempts, j.prompt,
       j.content, j.reasoning, j.finish_reason, j.prompt_tokens, j.completion_tokens, j.error, j.owner,
       j.submitted_at, CASE WHEN j.state = 'pending' THEN j.run_at END AS run_at, j.started_at, j.finished_at,
       coalesce(j.adapter, a.adapter) AS adapter
FROM @extschema@.job j
LEFT JOIN @extschema@.annotator a ON a.id = j.annotator_id
WHERE pg_has_role(j.owner::oid, 'USAGE');

-- ---- Learning ----

-- What was there before this, so that what is new can be told from it.
SELECT pg_catalog.set_config('minimax_m1_update.members', pg_catalog.array_agg(d.classid || '.' || d.objid)::text, true)
FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'minimax_m1'
WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e';

CREATE FUNCTION _check_adapter(role oid, adapter name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_adapter' LANGUAGE C STRICT;

DROP FUNCTION _annotator_get(name, int);
CREATE FUNCTION _annotator_get(
    annotator name, annotator_id int,
    OUT id int, OUT name name, OUT owner oid, OUT source oid, OUT key_columns name[], OUT target_column name,
    OUT reasoning_column name, OUT status_column name, OUT template text, OUT mode text, OUT max_attempts int,
    OUT enabled boolean, OUT version text, OUT system_prompt text, OUT max_tokens int, OUT thinking_budget int,
    OUT temperature float4, OUT top_p float4, OUT json_schema text, OUT adapter name)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.id, a.name, a.owner::oid, a.source::oid, a.key_columns, a.target_column, a.reasoning_column,
           a.status_column, a.template, a.mode, a.max_attempts, a.enabled, a.xmin::text, a.system_prompt,
           a.max_tokens, a.thinking_budget, a.temperature::float4, a.top_p::float4,
           a.json_schema::text, a.adapter
    FROM @extschema@.annotator a
    WHERE a.name = annotator OR a.id = annotator_id
$$;

-- Raises an error unless there is such a role: a regrole may be any number.
CREATE FUNCTION _check_role(role oid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE oid = role) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = 'minimax_m1: there is no such role';
    END IF;
END
$$;

-- Annotations that somebody has changed by hand: what was wrong. What is right is in the annotated row.
CREATE TABLE correction (
    annotator_id int,
    key text[],
    wrong text NOT NULL,
    prompt_hash bytea NOT NULL,         -- of what it was an answer to
    PRIMARY KEY (annotator_id, key));

-- The definition and its jobs; not the triggers.
CREATE OR REPLACE FUNCTION _forget_annotator(id_ int) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM @extschema@.job WHERE annotator_id = id_;
    DELETE FROM @extschema@.annotator_progress WHERE annotator_id = id_;
    DELETE FROM @extschema@.correction WHERE annotator_id = id_;
    DELETE FROM @extschema@.annotator_binding WHERE annotator_id = id_;
    DELETE FROM @extschema@.annotator WHERE id = id_;
    SELECT @extschema@._queue_changed();
$$;

-- all of sql/install/52_latency.sql

-- all of sql/install/76_rewards.sql

-- all of sql/install/77_evaluation.sql

-- all of sql/install/78_corrections.sql

-- all of sql/install/79_adapters.sql

-- all of sql/install/78_agents.sql

-- all of sql/install/81_training.sql

-- all of sql/install/82_training_views.sql

-- all of sql/install/83_training_control.sql

-- all of sql/install/83_training_plot.sql

-- all of sql/install/84_training_tasks.sql

-- What belongs to a role that was dropped is not carried: its number is another role's in another cluster.
SELECT pg_catalog.pg_extension_config_dump('annotator', $$WHERE owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('job', $$WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('agent', $$WHERE owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('agent_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('agent_run', $$WHERE state IN ('done', 'failed') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('agent_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('agent_step',
    $$WHERE run IN (SELECT a.id FROM @extschema@.agent_run a JOIN pg_catalog.pg_roles r ON r.oid = a.owner)$$);
SELECT pg_catalog.pg_extension_config_dump('correction', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_version', $$WHERE owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('adapter_version_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_piece',
    $$WHERE adapter_id IN (SELECT v.id FROM @extschema@.adapter_version v JOIN pg_catalog.pg_roles r ON r.oid = v.owner)$$);
SELECT pg_catalog.pg_extension_config_dump('adapter_grant', $$WHERE role IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
-- Trainings that have ended, with what they learnt from; those that have not would go on where nobody asked for it.
SELECT pg_catalog.pg_extension_config_dump('training_run',
    $$WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('training_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('training_example',
    $$WHERE training IN (SELECT id FROM @extschema@.training_run WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r))$$);
SELECT pg_catalog.pg_extension_config_dump('training_statistics',
    $$WHERE training IN (SELECT id FROM @extschema@.training_run WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r))$$);
SELECT pg_catalog.pg_extension_config_dump('training_answer',
    $$WHERE training IN (SELECT id FROM @extschema@.training_run WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r))$$);
SELECT pg_catalog.pg_extension_config_dump('training_grant', $$WHERE role IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);

-- It is for nobody but its owner, whatever default privileges say.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT DISTINCT
               CASE WHEN p.oid IS NOT NULL THEN pg_catalog.format('ROUTINE %s', p.oid::pg_catalog.regprocedure)
                    WHEN c.relkind = 'S' THEN pg_catalog.format('SEQUENCE %s', c.oid::pg_catalog.regclass)
                    ELSE pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass) END AS object,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'minimax_m1'
        LEFT JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
        LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid
        CROSS JOIN LATERAL
            pg_catalog.aclexplode(coalesce(c.relacl, p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
          AND d.classid || '.' || d.objid
              <> ALL (pg_catalog.current_setting('minimax_m1_update.members')::text[])
          AND a.grantee <> coalesce(c.relowner, p.proowner)
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', r.object, r.grantee);
    END LOOP;
END
$$;
