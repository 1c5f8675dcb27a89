/* sql/minimax_m1--0.1--0.2.sql */

\echo Use "ALTER EXTENSION minimax_m1 UPDATE TO '0.2'" to load this file. \quit

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

REVOKE ALL ON FUNCTION prefix_cache_row() FROM PUBLIC;

-- Whoever could read the view still can: functions of a view are called with its reader's rights.
DO $$
DECLARE
    reader regrole;
BEGIN
    FOR reader IN
        SELECT a.grantee
        FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
        WHERE p.oid = '@extschema@.stats_row()'::pg_catalog.regprocedure AND a.grantee <> p.proowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION @extschema@.prefix_cache_row() TO %s', reader);
    END LOOP;
END
$$;

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

REVOKE ALL ON FUNCTION
    generate_batch(text[], text, int, int, float8, float8, bigint, text[]),
    summarize_agg_step(internal, text),
    reduce_agg_step(internal, text, text),
    reduce_agg_final(internal),
    summarize_agg(text),
    reduce_agg(text, text),
    generate_json(text, jsonb, text, int, int, float8, float8, bigint),
    classify(text, text[], bool),
    classify(text, anyenum),
    @extschema@.extract(text, anyelement),
    is_true(text, text, float8, text, int, int, float8, float8, bigint),
    score(text, text),
    rank(text, text[], int)
FROM PUBLIC;

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

-- ---- Permissions ----

-- Of the new functions only: PUBLIC may have been allowed to call the others.
REVOKE ALL ON FUNCTION
    set_quota(regrole, bigint, int),
    role_use(oid),
    usage_rows(),
    usage_reset(date),
    set_price(numeric, numeric, numeric, int, date),
    stats_by_function_rows(),
    last_statement_rows(),
    call_support(internal)
FROM PUBLIC;

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
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', fn, role);
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
