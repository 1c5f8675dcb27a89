/* sql/install/76_rewards.sql */

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
