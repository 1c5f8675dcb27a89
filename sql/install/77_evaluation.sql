/* sql/install/77_evaluation.sql */

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
    choices text[] DEFAULT NULL,
    json_schema json_text DEFAULT NULL,
    regex text DEFAULT NULL,
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

COMMENT ON FUNCTION evaluate(text, text, text, int, int, text, int, int, float8, float8, bigint, text[], json_text, text) IS
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
    choices text[] DEFAULT NULL,
    json_schema json_text DEFAULT NULL,
    regex text DEFAULT NULL,
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

COMMENT ON FUNCTION evaluate(text, text, text[], int, int, text, int, int, float8, float8, bigint, text[], json_text, text) IS
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

-- What has the mean of so many rewards in it with 95 % certainty. Of shares, from 0 to 1, it is Wilson's, which is no point where all
-- are right; else Student's, by the standard error, and NULL for one reward, which tells of no spread.
CREATE FUNCTION _evaluation_interval(n bigint, mean float8, error float8, shares boolean, OUT low float8, OUT high float8)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT middle - half, middle + half
    FROM (SELECT 1.959964::float8 AS z, nullif(n, 0)::float8 AS d, nullif(n - 1, 0)::float8 AS f) c,
         LATERAL (SELECT CASE WHEN n < 12 THEN ('{12.7062,4.3027,3.1824,2.7764,2.5706,2.4469,2.3646,2.3060,2.2622,2.2281}'::float8[])[n - 1]
                              -- Fisher's expansion, with four right digits from here on
                              ELSE z + (z ^ 3 + z) / 4 / f + (5 * z ^ 5 + 16 * z ^ 3 + 3 * z) / 96 / f ^ 2
                                   + (3 * z ^ 7 + 19 * z ^ 5 + 17 * z ^ 3 - 15 * z) / 384 / f ^ 3 END AS t) s,
         LATERAL (SELECT CASE WHEN shares THEN (mean + z ^ 2 / 2 / d) / (1 + z ^ 2 / d) ELSE mean END AS middle,
                         CASE WHEN shares THEN z * sqrt(greatest(mean * (1 - mean), 0) / d + z ^ 2 / 4 / d ^ 2) / (1 + z ^ 2 / d)
                              ELSE t * error END AS half) i
$$;

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
    system_prompt text DEFAULT NULL,
    choices text[] DEFAULT NULL,
    json_schema json_text DEFAULT NULL,
    regex text DEFAULT NULL,
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
    WITH asked AS (
        -- as evaluate() reads them: by their places, and NULL is none
        SELECT array_agg(coalesce(u.adapter, 'base') ORDER BY u.place) AS names FROM unnest(adapters) WITH ORDINALITY u(adapter, place)),
    answer AS MATERIALIZED (
        SELECT e.* FROM @extschema@.evaluate(query, reward, adapters, samples, items, system_prompt, max_tokens, thinking_budget,
                                             temperature, top_p, seed, choices, json_schema, regex) e),
    item AS (
        -- equal rewards have equal means, in whatever order the answers came
        SELECT a.adapter, a.item, avg(a.reward ORDER BY a.reward) AS reward, sum(a.completion_tokens) AS tokens,
               count(a.completion_tokens) AS answers, count(a.error) AS errors
        FROM answer a GROUP BY a.adapter, a.item),
    pair AS (
        SELECT i.*, sign(i.reward - f.reward) AS won
        FROM item i CROSS JOIN asked k
        LEFT JOIN item f ON f.item = i.item AND f.adapter = k.names[1] AND f.adapter <> i.adapter),
    total AS (
        SELECT t.adapter, count(t.reward) AS n, avg(t.reward) AS mean, stddev_samp(t.reward) / sqrt(count(t.reward)) AS error,
               sum(t.tokens) / nullif(sum(t.answers), 0) AS tokens,
               sum(t.errors)::int AS errors, count(*) FILTER (WHERE t.won > 0)::int AS wins,
               count(*) FILTER (WHERE t.won = 0)::int AS ties, count(*) FILTER (WHERE t.won < 0)::int AS losses,
               count(t.won) > 0 AS paired
        FROM pair t GROUP BY t.adapter)
    SELECT t.adapter, t.n::int, t.mean, i.low, i.high,
           t.tokens::float8, t.errors, CASE WHEN t.paired THEN t.wins END, CASE WHEN t.paired THEN t.ties END,
           CASE WHEN t.paired THEN t.losses END, CASE WHEN t.paired THEN @extschema@.mcnemar_p(t.wins, t.losses) END
    FROM total t CROSS JOIN asked k
    -- of all adapters the same one
    CROSS JOIN (SELECT min(reward) >= 0 AND max(reward) <= 1 AS shares FROM item) r
    CROSS JOIN LATERAL @extschema@._evaluation_interval(t.n, t.mean, t.error, r.shares) i
    ORDER BY array_position(k.names, t.adapter)
$$;

COMMENT ON FUNCTION compare IS 'what adapters get for the rows of a query, with 95 % intervals, and each beside the first';

-- How long a training would take in which an answer takes so many seconds. A step asks rows until half of as many as it is to
-- have are useful, three times at most, and learns from the useful ones; held-out rows are asked before the first step and
-- at most twenty times after that.
CREATE FUNCTION _evaluation_time(
    answer float8, useful float8, group_size int, steps int, prompts_per_step int, holdout_rows int) RETURNS interval
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- to learn from an answer takes about half as long as to draw it: 0.46 to 0.57 with m1-nano and answers of 21 tokens
    SELECT make_interval(secs => round((answer * (
        steps::float8 * prompts_per_step * group_size * least(3, ceil(0.5 / nullif(useful, 0))) * (1 + 0.5 * useful)
        + holdout_rows * (1 + ceil(steps / ceil(steps / 20.0::float8)))))::numeric, 1)::float8)
    WHERE useful > 0
$$;

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
    system_prompt text DEFAULT NULL,
    choices text[] DEFAULT NULL,
    json_schema json_text DEFAULT NULL,
    regex text DEFAULT NULL,
    steps int DEFAULT 20,
    prompts_per_step int DEFAULT 48,
    holdout_rows int DEFAULT 0,
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
    OUT expected_time interval,
    OUT advice text)
RETURNS record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
AS $$
DECLARE
    began timestamptz := clock_timestamp();
    first_error text;
    seen int;
    wrong record;
    rated float8;                       -- share of rows of which there is a reward
BEGIN
    group_size := coalesce(group_size, 8);
    FOR wrong IN
        SELECT v.*
        FROM (VALUES ('group_size', group_size, 2, 1000), ('groups', groups, 1, 1000000), ('steps', steps, 1, 1000000),
                     ('prompts_per_step', prompts_per_step, 1, 10000), ('holdout_rows', holdout_rows, 0, 1000000)) v(name, given, lowest, highest)
        WHERE v.given NOT BETWEEN v.lowest AND v.highest
    LOOP
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: %s is out of range', wrong.name),
            DETAIL = format('It is %s; it must be between %s and %s.', wrong.given, wrong.lowest, wrong.highest),
            HINT = 'Leave it out to have its default.';
    END LOOP;
    WITH answer AS MATERIALIZED (
        SELECT e.* FROM @extschema@.evaluate(query, reward, adapter, group_size, groups, system_prompt, max_tokens, thinking_budget,
                                             1, 1, seed, choices, json_schema, regex) e),
    one AS (
        SELECT min(a.reward) AS least, max(a.reward) AS most FROM answer a GROUP BY a.item)
    SELECT a.answers, a.pass_rate, a.mean, g.solved, g.hopeless, g.useful, a.tokens, a.truncated, a.errors, a.first_error,
           g.n, g.rated
    INTO answers, pass_rate, mean, solved, hopeless, useful, tokens, truncated, errors, first_error, seen, rated
    FROM (SELECT count(*)::int AS answers, avg((a.reward >= 1)::int)::float8 AS pass_rate, avg(a.reward) AS mean,
                 avg(a.completion_tokens)::float8 AS tokens, avg((a.finish_reason = 'length')::int)::float8 AS truncated,
                 count(a.error)::int AS errors,
                 (array_agg(a.error) FILTER (WHERE a.error IS NOT NULL))[1] AS first_error
          FROM answer a) a,
         (SELECT count(*) AS n, count(o.least)::float8 / count(*) AS rated,
                 count(*) FILTER (WHERE o.least >= 1)::float8 / count(*) AS solved,
                 count(*) FILTER (WHERE o.most <= 0)::float8 / count(*) AS hopeless,
                 count(*) FILTER (WHERE o.most > o.least)::float8 / count(*) AS useful
          FROM one o) g;
    seconds := extract(epoch FROM clock_timestamp() - began);
    expected_time := @extschema@._evaluation_time(seconds / answers, useful, group_size, steps,
        CASE WHEN seen < groups THEN least(seen, prompts_per_step) ELSE prompts_per_step END, holdout_rows);
    advice := CASE
        WHEN errors = answers THEN 'every answer failed: ' || first_error
        WHEN rated = 0 THEN 'the reward has no opinion of any answer: it is always NULL'
        WHEN errors > 0 THEN format('%s of %s answers failed, the first with: %s', errors, answers, first_error)
        WHEN truncated > 0.2 THEN format('%s %% of the answers are cut off: raise max_tokens, or set a thinking_budget',
                                         round(100 * truncated))
        WHEN useful = 0 AND hopeless = rated THEN
            'nothing to learn from: no answer is right. Show right answers first, ask for less, or give partial rewards'
        WHEN useful = 0 AND solved = rated THEN 'nothing to learn: all answers are right already'
        WHEN useful = 0 THEN 'nothing to learn from: within each row, all answers get the same reward'
        WHEN useful < 0.1 THEN format('little to learn from: answers differ in %s of %s rows. Leave out rows that are always '
                                      'right or always wrong, or raise group_size', round(useful * seen), seen)
        ELSE format('answers differ in %s of %s rows: there is something to learn from', round(useful * seen), seen) END;
END
$$;

COMMENT ON FUNCTION training_check IS 'whether a training by this reward has anything to learn from, and what it would cost';
