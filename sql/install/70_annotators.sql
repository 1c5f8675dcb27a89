/* sql/install/70_annotators.sql */

-- ---- Annotators: definitions of columns that are kept filled from a prompt over other columns ----
--
-- A definition is a row, and triggers on the table that it is for. create_annotator(), alter_annotator() and
-- drop_annotator() change both together; the parts that follow fill rows and follow changes of the table.

CREATE TABLE annotator (
    id serial PRIMARY KEY,
    name name NOT NULL UNIQUE,
    owner regrole NOT NULL,
    source regclass NOT NULL,
    key_columns name[] NOT NULL,        -- of the primary key, in its order
    target_column name NOT NULL,
    reasoning_column name,
    status_column name,
    template text NOT NULL,
    mode text NOT NULL CHECK (mode IN ('async', 'sync')),
    fire text NOT NULL CHECK (fire IN ('origin', 'always')),
    max_attempts int NOT NULL CHECK (max_attempts BETWEEN 1 AND 100),
    enabled boolean NOT NULL DEFAULT true,
    system_prompt text,                 -- NULL here and below: the setting when the model is asked
    max_tokens int,
    thinking_budget int,
    temperature float8,
    top_p float8,
    json_schema json,
    adapter name);                      -- NULL: the model without one

-- Which attribute numbers an annotator's names stand for, and which are its triggers. Not dumped: made anew when its
-- trigger is.
CREATE TABLE annotator_binding (
    annotator_id int PRIMARY KEY,
    columns name[] NOT NULL,
    numbers int2[] NOT NULL,
    triggers oid[] NOT NULL);

-- What the annotators view shows of the past. Not dumped: it tells about this server.
CREATE TABLE annotator_progress (
    annotator_id int PRIMARY KEY,
    done bigint NOT NULL DEFAULT 0,
    rate float8 NOT NULL DEFAULT 0,     -- results per second, over about a minute, as of last_done
    last_done timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp())
WITH (fillfactor = 50);

-- Annotations that somebody has changed by hand: what was wrong. What is right is in the annotated row.
CREATE TABLE correction (
    annotator_id int,
    key text[],
    wrong text NOT NULL,
    prompt_hash bytea NOT NULL,         -- of what it was an answer to
    PRIMARY KEY (annotator_id, key));

-- The annotator with this name, if the caller may change it.
CREATE FUNCTION _annotator_of(caller oid, annotator name) RETURNS annotator
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
BEGIN
    SELECT t.* INTO a FROM @extschema@.annotator t WHERE t.name = annotator;
    IF a.id IS NULL OR NOT pg_has_role(caller, a.owner::oid, 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('minimax_m1: annotator "%s" does not exist', annotator),
            HINT = 'The view minimax_m1.annotators shows those that you may change.';
    END IF;
    RETURN a;
END
$$;

-- ---- create, alter, drop ----

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

-- Whoever drops triggers locks the table first, and then what is here of its annotators, as DROP TABLE does.
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

-- The definition and its jobs; not the triggers.
CREATE FUNCTION _forget_annotator(id_ int) RETURNS void
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

CREATE FUNCTION _drop_annotator(caller oid, annotator name) RETURNS void
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

CREATE FUNCTION drop_annotator(name name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION drop_annotator IS 'ends the filling of a column; what is filled stays';

-- ---- what a definition must be ----

-- The columns that a template names.
CREATE FUNCTION _template_columns(template text) RETURNS text[]
AS 'MODULE_PATHNAME', 'm1pg_template_columns' LANGUAGE C STRICT;

-- Raises the errors of generate() for options out of range.
CREATE FUNCTION _check_options(system_prompt text, max_tokens int, thinking_budget int, temperature float8,
                               top_p float8, seed bigint, stop text[]) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_options' LANGUAGE C;

-- Raises the engine's error for a schema that it cannot follow.
CREATE FUNCTION _check_json_schema(caller oid, json_schema json_text) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_json_schema' LANGUAGE C STRICT;

-- Raises an error when there is no adapter of the name that the role may use.
CREATE FUNCTION _check_adapter(role oid, adapter name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_adapter' LANGUAGE C STRICT;

-- The columns that an annotator fills: the target first, and the status last.
CREATE FUNCTION _annotator_fills(a annotator) RETURNS name[]
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_remove(ARRAY[a.target_column, a.reasoning_column, a.status_column], NULL)
$$;

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
    targets name[] := @extschema@._annotator_fills(a);
    cycle text;
BEGIN
    IF EXISTS (SELECT FROM @extschema@.annotator o
               WHERE o.source IN (SELECT @extschema@._annotator_family(a.source)) AND o.id IS DISTINCT FROM a.id
                 AND @extschema@._annotator_fills(o) && targets) THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = 'minimax_m1: another annotator fills the same column';
    END IF;
    -- an annotation that changes the input of its own would be made for ever; the rows are those of the smallest part
    WITH RECURSIVE reach(columns, part) AS (
        SELECT targets, a.source
        UNION
        SELECT @extschema@._annotator_fills(o),
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

-- Raises an error when a definition cannot work for its owner.
CREATE FUNCTION _annotator_check(a annotator) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    inputs name[] := @extschema@._template_columns(a.template);
    targets name[] := @extschema@._annotator_fills(a);
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

-- Raises an error when a role's annotations could not be written as the table's owner without lending rights.
CREATE FUNCTION _check_annotated_table(role oid, source oid) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_annotated_table' LANGUAGE C STRICT;

-- Raises an error when the owner may not read, or fill, what the definition names.
CREATE FUNCTION _annotator_check_rights(a annotator, inputs name[], targets name[]) RETURNS void
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

-- ---- its triggers ----

-- Runs a statement as a role, with nothing allowed that would outlive it.
CREATE FUNCTION _run_as(role oid, statement text) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_run_as' LANGUAGE C STRICT;

-- Whether there is a BEFORE trigger: to fill the row, to mark it, or to see an update that moves it to another partition,
-- which is a deletion and an insertion to AFTER triggers.
CREATE FUNCTION _annotator_looks_before(a annotator) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.mode = 'sync' OR a.status_column IS NOT NULL
           OR EXISTS (SELECT FROM pg_class WHERE oid = a.source AND relkind = 'p')
$$;

-- Makes the triggers of a definition, as its owner: that is what TRIGGER on the table is for.
CREATE FUNCTION _annotator_make_triggers(a annotator) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation text := (SELECT format('%I.%I', n.nspname, c.relname)
                      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = a.source);
    trigger_names text[];
    t text;
BEGIN
    IF a.mode = 'async' THEN
        t := 'minimax_m1_' || a.name;
        trigger_names := trigger_names || t;
        PERFORM @extschema@._run_as(a.owner, format(
            'CREATE TRIGGER %I AFTER INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION @extschema@.enqueue_annotation(%L)',
            t, relation, a.name));
    END IF;
    IF @extschema@._annotator_looks_before(a) THEN
        -- triggers fire in the order of their names: this one sees what the table's own have made of the row
        t := 'z_minimax_m1_' || a.name;
        trigger_names := trigger_names || t;
        PERFORM @extschema@._run_as(a.owner, format(
            'CREATE TRIGGER %I BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION @extschema@.annotate_row(%L)',
            t, relation, a.name));
    END IF;
    IF a.fire = 'always' THEN
        FOREACH t IN ARRAY trigger_names LOOP
            PERFORM @extschema@._run_as(a.owner, format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation, t));
        END LOOP;
    END IF;
    PERFORM @extschema@._annotator_bind(a.id);
END
$$;

-- Forgets the binding first, so that _follow_drop() does not take this for the end of the annotator.
CREATE FUNCTION _annotator_drop_triggers(a annotator) RETURNS void
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
