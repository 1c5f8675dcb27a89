/* sql/minimax_m1--0.1--0.2.sql */

\echo Use "ALTER EXTENSION minimax_m1 UPDATE TO '0.2'" to load this file. \quit

-- A schema of this name that was there before is used; its owner could replace what is made in it.
DO $$
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
            WHERE n.oid = '@extschema@'::pg_catalog.regnamespace) THEN
        RAISE EXCEPTION 'minimax_m1: the owner of schema "@extschema@" is not a superuser'
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Drop the schema, or give it another owner when you know what is in it.';
    END IF;
END
$$;

-- ---- Prefix cache: what the stats view tells of it ----

CREATE FUNCTION prefix_cache_row(
    OUT cache_hits bigint,
    OUT snapshots int,
    OUT snapshot_bytes bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_prefix_cache'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1;

CREATE OR REPLACE VIEW stats AS
SELECT s.*, c.* FROM @extschema@.stats_row() s CROSS JOIN @extschema@.prefix_cache_row() c;

-- ---- Operators over tables: batches, aggregates, constrained answers ----

CREATE FUNCTION generate_batch(
    prompts text[],
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL)
RETURNS TABLE (ord int, content text, reasoning text, error text)
AS 'MODULE_PATHNAME', 'm1pg_generate_batch'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 ROWS 100;

COMMENT ON FUNCTION generate_batch IS 'answers many prompts at the same time; an error belongs to its row';

CREATE FUNCTION summarize_agg_step(internal, text)
RETURNS internal
AS 'MODULE_PATHNAME', 'm1pg_summarize_agg_step'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10000;

CREATE FUNCTION reduce_agg_step(internal, text, text)
RETURNS internal
AS 'MODULE_PATHNAME', 'm1pg_reduce_agg_step'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10000;

CREATE FUNCTION reduce_agg_final(internal)
RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_reduce_agg_final'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000;

CREATE AGGREGATE summarize_agg(document text) (
    SFUNC = summarize_agg_step,
    STYPE = internal,
    SSPACE = 65536,
    FINALFUNC = reduce_agg_final,
    FINALFUNC_MODIFY = READ_WRITE,
    PARALLEL = RESTRICTED);

COMMENT ON AGGREGATE summarize_agg(text) IS 'summarizes the texts of any number of rows';

CREATE AGGREGATE reduce_agg(document text, instruction text) (
    SFUNC = reduce_agg_step,
    STYPE = internal,
    SSPACE = 65536,
    FINALFUNC = reduce_agg_final,
    FINALFUNC_MODIFY = READ_WRITE,
    PARALLEL = RESTRICTED);

COMMENT ON AGGREGATE reduce_agg(text, text) IS 'applies an instruction to the texts of any number of rows, part by part';

CREATE FUNCTION generate_json(
    prompt text,
    json_schema jsonb,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'm1pg_generate_json'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION generate_json IS 'answers a prompt with JSON that a schema describes';

CREATE FUNCTION classify(input text, categories text[], multi bool DEFAULT false)
RETURNS text[]
AS 'MODULE_PATHNAME', 'm1pg_classify'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION classify(text, text[], bool) IS 'one category of a text, or several';

CREATE FUNCTION classify(input text, target anyenum)
RETURNS anyenum
AS 'MODULE_PATHNAME', 'm1pg_classify_enum'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION classify(text, anyenum) IS 'the label of a text, from an enum type';

-- PARALLEL UNSAFE: where an error becomes NULL, the row is made in a subtransaction.
CREATE FUNCTION @extschema@.extract(document text, target anyelement)
RETURNS anyelement
AS 'MODULE_PATHNAME', 'm1pg_extract'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;

COMMENT ON FUNCTION @extschema@.extract(text, anyelement) IS 'a row of a composite type, from a text';

CREATE FUNCTION is_true(
    statement text,
    document text,
    certainty float8 DEFAULT NULL,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_is_true'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION is_true IS 'whether a statement about a text is true; NULL when undecided';

CREATE FUNCTION score(criterion text, document text)
RETURNS float8
AS 'MODULE_PATHNAME', 'm1pg_score'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION score IS 'how probable it is that a statement about a text is true';

CREATE FUNCTION rank(query text, documents text[], k int DEFAULT NULL)
RETURNS TABLE (ord int, document text, score float8)
AS 'MODULE_PATHNAME', 'm1pg_rank'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 ROWS 10;

COMMENT ON FUNCTION rank(text, text[], int) IS 'the texts for which a statement is most probably true, best first';

-- ---- Limits: quotas, usage, prices, statistics, and what the planner knows ----

-- A quota is a setting of the role; the owner of the function is a superuser, who may set it.
CREATE FUNCTION set_quota(role regrole, tokens_per_hour bigint DEFAULT NULL, max_concurrent int DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF role IS NULL OR NOT EXISTS (SELECT FROM pg_roles WHERE oid = role) THEN
        RAISE EXCEPTION 'minimax_m1: there is no such role'
            USING ERRCODE = 'undefined_object';
    END IF;
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

COMMENT ON FUNCTION set_quota IS 'limits what a role may use; NULL means no limit';

CREATE FUNCTION role_use(
    role oid,
    OUT used_last_hour bigint,
    OUT reserved bigint,
    OUT requests int)
RETURNS record
AS 'MODULE_PATHNAME', 'm1pg_role_use'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

CREATE VIEW quotas AS
SELECT pg_catalog.pg_get_userbyid(s.setrole) AS role, q.tokens_per_hour, q.max_concurrent,
       u.used_last_hour, u.reserved, u.requests
FROM pg_catalog.pg_db_role_setting s
CROSS JOIN LATERAL (
    SELECT max(NULLIF(o.option_value, '')::bigint)
               FILTER (WHERE o.option_name = 'minimax_m1.quota_tokens_per_hour') AS tokens_per_hour,
           max(NULLIF(o.option_value, '-1')::int)
               FILTER (WHERE o.option_name = 'minimax_m1.quota_max_concurrent') AS max_concurrent
    FROM pg_catalog.pg_options_to_table(s.setconfig) o
    WHERE o.option_name IN ('minimax_m1.quota_tokens_per_hour', 'minimax_m1.quota_max_concurrent')) q
CROSS JOIN LATERAL @extschema@.role_use(s.setrole) u
WHERE s.setdatabase = 0
  AND (q.tokens_per_hour IS NOT NULL OR q.max_concurrent IS NOT NULL)
  AND u.requests IS NOT NULL;

COMMENT ON VIEW quotas IS 'quotas of roles, and how much of them is used';

CREATE FUNCTION usage_rows(
    OUT role oid,
    OUT month date,
    OUT function text,
    OUT context_tier int,
    OUT requests bigint,
    OUT completed bigint,
    OUT failed bigint,
    OUT cancelled bigint,
    OUT prompt_tokens bigint,
    OUT cached_tokens bigint,
    OUT reasoning_tokens bigint,
    OUT completion_tokens bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_usage_rows'
LANGUAGE C VOLATILE PARALLEL SAFE;

CREATE VIEW usage AS
SELECT pg_catalog.pg_get_userbyid(u.role) AS role, u.month, u.function, u.context_tier, u.requests, u.completed,
       u.failed, u.cancelled, u.prompt_tokens, u.cached_tokens, u.reasoning_tokens, u.completion_tokens
FROM @extschema@.usage_rows() u;

COMMENT ON VIEW usage IS 'what each role has used the model for, by month (UTC)';

CREATE FUNCTION usage_reset(before date DEFAULT NULL)
RETURNS int
AS 'MODULE_PATHNAME', 'm1pg_usage_reset'
LANGUAGE C VOLATILE PARALLEL SAFE;

COMMENT ON FUNCTION usage_reset IS 'forgets the usage of the months before a date, or all; returns the number of rows';

CREATE TABLE prices (
    since date NOT NULL,
    min_context int NOT NULL DEFAULT 0 CHECK (min_context >= 0),
    input numeric NOT NULL CHECK (input >= 0),
    output numeric NOT NULL CHECK (output >= 0),
    cached_input numeric CHECK (cached_input >= 0),
    PRIMARY KEY (since, min_context));

COMMENT ON TABLE prices IS 'prices of a million tokens, from a month on and from a length of the prompt on';

SELECT pg_catalog.pg_extension_config_dump('prices', '');

CREATE FUNCTION set_price(
    input numeric,
    output numeric,
    cached_input numeric DEFAULT NULL,
    min_context int DEFAULT 0,
    since date DEFAULT pg_catalog.date_trunc('month', pg_catalog.timezone('UTC', pg_catalog.now())))
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF min_context <> 0 AND min_context::text <> ALL
        (string_to_array(replace(current_setting('minimax_m1.context_tiers'), ' ', ''), ',')) THEN
        RAISE EXCEPTION 'minimax_m1: usage is not counted apart for prompts of % tokens and more', min_context
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Add the number to minimax_m1.context_tiers and reload the configuration.';
    END IF;
    IF since <> date_trunc('month', since) THEN
        RAISE EXCEPTION 'minimax_m1: a price holds from the first day of a month on'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The date is %s.', since);
    END IF;
    INSERT INTO @extschema@.prices AS p (since, min_context, input, output, cached_input)
    VALUES (since, min_context, input, output, cached_input)
    ON CONFLICT ON CONSTRAINT prices_pkey DO UPDATE
    SET input = excluded.input, output = excluded.output, cached_input = excluded.cached_input;
END
$$;

COMMENT ON FUNCTION set_price IS 'sets what a million tokens cost';

-- The prices of the latest month up to that of the usage, and of these the one for the length of the prompt.
CREATE VIEW bill AS
SELECT u.role, u.month, u.function, u.context_tier, u.requests, u.prompt_tokens, u.cached_tokens,
       u.completion_tokens,
       ((u.prompt_tokens - u.cached_tokens) * p.input
        + u.cached_tokens * COALESCE(p.cached_input, p.input)
        + u.completion_tokens * p.output) * 0.000001 AS amount
FROM @extschema@.usage u
LEFT JOIN LATERAL (
    SELECT x.input, x.cached_input, x.output
    FROM @extschema@.prices x
    WHERE x.since = (SELECT max(y.since) FROM @extschema@.prices y WHERE y.since <= u.month)
      AND x.min_context <= u.context_tier
    ORDER BY x.min_context DESC
    LIMIT 1) p ON true;

COMMENT ON VIEW bill IS 'usage times prices';

CREATE FUNCTION stats_by_function_rows(
    OUT function text,
    OUT requests bigint,
    OUT completed bigint,
    OUT failed bigint,
    OUT cancelled bigint,
    OUT timed_out bigint,
    OUT rejected bigint,
    OUT prompt_tokens bigint,
    OUT cached_tokens bigint,
    OUT reasoning_tokens bigint,
    OUT completion_tokens bigint,
    OUT queue_ms float8,
    OUT prefill_ms float8,
    OUT decode_ms float8,
    OUT cache_hits bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_stats_by_function'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 20;

CREATE VIEW stats_by_function AS SELECT * FROM @extschema@.stats_by_function_rows();

COMMENT ON VIEW stats_by_function IS 'the counters of the stats view for each function';

CREATE FUNCTION last_statement_rows(
    OUT function text,
    OUT calls bigint,
    OUT cache_hits bigint,
    OUT prompt_tokens bigint,
    OUT cached_tokens bigint,
    OUT completion_tokens bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_last_statement'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1;

CREATE VIEW last_statement AS SELECT * FROM @extschema@.last_statement_rows();

COMMENT ON VIEW last_statement IS 'what the last statement of this session that called the model has used';

CREATE FUNCTION call_support(internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'm1pg_call_support'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION call_support IS 'planner support: what a call of the model costs';

ALTER FUNCTION generate SUPPORT call_support;
ALTER FUNCTION complete SUPPORT call_support;
ALTER FUNCTION generate_stream SUPPORT call_support;
ALTER FUNCTION summarize SUPPORT call_support;
ALTER FUNCTION generate_ids SUPPORT call_support;
ALTER FUNCTION logits SUPPORT call_support;
ALTER FUNCTION generate_json SUPPORT call_support;
ALTER FUNCTION classify(text, text[], bool) SUPPORT call_support;
ALTER FUNCTION classify(text, anyenum) SUPPORT call_support;
ALTER FUNCTION @extschema@.extract(text, anyelement) SUPPORT call_support;
ALTER FUNCTION is_true SUPPORT call_support;
ALTER FUNCTION score SUPPORT call_support;

-- ---- Jobs and annotators --------------------------------------------------------------------------------------------
--
-- Functions whose names begin with an underscore are internal: nobody but the extension's owner may call them. Those
-- that need to know who called them take it as their first argument and are reached through the public function of the
-- same name, which is m1pg_gate: it runs the internal one as the owner of the extension, with search_path pinned. The
-- tables are reached in no other way.

CREATE SEQUENCE annotator_id_seq AS int;

CREATE TABLE annotator (
    id int PRIMARY KEY DEFAULT nextval('@extschema@.annotator_id_seq'),
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
    json_schema jsonb);

ALTER SEQUENCE annotator_id_seq OWNED BY annotator.id;

-- Which attribute numbers an annotator's names stand for. Not dumped: made anew when its trigger is.
CREATE TABLE annotator_binding (
    annotator_id int PRIMARY KEY,
    columns name[] NOT NULL,
    numbers int2[] NOT NULL);

-- What the annotators view shows of the past. Not dumped: it tells about this server.
CREATE TABLE annotator_progress (
    annotator_id int PRIMARY KEY,
    done bigint NOT NULL DEFAULT 0,
    rate float8 NOT NULL DEFAULT 0,     -- results per second, over about a minute, as of last_done
    last_done timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp())
WITH (fillfactor = 50);

CREATE SEQUENCE job_id_seq;

-- One row for each prompt that was submitted, and for each row that an annotator has yet to see. Triggers only add rows,
-- so that they never wait for the runner; it drops what has become superfluous.
CREATE TABLE job (
    id bigint PRIMARY KEY DEFAULT nextval('@extschema@.job_id_seq'),
    owner regrole NOT NULL,
    annotator_id int,                   -- NULL: submitted
    key text[],                         -- of the annotated row
    prompt text,
    system_prompt text,
    max_tokens int,
    thinking_budget int,
    temperature float4,
    top_p float4,
    seed bigint,
    stop text[],
    json_schema jsonb,
    priority int NOT NULL DEFAULT 0,
    dedupe_key text,
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'held', 'running', 'done', 'failed', 'cancelled')),
    attempts int NOT NULL DEFAULT 0,
    max_attempts int NOT NULL DEFAULT 5,
    losses int NOT NULL DEFAULT 0,      -- times that the engine or the runner went away under it
    run_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    leased_by int,                      -- process ID
    leased_at timestamptz,
    lease_until timestamptz,
    submitted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    started_at timestamptz,
    finished_at timestamptz,
    content text,
    reasoning text,
    finish_reason text,
    prompt_tokens int,
    completion_tokens int,
    sqlstate text,                      -- of the last failure, as the rest
    error text,
    detail text,
    hint text,
    failed_at timestamptz,
    CHECK ((annotator_id IS NULL) = (key IS NULL)),
    CHECK ((annotator_id IS NULL) = (prompt IS NOT NULL)),
    CHECK ((state = 'running') = (lease_until IS NOT NULL)))
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1);

ALTER SEQUENCE job_id_seq OWNED BY job.id;

CREATE INDEX job_due ON job (priority DESC, run_at, id) WHERE state = 'pending';
CREATE INDEX job_suspect ON job (run_at) WHERE state = 'pending' AND losses >= 3;
CREATE INDEX job_running ON job (lease_until) WHERE state = 'running';
CREATE INDEX job_finished ON job (finished_at) WHERE state IN ('done', 'failed', 'cancelled');
CREATE INDEX job_row ON job (annotator_id, key) WHERE annotator_id IS NOT NULL;
CREATE UNIQUE INDEX job_dedupe ON job (owner, dedupe_key)
    WHERE dedupe_key IS NOT NULL AND state NOT IN ('failed', 'cancelled');

-- A dump carries definitions and results; what was waiting is not carried, so that a restored database runs no model.
SELECT pg_catalog.pg_extension_config_dump('annotator', '');
SELECT pg_catalog.pg_extension_config_dump('annotator_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('job', $$WHERE state IN ('done', 'failed', 'cancelled')$$);
SELECT pg_catalog.pg_extension_config_dump('job_id_seq', '');

-- ---- what only C can do ----

CREATE FUNCTION _template_columns(template text) RETURNS text[]
AS 'MODULE_PATHNAME', 'm1pg_template_columns' LANGUAGE C STRICT;

CREATE FUNCTION _template_rename(template text, old name, new name) RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_template_rename' LANGUAGE C STRICT;

-- Raises the errors of generate() for options out of range.
CREATE FUNCTION _check_options(system_prompt text, max_tokens int, thinking_budget int, temperature float8,
                               top_p float8, seed bigint, stop text[]) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_options' LANGUAGE C;

-- Raises the engine's error for a schema that it cannot follow.
CREATE FUNCTION _check_json_schema(caller oid, json_schema jsonb) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_json_schema' LANGUAGE C STRICT;

-- Runs a statement as a role, with nothing allowed that would outlive it.
CREATE FUNCTION _run_as(role oid, statement text) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_run_as' LANGUAGE C STRICT;

-- The keys of up to n rows without annotation, after a key, in key order, as the annotator's owner sees them.
CREATE FUNCTION _unannotated(annotator_id int, after text[], n int) RETURNS text[]
AS 'MODULE_PATHNAME', 'm1pg_unannotated' LANGUAGE C;

-- Makes a trigger depend on columns, or on the primary key: dropping that then needs CASCADE, which drops the trigger.
CREATE FUNCTION _depend(trigger oid, class oid, object oid, columns int2[]) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_depend' LANGUAGE C STRICT;

-- After commit, wakes this database's job runner, and whoever waits for a job if something has ended.
CREATE FUNCTION _queue_changed() RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_queue_changed' LANGUAGE C;

-- ---- annotators ----

-- The statements that read and write one row of an annotator's table. Parameters are the key columns, then the values.
CREATE FUNCTION _annotator_sql(
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
    read_sql := format('SELECT %s FROM %s t WHERE %s', coalesce(inputs, 'NULL'), relation, matches);
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

-- Everything that the triggers and the runner need to know of an annotator.
CREATE FUNCTION _annotator_get(
    annotator name, annotator_id int,
    OUT id int, OUT name name, OUT owner oid, OUT source oid, OUT key_columns name[], OUT target_column name,
    OUT reasoning_column name, OUT status_column name, OUT template text, OUT mode text, OUT max_attempts int,
    OUT enabled boolean, OUT version text, OUT system_prompt text, OUT max_tokens int, OUT thinking_budget int, OUT temperature float4,
    OUT top_p float4, OUT json_schema text)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.id, a.name, a.owner::oid, a.source::oid, a.key_columns, a.target_column, a.reasoning_column,
           a.status_column, a.template, a.mode, a.max_attempts, a.enabled, a.xmin::text, a.system_prompt,
           a.max_tokens, a.thinking_budget, a.temperature::float4, a.top_p::float4,
           a.json_schema::text
    FROM @extschema@.annotator a
    WHERE a.name = annotator OR a.id = annotator_id
$$;

CREATE FUNCTION enqueue_annotation() RETURNS trigger
AS 'MODULE_PATHNAME', 'm1pg_enqueue_annotation' LANGUAGE C;

COMMENT ON FUNCTION enqueue_annotation IS 'trigger of an asynchronous annotator; made by create_annotator()';

CREATE FUNCTION annotate_row() RETURNS trigger
AS 'MODULE_PATHNAME', 'm1pg_annotate_row' LANGUAGE C;

COMMENT ON FUNCTION annotate_row IS 'trigger of an annotator that looks at rows before they are written; made by create_annotator()';

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

-- Whether it has a BEFORE trigger: to fill the row, to mark it, or to see an update that moves it to another partition,
-- which is a deletion and an insertion to AFTER triggers.
CREATE FUNCTION _annotator_looks_before(a annotator) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.mode = 'sync' OR a.status_column IS NOT NULL
           OR EXISTS (SELECT FROM pg_class WHERE oid = a.source AND relkind = 'p')
$$;

-- Raises an error when a definition cannot work for its owner.
CREATE FUNCTION _annotator_check(a annotator) RETURNS void
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
        IF c.attgenerated <> '' AND @extschema@._annotator_looks_before(a) THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('minimax_m1: the generated column "%s" cannot be in the template of this annotator', c.name),
                DETAIL = 'It is computed after the annotator looks at the row, which is synchronous, has a status column, or is for a partitioned table.';
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
END
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

CREATE FUNCTION _annotator_drop_triggers(a annotator) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t record;
BEGIN
    DELETE FROM @extschema@.annotator_binding WHERE annotator_id = a.id;
    FOR t IN SELECT tgname FROM pg_trigger
             WHERE tgrelid = a.source AND tgparentid = 0 AND NOT tgisinternal
               AND tgname IN ('minimax_m1_' || a.name, 'z_minimax_m1_' || a.name)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, a.source);
    END LOOP;
END
$$;

-- Notes which columns and triggers the names stand for, and makes the triggers depend on the columns.
CREATE FUNCTION _annotator_bind(id_ int) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
    used name[];
    numbers int2[];
    names name[];
    t oid;
BEGIN
    SELECT * INTO STRICT a FROM @extschema@.annotator WHERE id = id_;
    used := array_remove(@extschema@._template_columns(a.template)::name[] || a.key_columns ||
                         ARRAY[a.target_column, a.reasoning_column, a.status_column], NULL);
    SELECT array_agg(attname), array_agg(attnum) INTO names, numbers
    FROM pg_attribute WHERE attrelid = a.source AND attname = ANY (used) AND NOT attisdropped;
    INSERT INTO @extschema@.annotator_binding VALUES (a.id, names, numbers)
    ON CONFLICT (annotator_id) DO UPDATE SET columns = excluded.columns, numbers = excluded.numbers;
    FOR t IN
        SELECT oid FROM pg_trigger
        WHERE tgrelid = a.source AND NOT tgisinternal
          AND tgname IN ('minimax_m1_' || a.name, 'z_minimax_m1_' || a.name)
    LOOP
        PERFORM @extschema@._depend(t, 'pg_class'::regclass, a.source, numbers);
        PERFORM @extschema@._depend(t, 'pg_constraint'::regclass, c.oid, '{0}')
        FROM pg_constraint c WHERE c.conrelid = a.source AND c.contype = 'p';
    END LOOP;
END
$$;

CREATE FUNCTION _create_annotator(
    caller oid, name name, source regclass, target_column name, template text, reasoning_column name, status_column name,
    json_schema jsonb, mode text, max_attempts int, fire text, system_prompt text, max_tokens int, thinking_budget int,
    temperature float8, top_p float8)
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
    PERFORM @extschema@._run_as(caller, format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', source)) WHERE has_table_privilege(caller, source, 'UPDATE');
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
    json_schema jsonb DEFAULT NULL,
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
    SET state = CASE WHEN a.enabled THEN 'pending' ELSE 'held' END, max_attempts = a.max_attempts
    WHERE j.annotator_id = a.id AND j.state IN ('pending', 'held');
    PERFORM @extschema@._queue_changed();
END
$$;

CREATE FUNCTION alter_annotator(
    name name,
    template text DEFAULT NULL,
    json_schema jsonb DEFAULT NULL,
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

CREATE FUNCTION _forget_annotator(id_ int) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM @extschema@.job WHERE annotator_id = id_;
    DELETE FROM @extschema@.annotator_progress WHERE annotator_id = id_;
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
    PERFORM @extschema@._annotator_drop_triggers(a), @extschema@._forget_annotator(a.id);
END
$$;

CREATE FUNCTION drop_annotator(name name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION drop_annotator IS 'ends the filling of a column; what is filled stays';

-- Queues up to n rows that have no annotation, after a key; returns the last one's key, or NULL at the end.
CREATE FUNCTION _backfill_batch(caller oid, annotator name, after text[], n int) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator := @extschema@._annotator_of(caller, annotator);
    keys text[];
    row_key text[];
BEGIN
    IF n IS NULL OR n NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: batch_size is out of range',
            DETAIL = format('It is %s; it must be between 1 and 1000000.', coalesce(n::text, 'NULL'));
    END IF;
    keys := @extschema@._unannotated(a.id, after, n);
    IF keys = '{}' THEN
        RETURN NULL;
    END IF;
    FOREACH row_key SLICE 1 IN ARRAY keys LOOP
        -- behind what is new; rows that wait or have failed for good are left alone
        INSERT INTO @extschema@.job (owner, annotator_id, key, priority, state, max_attempts)
        SELECT a.owner, a.id, row_key, -1, CASE WHEN a.enabled THEN 'pending' ELSE 'held' END, a.max_attempts
        WHERE NOT EXISTS (SELECT FROM @extschema@.job j WHERE j.annotator_id = a.id AND j.key = row_key);
    END LOOP;
    PERFORM @extschema@._queue_changed();
    RETURN CASE WHEN array_length(keys, 1) = n THEN row_key END;
END
$$;

CREATE FUNCTION backfill_batch(name name, after text[], batch_size int) RETURNS text[]
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION backfill_batch IS 'one batch of backfill()';

CREATE PROCEDURE backfill(name name, batch_size int DEFAULT 1000)
LANGUAGE plpgsql
AS $$
DECLARE
    last text[];
BEGIN
    LOOP
        last := @extschema@.backfill_batch(name, last, batch_size);
        COMMIT;
        EXIT WHEN last IS NULL;
    END LOOP;
END
$$;

COMMENT ON PROCEDURE backfill IS 'queues the rows that have no annotation, a transaction for each batch';

CREATE FUNCTION _retry_failed(caller oid, annotator name) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator := @extschema@._annotator_of(caller, annotator);
    n bigint;
BEGIN
    UPDATE @extschema@.job
    SET state = CASE WHEN a.enabled THEN 'pending' ELSE 'held' END, attempts = 0, losses = 0, run_at = now(),
        finished_at = NULL, max_attempts = a.max_attempts
    WHERE annotator_id = a.id AND state = 'failed';
    GET DIAGNOSTICS n = ROW_COUNT;
    PERFORM @extschema@._queue_changed();
    RETURN n;
END
$$;

CREATE FUNCTION retry_failed(name name) RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION retry_failed IS 'queues again the rows of an annotator that have failed for good; returns their number';

-- Names follow their columns; who drops a trigger, or what it depends on, drops the annotator.
CREATE FUNCTION _follow_ddl() RETURNS event_trigger
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
    -- a restore makes the triggers after the definitions
    IF tg_tag = 'CREATE TRIGGER' THEN
        FOR a IN
            SELECT t.id FROM @extschema@.annotator t
            JOIN pg_trigger g ON g.tgrelid = t.source AND NOT g.tgisinternal
                 AND g.tgname IN ('minimax_m1_' || t.name, 'z_minimax_m1_' || t.name)
            JOIN pg_event_trigger_ddl_commands() c ON c.classid = 'pg_trigger'::regclass AND c.objid = g.oid
        LOOP
            PERFORM @extschema@._annotator_bind(a.id);
        END LOOP;
    END IF;
END
$$;

CREATE FUNCTION _follow_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
BEGIN
    FOR a IN
        SELECT t.* FROM @extschema@.annotator t
        WHERE EXISTS (
            SELECT FROM pg_event_trigger_dropped_objects() d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = t.source AND d.objsubid = 0
               OR d.classid = 'pg_trigger'::regclass
                  AND d.address_names[3] IN ('minimax_m1_' || t.name, 'z_minimax_m1_' || t.name)
                  AND t.source = to_regclass(format('%I.%I', d.address_names[1], d.address_names[2])))
          -- alter_annotator() and drop_annotator() forget it before they drop its triggers
          AND EXISTS (SELECT FROM @extschema@.annotator_binding b WHERE b.annotator_id = t.id)
    LOOP
        PERFORM @extschema@._forget_annotator(a.id);
        IF EXISTS (SELECT FROM pg_class WHERE oid = a.source) THEN
            PERFORM @extschema@._annotator_drop_triggers(a);
        END IF;
    END LOOP;
END
$$;

CREATE EVENT TRIGGER minimax_m1_follow_ddl ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'CREATE TRIGGER')
    EXECUTE FUNCTION _follow_ddl();
ALTER EVENT TRIGGER minimax_m1_follow_ddl ENABLE ALWAYS;

CREATE EVENT TRIGGER minimax_m1_follow_drop ON sql_drop
    EXECUTE FUNCTION _follow_drop();
ALTER EVENT TRIGGER minimax_m1_follow_drop ENABLE ALWAYS;

-- ---- jobs ----

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
    json_schema jsonb DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_submit'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION submit IS 'queues a prompt, to be answered after this transaction; returns the job';

-- The job with this id, if the caller may see it.
CREATE FUNCTION _job_of(caller oid, job_id bigint) RETURNS job
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    j @extschema@.job;
BEGIN
    SELECT * INTO j FROM @extschema@.job WHERE id = job_id;
    IF j.id IS NULL OR NOT pg_has_role(caller, j.owner::oid, 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('minimax_m1: job %s does not exist', job_id),
            DETAIL = 'It may belong to another role, or have been forgotten after minimax_m1.job_retention.';
    END IF;
    RETURN j;
END
$$;

CREATE FUNCTION _poll(
    caller oid, job bigint,
    OUT state text, OUT content text, OUT reasoning text, OUT error text, OUT sqlstate text, OUT detail text, OUT hint text,
    OUT finish_reason text, OUT attempts int, OUT prompt_tokens int, OUT completion_tokens int, OUT seed bigint,
    OUT submitted_at timestamptz, OUT started_at timestamptz, OUT finished_at timestamptz)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    j @extschema@.job;
BEGIN
    IF job IS NULL THEN
        RETURN;
    END IF;
    j := @extschema@._job_of(caller, job);
    state := j.state; content := j.content; reasoning := j.reasoning; error := j.error; sqlstate := j.sqlstate;
    detail := j.detail; hint := j.hint; finish_reason := j.finish_reason; attempts := j.attempts;
    prompt_tokens := j.prompt_tokens; completion_tokens := j.completion_tokens; seed := j.seed;
    submitted_at := j.submitted_at; started_at := j.started_at; finished_at := j.finished_at;
END
$$;

CREATE FUNCTION poll(
    job bigint,
    OUT state text, OUT content text, OUT reasoning text, OUT error text, OUT sqlstate text, OUT detail text, OUT hint text,
    OUT finish_reason text, OUT attempts int, OUT prompt_tokens int, OUT completion_tokens int, OUT seed bigint,
    OUT submitted_at timestamptz, OUT started_at timestamptz, OUT finished_at timestamptz)
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION poll IS 'state and answer of a job';

CREATE FUNCTION _cancel_job(caller oid, job bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF job IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM @extschema@._job_of(caller, job);
    UPDATE @extschema@.job j
    SET state = 'cancelled', finished_at = now(), leased_by = NULL, leased_at = NULL, lease_until = NULL
    WHERE j.id = job AND j.state IN ('pending', 'held', 'running');
    IF FOUND THEN
        PERFORM @extschema@._queue_changed();
    END IF;
    RETURN FOUND;
END
$$;

CREATE FUNCTION cancel_job(job bigint) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION cancel_job IS 'cancels a job that has not ended; false when it has';

-- How many of these jobs have not ended, and whether one of those was queued by this transaction.
CREATE FUNCTION _unfinished(caller oid, jobs bigint[], OUT unfinished bigint, OUT own boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    j @extschema@.job;
    i bigint;
BEGIN
    unfinished := 0;
    own := false;
    FOREACH i IN ARRAY coalesce(jobs, '{}') LOOP
        -- one that has been forgotten has ended
        CONTINUE WHEN i IS NULL OR NOT EXISTS (SELECT FROM @extschema@.job WHERE id = i)
            AND i BETWEEN 1 AND (SELECT last_value FROM @extschema@.job_id_seq);
        j := @extschema@._job_of(caller, i);
        IF j.state IN ('pending', 'held', 'running') THEN
            unfinished := unfinished + 1;
            own := own OR @extschema@._is_own(j.id);
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION _is_own(job_id bigint) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_is_own_job' LANGUAGE C STRICT;

CREATE PROCEDURE wait_for(jobs bigint[], timeout interval DEFAULT NULL)
AS 'MODULE_PATHNAME', 'm1pg_wait_for' LANGUAGE C;

COMMENT ON PROCEDURE wait_for IS 'returns when all of the jobs have ended';

-- ---- views ----

-- The share of rows whose column is filled; reads the table, with the caller's rights. NULL where they do not suffice.
CREATE FUNCTION coverage(source regclass, target_column name) RETURNS float8
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    share float8;
BEGIN
    EXECUTE format('SELECT count(%I)::float8 / nullif(count(*), 0) FROM %s %s', target_column,
                   (SELECT 'ONLY' FROM pg_class WHERE oid = source AND relkind = 'r'), source) INTO share;
    RETURN share;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION coverage IS 'share of a table''s rows whose column is filled';

CREATE VIEW annotators WITH (security_barrier) AS
SELECT a.name, a.source, a.target_column, a.reasoning_column, a.status_column, a.template, a.mode, a.fire, a.enabled,
       a.max_attempts, a.system_prompt, a.max_tokens, a.thinking_budget, a.temperature, a.top_p, a.json_schema,
       a.owner, q.pending, q.running, q.failed, q.oldest_age,
       -- others would run the policies of the table with their own rights
       CASE WHEN pg_get_userbyid(a.owner) = current_user THEN @extschema@.coverage(a.source, a.target_column) END AS coverage,
       coalesce(p.done, 0) AS done,
       coalesce(p.rate * exp(- extract(epoch FROM clock_timestamp() - p.last_done) / 60), 0)::float8 AS rate
FROM @extschema@.annotator a
LEFT JOIN @extschema@.annotator_progress p ON p.annotator_id = a.id
CROSS JOIN LATERAL (
    SELECT count(DISTINCT j.key) FILTER (WHERE j.state IN ('pending', 'held')) AS pending,
           count(DISTINCT j.key) FILTER (WHERE j.state = 'running') AS running,
           count(DISTINCT j.key) FILTER (WHERE j.state = 'failed') AS failed,
           clock_timestamp() - min(j.submitted_at) FILTER (WHERE j.state IN ('pending', 'held', 'running')) AS oldest_age
    FROM @extschema@.job j WHERE j.annotator_id = a.id) q
WHERE pg_has_role(a.owner::oid, 'USAGE');

COMMENT ON VIEW annotators IS 'one''s annotators, and how far they are';

CREATE VIEW jobs WITH (security_barrier) AS
SELECT j.id, a.name AS annotator, j.key, j.state, j.priority, j.dedupe_key, j.attempts, j.max_attempts, j.prompt,
       j.content, j.reasoning, j.finish_reason, j.prompt_tokens, j.completion_tokens, j.error, j.owner,
       j.submitted_at, CASE WHEN j.state = 'pending' THEN j.run_at END AS run_at, j.started_at, j.finished_at
FROM @extschema@.job j
LEFT JOIN @extschema@.annotator a ON a.id = j.annotator_id
WHERE pg_has_role(j.owner::oid, 'USAGE');

COMMENT ON VIEW jobs IS 'one''s jobs: submitted prompts, and rows to be annotated';

CREATE VIEW job_errors WITH (security_barrier) AS
SELECT j.id, a.name AS annotator, j.key, j.state, j.attempts, j.max_attempts, j.sqlstate, j.error, j.detail, j.hint,
       j.failed_at, CASE WHEN j.state = 'pending' THEN j.run_at END AS next_try, j.owner
FROM @extschema@.job j
LEFT JOIN @extschema@.annotator a ON a.id = j.annotator_id
WHERE j.error IS NOT NULL AND j.state <> 'done'
  AND pg_has_role(j.owner::oid, 'USAGE');

COMMENT ON VIEW job_errors IS 'one''s jobs whose last attempt has failed, and why';

-- ---- permissions ----

-- What is new is for nobody yet, whatever default privileges say; what was granted before the update stays granted. New
-- is what became a member of the extension together with this script's first function.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        WITH member AS (
            SELECT d.classid, d.objid, d.xmin AS since
            FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
            WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
              AND e.extname = 'minimax_m1'),
        granted AS (
            SELECT m.since, pg_catalog.format('ROUTINE %s', p.oid::pg_catalog.regprocedure) AS object, a.grantee
            FROM member m
            JOIN pg_catalog.pg_proc p ON p.oid = m.objid
            CROSS JOIN LATERAL
                pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
            WHERE m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND a.grantee <> p.proowner
            UNION
            SELECT m.since, pg_catalog.format('%s %s', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                                              c.oid::pg_catalog.regclass), a.grantee
            FROM member m
            JOIN pg_catalog.pg_class c ON c.oid = m.objid
            CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
            WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND a.grantee <> c.relowner)
        SELECT g.object, CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::pg_catalog.regrole::text END AS grantee
        FROM granted g
        WHERE g.since = (SELECT m.since FROM member m
                         WHERE m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                           AND m.objid = '@extschema@.prefix_cache_row()'::pg_catalog.regprocedure)
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', r.object, r.grantee);
    END LOOP;
END
$$;

-- Whoever could read the stats view still can: functions of a view are called with its reader's rights.
DO $$
DECLARE
    reader text;
BEGIN
    FOR reader IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END
        FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
        WHERE p.oid = '@extschema@.stats_row()'::pg_catalog.regprocedure AND a.grantee <> p.proowner
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION @extschema@.prefix_cache_row() TO %s', reader);
    END LOOP;
END
$$;

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
          AND p.proname NOT LIKE '\_%'
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
