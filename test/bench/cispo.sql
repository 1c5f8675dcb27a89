-- cispo.sql - what the methods of learning by reward are compared at, and how runs are told. cispo.sh runs it.
SET client_min_messages = warning;

-- ---- three tasks, each a view with what train() is given ----

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

-- Columns whose names the model does not know.
CREATE TYPE complaint AS (thing text, trouble text, wish text);
CREATE VIEW extraction AS
SELECT id, body AS document, ROW(product, issue, want)::complaint AS answer FROM letter;

-- Long additions: a chain of carries, and one wrong step spoils the end.
CREATE VIEW carry AS
SELECT id, format('What is %s + %s?', a, b) AS prompt, a + b AS answer
FROM generate_series(1, 256) id,
     LATERAL (SELECT 10000 + id * 7919 % 90000 AS a, 10000 + id * 104729 % 90000 AS b) n;

-- ---- runs ----

-- Queues one run of a task: all is the same but the method and the seed.
CREATE FUNCTION begin_run(task text, method text, seed int, steps int, prompts int) RETURNS name LANGUAGE plpgsql AS $$
DECLARE
    run name := format('%s_%s_%s', task, method, seed);
    learnt text := format('SELECT * FROM %I WHERE id %% 4 > 0 ORDER BY id', task);
    held_out text := format('SELECT * FROM %I WHERE id %% 4 = 0 ORDER BY id', task);
BEGIN
    IF task = 'extraction' THEN
        PERFORM minimax_m1.train_extract(run, learnt, NULL::complaint, held_out, method, steps, jsonb_build_object(
            'seed', seed, 'updates_per_step', 16, 'prompts_per_step', prompts, 'evaluate_every', 1, 'max_tokens', 200));
    ELSE
        PERFORM minimax_m1.train(run, method, learnt, held_out, CASE task WHEN 'voucher' THEN 'voucher_ok' ELSE 'reward_number' END,
            steps, seed => seed, updates_per_step => 16, prompts_per_step => prompts, evaluate_every => 1,
            max_tokens => CASE task WHEN 'voucher' THEN 60 ELSE 400 END);
    END IF;
    RETURN run;
END
$$;

-- ---- results ----

-- What is reached is 90 % of the best that any run of the task got. A fall is how far a run came down from its own best.
CREATE VIEW run AS
SELECT split_part(s.training, '_', 1) AS task, t.method, s.training, s.step, s.heldout,
       sum(s.answers) OVER w AS answers, max(s.heldout) OVER w AS best_so_far,
       max(s.heldout) OVER (PARTITION BY split_part(s.training, '_', 1)) AS best, s.step = max(s.step) OVER (PARTITION BY s.training) AS last
FROM minimax_m1.training_step s JOIN minimax_m1.training t ON t.name = s.training
WINDOW w AS (PARTITION BY s.training ORDER BY s.step);

CREATE VIEW result AS
SELECT task, method, training, min(heldout) FILTER (WHERE step = 0) AS heldout_before, min(heldout) FILTER (WHERE last) AS final,
       max(heldout) AS best, min(step) FILTER (WHERE heldout >= 0.9 * best) AS steps_to_90,
       min(answers) FILTER (WHERE heldout >= 0.9 * best) AS answers_to_90, max(best_so_far - heldout) AS fall
FROM run GROUP BY task, method, training;
