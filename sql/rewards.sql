-- Rewards, and what evaluate(), compare() and training_check() make of them. What depends on the model is not printed.
SET search_path = public, minimax_m1;
\pset null '(null)'

-- exact: white space around a text is no part of it; NULL is no opinion; a column that was forgotten is an error
SELECT reward_exact(E' yes\n', '{"answer": "yes"}') AS same, reward_exact('Yes', '{"answer": "yes"}') AS other_case,
       reward_exact('5', '{"answer": 5}') AS number, reward_exact('', '{"answer": ""}') AS empty,
       reward_exact('yes', '{"answer": null}') AS none, reward_exact(NULL, '{"answer": "a"}') AS no_answer;
SELECT reward_exact('yes', '{"prompt": "x"}');
SELECT reward_exact('yes', '["answer"]');

-- number: the last box, else the last number
SELECT left(v.answer, 30) AS answer, reward_number(v.answer, jsonb_build_object('answer', v.wanted)) AS reward
FROM (VALUES ('It is \boxed{12}.', '12'), ('\boxed{1} or \boxed{12.0}', '12'), ('\boxed{\$1,200}', '1200'),
             ('12 and then \boxed{13}', '12'), ('So 7 + 5 = 12', '12'), ('12.', '12'), ('-3', '-3'), ('4-3', '3'),
             ('1e2', '100'), ('.5', '0.5'), ('0.5', '\boxed{.50}'), ('1,234,567', '1234567'), ('12,34', '34'),
             ('none', '0'), ('', '0'), ('\boxed{12', '12'), ('\boxed{twelve} 12', '12'), ('\boxed{{12}}', '12'),
             ('1e999999999', '1'), ('1e9999', '1'), (repeat('9', 2000), '9'), ('50%', '50'), ('x3', '3'),
             ('1' || repeat('0', 1000), '0'), ('1e99999', '99999'), (repeat('9', 500000), '9'), (repeat('7 ', 500000) || '8', '8'),
             ('NaN', '0'), ('It is −3', '-3'), ('4−3', '3'), ('\boxed{−3}', '-3'), ('1 234 567', '1234567'), ('1 234', '1234'), ('12 34', '34')) v(answer, wanted);
SELECT reward_number('12', '{"answer": 12.00}') AS json_number, reward_number('12', '{"answer": null}') AS none;
SELECT reward_number('12', '{"answer": "twelve"}');

-- json: the share of fields; what is not there and what is null are the same
SELECT v.answer, reward_json(v.answer, jsonb_build_object('answer', '{"a": 1, "b": "x", "c": null, "d": {"e": [1, 2], "f": 2}}'::jsonb))
FROM (VALUES ('{"a": 1.0, "b": "x", "d": {"f": 2, "e": [1, 2]}}'), ('{"a": 1, "b": "x", "c": null, "d": {"e": [2, 1], "f": 2}}'),
             ('{"a": 2, "b": "y", "c": 1, "d": 3}'), ('{}'), ('{"a": 1, "b": "x", "d": {"e": [1, 2], "f": 2}, "z": 1}'),
             ('[1]'), ('not JSON'), (''), ('{"a": 1e999999}'), ('{"a": "\u0000"}'), ('{"a": 1')) v(answer);
SELECT reward_json(repeat('[', 100000), '{"answer": {}}') AS deep, reward_json('{"a": 1}', '{"answer": "{\"a\": 1}"}') AS text,
       reward_json('[1, 2]', '{"answer": [1, 2]}') AS array, reward_json('3', '{"answer": 3.0}') AS scalar,
       reward_json('{}', '{"answer": {}}') AS empty, reward_json('{}', '{"answer": null}') AS none;
SELECT reward_json('{}', '{"answer": "no JSON"}');
CREATE TYPE order_form AS (product text, amount numeric(6, 2), day date);
SELECT reward_json('{"product": "lamp", "amount": 12.5, "day": null}', to_jsonb(t)) AS of_a_row
FROM (SELECT 'x' AS prompt, ROW('lamp', 12.50, '2026-01-02')::order_form AS answer) t;

-- format and length
SELECT reward_format('AB-12', '{"format": "^[A-Z]{2}-\\d+$"}') AS matches, reward_format('AB-12.', '{"format": "^[A-Z]{2}-\\d+$"}') AS not,
       reward_format('x', '{"format": null}') AS none;
SELECT reward_format('x', '{"format": "("}');
SELECT reward_length(repeat('ä', n), '{"max_length": 10}') FROM unnest(ARRAY[0, 10, 15, 20, 30]) n;
SELECT reward_length('x', '{"max_length": 0}');
SELECT reward_length('x', '{"max_length": "ten"}');

-- sql: rows in any order, by their values; as a role that may do little, and nothing of it lasts
CREATE ROLE reader;
CREATE ROLE outsider;
CREATE TABLE stock (item text, n int);
INSERT INTO stock VALUES ('lamp', 3), ('chair', 5), ('table', 5);
GRANT SELECT ON stock TO reader;
GRANT USAGE ON SCHEMA public TO reader;
CREATE FUNCTION steal() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM stock; RETURN 1; END';
CREATE FUNCTION leave() RETURNS text LANGUAGE sql AS $$SELECT set_config('role', 'none', false)$$;
CREATE FUNCTION lock_by_function() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN pg_try_advisory_lock(42); END';
CREATE TABLE secret (n int);
SELECT v.answer, reward_sql(v.answer, jsonb_build_object('answer', v.wanted, 'role', 'reader')) AS reward
FROM (VALUES ('SELECT item FROM stock WHERE n = 5', 'SELECT item FROM stock WHERE n > 4 ORDER BY item'),
             ('SELECT avg(n) FROM stock WHERE n = 5', 'SELECT 5'), ('SELECT 5 UNION ALL SELECT 5', 'SELECT 5'),
             ('SELECT ''a,b''', 'SELECT ''a'', ''b'''), ('SELECT NULL', 'SELECT ''null'''),
             ('VALUES (5);', 'SELECT 5'), ('SELECT 5; SELECT 5', 'SELECT 5'), ('SELECT steal()', 'SELECT 1'),
             ('WITH d AS (DELETE FROM stock RETURNING 1) SELECT 1', 'SELECT 1'), ('DROP TABLE stock', 'SELECT 1'),
             ('SELECT leave()', 'SELECT ''none'''), ('SELECT n FROM secret', 'SELECT 1 WHERE false'),
             ('SELECT n FROM nothing', 'SELECT 1'), ('', 'SELECT 1'), ('SELECT generate_series(1, 20000)', 'SELECT 1'),
             ('SELECT count(*) FROM generate_series(1, 1000000000)', 'SELECT 1'), ('BEGIN', 'SELECT 1'),
             ('SET minimax_m1.temperature = 1', 'SELECT 1'), ('COPY stock TO PROGRAM ''cat''', 'SELECT 1'),
             ('SELECT pg_advisory_lock(42)', 'SELECT '''''), ('SELECT lock_by_function()', 'SELECT true'),
             ('SELECT setseed(0.5)', 'SELECT '''''), ('SELECT pg_notify(''a'', ''b'')', 'SELECT ''''')) v(answer, wanted);
SELECT count(*), current_user = session_user AS same_role FROM stock;
SELECT count(*) AS locks FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
SELECT reward_sql('SELECT 1', '{"answer": "SELECT nothing", "role": "reader"}');
SELECT reward_sql('SELECT 1', '{"answer": "DELETE FROM pg_class", "role": "reader"}');
SELECT reward_sql('SELECT 1', '{"answer": "SELECT 1", "role": "nobody_here"}');
SELECT reward_sql('SELECT 1', '{"answer": "SELECT 1"}');
SELECT reward_sql('SELECT 1', '{"answer": "SELECT 1", "role": null}');
SELECT reward_sql('SELECT 1', '{"answer": null}') AS none;
SELECT reward_sql('SELECT 1', jsonb_build_object('answer', 'SELECT 1', 'role', session_user));
SELECT grant_usage('outsider');
SET ROLE outsider;
SELECT minimax_m1.reward_sql('SELECT 1', '{"answer": "SELECT 1", "role": "reader"}');
RESET ROLE;

-- judge: one of five grades
SELECT reward_judge('4', '{"prompt": "What is 2 plus 2?", "answer": "4"}') IN (0, 0.25, 0.5, 0.75, 1) AS graded,
       reward_judge('4', '{"prompt": "What is 2 plus 2?", "answer": null}') AS none;
SELECT reward_judge('4', '{"answer": "4"}');

-- evaluate: a row for each answer
CREATE TABLE sum (id int, question text, answer int);
INSERT INTO sum VALUES (1, 'What is 2 plus 2?', 4), (2, 'What is 47 + 35?', 82), (3, 'What is 47 + 35?', 83);
SELECT item, sample, content, reward, finish_reason, completion_tokens > 0 AS some, error, example - 'prompt' AS example
FROM evaluate('SELECT question AS prompt, answer FROM sum ORDER BY id', 'reward_number') ORDER BY item;
SELECT count(*), count(DISTINCT (item, sample)), bool_and(adapter = 'base') AS base
FROM evaluate('SELECT question AS prompt, answer FROM sum;', 'minimax_m1.reward_number', samples => 3, items => 2, temperature => 1);
SELECT item, reward FROM evaluate($$SELECT '[{"role": "user", "content": "What is 2 plus 2?"}]'::json AS messages, 4 AS answer$$, 'reward_number');
-- any function is a reward, and may look at the reasoning
CREATE FUNCTION thought(answer text, example jsonb, reasoning text) RETURNS float8 LANGUAGE sql
AS 'SELECT (length(reasoning) > 0 AND example ? ''prompt'')::int';
SELECT reward FROM evaluate('SELECT question AS prompt FROM public.sum WHERE id = 2', 'thought');
-- of an answer that calls a tool, the calls are graded
SELECT tool_calls, reward FROM evaluate($$SELECT 'What is the weather in Oslo?' AS prompt,
    '[{"name": "get_weather", "description": "Current weather of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]'::json AS tools,
    '[{"name": "get_weather", "arguments": {"city": "Oslo"}}]'::jsonb AS answer$$, 'reward_json');
-- a reward may ask the model, while the model answers others
SET minimax_m1.reward_timeout = '60s';
SELECT count(reward) FROM evaluate('SELECT question AS prompt, answer FROM sum', 'reward_judge');
RESET minimax_m1.reward_timeout;
-- what is wrong with a query
SELECT * FROM evaluate('SELECT 1 AS answer', 'reward_number');
SELECT * FROM evaluate('SELECT question AS prompt FROM sum WHERE false', 'reward_exact');
SELECT * FROM evaluate('SELECT question AS prompt, id AS a, id AS a FROM sum', 'reward_exact');
SELECT * FROM evaluate('SELECT question AS prompt, ''[]''::json AS messages FROM sum', 'reward_exact');
SELECT * FROM evaluate('SELECT NULL AS prompt', 'reward_exact');
SELECT * FROM evaluate('DELETE FROM sum RETURNING question AS prompt', 'reward_exact');
SELECT * FROM evaluate('WITH d AS (DELETE FROM sum RETURNING question) SELECT question AS prompt FROM d', 'reward_exact');
SELECT * FROM evaluate('SELECT question AS prompt FROM sum; DROP TABLE sum', 'reward_exact');
SELECT * FROM evaluate('SELECT question AS prompt FROM sum FOR UPDATE', 'reward_exact');
SELECT * FROM evaluate('SELECT steal()::text AS prompt', 'reward_exact');
SELECT * FROM evaluate('SELECT pg_advisory_lock(42)::text AS prompt', 'reward_exact');
SELECT * FROM evaluate('nonsense', 'reward_exact');
SELECT * FROM evaluate(NULL, 'reward_exact');
SELECT * FROM evaluate('SELECT question AS prompt FROM sum', 'reward_exact', samples => 0);
SELECT * FROM evaluate('SELECT question AS prompt FROM sum', 'reward_exact', items => 0);
SELECT count(*) FROM sum;
-- what is wrong with a reward
CREATE FUNCTION no_float(answer text, example jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION many(answer text, example jsonb) RETURNS SETOF float8 LANGUAGE sql AS 'SELECT 1.0::float8';
CREATE FUNCTION fails(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT 1.0::float8 / 0';
CREATE FUNCTION writes(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.sum; RETURN 1; END';
CREATE FUNCTION drops(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN DROP TABLE public.sum; RETURN 1; END';
CREATE FUNCTION loops(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN LOOP END LOOP; END';
-- what catches the cancel is cancelled again
CREATE FUNCTION catches(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql
AS 'BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN LOOP NULL; END LOOP; END';
CREATE FUNCTION locks(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(42); SELECT 1.0::float8';
CREATE FUNCTION seeds(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT setseed(0.5); SELECT 1.0::float8';
CREATE FUNCTION ends(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT pg_terminate_backend(pg_backend_pid())::int::float8';
CREATE FUNCTION of_id(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT (example->>''id'')::float8';
CREATE FUNCTION of_some(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT CASE WHEN example->>''id'' = ''1'' THEN random() END';
CREATE FUNCTION switches(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN SET ROLE reader; RETURN 1; END';
CREATE FUNCTION commits(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN SET transaction_read_only = off; RETURN 1; END';
CREATE FUNCTION nan(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT ''NaN''::float8';
CREATE FUNCTION endless(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT ''-infinity''::float8';
CREATE FUNCTION silent(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT NULL::float8';
SELECT * FROM evaluate('SELECT question AS prompt FROM sum', 'nothing_here');
CREATE FUNCTION of_json(answer text, example json) RETURNS float8 RETURN 1;
SELECT * FROM evaluate('SELECT question AS prompt FROM sum', 'of_json');
SELECT * FROM evaluate('SELECT question AS prompt FROM sum', 'no_float');
SELECT * FROM evaluate('SELECT question AS prompt FROM sum', 'many');
SELECT * FROM evaluate('SELECT question AS prompt FROM sum', '');
SET minimax_m1.reward_timeout = '300ms';
SELECT f, e.reward, e.error FROM unnest(ARRAY['fails', 'writes', 'drops', 'loops', 'catches', 'locks', 'seeds', 'ends', 'switches', 'commits', 'nan', 'endless', 'silent']) f,
    evaluate('SELECT question AS prompt FROM public.sum WHERE id = 1', f) e;
-- a limit within a limit: the outer one holds for both, and the inner one ends what it is for
CREATE FUNCTION nests(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS
$$SELECT minimax_m1.reward_sql('SELECT pg_sleep(60)', jsonb_build_object('answer', 'SELECT 1', 'role', 'reader'))$$;
SELECT e.reward, e.error FROM evaluate('SELECT question AS prompt FROM public.sum WHERE id = 1', 'nests') e;
SET minimax_m1.reward_timeout = '20s';
SELECT e.reward, e.error FROM evaluate('SELECT question AS prompt FROM public.sum WHERE id = 1', 'nests') e;
-- a cancel or statement_timeout is none of it: it ends the statement
SET statement_timeout = '500ms';
SELECT e.reward, e.error FROM evaluate('SELECT question AS prompt FROM public.sum WHERE id = 1', 'loops') e;
RESET statement_timeout;
RESET minimax_m1.reward_timeout;
SELECT count(*), current_setting('transaction_read_only') AS read_only, current_user = session_user AS same_role FROM sum;
REVOKE EXECUTE ON FUNCTION fails FROM PUBLIC;
GRANT SELECT ON sum TO outsider;
SET ROLE outsider;
SELECT useful FROM training_check('SELECT ''x'' AS prompt, 9 AS max_length', 'reward_length', group_size => 2, choices => '{a}');
SELECT n, mean FROM compare('SELECT ''x'' AS prompt, 9 AS max_length', 'reward_length', '{base}', choices => '{a}');
SELECT * FROM minimax_m1.evaluate('SELECT question AS prompt FROM public.sum', 'public.fails');
SELECT * FROM minimax_m1.evaluate('SELECT n::text AS prompt FROM public.secret', 'reward_exact');
RESET ROLE;

-- pass@k, and the test of pairs
SELECT pass_at_k(10, 0, 3) AS none, pass_at_k(10, 10, 1) AS all, round(pass_at_k(10, 3, 1)::numeric, 6) AS one, round(pass_at_k(10, 3, 5)::numeric, 6) AS five,
       pass_at_k(4, 1, 4) AS sure;
SELECT pass_at_k(3, 1, 4);
SELECT mcnemar_p(0, 0) AS none, mcnemar_p(5, 5) AS even, round(mcnemar_p(0, 6)::numeric, 6) AS six, round(mcnemar_p(9, 2)::numeric, 6) AS nine,
       round(mcnemar_p(520, 480)::numeric, 4) AS many, mcnemar_p(100000, 50000) < 1e-100 AS sure;
SELECT mcnemar_p(-1, 2);

-- compare: with itself, everything ties
SELECT adapter, n, round(mean::numeric, 3) AS mean, round(low::numeric, 3) AS low, round(high::numeric, 3) AS high,
       tokens > 0 AS tokens, errors, wins, ties, losses, p
FROM compare('SELECT question AS prompt, answer FROM sum', 'reward_number', ARRAY['base']);
SELECT adapter, n, mean, errors FROM compare('SELECT question AS prompt FROM sum', 'fails', ARRAY['base']);
SELECT * FROM compare('SELECT question AS prompt FROM sum', 'reward_exact', '{}');
-- an interval of rewards that are no shares is Student's, and one reward has none; adapters count by their places, and NULL is the model
SELECT n, mean, round(low::numeric, 3) AS low, round(high::numeric, 3) AS high
FROM unnest(ARRAY[1, 2, 3]) k, compare(format('SELECT 2 * id AS id, ''x'' AS prompt FROM sum ORDER BY id LIMIT %s', k), 'of_id', '[0:0]={NULL}'::text[], choices => '{a}');
SELECT n, round(low::numeric, 4) AS low, round(high::numeric, 4) AS high
FROM unnest(ARRAY[2, 11, 12, 31, 1001]) n, _evaluation_interval(n, 0, 1, false);
SELECT low BETWEEN 0.2 AND 0.21 AS low, high FROM _evaluation_interval(1, 1, NULL, true);
-- one that is not there
SELECT * FROM evaluate('SELECT question AS prompt, answer FROM sum WHERE id = 1', 'reward_number', ARRAY['base', 'nothing']);
SET minimax_m1.adapter = 'nothing';
SELECT generate('Hello.');
RESET minimax_m1.adapter;
-- training_check
SELECT answers, pass_rate, solved, hopeless, useful, errors, advice
FROM training_check('SELECT question AS prompt, ''x'' AS answer FROM sum', 'reward_exact', group_size => 2);
SELECT pass_rate, solved, hopeless, useful, advice FROM training_check('SELECT question AS prompt FROM sum', 'silent', group_size => 2);
SELECT round(useful::numeric, 2) AS useful, advice FROM training_check('SELECT id, ''x'' AS prompt FROM sum', 'of_some', group_size => 100, choices => '{a,b}');
SELECT errors, advice FROM training_check('SELECT question AS prompt FROM sum', 'fails', group_size => 2);
SELECT useful, advice FROM training_check('SELECT question AS prompt, 100000 AS max_length FROM sum', 'reward_length', group_size => 2);
SELECT truncated, advice FROM training_check('SELECT question AS prompt FROM sum', 'reward_length', group_size => 1);
SELECT advice FROM training_check('SELECT question AS prompt FROM sum', 'reward_length', groups => 0);
SELECT advice FROM training_check('SELECT question AS prompt FROM sum', 'reward_length', steps => 0);
SELECT pass_rate FROM training_check('SELECT question AS prompt, 100000 AS max_length FROM sum', 'reward_length', group_size => NULL, max_tokens => 1);
SELECT truncated, advice FROM training_check('SELECT question AS prompt, 5 AS max_length FROM sum', 'reward_length', group_size => 2, max_tokens => 2);

-- how long a training would take: a step asks up to three times as many rows, and learns from the useful ones
SELECT _evaluation_time(1, 0.5, 8, 20, 48, 0) AS usual, _evaluation_time(1, 0.2, 8, 20, 48, 0) AS few, _evaluation_time(1, 0.01, 8, 20, 48, 0) AS fewer,
       _evaluation_time(0.5, 0.5, 8, 20, 48, 10) AS held_out, _evaluation_time(1, 0.5, 8, 40, 48, 10) AS longer, _evaluation_time(1, 0, 8, 20, 48, 0) AS never;
SELECT useful > 0 AS useful, expected_time > '0' AS known
FROM training_check('SELECT question AS prompt, 5 AS max_length FROM sum', 'reward_length', group_size => 8, regex => '[a-z]{1,40}', thinking_budget => 0, seed => 1);
SELECT useful, expected_time, advice FROM training_check('SELECT question AS prompt FROM sum', 'silent', group_size => 2);

-- evaluate, compare and training_check hold answers to a form
SELECT DISTINCT content FROM evaluate('SELECT question AS prompt, 1 AS answer FROM sum', 'reward_exact', regex => 'a{3}');
SELECT DISTINCT jsonb_typeof(content::jsonb->'a') FROM evaluate('SELECT question AS prompt, 1 AS answer FROM sum', 'reward_exact', ARRAY['base'],
    json_schema => '{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}');
SELECT mean, errors FROM compare('SELECT question AS prompt, ''blue'' AS answer FROM sum', 'reward_exact', ARRAY['base'], choices => '{blue}');
SELECT pass_rate, solved FROM training_check('SELECT question AS prompt, ''blue'' AS answer FROM sum', 'reward_exact', group_size => 2, choices => '{blue}');
SELECT * FROM evaluate('SELECT question AS prompt, 1 AS answer FROM sum', 'reward_exact', regex => 'a', choices => '{b}');
SELECT mean, errors > 0 AS errors FROM compare('SELECT question AS prompt FROM sum', 'reward_length', ARRAY['base'], system_prompt => 'x', regex => '(');

DROP TABLE stock, secret, sum;
DROP FUNCTION steal, leave, lock_by_function, of_id, of_some, catches, locks, seeds, ends, thought, no_float, many, fails, writes, drops, loops, switches, commits, nan, endless, silent, nests;
DROP TYPE order_form;
REVOKE ALL ON SCHEMA public FROM reader;
DROP OWNED BY reader, outsider;
DROP ROLE reader, outsider;
