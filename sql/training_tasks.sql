-- Trainings for classify() and extract(): what they would learn from. None is begun: what queues them is taken back.
SET search_path = public, minimax_m1;
\pset null '(null)'
\set SHOW_CONTEXT never
CREATE TYPE urgency AS ENUM ('calm', 'urgent');
CREATE TYPE wish AS (product text, want text, amount int);
CREATE TABLE ticket (id int, body text, urgency text, product text, want text);
INSERT INTO ticket SELECT i, format('My webcam broke %s times. I would like a refund.', i), CASE WHEN i % 3 = 0 THEN 'urgent' ELSE 'calm' END,
       'webcam', 'a refund' FROM generate_series(1, 10) i;

-- what is asked is what classify() and extract() ask
SELECT _task_classify(ARRAY['calm', 'urgent']), _task_extract('wish'::regtype);
SELECT _task_schema('wish'::regtype);
SELECT _task_classify('{}');
SELECT _task_classify(ARRAY['calm', 'calm']);
SELECT _task_extract('int'::regtype);
-- keys stay in their order
SELECT _task_json('{"b":1, "a" : {"d":[1,{"x":null}],"c":"q\"r"},"e":[],"f":{}}');

CREATE VIEW queued AS
SELECT r.name, r.method, r.reward, r.steps, r.options->'choices' AS choices, r.options->>'json_schema' AS json_schema, r.options->'seed' AS seed
FROM training_run r;
CREATE VIEW learnt AS
SELECT e.part, count(*), min(e.example->>'prompt') AS prompt, min(e.example->>'answer') AS answer, (array_agg(e.example))[1] ? 'id' AS other_columns
FROM training_example e GROUP BY e.part;

BEGIN;
SELECT train_classify('a', 'SELECT id, body AS input, urgency AS category FROM ticket -- all', ARRAY['calm', 'urgent'],
                      holdout => 'SELECT id, body AS input, urgency AS category FROM ticket WHERE id = 3;', steps => 7);
SELECT * FROM queued;
SELECT * FROM learnt ORDER BY part;
ROLLBACK;

-- an enum, options by their names, and rows that are held out: a fifth, the same for the same seed, and none that is learnt from
BEGIN;
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency, options => '{"seed": 7, "group_size": 4}');
SELECT * FROM queued;
SELECT part, count(*), count(DISTINCT example->>'input') AS texts FROM training_example GROUP BY part ORDER BY part;
SELECT count(*) AS both FROM training_example t JOIN training_example h ON t.example = h.example WHERE t.part = 'train' AND h.part = 'holdout';
CREATE TEMP TABLE held_out AS SELECT example FROM training_example WHERE part = 'holdout';
DELETE FROM training_run;
DELETE FROM training_example;
-- equal texts stay together
SELECT train_classify('b', 'SELECT body AS input, urgency AS category FROM ticket UNION ALL SELECT body, urgency FROM ticket', NULL::urgency, options => '{"seed": 7}');
SELECT part, count(*), count(DISTINCT example->>'input') AS texts FROM training_example GROUP BY part ORDER BY part;
SELECT count(*) AS the_same FROM training_example e WHERE part = 'holdout' AND example IN (SELECT example FROM held_out);
ROLLBACK;

-- the query runs once: what it gives may be others the next time
BEGIN;
SELECT train_classify('a', $$SELECT random()::text AS input, 'calm' AS category FROM generate_series(1, 100)$$, NULL::urgency);
SELECT part, count(*) FROM training_example GROUP BY part ORDER BY part;
SELECT max(hashtextextended(example->>'input', 0)) FILTER (WHERE part = 'holdout') < min(hashtextextended(example->>'input', 0)) FILTER (WHERE part = 'train') AS divided
FROM training_example;
ROLLBACK;

-- train() itself divides the rows of one query by a column, and tells of what is asked in both parts
BEGIN;
SELECT train('a', examples => 'SELECT id, body AS prompt, urgency, id % 5 = 0 AS held_out FROM ticket ORDER BY id', reward => 'reward_length');
SELECT part, count(*), min((example->>'id')::int), bool_and((example->>'held_out')::boolean) AS held_out FROM training_example GROUP BY part ORDER BY part;
SELECT holdout FROM training_run;
SELECT train('b', examples => 'SELECT body AS prompt, id > 8 AS held_out FROM ticket UNION ALL SELECT body, false FROM ticket', reward => 'reward_length');
ROLLBACK;
SELECT train('a', examples => 'SELECT body AS prompt, false AS held_out FROM ticket', holdout => 'SELECT body AS prompt FROM ticket', reward => 'reward_length');
SELECT train('a', examples => 'SELECT body AS prompt, true AS held_out FROM ticket', reward => 'reward_length');
SELECT train('a', examples => 'SELECT body AS prompt, urgency AS held_out FROM ticket', reward => 'reward_length');

-- rows of a type; by hand or as JSON
BEGIN;
SELECT train_extract('a', 'SELECT id, body AS document, ROW(product, want, NULL)::wish AS answer FROM ticket', NULL::wish,
                     holdout => $$SELECT 1 AS id, 'x' AS document, '{"product": "y"}'::jsonb AS answer$$);
SELECT * FROM queued;
SELECT * FROM learnt ORDER BY part;
ROLLBACK;
-- right answers are in the words in which extract() would have them
BEGIN;
SELECT train_extract('a', $$SELECT 'x' AS document, '{"want": "z", "product": "y"}'::jsonb AS answer$$, NULL::wish, method => 'sft',
                     holdout => $$SELECT 'x' AS document, ROW('p', 'q', 2)::wish AS answer$$);
SELECT method, reward FROM queued;
SELECT part, example FROM training_example ORDER BY part;
ROLLBACK;

-- as JSON's text, too
BEGIN;
SELECT train_extract(m, $$SELECT 'x' AS document, '{"want": "z"}' AS answer$$, NULL::wish, method => m, holdout => $$SELECT 'y' AS document, '{}' AS answer$$)
FROM unnest('{sft,cispo}'::text[]) m;
SELECT r.name, e.part, e.example->'answer' AS answer FROM training_example e JOIN training_run r ON r.id = e.training ORDER BY 1, 2;
ROLLBACK;

-- with what else a query says of a row, and which rows it holds out
BEGIN;
SELECT train_extract('a', $$SELECT 'd' || r AS document, '{"want": "z"}'::jsonb AS answer, r, i + 0.5 AS weight, 'Think.' AS reasoning,
                                   'Be brief.' AS system_prompt, i > 2 AS held_out FROM generate_series(1, 3) r(r), LATERAL (SELECT r) i(i)$$,
                     NULL::wish, method => 'sft');
SELECT part, example - 'prompt' AS example FROM training_example ORDER BY part, item;
ROLLBACK;
BEGIN;
SELECT train_extract('a', $$SELECT body AS document, '{}'::jsonb AS answer, 2 AS weight FROM ticket$$, NULL::wish, method => 'sft',
                     holdout => $$SELECT body AS document, '{}'::jsonb AS answer FROM ticket$$);
SELECT train_classify('b', 'SELECT body AS input, urgency AS category, id > 8 AS held_out FROM ticket', NULL::urgency);
SELECT train_extract('c', $$SELECT body AS document, '{}'::jsonb AS answer, id > 9 AS held_out FROM ticket$$, NULL::wish);
SELECT r.name, e.part, count(*), max(e.example->>'weight') AS weight FROM training_example e JOIN training_run r ON r.id = e.training GROUP BY 1, 2 ORDER BY 1, 2;
ROLLBACK;

-- what is wrong
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', ARRAY['calm', 'loud']);
SELECT train_classify('a', 'SELECT body AS input, NULL::text AS category FROM ticket', ARRAY['calm', 'loud'], holdout => $$SELECT 'x' AS input, 'y' AS category$$);
SELECT train_classify('a', 'SELECT body AS input, ''calm'' AS category FROM ticket', ARRAY['calm', 'loud'], holdout => $$SELECT 'x' AS input, 'y' AS category$$);
SELECT train_classify('a', 'SELECT body, urgency AS category FROM ticket', NULL::urgency);
SELECT train_classify('a', 'SELECT body AS input FROM ticket', NULL::urgency);
SELECT train_classify('a', 'SELECT body AS input, urgency AS category, id AS prompt FROM ticket', NULL::urgency);
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency, options => '{"sead": 7}');
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency, options => '{"group_size": 1}');
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency, options => '{"choices": ["x"]}');
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency, options => '{"regex": "x"}', method => 'sft');
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency, options => '{"steps": 7}');
SELECT train_classify('a', $$SELECT 'the same' AS input, urgency AS category FROM ticket$$, NULL::urgency);
SELECT train_classify('a', NULL, NULL::urgency);
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency, method => 'magic');
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency, holdout => 'SELECT body AS input FROM ticket');
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency, options => '[]');
SELECT train_classify('a', 'ticket', NULL::urgency);
SELECT train_classify('a', 'SELECT body AS input, urgency AS category FROM ticket', NULL::text[]);
SELECT train_classify(NULL, 'SELECT body AS input, urgency AS category FROM ticket', NULL::urgency);
SELECT train_extract('a', 'SELECT body AS document FROM ticket', 1);
SELECT train_extract('a', 'SELECT body AS text FROM ticket', NULL::wish);
SELECT train_extract('a', 'SELECT body AS document, NULL::wish AS answer FROM ticket', NULL::wish);
SELECT train_extract('a', $$SELECT body AS document, 'null'::jsonb AS answer FROM ticket$$, NULL::wish, method => 'sft');
SELECT train_extract('a', $$SELECT body AS document, 'a webcam' AS answer FROM ticket$$, NULL::wish);
SELECT train_extract('a', $$SELECT body AS document, '[1]'::jsonb AS answer FROM ticket$$, NULL::wish);
SELECT train_extract('a', $$SELECT body AS document, '{"product": "y", "wants": "z"}'::jsonb AS answer FROM ticket$$, NULL::wish);
SELECT train_extract('a', $$SELECT body AS document, '{"amount": "two"}'::jsonb AS answer FROM ticket$$, NULL::wish, method => 'sft');
SELECT count(*) FROM training_run;
DROP TABLE ticket CASCADE;
DROP VIEW queued, learnt;
DROP TYPE urgency, wish;
