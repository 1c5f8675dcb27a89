-- cispo.sql - what the methods of learning by reward are compared at, and what is kept of runs. cispo.sh runs it.
SET client_min_messages = warning;

-- ---- three tasks, each a view of prompts and what their rewards want ----

CREATE TABLE letter AS
SELECT row_number() OVER (ORDER BY md5(product || issue || want)) AS id, product, issue, want,
       format('Hello, My %s %s. I would like %s. Thanks, Ana', product, issue, want) AS body,
       CASE WHEN unsafe OR want = 'a refund' THEN 'yes' ELSE 'no' END AS voucher
FROM unnest('{webcam, toaster, coffee machine, desk lamp, power bank, monitor, rice cooker, hair dryer}'::text[]) product,
     unnest('{a refund, a repair, a discount, a new manual}'::text[]) want,
     (VALUES ('leaks water', true), ('smells of burning plastic', true), ('gives small electric shocks', true),
             ('never arrived', false), ('has a missing screw', false), ('broke in half', false),
             ('arrived in a torn box', false), ('will not turn on', false)) i(issue, unsafe);

CREATE FUNCTION voucher_ok(answer text, example jsonb) RETURNS float8 IMMUTABLE
RETURN (lower(answer) = example->>'voucher')::int;

-- A rule that no message spells, an easy one.
CREATE VIEW voucher AS
SELECT id, 'Answer yes or no: the customer gets a voucher.' || E'\n\n' || body AS prompt, voucher FROM letter;

-- What train_extract() asks: a column that the model knows, and one of labels that it has never seen.
CREATE TYPE wish AS ENUM ('money', 'mending', 'rebate', 'paper');
CREATE TYPE complaint AS (product text, wish wish);
CREATE VIEW extraction AS
SELECT id, minimax_m1._task_extract('complaint') || E'\n\n' || body AS prompt, ROW(product, kind)::complaint AS answer
FROM letter
JOIN (VALUES ('a refund', 'money'), ('a repair', 'mending'), ('a discount', 'rebate'), ('a new manual', 'paper')) w(want, kind)
     USING (want);

-- Additions in longer thoughts: a chain of carries, and one wrong step spoils the end. Half of them are asked as the model knows
-- it, the others so that it hardly ever begins to add.
CREATE VIEW carry AS
SELECT id, format('What is %s + %s?', a, b) || CASE id / 4 % 2 WHEN 1 THEN ' Put the final answer into \boxed{}.' ELSE '' END AS prompt,
       a + b AS answer
FROM generate_series(1, 256) id,
     LATERAL (SELECT 100 + id * 7919 % 900 AS a, 100 + id * 104729 % 900 AS b) n;

CREATE TABLE task AS
SELECT * FROM (VALUES ('voucher', 'voucher_ok', 60, NULL),
                      ('extraction', 'reward_json', 200, minimax_m1._task_schema('complaint')),
                      ('carry', 'reward_number', 400, NULL)) t(name, reward, max_tokens, json_schema);

-- ---- runs ----

-- Every fourth row is held out.
CREATE FUNCTION rows_of(task text, held_out boolean) RETURNS text
RETURN format('SELECT * FROM %I WHERE (id %% 4 = 0) = %L ORDER BY id', task, held_out);

-- Whether there is anything to learn from. The time is that of a step's rows as they are now: those that are solved are
-- replaced by others, up to three times as many.
CREATE FUNCTION check_task(task text, steps int, prompts int, OUT useful float8, OUT advice text, OUT expected_time interval)
BEGIN ATOMIC
    SELECT c.useful, c.advice, c.expected_time
    FROM task t, minimax_m1.training_check(rows_of(t.name, false), t.reward, max_tokens => t.max_tokens,
        json_schema => t.json_schema::minimax_m1.json_text, steps => steps, prompts_per_step => prompts, holdout_rows => 64) c
    WHERE t.name = task;
END;

CREATE FUNCTION run_name(task text, method text, seed int) RETURNS name
RETURN format('%s %s %s', task, method, seed);

-- Queues one run of a task: all is the same but the method and the seed.
CREATE FUNCTION begin_run(task text, method text, seed int, steps int, prompts int) RETURNS void
BEGIN ATOMIC
    SELECT minimax_m1.train(run_name(task, method, seed), method, rows_of(t.name, false), rows_of(t.name, true), t.reward, steps,
        seed => seed, updates_per_step => 16, prompts_per_step => prompts, evaluate_every => 2, max_tokens => t.max_tokens,
        json_schema => t.json_schema::minimax_m1.json_text)
    FROM task t WHERE t.name = task;
END;

-- ---- what is kept of them ----

CREATE TABLE kept_run (
    task text, method text, seed int, steps int, state text, error text, seconds float8, PRIMARY KEY (task, method, seed));

CREATE TABLE kept_step (
    task text, method text, seed int, step int, reward float8, heldout float8, heldout_error float8, answers int, tokens bigint,
    useful_groups int, updates int, clipped float8, PRIMARY KEY (task, method, seed, step));

CREATE FUNCTION keep_run(task text, method text, seed int) RETURNS void
BEGIN ATOMIC
    -- of a run that was interrupted between its steps and itself
    DELETE FROM kept_step s WHERE (s.task, s.method, s.seed) = (keep_run.task, keep_run.method, keep_run.seed);
    INSERT INTO kept_step
    SELECT keep_run.task, keep_run.method, keep_run.seed, s.step, s.reward, s.heldout, s.heldout_error, s.answers, s.tokens,
           s.useful_groups, s.updates, s.clipped
    FROM minimax_m1.training_step s WHERE s.training = run_name(keep_run.task, keep_run.method, keep_run.seed);
    INSERT INTO kept_run
    SELECT keep_run.task, keep_run.method, keep_run.seed, t.steps, t.state, t.error, extract(epoch FROM t.finished_at - t.started_at)
    FROM minimax_m1.training t WHERE t.name = run_name(keep_run.task, keep_run.method, keep_run.seed);
END;

-- ---- results, of runs that came to their end ----

CREATE VIEW run_step AS
SELECT r.steps, s.*, sum(s.answers) OVER w AS drawn, max(s.heldout) OVER w AS best_so_far
FROM kept_step s JOIN kept_run r USING (task, method, seed) WHERE r.state = 'done'
WINDOW w AS (PARTITION BY s.task, s.method, s.seed ORDER BY s.step);

-- What is to be reached is 90 % of the best that any run of the task got, unless that is hardly more than what the model could
-- do before.
CREATE VIEW target AS
SELECT task, CASE WHEN 0.9 * best > start AND best - start >= greatest(0.1, 2 * error) THEN 0.9 * best END AS heldout
FROM (SELECT task, max(heldout) FILTER (WHERE step = 0) AS start, max(heldout_error) FILTER (WHERE step = 0) AS error,
             max(heldout) AS best
      FROM run_step GROUP BY task) t;

-- So many answers all runs of a task have drawn. Those that ended before their last step, with nothing left to learn from, stay
-- what they were, and have as many as one likes.
CREATE VIEW common AS
SELECT task, coalesce(min(drawn) FILTER (WHERE step = steps), max(drawn)) AS answers
FROM (SELECT task, steps, max(step) AS step, max(drawn) AS drawn FROM run_step GROUP BY task, method, seed, steps) r
GROUP BY task;

-- A fall is how far a run came down from its own best.
CREATE VIEW result AS
SELECT s.task, s.method, s.seed, min(s.heldout) FILTER (WHERE s.step = 0) AS before,
       (array_agg(s.heldout ORDER BY s.step DESC) FILTER (WHERE s.heldout IS NOT NULL))[1] AS final,
       (array_agg(s.heldout ORDER BY s.step DESC) FILTER (WHERE s.heldout IS NOT NULL AND s.drawn <= c.answers))[1] AS equal_answers,
       min(s.step) FILTER (WHERE s.step > 0 AND s.heldout >= t.heldout) AS steps_to_90,
       min(s.drawn) FILTER (WHERE s.step > 0 AND s.heldout >= t.heldout) AS answers_to_90,
       t.heldout IS NOT NULL AS has_target, max(s.best_so_far - s.heldout) AS fall, max(s.drawn) AS answers,
       avg(s.updates) FILTER (WHERE s.step > 0) AS updates, avg(s.clipped) AS clipped
FROM run_step s JOIN target t USING (task) JOIN common c USING (task)
GROUP BY s.task, s.method, s.seed, t.heldout;

-- ---- how they are told ----

-- Student's t for 95 % of n values; of more than twenty, a little too large.
CREATE FUNCTION student_t(n bigint) RETURNS float8 IMMUTABLE
RETURN coalesce(('{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
                   2.120, 2.110, 2.101, 2.093}'::float8[])[n - 1], 2.093);

-- Their mean, and half of the interval that has it with 95 % certainty. Values that are NULL are none.
CREATE FUNCTION told(x float8[], digits int) RETURNS text IMMUTABLE
BEGIN ATOMIC
    SELECT round(avg(v)::numeric, digits)
           || coalesce(' ± ' || round((student_t(count(v)) * stddev_samp(v) / sqrt(count(v)))::numeric, digits), '')
    FROM unnest(x) v;
END;
