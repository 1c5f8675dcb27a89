/* sql/install/30_operators.sql */

-- ---- Operators over tables: batches, aggregates, a trigger, and answers that are constrained to a form ----

-- ---- many rows at the same time ----

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

-- ---- aggregates: many rows into one text ----

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

COMMENT ON AGGREGATE reduce_agg(text, text) IS
    'applies an instruction to the texts of any number of rows, part by part';

-- ---- a trigger that needs no definition; annotators have one ----

CREATE FUNCTION annotate()
RETURNS trigger
AS 'MODULE_PATHNAME', 'm1pg_annotate'
LANGUAGE C;

COMMENT ON FUNCTION annotate IS 'trigger that fills a column from a prompt over the row';

-- ---- answers that are constrained to a form ----

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

CREATE FUNCTION classify(input text, categories text[], multi bool DEFAULT false)
RETURNS text[]
AS 'MODULE_PATHNAME', 'm1pg_classify'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION classify(text, text[], bool) IS 'one category of a text, or several';

CREATE FUNCTION classify(input text, target anyenum)
RETURNS anyenum
AS 'MODULE_PATHNAME', 'm1pg_classify_enum'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION classify(text, anyenum) IS 'the label of a text, from an enum type';

-- Its name is qualified because EXTRACT is a keyword. PARALLEL UNSAFE: where an error becomes NULL, the row is made in
-- a subtransaction.
CREATE FUNCTION @extschema@.extract(document text, target anyelement)
RETURNS anyelement
AS 'MODULE_PATHNAME', 'm1pg_extract'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION @extschema@.extract(text, anyelement) IS 'a row of a composite type, from a text';

-- ---- judgements ----

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
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION is_true IS 'whether a statement about a text is true; NULL when undecided';

CREATE FUNCTION score(criterion text, document text)
RETURNS float8
AS 'MODULE_PATHNAME', 'm1pg_score'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION score IS 'how probable it is that a statement about a text is true';

CREATE FUNCTION rank(query text, documents text[], k int DEFAULT NULL)
RETURNS TABLE (ord int, document text, score float8)
AS 'MODULE_PATHNAME', 'm1pg_rank'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000000 ROWS 10;

COMMENT ON FUNCTION rank(text, text[], int) IS 'the texts for which a statement is most probably true, best first';
