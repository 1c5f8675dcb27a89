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
    read_sql := format('SELECT %s FROM %s t WHERE %s',
                       concat_ws(', ', 't.tableoid', inputs, format('t.%I', a.target_column)), relation, matches);
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
    top_p float8 DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION create_annotator IS 'keeps a column of a table filled from a prompt over other columns';

CREATE FUNCTION _alter_annotator(
    caller oid, annotator name, template text, json_schema json_text, mode text, max_attempts int, fire text,
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
    IF a.json_schema::text IS DISTINCT FROM o.json_schema::text THEN
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
    top_p float8 DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION alter_annotator IS 'changes what is not NULL; enabled => false holds its rows back';

CREATE FUNCTION _check_json_schema(caller oid, json_schema json_text) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_json_schema' LANGUAGE C STRICT;

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
    EXECUTE format('GRANT USAGE ON SCHEMA @extschema@ TO %s', role);
    FOR fn IN
        SELECT p.oid
        FROM pg_proc p
        WHERE p.pronamespace = '@extschema@'::regnamespace
          AND p.proname NOT IN ('grant_usage', 'stats_reset', 'set_quota', 'set_price', 'usage_reset')
          -- what makes a json_text of jsonb, and what an agent is made of, is called in the caller's name
          AND (p.proname NOT LIKE '\_%' OR p.proname LIKE '\_json\_text\_%' OR p.proname LIKE '\_agent\_%')
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

CREATE VIEW annotators WITH (security_barrier) AS
SELECT a.name, a.source, a.target_column, a.reasoning_column, a.status_column, a.template, a.mode, a.fire, a.enabled,
       a.max_attempts, a.system_prompt, a.max_tokens, a.thinking_budget, a.temperature, a.top_p, a.json_schema,
       a.owner, q.pending, q.running, q.failed, q.oldest_age,
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
              WHERE p.oid = ANY ('{@extschema@._check_annotated_table(oid\,oid), @extschema@._lock_annotated(regclass)}'::pg_catalog.regprocedure[])
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
        IF o.forget IS NOT NULL THEN
            EXECUTE o.forget;
        END IF;
    END LOOP;
END
$$;

-- An answer that cannot be written yet is kept: the hash of the prompt that content answers.
ALTER TABLE job ADD COLUMN answered bytea;

-- ---- Learning ----

-- What was there before this, so that what is new can be told from it.
SELECT pg_catalog.set_config('minimax_m1_update.members', pg_catalog.array_agg(d.classid || '.' || d.objid)::text, true)
FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'minimax_m1'
WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e';

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

-- ---- Rewards: how good an answer is ----
--
-- Any function (answer text, example jsonb [, reasoning text]) returns float8 is one; these are ready. The example is
-- the row of the query that the prompt came from. NULL is no opinion.

CREATE FUNCTION reward_exact(answer text, example jsonb) RETURNS float8
AS 'MODULE_PATHNAME', 'm1pg_reward_exact' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION reward_exact IS 'reward: 1 if the answer is the text in the column answer, else 0';

CREATE FUNCTION reward_number(answer text, example jsonb) RETURNS float8
AS 'MODULE_PATHNAME', 'm1pg_reward_number' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION reward_number IS
    'reward: 1 if the number in the last \boxed{} of the answer, or its last one, is that in the column answer, else 0';

-- Unsafe in parallel, as others below: they go back to where they were when what they try fails.
CREATE FUNCTION reward_json(answer text, example jsonb) RETURNS float8
AS 'MODULE_PATHNAME', 'm1pg_reward_json' LANGUAGE C IMMUTABLE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION reward_json IS
    'reward: the share of fields that the answer, as JSON, has in common with the column answer';

CREATE FUNCTION reward_sql(answer text, example jsonb) RETURNS float8
AS 'MODULE_PATHNAME', 'm1pg_reward_sql' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION reward_sql IS
    'reward: 1 if the answer is a query with the rows of the query in the column answer, run as the column role, else 0';

CREATE FUNCTION reward_format(answer text, example jsonb) RETURNS float8
AS 'MODULE_PATHNAME', 'm1pg_reward_format' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION reward_format IS
    'reward: 1 if the answer matches the regular expression in the column format, else 0';

CREATE FUNCTION reward_length(answer text, example jsonb) RETURNS float8
AS 'MODULE_PATHNAME', 'm1pg_reward_length' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION reward_length IS
    'reward: 1 up to the characters in the column max_length, then less, and 0 from twice as many on';

-- The model itself grades, in five grades, with the likeliest answer and as it is without an adapter.
CREATE FUNCTION reward_judge(answer text, example jsonb) RETURNS float8
LANGUAGE plpgsql VOLATILE STRICT PARALLEL RESTRICTED COST 1000000
SET search_path = pg_catalog, pg_temp
SET minimax_m1.temperature = 0
SET minimax_m1.adapter = ''
SET minimax_m1.on_error = 'error'
AS $$
DECLARE
    grades constant text[] := ARRAY['wrong', 'mostly wrong', 'half right', 'mostly right', 'right'];
BEGIN
    IF NOT example ?& ARRAY['prompt', 'answer'] THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_column',
            MESSAGE = 'minimax_m1: the example lacks a column "prompt" or "answer"',
            HINT = 'Let the query of the examples return both: the question, and the answer to compare with.';
    ELSIF example->>'prompt' IS NULL OR example->>'answer' IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (array_position(grades, (@extschema@.classify(
        format(E'Question: %s\n\nReference answer: %s\n\nAnswer to grade: %s',
               example->>'prompt', example->>'answer', answer), grades))[1]) - 1) / 4.0;
END
$$;

COMMENT ON FUNCTION reward_judge IS
    'reward: how right the model finds the answer beside the column answer, in five grades from 0 to 1';

-- ---- Evaluation: what answers to the rows of a query are worth ----
--
-- A query is given as text. It runs once, as whoever calls, read only; its column prompt (or messages) is what is asked.
-- Unsafe in parallel: rewards and queries are tried in subtransactions. Those that take a query have no search_path of
-- their own, because query and reward are to mean what they mean to the caller.

CREATE FUNCTION evaluate(
    query text,
    reward text,
    adapter text DEFAULT NULL,
    samples int DEFAULT NULL,
    items int DEFAULT NULL,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    OUT adapter text,
    OUT item int,
    OUT sample int,
    OUT content text,
    OUT reasoning text,
    OUT tool_calls json,
    OUT reward float8,
    OUT finish_reason text,
    OUT prompt_tokens int,
    OUT completion_tokens int,
    OUT error text,
    OUT example jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_evaluate'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 100;

COMMENT ON FUNCTION evaluate(text, text, text, int, int, text, int, int, float8, float8, bigint) IS
    'answers the rows of a query, and says what the reward makes of each answer';

CREATE FUNCTION evaluate(
    query text,
    reward text,
    adapters text[],
    samples int DEFAULT NULL,
    items int DEFAULT NULL,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    OUT adapter text,
    OUT item int,
    OUT sample int,
    OUT content text,
    OUT reasoning text,
    OUT tool_calls json,
    OUT reward float8,
    OUT finish_reason text,
    OUT prompt_tokens int,
    OUT completion_tokens int,
    OUT error text,
    OUT example jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_evaluate'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 100;

COMMENT ON FUNCTION evaluate(text, text, text[], int, int, text, int, int, float8, float8, bigint) IS
    'the same with several adapters, where the one that is called base is none';

-- The chance that of k answers at least one is right, where `correct` of so many were: without the bias that counting
-- only the first k would have.
CREATE FUNCTION pass_at_k(answers bigint, correct bigint, k int) RETURNS float8
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    all_wrong float8 := 1;
BEGIN
    IF k < 1 OR k > answers OR correct NOT BETWEEN 0 AND answers THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: k or correct is out of range',
            DETAIL = format('k is %s, and %s of %s answers are correct.', k, correct, answers);
    END IF;
    FOR i IN 0 .. k - 1 LOOP
        all_wrong := all_wrong * greatest(answers - correct - i, 0) / (answers - i);
    END LOOP;
    RETURN 1 - all_wrong;
END
$$;

COMMENT ON FUNCTION pass_at_k IS 'the chance that at least one of k answers is right, from more answers than k';

-- The exact test of McNemar: how likely a difference at least as great is where wins and losses are a matter of chance.
CREATE FUNCTION mcnemar_p(wins bigint, losses bigint) RETURNS float8
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    n bigint := wins + losses;
    log_term float8 := n * ln(0.5::float8);
    tail float8 := 0;
BEGIN
    IF wins < 0 OR losses < 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'minimax_m1: wins or losses is negative';
    END IF;
    FOR i IN 0 .. least(wins, losses) LOOP
        -- smaller ones add nothing
        IF log_term > -700 THEN
            tail := tail + exp(log_term);
        END IF;
        IF i < n THEN
            log_term := log_term + ln((n - i)::float8 / (i + 1));
        END IF;
    END LOOP;
    RETURN least(1, 2 * tail);
END
$$;

COMMENT ON FUNCTION mcnemar_p IS 'exact two-sided p of McNemar''s test for pairs that one side wins or loses';

-- A pair is a row of the query: an adapter's mean reward over its samples beside that of the first adapter.
CREATE FUNCTION compare(
    query text,
    reward text,
    adapters text[],
    samples int DEFAULT NULL,
    items int DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    OUT adapter text,
    OUT n int,
    OUT mean float8,
    OUT low float8,
    OUT high float8,
    OUT tokens float8,
    OUT errors int,
    OUT wins int,
    OUT ties int,
    OUT losses int,
    OUT p float8)
RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 2
AS $$
    WITH answer AS MATERIALIZED (
        SELECT e.* FROM @extschema@.evaluate(query, reward, adapters, samples, items, NULL, max_tokens, thinking_budget,
                                             temperature, top_p, seed) e),
    item AS (
        SELECT a.adapter, a.item, avg(a.reward) AS reward, sum(a.completion_tokens) AS tokens,
               count(a.completion_tokens) AS answers, count(a.error) AS errors
        FROM answer a GROUP BY a.adapter, a.item),
    pair AS (
        SELECT i.*, sign(i.reward - f.reward) AS won
        FROM item i LEFT JOIN item f ON f.item = i.item AND f.adapter = adapters[1] AND f.adapter <> i.adapter),
    total AS (
        SELECT t.adapter, count(t.reward)::int AS n, nullif(count(t.reward), 0) AS d, avg(t.reward) AS mean, coalesce(stddev_samp(t.reward), 0) AS spread,
               min(t.reward) >= 0 AND max(t.reward) <= 1 AS is_share, sum(t.tokens) / nullif(sum(t.answers), 0) AS tokens,
               sum(t.errors)::int AS errors, count(*) FILTER (WHERE t.won > 0)::int AS wins,
               count(*) FILTER (WHERE t.won = 0)::int AS ties, count(*) FILTER (WHERE t.won < 0)::int AS losses,
               count(t.won) > 0 AS paired
        FROM pair t GROUP BY t.adapter)
    SELECT t.adapter, t.n, t.mean,
           -- of shares the interval of Wilson, which is no point where all are right
           CASE WHEN is_share THEN (t.mean + z2 / 2 / t.d - half) / (1 + z2 / t.d) ELSE t.mean - z * t.spread / sqrt(t.d) END,
           CASE WHEN is_share THEN (t.mean + z2 / 2 / t.d + half) / (1 + z2 / t.d) ELSE t.mean + z * t.spread / sqrt(t.d) END,
           t.tokens::float8, t.errors, CASE WHEN t.paired THEN t.wins END, CASE WHEN t.paired THEN t.ties END,
           CASE WHEN t.paired THEN t.losses END, CASE WHEN t.paired THEN @extschema@.mcnemar_p(t.wins, t.losses) END
    FROM total t, LATERAL (SELECT 1.959964::float8 AS z, 1.959964::float8 ^ 2 AS z2) c,
         LATERAL (SELECT z * sqrt(greatest(t.mean * (1 - t.mean), 0) / t.d + z2 / 4 / t.d ^ 2) AS half
                  WHERE is_share UNION ALL SELECT NULL WHERE is_share IS NOT TRUE) h
    ORDER BY array_position(adapters, t.adapter)
$$;

COMMENT ON FUNCTION compare IS 'what adapters get for the rows of a query, with 95 % intervals, and each beside the first';

-- What a training by this reward would begin with: what can be learnt from is a group of answers whose rewards differ.
CREATE FUNCTION training_check(
    query text,
    reward text,
    adapter text DEFAULT NULL,
    group_size int DEFAULT 8,
    groups int DEFAULT 32,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    seed bigint DEFAULT NULL,
    OUT answers int,
    OUT pass_rate float8,
    OUT mean float8,
    OUT solved float8,
    OUT hopeless float8,
    OUT useful float8,
    OUT tokens float8,
    OUT truncated float8,
    OUT errors int,
    OUT seconds float8,
    OUT advice text)
RETURNS record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
AS $$
DECLARE
    began timestamptz := clock_timestamp();
    first_error text;
    seen int;
    graded int;
BEGIN
    IF group_size < 2 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: group_size is out of range',
            DETAIL = format('It is %s; it must be at least 2: answers are compared with each other.', group_size);
    END IF;
    WITH answer AS MATERIALIZED (
        SELECT e.* FROM @extschema@.evaluate(query, reward, adapter, group_size, groups, NULL, max_tokens, thinking_budget,
                                             1, 1, seed) e),
    one AS (
        SELECT min(a.reward) AS least, max(a.reward) AS most FROM answer a GROUP BY a.item)
    SELECT a.answers, a.pass_rate, a.mean, g.solved, g.hopeless, g.useful, a.tokens, a.truncated, a.errors, a.first_error,
           g.n, a.graded
    INTO answers, pass_rate, mean, solved, hopeless, useful, tokens, truncated, errors, first_error, seen, graded
    FROM (SELECT count(*)::int AS answers, avg((a.reward >= 1)::int)::float8 AS pass_rate, avg(a.reward) AS mean,
                 avg(a.completion_tokens)::float8 AS tokens, avg((a.finish_reason = 'length')::int)::float8 AS truncated,
                 count(a.error)::int AS errors, count(a.reward)::int AS graded,
                 (array_agg(a.error) FILTER (WHERE a.error IS NOT NULL))[1] AS first_error
          FROM answer a) a,
         (SELECT count(*) AS n, avg((o.least >= 1)::int)::float8 AS solved, avg((o.most <= 0)::int)::float8 AS hopeless,
                 avg((o.most > o.least)::int)::float8 AS useful
          FROM one o) g;
    seconds := extract(epoch FROM clock_timestamp() - began);
    advice := CASE
        WHEN errors = answers THEN 'every answer failed: ' || first_error
        WHEN graded = 0 THEN 'the reward has no opinion of any answer: it is always NULL'
        WHEN errors > 0 THEN format('%s of %s answers failed, the first with: %s', errors, answers, first_error)
        WHEN truncated > 0.2 THEN format('%s %% of the answers are cut off: raise max_tokens, or set a thinking_budget',
                                         round(100 * truncated))
        WHEN useful = 0 AND hopeless = 1 THEN
            'nothing to learn from: no answer is right. Show right answers first, ask for less, or give partial rewards'
        WHEN useful = 0 AND solved = 1 THEN 'nothing to learn: all answers are right already'
        WHEN useful = 0 THEN 'nothing to learn from: within each row, all answers get the same reward'
        WHEN useful < 0.1 THEN format('little to learn from: answers differ in %s of %s rows. Leave out rows that are always '
                                      'right or always wrong, or raise group_size', round(useful * seen), seen)
        ELSE format('answers differ in %s of %s rows: there is something to learn from', round(useful * seen), seen) END;
END
$$;

COMMENT ON FUNCTION training_check IS 'whether a training by this reward has anything to learn from, and what it would cost';

-- ---- Corrections: annotations that somebody has changed by hand ----

CREATE FUNCTION corrections(
    annotator name,
    OUT prompt text,
    OUT wrong text,
    OUT "right" text,
    OUT system_prompt text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_corrections' LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION corrections IS 'the annotations that were changed by hand: what was asked, what was wrong, and what is right';

-- ---- Adapters: small differences to the model's weights, as rows ----
--
-- What PEFT keeps in a folder is here: adapter_config.json as text, adapter_model.safetensors in pieces. So transactions,
-- dumps, replication and rights hold for adapters. A name has versions, which never change.

CREATE TABLE adapter_version (
    id serial PRIMARY KEY,
    name name NOT NULL,
    version int NOT NULL,
    owner regrole NOT NULL,
    base_digest text,                   -- of the model that it was trained on; NULL = its maker did not say
    digest text NOT NULL,               -- of config and pieces: equal adapters have equal ones
    rank int NOT NULL,
    bytes bigint NOT NULL,
    config json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    UNIQUE (name, version));

CREATE TABLE adapter_piece (
    adapter_id int,
    piece int,
    data bytea NOT NULL,
    PRIMARY KEY (adapter_id, piece));

-- Weights do not become smaller.
ALTER TABLE adapter_piece ALTER COLUMN data SET STORAGE EXTERNAL;

-- Who may use an adapter beside its owner, in all versions.
CREATE TABLE adapter_grant (
    name name,
    role regrole,
    PRIMARY KEY (name, role));

CREATE VIEW adapter WITH (security_barrier) AS
SELECT v.name, v.version, v.owner, v.base_digest, v.digest, v.rank, v.bytes, v.created_at,
       v.version = max(v.version) OVER (PARTITION BY v.name) AS latest
FROM @extschema@.adapter_version v
WHERE pg_has_role(v.owner::oid, 'USAGE')
      OR EXISTS (SELECT FROM @extschema@.adapter_grant g WHERE g.name = v.name AND pg_has_role(g.role::oid, 'USAGE'));

COMMENT ON VIEW adapter IS 'the adapters that one may use, each version of them';

-- Raises an error unless the caller owns the adapter of this name.
CREATE FUNCTION _adapter_owned(caller oid, adapter name) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM @extschema@.adapter_version v
                   WHERE v.name = adapter AND pg_has_role(caller, v.owner::oid, 'USAGE')) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('minimax_m1: adapter "%s" does not exist', adapter),
            HINT = 'The view minimax_m1.adapter shows those that you may use; only its owner may do this.';
    END IF;
END
$$;

-- Files of the server are for superusers.
CREATE FUNCTION _adapter_of_files(caller oid, what text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE oid = caller) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = format('minimax_m1: permission denied to %s an adapter', what),
            DETAIL = 'Only superusers read and write files of the server.';
    END IF;
END
$$;

-- What the header of a safetensors file says of itself: eight bytes of its length, then JSON.
CREATE FUNCTION _safetensors_header(path text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    prefix bytea := pg_read_binary_file(path, 0, 8);
    length bigint := 0;
BEGIN
    IF length(prefix) = 8 THEN
        FOR i IN REVERSE 7 .. 0 LOOP
            -- more than 2^55 bytes are none
            EXIT WHEN i = 7 AND get_byte(prefix, i) > 0;
            length := length * 256 + get_byte(prefix, i);
        END LOOP;
    END IF;
    IF length NOT BETWEEN 2 AND 100000000 OR length + 8 > (pg_stat_file(path)).size THEN
        RAISE EXCEPTION 'no header';
    END IF;
    RETURN convert_from(pg_read_binary_file(path, 8, length), 'UTF8')::jsonb;
EXCEPTION WHEN raise_exception OR invalid_text_representation OR character_not_in_repertoire OR untranslatable_character THEN
    RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
        MESSAGE = format('minimax_m1: "%s" is not a safetensors file', path);
END
$$;

-- The config that PEFT writes, once it is one.
CREATE FUNCTION _adapter_config(path text) RETURNS json
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    config json;
BEGIN
    config := convert_from(pg_read_binary_file(path), 'UTF8');
    IF json_typeof(config) = 'object' AND config->>'peft_type' = 'LORA' AND config->>'r' ~ '^[0-9]{1,4}$' THEN
        RETURN config;
    END IF;
    RAISE EXCEPTION 'no config';
EXCEPTION WHEN raise_exception OR invalid_text_representation OR character_not_in_repertoire OR untranslatable_character THEN
    RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
        MESSAGE = format('minimax_m1: "%s" is not the config of an adapter', path),
        DETAIL = 'It must be a JSON object with peft_type LORA and a rank r.';
END
$$;

CREATE FUNCTION _import_adapter(caller oid, name name, folder text) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    piece_bytes constant int := 1048576;
    path text := folder || '/adapter_model.safetensors';
    config json;
    header jsonb;
    size bigint;
    next_version int;
    adapter int;
BEGIN
    PERFORM @extschema@._adapter_of_files(caller, 'import');
    IF name IS NULL OR folder IS NULL OR name IN ('', 'base') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: name or folder is NULL, or no name for an adapter',
            DETAIL = 'base is the name of the model without one.';
    END IF;
    config := @extschema@._adapter_config(folder || '/adapter_config.json');
    header := @extschema@._safetensors_header(path);
    size := (pg_stat_file(path)).size;
    -- two that import the same name wait for each other
    LOCK TABLE @extschema@.adapter_version IN SHARE ROW EXCLUSIVE MODE;
    SELECT max(v.version) INTO next_version FROM @extschema@.adapter_version v WHERE v.name = _import_adapter.name;
    IF next_version IS NOT NULL THEN
        PERFORM @extschema@._adapter_owned(caller, name);
    END IF;
    INSERT INTO @extschema@.adapter_version (name, version, owner, base_digest, digest, rank, bytes, config)
    VALUES (name, coalesce(next_version, 0) + 1, caller::regrole, header #>> '{__metadata__,base_digest}', '',
            (config->>'r')::int, size, config)
    RETURNING id, version INTO adapter, next_version;
    INSERT INTO @extschema@.adapter_piece (adapter_id, piece, data)
    SELECT adapter, p, pg_read_binary_file(path, p * piece_bytes::bigint, piece_bytes)
    FROM generate_series(0, ((size - 1) / piece_bytes)::int) p;
    IF (SELECT sum(length(p.data)) FROM @extschema@.adapter_piece p WHERE p.adapter_id = adapter) <> size THEN
        RAISE EXCEPTION USING ERRCODE = 'io_error',
            MESSAGE = format('minimax_m1: "%s" changed while it was read', path);
    END IF;
    UPDATE @extschema@.adapter_version v SET digest = @extschema@._adapter_digest(adapter) WHERE v.id = adapter;
    RETURN next_version;
END
$$;

-- A hash of hashes, so that no more than a piece is in memory.
CREATE FUNCTION _adapter_digest(adapter int) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT encode(sha256(sha256(convert_to(v.config::text, 'UTF8'))
                         || (SELECT string_agg(sha256(p.data), '' ORDER BY p.piece)
                             FROM @extschema@.adapter_piece p WHERE p.adapter_id = v.id)), 'hex')
    FROM @extschema@.adapter_version v WHERE v.id = adapter
$$;

CREATE FUNCTION import_adapter(name name, folder text) RETURNS int
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION import_adapter IS 'keeps an adapter of a folder in PEFT''s format, as a new version of the name; returns that';

CREATE FUNCTION _export_adapter(caller oid, name name, folder text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v @extschema@.adapter_version;
    lo oid;
    place bigint := 0;
    p record;
BEGIN
    PERFORM @extschema@._adapter_of_files(caller, 'export');
    SELECT a.* INTO v FROM @extschema@.adapter_version a WHERE a.name = _export_adapter.name ORDER BY a.version DESC LIMIT 1;
    IF v.id IS NULL THEN
        PERFORM @extschema@._adapter_owned(caller, name);
    ELSIF @extschema@._adapter_digest(v.id) <> v.digest THEN
        RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
            MESSAGE = format('minimax_m1: adapter "%s" is not what was stored', name);
    END IF;
    lo := lo_from_bytea(0, convert_to(v.config::text, 'UTF8'));
    PERFORM lo_export(lo, folder || '/adapter_config.json'), lo_unlink(lo);
    lo := lo_create(0);
    FOR p IN SELECT * FROM @extschema@.adapter_piece t WHERE t.adapter_id = v.id ORDER BY t.piece LOOP
        PERFORM lo_put(lo, place, p.data);
        place := place + length(p.data);
    END LOOP;
    PERFORM lo_export(lo, folder || '/adapter_model.safetensors'), lo_unlink(lo);
END
$$;

CREATE FUNCTION export_adapter(name name, folder text) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION export_adapter IS 'writes the latest version of an adapter into a folder that is there, in PEFT''s format';

CREATE FUNCTION _grant_adapter(caller oid, name name, role regrole) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT @extschema@._adapter_owned(caller, name);
    INSERT INTO @extschema@.adapter_grant VALUES (name, role) ON CONFLICT DO NOTHING;
$$;

CREATE FUNCTION grant_adapter(name name, role regrole) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION grant_adapter IS 'allows a role to use an adapter of one''s own, which may repeat what it was trained on';

CREATE FUNCTION _revoke_adapter(caller oid, name name, role regrole) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT @extschema@._adapter_owned(caller, name);
    DELETE FROM @extschema@.adapter_grant g WHERE g.name = $2 AND g.role = $3;
$$;

CREATE FUNCTION revoke_adapter(name name, role regrole) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION revoke_adapter IS 'takes back what grant_adapter() has given';

CREATE FUNCTION _drop_adapter(caller oid, name name) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT @extschema@._adapter_owned(caller, name);
    DELETE FROM @extschema@.adapter_piece p USING @extschema@.adapter_version v WHERE v.id = p.adapter_id AND v.name = $2;
    DELETE FROM @extschema@.adapter_grant g WHERE g.name = $2;
    DELETE FROM @extschema@.adapter_version v WHERE v.name = $2;
$$;

CREATE FUNCTION drop_adapter(name name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION drop_adapter IS 'forgets an adapter in all versions';

-- ---- Agents: the model answers with the help of functions of this database ----
--
-- A run is a loop: the model writes an answer or calls, calls are made, and what they return goes back as turns of
-- tools. Everything runs with the rights of the caller. What begins with _agent is called by these functions in the
-- caller's name, so that it gives nobody anything that the caller has not.

CREATE TABLE agent (
    id serial PRIMARY KEY,
    owner regrole NOT NULL,
    name name NOT NULL,
    tools regprocedure[] NOT NULL,
    instructions text,
    limits jsonb NOT NULL DEFAULT '{}',
    UNIQUE (owner, name));

CREATE TABLE agent_run (
    id bigserial PRIMARY KEY,
    owner regrole NOT NULL,
    question text NOT NULL,
    tools text[] NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('queued', 'running', 'done', 'failed')),
    started_at timestamptz DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    -- of one that was submitted
    definition jsonb,
    path text,                          -- the search_path of who submitted it
    lease interval,
    attempts int NOT NULL DEFAULT 0,
    claimed_until timestamptz);

CREATE INDEX agent_run_due ON agent_run (id) WHERE state IN ('queued', 'running');

CREATE INDEX agent_run_owner ON agent_run (owner, id);

CREATE TABLE agent_step (
    run bigint NOT NULL,
    step int NOT NULL,
    kind text NOT NULL CHECK (kind IN ('reasoning', 'call', 'result', 'answer', 'error')),
    tool text,
    arguments jsonb,
    body text,
    error text,
    tokens int,
    ms float8,
    PRIMARY KEY (run, step));

-- ---- tools ----

-- The schema of the values that a type takes from JSON, in the words of JSON Schema.
CREATE FUNCTION _agent_schema(type oid, nullable boolean) RETURNS json
AS 'MODULE_PATHNAME', 'm1pg_agent_schema' LANGUAGE C STABLE STRICT;

-- The arguments of a function that a call gives, in their order.
CREATE FUNCTION _agent_arguments(
    function oid, OUT name text, OUT type oid, OUT is_optional boolean, OUT place int)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(a.name, ''), a.type, a.place > p.pronargs - p.pronargdefaults, a.place::int
    FROM pg_proc p,
         LATERAL (SELECT x.name, x.type, row_number() OVER (ORDER BY x.ord) AS place
                  FROM ROWS FROM (unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])), unnest(p.proargnames),
                                  unnest(p.proargmodes)) WITH ORDINALITY AS x(type, name, mode, ord)
                  WHERE coalesce(x.mode, 'i') IN ('i', 'b', 'v')) a
    WHERE p.oid = function
    ORDER BY a.place
$$;

-- What keeps a function from being a tool; NULL if nothing does.
CREATE FUNCTION _agent_fault(function oid, read_only boolean) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN p.oid IS NULL THEN 'it does not exist'
                WHEN p.prokind <> 'f' THEN 'it is no plain function'
                WHEN p.provariadic <> 0 THEN 'it takes any number of arguments'
                WHEN r.typtype = 'p' AND r.typname NOT IN ('void', 'record') THEN 'it returns ' || r.typname
                WHEN EXISTS (SELECT FROM @extschema@._agent_arguments(p.oid) a JOIN pg_type t ON t.oid = a.type
                             WHERE a.name = '' OR t.typtype = 'p')
                    THEN 'it has an argument without a name, or of a pseudo-type'
                WHEN read_only AND p.provolatile = 'v'
                    THEN 'it is VOLATILE, and the agent is read only'
           END
    FROM (SELECT function AS id) f LEFT JOIN pg_proc p ON p.oid = f.id LEFT JOIN pg_type r ON r.oid = p.prorettype
$$;

-- The definitions that the model is shown, in the order of the list; raises what keeps a function from being one.
CREATE FUNCTION _agent_tools(tools regprocedure[], read_only boolean) RETURNS json
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f regprocedure;
    fault text;
BEGIN
    FOREACH f IN ARRAY coalesce(tools, '{}') LOOP
        fault := CASE WHEN f IS NULL THEN 'it is NULL' ELSE @extschema@._agent_fault(f, read_only) END;
        IF fault IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('minimax_m1: %s is no tool: %s', f, fault),
                HINT = CASE WHEN fault LIKE '%VOLATILE%'
                            THEN 'Declare it STABLE if it changes nothing, or say read_only => false.'
                            ELSE 'A tool is a function whose arguments have names and types that JSON can give.' END;
        ELSIF NOT has_function_privilege(f, 'EXECUTE') THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('permission denied for function %s', f);
        END IF;
    END LOOP;
    IF (SELECT count(DISTINCT p.proname) FROM pg_proc p WHERE p.oid = ANY (tools)) < cardinality(tools) THEN
        RAISE EXCEPTION USING ERRCODE = 'ambiguous_function',
            MESSAGE = 'minimax_m1: two of the tools have the same name',
            DETAIL = 'The model tells tools apart by their names alone.';
    END IF;
    RETURN (SELECT coalesce(json_agg(json_build_object(
                'name', p.proname,
                'description', coalesce(obj_description(p.oid, 'pg_proc'), ''),
                'parameters', json_build_object(
                    'type', 'object',
                    'properties', coalesce(a.properties, '{}'),
                    'required', coalesce(a.required, '[]'),
                    'additionalProperties', false)) ORDER BY t.place), '[]')
            FROM unnest(tools) WITH ORDINALITY AS t(function, place)
            JOIN pg_proc p ON p.oid = t.function,
            LATERAL (SELECT json_object_agg(x.name, @extschema@._agent_schema(x.type, x.is_optional) ORDER BY x.place) AS properties,
                            json_agg(x.name ORDER BY x.place) FILTER (WHERE NOT x.is_optional) AS required
                     FROM @extschema@._agent_arguments(p.oid) x) a);
END
$$;

-- Calls the function with the arguments of a JSON object, in a subtransaction, and tells what it returned as JSON (a
-- text as it is), or why it failed. `path` is the caller's search_path.
CREATE FUNCTION _agent_call(
    function oid, arguments json, read_only boolean, limit_ms int, max_rows int, path text,
    OUT body text, OUT error text, OUT n_rows bigint)
AS 'MODULE_PATHNAME', 'm1pg_agent_call' LANGUAGE C VOLATILE;

-- Whether the rights are not those of the role that asks: inside SECURITY DEFINER, and the like.
CREATE FUNCTION _agent_in_definer() RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_agent_in_definer' LANGUAGE C VOLATILE;

-- Why a tool may not be called any more: a row that was read may have asked for it. NULL: it may.
CREATE FUNCTION _agent_refusal(function oid, has_read boolean, confirmed oid[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'rows have been read, and whoever asks has not confirmed that this tool may be called then'
    FROM pg_proc p
    WHERE p.oid = function AND p.provolatile = 'v' AND has_read AND p.oid <> ALL (confirmed)
$$;

-- The text, cut to so many tokens.
CREATE FUNCTION _agent_cut(body text, max_tokens int, OUT kept text, OUT tokens int)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    whole int := @extschema@.count_tokens(body);
BEGIN
    kept := body;
    tokens := whole;
    WHILE tokens > max_tokens AND length(kept) > 0 LOOP
        kept := left(kept, least(length(kept) - 1, (length(kept)::float8 * max_tokens / tokens)::int));
        tokens := @extschema@.count_tokens(kept);
    END LOOP;
    IF tokens < whole THEN
        kept := kept || format(E'\n[cut: the result has %s tokens, of which %s are shown]', whole, tokens);
    END IF;
END
$$;

-- ---- what is kept of runs ----

CREATE FUNCTION __agent_begin(caller oid, question text, tools text[]) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO @extschema@.agent_run (owner, question, tools) VALUES (caller, question, tools) RETURNING id
$$;

CREATE FUNCTION _agent_begin(question text, tools text[]) RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

CREATE FUNCTION __agent_note(
    caller oid, run bigint, step int, kind text, tool text, arguments jsonb, body text, error text, tokens int, ms float8)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO @extschema@.agent_step
    SELECT r.id, step, kind, tool, arguments, body, error, tokens, ms
    FROM @extschema@.agent_run r WHERE r.id = run AND r.owner = caller AND r.state = 'running';
    UPDATE @extschema@.agent_run r
    SET state = CASE kind WHEN 'answer' THEN 'done' ELSE 'failed' END, finished_at = clock_timestamp()
    WHERE r.id = run AND r.owner = caller AND r.state = 'running' AND kind IN ('answer', 'error');
    SELECT @extschema@._queue_changed()
    FROM @extschema@.agent_run r WHERE r.id = run AND r.definition IS NOT NULL AND kind IN ('answer', 'error')
$$;

CREATE FUNCTION _agent_note(
    run bigint, step int, kind text, tool text, arguments jsonb, body text, error text, tokens int, ms float8)
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

-- ---- the run ----

-- path and longest_request are the caller's search_path and minimax_m1.request_timeout. run: one that was submitted, or
-- NULL.
CREATE FUNCTION _agent_run(
    question text, tools regprocedure[], system_prompt text, max_calls int, max_steps int, timeout interval,
    read_only boolean, confirm regprocedure[], max_tokens int, max_total_tokens int, call_timeout interval, max_rows int,
    max_result_tokens int, thinking_budget int, temperature float8, seed bigint, path text, longest_request int,
    run bigint,
    OUT step int, OUT kind text, OUT tool text, OUT arguments jsonb, OUT body text, OUT error text, OUT tokens int,
    OUT ms float8)
RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET minimax_m1.request_timeout = 0
AS $$
#variable_conflict use_column
DECLARE
    definitions json := @extschema@._agent_tools(tools, read_only);
    turns json[] := ARRAY[json_build_object('role', 'user', 'content', question)];
    deadline timestamptz := clock_timestamp() + timeout;
    keeps boolean := run IS NOT NULL OR NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean;
    n int := 0;
    calls int := 0;
    spent bigint := 0;
    has_read boolean := false;
    asked timestamptz;
    began timestamptz;
    reply record;
    call json;
    f oid;
    r record;
BEGIN
    step := 0;
    IF keeps AND run IS NULL THEN
        run := @extschema@._agent_begin(question, (SELECT coalesce(array_agg(t::text), '{}') FROM unnest(tools) t));
    END IF;
    LOOP
        n := n + 1;
        kind := NULL; tool := NULL; arguments := NULL; body := NULL; error := NULL; tokens := NULL; ms := NULL;
        asked := clock_timestamp();
        IF asked >= deadline THEN
            error := format('the run took longer than %s', timeout);
        ELSIF spent >= max_total_tokens THEN
            error := format('the run used %s tokens: max_total_tokens is %s', spent, max_total_tokens);
        ELSIF n > max_steps THEN
            error := format('there was no answer after %s replies', max_steps);
        ELSE
            BEGIN
                PERFORM set_config('minimax_m1.request_timeout', least(nullif(longest_request, 0),
                    greatest(1, ceil(extract(epoch FROM deadline - asked) * 1000)), 2147483647)::int::text, true);
                SELECT * INTO reply
                FROM @extschema@.complete(
                    messages => to_json(turns)::@extschema@.json_text, tools => definitions::@extschema@.json_text,
                    tool_choice => CASE WHEN calls >= max_calls OR n = max_steps THEN 'none' ELSE 'auto' END,
                    system_prompt => system_prompt, max_tokens => max_tokens, thinking_budget => thinking_budget,
                    temperature => temperature, seed => seed);
            EXCEPTION
                WHEN query_canceled THEN
                    IF clock_timestamp() < deadline THEN
                        RAISE;
                    END IF;
                    error := format('the run took longer than %s', timeout);
                WHEN OTHERS THEN
                    error := SQLERRM;
            END;
        END IF;
        IF error IS NOT NULL THEN
            step := step + 1; kind := 'error'; ms := extract(epoch FROM clock_timestamp() - asked) * 1000;
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            RETURN;
        END IF;
        ms := extract(epoch FROM clock_timestamp() - asked) * 1000;
        spent := spent + reply.prompt_tokens + reply.completion_tokens;
        IF reply.reasoning IS NOT NULL THEN
            step := step + 1; kind := 'reasoning'; body := reply.reasoning; tokens := reply.reasoning_tokens;
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            ms := NULL;
        END IF;
        tokens := reply.completion_tokens - reply.reasoning_tokens;
        IF reply.tool_calls IS NULL THEN
            step := step + 1; body := reply.content;
            kind := CASE reply.finish_reason WHEN 'length' THEN 'error' WHEN 'loop' THEN 'error' ELSE 'answer' END;
            error := CASE kind WHEN 'error' THEN format('the answer ended by %s', reply.finish_reason) END;
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            RETURN;
        END IF;
        turns := turns || json_build_object('role', 'assistant', 'content', reply.content, 'tool_calls', reply.tool_calls);
        FOR call IN SELECT c FROM json_array_elements(reply.tool_calls) c LOOP
            step := step + 1; kind := 'call'; tool := call->>'name'; arguments := call->'arguments';
            body := CASE WHEN tool IS NULL THEN call->>'text' ELSE nullif(reply.content, '') END;
            error := call->>'error';
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            reply.content := NULL; ms := NULL; tokens := NULL;

            calls := calls + 1;
            began := clock_timestamp();
            f := (SELECT p.oid FROM pg_proc p WHERE p.oid = ANY (tools) AND p.proname = tool);
            body := NULL;
            IF error IS NOT NULL THEN
                error := 'the call could not be read: ' || error;
            ELSIF f IS NULL THEN
                error := 'there is no such tool';
            ELSIF calls > max_calls THEN
                error := format('no call is left: max_calls is %s', max_calls);
            ELSIF began >= deadline THEN
                error := 'no time is left';
            ELSE
                error := @extschema@._agent_refusal(f, has_read, confirm::oid[]);
            END IF;
            IF error IS NULL THEN
                SELECT * INTO r FROM @extschema@._agent_call(f, arguments::json, read_only,
                    least(extract(epoch FROM least(call_timeout, deadline - began)) * 1000, 2147483647)::int, max_rows, path);
                body := r.body; error := r.error; has_read := has_read OR r.n_rows > 0;
            END IF;
            SELECT c.kept, c.tokens INTO body, tokens FROM @extschema@._agent_cut(coalesce('error: ' || error, body), max_result_tokens) c;
            turns := turns || json_build_object('role', 'tool', 'name', coalesce(tool, 'unknown'), 'content', body);
            step := step + 1; kind := 'result'; arguments := NULL;
            body := CASE WHEN error IS NULL THEN body END;
            ms := extract(epoch FROM clock_timestamp() - began) * 1000;
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            ms := NULL; tokens := NULL;
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION agent(
    question text,
    tools regprocedure[] DEFAULT '{}',
    system_prompt text DEFAULT NULL,
    max_calls int DEFAULT 8,
    max_steps int DEFAULT 8,
    timeout interval DEFAULT '2 minutes',
    read_only boolean DEFAULT true,
    confirm regprocedure[] DEFAULT '{}',
    max_tokens int DEFAULT NULL,
    max_total_tokens int DEFAULT 50000,
    call_timeout interval DEFAULT '10 seconds',
    max_rows int DEFAULT 50,
    max_result_tokens int DEFAULT 1000,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    in_definer boolean DEFAULT false)
RETURNS TABLE (step int, kind text, tool text, arguments jsonb, body text, error text, tokens int, ms float8)
LANGUAGE plpgsql COST 1000000 ROWS 10
AS $$
BEGIN
    IF question IS NULL THEN
        RETURN;
    ELSIF NOT coalesce(in_definer, false) AND @extschema@._agent_in_definer() THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'minimax_m1: an agent does not run inside a function that is SECURITY DEFINER',
            DETAIL = 'Whoever asks the question would have its calls made with the rights of the function''s owner.',
            HINT = 'Say in_definer => true if that is meant.';
    ELSIF pg_catalog.num_nonnulls(max_calls, max_steps, timeout, read_only, max_total_tokens, call_timeout, max_rows,
                                  max_result_tokens) OPERATOR(pg_catalog.<) 8
          OR least(max_calls, 0) OPERATOR(pg_catalog.<) 0
          OR least(max_steps, max_total_tokens, max_rows, max_result_tokens) OPERATOR(pg_catalog.<) 1
          OR least(timeout, call_timeout) OPERATOR(pg_catalog.<=) '0'::pg_catalog.interval THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: a limit of the agent is out of range',
            DETAIL = 'max_calls must be 0 or more, and all other limits above 0; none of them may be NULL.';
    END IF;
    RETURN QUERY SELECT r.* FROM @extschema@._agent_run(
        question, coalesce(tools, '{}'::pg_catalog.regprocedure[]), system_prompt, max_calls, max_steps, timeout, read_only,
        coalesce(confirm, '{}'::pg_catalog.regprocedure[]), max_tokens, max_total_tokens, call_timeout, max_rows,
        max_result_tokens, thinking_budget, temperature, seed, pg_catalog.current_setting('search_path'),
        (SELECT s.setting::pg_catalog.int4 FROM pg_catalog.pg_settings s
         WHERE s.name OPERATOR(pg_catalog.=) 'minimax_m1.request_timeout'), NULL) r;
END
$$;

COMMENT ON FUNCTION agent IS 'answers a question with the help of functions of this database, and shows each step';

CREATE FUNCTION ask(question text, tools regprocedure[] DEFAULT '{}', system_prompt text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql COST 1000000
AS $$
DECLARE
    last record;
BEGIN
    SELECT a.kind, a.body, a.error INTO last FROM @extschema@.agent(question, tools, system_prompt) a
    ORDER BY a.step DESC LIMIT 1;
    IF last.kind OPERATOR(pg_catalog.=) 'error'::pg_catalog.text THEN
        IF pg_catalog.current_setting('minimax_m1.on_error') OPERATOR(pg_catalog.=) 'null'::pg_catalog.text THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'external_routine_exception',
            MESSAGE = pg_catalog.concat('minimax_m1: there is no answer: ', last.error),
            HINT = 'agent() shows the steps.';
    END IF;
    RETURN last.body;
END
$$;

COMMENT ON FUNCTION ask IS 'the answer of an agent, read only and with the usual limits';

-- ---- agents with a name ----

CREATE FUNCTION _create_agent(caller oid, name name, tools regprocedure[], instructions text, limits jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known constant text[] := '{max_calls,max_steps,timeout,read_only,confirm,max_tokens,max_total_tokens,call_timeout,max_rows,max_result_tokens,thinking_budget,temperature}';
    other text := (SELECT min(k) FROM jsonb_object_keys(coalesce(limits, '{}')) k WHERE k <> ALL (known));
BEGIN
    IF other IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: "%s" is no limit of an agent', other),
            DETAIL = format('Limits are %s.', array_to_string(known, ', '));
    ELSIF name IS NULL OR tools IS NULL OR array_position(tools, NULL) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'minimax_m1: an agent has a name and tools';
    END IF;
    INSERT INTO @extschema@.agent (owner, name, tools, instructions, limits)
    VALUES (caller, name, tools, instructions, coalesce(limits, '{}'));
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION USING ERRCODE = 'duplicate_object', MESSAGE = format('minimax_m1: agent "%s" exists already', name);
END
$$;

CREATE FUNCTION create_agent(name name, tools regprocedure[], instructions text DEFAULT NULL, limits jsonb DEFAULT '{}')
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION create_agent IS 'gives tools, instructions and limits a name, for run_agent';

CREATE FUNCTION _drop_agent(caller oid, name name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    DELETE FROM @extschema@.agent a WHERE a.owner = caller::regrole AND a.name = name;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('minimax_m1: agent "%s" does not exist', name);
    END IF;
END
$$;

CREATE FUNCTION drop_agent(name name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION drop_agent IS 'forgets an agent; its runs stay';

CREATE VIEW agents WITH (security_barrier) AS
SELECT a.name, a.tools, a.instructions, a.limits, a.owner FROM @extschema@.agent a
WHERE pg_has_role(a.owner::oid, 'USAGE');

COMMENT ON VIEW agents IS 'one''s agents';

CREATE VIEW agent_runs WITH (security_barrier) AS
SELECT r.id, r.question, r.tools, r.state, r.started_at, r.finished_at, r.owner FROM @extschema@.agent_run r
WHERE pg_has_role(r.owner::oid, 'USAGE');

COMMENT ON VIEW agent_runs IS 'one''s runs of agents';

CREATE VIEW agent_steps WITH (security_barrier) AS
SELECT s.run, s.step, s.kind, s.tool, s.arguments, s.body, s.error, s.tokens, s.ms
FROM @extschema@.agent_step s JOIN @extschema@.agent_run r ON r.id = s.run
WHERE pg_has_role(r.owner::oid, 'USAGE');

COMMENT ON VIEW agent_steps IS 'the steps of one''s runs of agents';

CREATE FUNCTION run_agent(name name, question text)
RETURNS TABLE (step int, kind text, tool text, arguments jsonb, body text, error text, tokens int, ms float8)
LANGUAGE plpgsql COST 1000000 ROWS 10
AS $$
DECLARE
    a record;
BEGIN
    SELECT g.tools, g.instructions, g.limits AS l INTO a FROM @extschema@.agents g
    WHERE g.name OPERATOR(pg_catalog.=) run_agent.name
      AND g.owner OPERATOR(pg_catalog.=) current_user::pg_catalog.regrole;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = pg_catalog.format('minimax_m1: agent "%s" does not exist', name);
    END IF;
    RETURN QUERY SELECT r.* FROM @extschema@.agent(
        question, a.tools, a.instructions,
        max_calls => coalesce((a.l->>'max_calls')::pg_catalog.int4, 8),
        max_steps => coalesce((a.l->>'max_steps')::pg_catalog.int4, 8),
        timeout => coalesce((a.l->>'timeout')::pg_catalog.interval, '2 minutes'),
        read_only => coalesce((a.l->>'read_only')::pg_catalog.bool, true),
        confirm => (SELECT pg_catalog.array_agg(c::pg_catalog.regprocedure) FROM pg_catalog.jsonb_array_elements_text(a.l->'confirm') c),
        max_tokens => (a.l->>'max_tokens')::pg_catalog.int4,
        max_total_tokens => coalesce((a.l->>'max_total_tokens')::pg_catalog.int4, 50000),
        call_timeout => coalesce((a.l->>'call_timeout')::pg_catalog.interval, '10 seconds'),
        max_rows => coalesce((a.l->>'max_rows')::pg_catalog.int4, 50),
        max_result_tokens => coalesce((a.l->>'max_result_tokens')::pg_catalog.int4, 1000),
        thinking_budget => (a.l->>'thinking_budget')::pg_catalog.int4,
        temperature => (a.l->>'temperature')::pg_catalog.float8) r;
END
$$;

COMMENT ON FUNCTION run_agent IS 'answers a question as one''s agent of that name, and shows each step';

-- ---- runs that are made after this transaction ----

CREATE FUNCTION __agent_submit(
    caller oid, question text, tools text[], definition jsonb, path text, lease interval) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run bigint;
BEGIN
    INSERT INTO @extschema@.agent_run (owner, question, tools, state, started_at, definition, path, lease)
    VALUES (caller, question, tools, 'queued', NULL, definition, path, lease) RETURNING id INTO run;
    PERFORM @extschema@._queue_changed();
    RETURN run;
END
$$;

CREATE FUNCTION _agent_submit(question text, tools text[], definition jsonb, path text, lease interval) RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

CREATE FUNCTION submit_agent(name name, question text) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    a record;
BEGIN
    SELECT g.tools, pg_catalog.jsonb_build_object('tools', g.tools::pg_catalog.oid[], 'instructions', g.instructions, 'limits', g.limits) AS d,
           g.limits INTO a
    FROM @extschema@.agents g
    WHERE g.name OPERATOR(pg_catalog.=) submit_agent.name
      AND g.owner OPERATOR(pg_catalog.=) current_user::pg_catalog.regrole;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = pg_catalog.format('minimax_m1: agent "%s" does not exist', name);
    ELSIF question IS NULL THEN
        RETURN NULL;
    ELSIF @extschema@._agent_in_definer() THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'minimax_m1: an agent is not submitted inside a function that is SECURITY DEFINER';
    END IF;
    PERFORM @extschema@._agent_tools(a.tools, coalesce((a.limits->>'read_only')::pg_catalog.bool, true));
    RETURN @extschema@._agent_submit(
        question, (SELECT coalesce(pg_catalog.array_agg(t::pg_catalog.text), '{}') FROM pg_catalog.unnest(a.tools) t), a.d,
        pg_catalog.current_setting('search_path'),
        coalesce((a.limits->>'timeout')::pg_catalog.interval, '2 minutes')
            OPERATOR(pg_catalog.+) coalesce((a.limits->>'call_timeout')::pg_catalog.interval, '10 seconds')
            OPERATOR(pg_catalog.+) '1 minute'::pg_catalog.interval);
END
$$;

COMMENT ON FUNCTION submit_agent IS 'has one''s agent answer a question after this transaction; returns the run';

CREATE FUNCTION __agent_definition(caller oid, run bigint, OUT question text, OUT definition jsonb, OUT path text)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.question, r.definition, r.path FROM @extschema@.agent_run r
    WHERE r.id = run AND r.owner = caller AND r.state = 'running' AND r.definition IS NOT NULL
$$;

CREATE FUNCTION _agent_definition(run bigint, OUT question text, OUT definition jsonb, OUT path text)
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

-- The whole of a run that was submitted, as its owner.
CREATE FUNCTION _agent_resume(run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    d record;
    l jsonb;
BEGIN
    SELECT * INTO d FROM @extschema@._agent_definition(run);
    IF d.definition IS NULL THEN
        RETURN;
    END IF;
    l := d.definition->'limits';
    PERFORM @extschema@._agent_run(
        d.question, (SELECT coalesce(array_agg(t::oid::regprocedure ORDER BY o), '{}')
                     FROM jsonb_array_elements_text(d.definition->'tools') WITH ORDINALITY x(t, o)),
        d.definition->>'instructions', coalesce((l->>'max_calls')::int, 8), coalesce((l->>'max_steps')::int, 8),
        coalesce((l->>'timeout')::interval, '2 minutes'), coalesce((l->>'read_only')::bool, true),
        (SELECT coalesce(array_agg(c::regprocedure), '{}') FROM jsonb_array_elements_text(l->'confirm') c),
        (l->>'max_tokens')::int, coalesce((l->>'max_total_tokens')::int, 50000),
        coalesce((l->>'call_timeout')::interval, '10 seconds'), coalesce((l->>'max_rows')::int, 50),
        coalesce((l->>'max_result_tokens')::int, 1000), (l->>'thinking_budget')::int, (l->>'temperature')::float8, NULL,
        d.path, 0, run);
EXCEPTION WHEN OTHERS THEN
    PERFORM @extschema@._agent_note(run, 1, 'error', NULL, NULL, NULL, SQLERRM, NULL, NULL);
END
$$;

CREATE FUNCTION _cancel_agent_run(caller oid, run bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    was text;
BEGIN
    SELECT r.state INTO was FROM @extschema@.agent_run r
    WHERE r.id = run AND r.definition IS NOT NULL AND pg_has_role(caller, r.owner::oid, 'USAGE')
    FOR UPDATE;
    IF was IS NULL OR was NOT IN ('queued', 'running') THEN
        RETURN false;
    END IF;
    UPDATE @extschema@.agent_run r SET state = 'failed', finished_at = clock_timestamp() WHERE r.id = run;
    -- before all that its process has noted, which goes with it
    INSERT INTO @extschema@.agent_step (run, step, kind, error) VALUES (run, 0, 'error', 'the run was cancelled');
    -- one is under way at a time
    PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a
    WHERE was = 'running' AND a.backend_type = 'minimax_m1 agent' AND a.datname = current_database();
    PERFORM @extschema@._queue_changed();
    RETURN true;
END
$$;

CREATE FUNCTION cancel_agent_run(run bigint) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION cancel_agent_run IS 'stops a run that was submitted; false when it has ended';

CREATE FUNCTION _forget_agent_runs(caller oid, older_than interval) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH gone AS (
        DELETE FROM @extschema@.agent_run r
        WHERE r.owner = caller AND r.state IN ('done', 'failed') AND r.finished_at <= clock_timestamp() - older_than
        RETURNING r.id),
    steps AS (DELETE FROM @extschema@.agent_step s USING gone WHERE s.run = gone.id)
    SELECT count(*) FROM gone
$$;

CREATE FUNCTION forget_agent_runs(older_than interval) RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION forget_agent_runs IS 'forgets one''s runs that ended so long ago, and their steps; returns how many';

SELECT pg_catalog.pg_extension_config_dump('agent', '');
SELECT pg_catalog.pg_extension_config_dump('agent_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('agent_run', $$WHERE state IN ('done', 'failed')$$);
SELECT pg_catalog.pg_extension_config_dump('agent_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('agent_step', '');
SELECT pg_catalog.pg_extension_config_dump('correction', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_version', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_version_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_piece', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_grant', '');

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
