-- Jobs: prompts that are answered after the transaction that queues them.
\set SHOW_CONTEXT never
CREATE ROLE m1_carol;
CREATE ROLE m1_dave;
SELECT minimax_m1.grant_usage(r) FROM unnest('{m1_carol,m1_dave}'::regrole[]) r;
SET ROLE m1_carol;

SELECT minimax_m1.submit('What is 47 + 35?', seed => 7) AS job \gset
CALL minimax_m1.wait_for(ARRAY[:job], '30 s');
SELECT state, content, reasoning, error, sqlstate, finish_reason, attempts, prompt_tokens, completion_tokens, seed,
       submitted_at <= started_at AND started_at <= finished_at AS in_order
FROM minimax_m1.poll(:job);
SELECT annotator, key, state, priority, attempts, prompt, content, error, owner FROM minimax_m1.jobs WHERE id = :job;

-- NULL in, NULL out
SELECT minimax_m1.submit(NULL) IS NULL AS submitted, minimax_m1.poll(NULL) AS polled, minimax_m1.cancel_job(NULL) AS cancelled;
CALL minimax_m1.wait_for(NULL);
CALL minimax_m1.wait_for('{}');
CALL minimax_m1.wait_for(ARRAY[NULL, :job]);

-- the settings of the session are those of the job
SET minimax_m1.max_tokens = 1;
SET minimax_m1.default_thinking_budget = 0;
SELECT minimax_m1.submit('Hello.') AS short \gset
RESET minimax_m1.max_tokens;
RESET minimax_m1.default_thinking_budget;
CALL minimax_m1.wait_for(ARRAY[:short]);
SELECT state, finish_reason, completion_tokens FROM minimax_m1.poll(:short);

-- one job for each dedupe_key, and only for the same request
SELECT minimax_m1.submit('Hello.', dedupe_key => 'a') AS first \gset
SELECT minimax_m1.submit('Hello.', dedupe_key => 'a') = :first AS same;
CALL minimax_m1.wait_for(ARRAY[:first]);
SELECT minimax_m1.submit('Hello.', dedupe_key => 'a') = :first AS same_when_done;
\set VERBOSITY terse
SELECT minimax_m1.submit('Who are you?', dedupe_key => 'a');
\set VERBOSITY default
SELECT minimax_m1.submit('Hello.', dedupe_key => 'b') <> :first AS another;
SET ROLE m1_dave;
SELECT minimax_m1.submit('Hello.', dedupe_key => 'a') <> :first AS of_another_role;

-- jobs are private
SELECT count(*) FROM minimax_m1.jobs WHERE id = :job;
\set VERBOSITY sqlstate
SELECT minimax_m1.poll(:job);
SELECT minimax_m1.cancel_job(:job);
CALL minimax_m1.wait_for(ARRAY[:job]);
SELECT minimax_m1.poll(-1);
SELECT * FROM minimax_m1.job;
INSERT INTO minimax_m1.job (owner, prompt) VALUES ('m1_carol', 'x');
SELECT minimax_m1._poll('m1_carol'::regrole, :job);
SELECT minimax_m1._run_as('m1_carol'::regrole, 'SELECT 1');
RESET ROLE;
SELECT state FROM minimax_m1.poll(:job);
SET ROLE m1_carol;

-- what is wrong is told at once
SELECT minimax_m1.submit('');
SELECT minimax_m1.submit('x', max_tokens => 0);
SELECT minimax_m1.submit('x', temperature => -1);
SELECT minimax_m1.submit('x', stop => ARRAY['']);
SELECT minimax_m1.submit('x', max_attempts => 0);
SELECT minimax_m1.submit('x', dedupe_key => repeat('x', 1001));
\set VERBOSITY default

-- an answer that follows a schema
SELECT minimax_m1.submit('Hello.', json_schema => '{"enum": ["yes", "no"]}') AS job \gset
CALL minimax_m1.wait_for(ARRAY[:job], '30 s');
SELECT state, content IN ('"yes"', '"no"') AS follows FROM minimax_m1.poll(:job);
-- one that is cut off is none
SELECT minimax_m1.submit('Hello.', json_schema => '{"enum": ["yes", "no"]}', max_tokens => 1) AS job \gset
CALL minimax_m1.wait_for(ARRAY[:job], '30 s');
SELECT state, content, attempts, sqlstate, error FROM minimax_m1.poll(:job);
\set VERBOSITY sqlstate
SELECT minimax_m1.submit('Hello.', json_schema => '{"enum": ["yes", "no"]}', stop => '{x}');
SELECT minimax_m1.submit('Hello.', json_schema => '{"enum": []}');
\set VERBOSITY default

-- a schema keeps its order, as a literal, as json and as a parameter; jsonb has its own
PREPARE by_parameter AS SELECT minimax_m1.submit('Hello.', thinking_budget => 0, json_schema => $1) AS job;
SELECT minimax_m1.submit('Hello.', thinking_budget => 0, json_schema => '{"properties": {"zz": {"const": 1.50}, "a": {"const": -0}}, "required": ["zz", "a"]}') AS literal,
       minimax_m1.submit('Hello.', thinking_budget => 0, json_schema => '{"properties": {"zz": {"const": 1.50}, "a": {"const": -0}}, "required": ["zz", "a"]}'::json) AS json,
       minimax_m1.submit('Hello.', thinking_budget => 0, json_schema => '{"properties": {"zz": {"const": 1.50}, "a": {"const": 1e2}}, "required": ["zz", "a"]}'::jsonb) AS jsonb \gset
EXECUTE by_parameter('{"properties": {"zz": {"const": 1180591620717411303424}, "a": {"const": 1e400}}, "required": ["zz", "a"]}') \gset
DEALLOCATE by_parameter;
CALL minimax_m1.wait_for(ARRAY[:literal, :json, :jsonb, :job]);
SELECT replace((minimax_m1.poll(id)).content, ' ', '') FROM unnest(ARRAY[:literal, :json, :jsonb, :job]) id;
-- the same request is one whose schema has the same text
SELECT minimax_m1.submit('Hello.', dedupe_key => 'schema', json_schema => '{"enum": ["yes", "no"]}') = minimax_m1.submit('Hello.', dedupe_key => 'schema', json_schema => '{"enum": ["yes", "no"]}'::json) AS same;
\set VERBOSITY sqlstate
SELECT minimax_m1.submit('Hello.', dedupe_key => 'schema', json_schema => '{"enum": ["no", "yes"]}');
\set VERBOSITY default

-- one that its role's quota never admits
RESET ROLE;
SELECT minimax_m1.set_quota('m1_carol', 10);
SET ROLE m1_carol;
SELECT minimax_m1.submit('Hello.') AS job \gset
CALL minimax_m1.wait_for(ARRAY[:job], '30 s');
SELECT state, attempts, sqlstate FROM minimax_m1.poll(:job);
RESET ROLE;
SELECT minimax_m1.set_quota('m1_carol');
SET ROLE m1_carol;

-- no waiting for one's own transaction, nor where the end would not be seen
BEGIN;
SELECT minimax_m1.submit('Hello.') AS own \gset
SAVEPOINT s;
CALL minimax_m1.wait_for(ARRAY[:job, :own]);
ROLLBACK TO s;
COMMIT;
DO $$
DECLARE
    job bigint := minimax_m1.submit('Hello.');
BEGIN
    CALL minimax_m1.wait_for(ARRAY[job]);
END $$;
DO $$
DECLARE
    job bigint := minimax_m1.submit('What is 47 + 35?');
BEGIN
    COMMIT;
    CALL minimax_m1.wait_for(ARRAY[job]);
    RAISE NOTICE '%', (minimax_m1.poll(job)).content;
END $$;
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL minimax_m1.wait_for(ARRAY[:job]);
ROLLBACK;

-- a job that is cancelled before it has begun
BEGIN;
SELECT minimax_m1.submit('Hello.') AS job \gset
SELECT minimax_m1.cancel_job(:job), minimax_m1.cancel_job(:job) AS again;
COMMIT;
SELECT state, content FROM minimax_m1.poll(:job);

-- nothing of the caller's search_path is looked at
RESET ROLE;
CREATE SCHEMA m1_carol AUTHORIZATION m1_carol;
SET ROLE m1_carol;
CREATE FUNCTION m1_carol.equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''% in %'', current_user, current_schema; END';
CREATE OPERATOR m1_carol.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = m1_carol.equal);
SET search_path = m1_carol, pg_catalog;
SELECT minimax_m1.submit('What is 47 + 35?') AS job \gset
CALL minimax_m1.wait_for(ARRAY[:job]);
SELECT content FROM minimax_m1.poll(:job);
RESET search_path;
RESET ROLE;
DROP SCHEMA m1_carol CASCADE;
DROP OWNED BY m1_carol, m1_dave;
DO $$ BEGIN DELETE FROM minimax_m1.job; END $$;
DROP ROLE m1_carol, m1_dave;
