/* sql/install/20_tokens.sql */

-- ---- Tokens: what the model reads and writes, with nothing interpreted ----

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
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION generate_ids IS 'likeliest continuation of token ids, nothing interpreted';

CREATE FUNCTION logits(ids int[])
RETURNS real[]
AS 'MODULE_PATHNAME', 'm1pg_logits'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000000 SUPPORT call_support;

COMMENT ON FUNCTION logits IS 'scores of every token to follow the given ones';
