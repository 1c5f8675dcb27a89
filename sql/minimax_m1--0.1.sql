/* sql/minimax_m1--0.1.sql */

\echo Use "CREATE EXTENSION minimax_m1" to load this file. \quit

-- Everything that generates is VOLATILE (it runs at execution, not at planning)
-- and costly, so that cheap conditions are tested first.

CREATE FUNCTION generate(
    prompt text,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_generate'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION generate IS 'answers a prompt';

CREATE FUNCTION complete(
    prompt text DEFAULT NULL,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL,
    messages jsonb DEFAULT NULL,
    tools jsonb DEFAULT NULL,
    OUT content text,
    OUT reasoning text,
    OUT tool_calls jsonb,
    OUT finish_reason text,
    OUT prompt_tokens int,
    OUT cached_tokens int,
    OUT reasoning_tokens int,
    OUT completion_tokens int,
    OUT seed bigint,
    OUT model text,
    OUT queue_ms float8,
    OUT prefill_ms float8,
    OUT decode_ms float8)
RETURNS record
AS 'MODULE_PATHNAME', 'm1pg_complete'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION complete IS 'answers a prompt or a conversation, with reasoning, tool calls and counts';

CREATE FUNCTION generate_stream(
    prompt text,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL,
    OUT seq int,
    OUT channel text,
    OUT delta text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_generate_stream'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 ROWS 100;

COMMENT ON FUNCTION generate_stream IS 'answers a prompt piece by piece, when called in the select list';

CREATE FUNCTION summarize(
    document text,
    instruction text DEFAULT NULL,
    max_tokens int DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_summarize'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION summarize IS 'summarizes a text of any length';

CREATE FUNCTION count_tokens(document text)
RETURNS int
AS 'MODULE_PATHNAME', 'm1pg_count_tokens'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 10000;

COMMENT ON FUNCTION count_tokens IS 'number of tokens of a text';

CREATE FUNCTION tokenize(document text)
RETURNS int[]
AS 'MODULE_PATHNAME', 'm1pg_tokenize_text'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 10000;

COMMENT ON FUNCTION tokenize IS 'token ids of a text';

CREATE FUNCTION detokenize(ids int[])
RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_detokenize'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 10000;

COMMENT ON FUNCTION detokenize IS 'text of token ids';

CREATE FUNCTION generate_ids(ids int[], max_tokens int)
RETURNS int[]
AS 'MODULE_PATHNAME', 'm1pg_generate_ids'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION generate_ids IS 'likeliest continuation of token ids, nothing interpreted';

CREATE FUNCTION logits(ids int[])
RETURNS real[]
AS 'MODULE_PATHNAME', 'm1pg_logits'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000000;

COMMENT ON FUNCTION logits IS 'scores of every token to follow the given ones';

CREATE FUNCTION annotate()
RETURNS trigger
AS 'MODULE_PATHNAME', 'm1pg_annotate'
LANGUAGE C;

COMMENT ON FUNCTION annotate IS 'trigger that fills a column from a prompt over the row';

CREATE FUNCTION cancel(request_id bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_cancel'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION cancel IS 'cancels a request that is shown in the activity view';

CREATE FUNCTION stats_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_stats_reset'
LANGUAGE C VOLATILE PARALLEL SAFE;

COMMENT ON FUNCTION stats_reset IS 'sets the counters of the stats view to zero';

CREATE FUNCTION activity_rows(
    OUT request bigint,
    OUT pid int,
    OUT usesysid oid,
    OUT datid oid,
    OUT function text,
    OUT state text,
    OUT queue_position int,
    OUT prompt_tokens int,
    OUT prefilled int,
    OUT generated int,
    OUT submitted_at timestamptz,
    OUT state_since timestamptz,
    OUT prompt text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_activity'
LANGUAGE C VOLATILE PARALLEL SAFE;

CREATE VIEW activity AS
SELECT a.request, a.pid, pg_catalog.pg_get_userbyid(a.usesysid) AS "user", d.datname AS database,
       a.function, a.state, a.queue_position, a.prompt_tokens, a.prefilled, a.generated,
       a.submitted_at, a.state_since, a.prompt
FROM @extschema@.activity_rows() a
LEFT JOIN pg_catalog.pg_database d ON d.oid = a.datid;

COMMENT ON VIEW activity IS 'requests that wait or run';

CREATE FUNCTION model_row(
    OUT name text,
    OUT architecture text,
    OUT parameters bigint,
    OUT layers int,
    OUT experts int,
    OUT device text,
    OUT context int,
    OUT bytes bigint,
    OUT state text,
    OUT engine_restarts bigint,
    OUT engine_pid int,
    OUT last_error text,
    OUT next_try timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_model_info'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1;

CREATE VIEW model AS SELECT * FROM @extschema@.model_row();

COMMENT ON VIEW model IS 'the loaded model and its engine';

CREATE FUNCTION stats_row(
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
    OUT stats_reset timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_stats'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1;

CREATE VIEW stats AS SELECT * FROM @extschema@.stats_row();

COMMENT ON VIEW stats IS 'counters since the server started or stats_reset()';

-- Using the model costs time of the whole server: nobody may unless told so.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @extschema@ FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA @extschema@ FROM PUBLIC;

CREATE FUNCTION grant_usage(role regrole)
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
          AND p.proname NOT IN ('grant_usage', 'stats_reset')
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

COMMENT ON FUNCTION grant_usage IS 'allows a role to use the model';

REVOKE ALL ON FUNCTION grant_usage(regrole) FROM PUBLIC;
