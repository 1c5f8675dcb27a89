/* sql/install/10_requests.sql */

-- ---- Requests: a prompt goes in, an answer comes out ----
--
-- Everything that generates is VOLATILE (it runs at execution, not at planning) and costly, so that cheap conditions
-- are tested first. An option that is NULL is what the setting says.

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

CREATE FUNCTION call_support(internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'm1pg_call_support'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION call_support IS 'planner support: what a call of the model costs';

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
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

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
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support ROWS 100;

COMMENT ON FUNCTION generate_stream IS 'answers a prompt piece by piece, when called in the select list';

CREATE FUNCTION summarize(
    document text,
    instruction text DEFAULT NULL,
    max_tokens int DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_summarize'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION summarize IS 'summarizes a text of any length';
