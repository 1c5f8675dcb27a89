-- Who may train, and to hold, end and forget trainings. No runner sees what stands here: it is held by a lease, or not committed.
\pset null '(null)'
\set SHOW_CONTEXT never
CREATE ROLE m1_teacher;
CREATE ROLE m1_school;
CREATE ROLE m1_pupil;
SELECT minimax_m1.grant_usage('m1_teacher'), minimax_m1.grant_usage('m1_pupil');

-- ---- who may train ----

SELECT minimax_m1._training_allowed('postgres'::regrole);
SELECT minimax_m1._training_allowed('m1_teacher'::regrole);
SELECT minimax_m1.grant_training('m1_school'), minimax_m1.grant_training('m1_school');
GRANT m1_school TO m1_teacher;
SELECT minimax_m1._training_allowed('m1_teacher'::regrole);
SELECT minimax_m1._training_allowed('m1_pupil'::regrole);
SELECT minimax_m1.revoke_training('m1_school');
SELECT minimax_m1._training_allowed('m1_teacher'::regrole);
-- what is wrong with a call is told without the functions that found out, which nobody has called; but with who called
\set SHOW_CONTEXT errors
SELECT minimax_m1.grant_adapter('nothing', 'm1_teacher');
SELECT minimax_m1.train('alone', examples => 'SELECT 1 AS prompt', reward => 'reward_exact', group_size => 1);
DO $$ BEGIN PERFORM minimax_m1.train('alone', examples => 'SELECT 1 AS prompt', reward => 'reward_exact', group_size => 1); END $$;
\set SHOW_CONTEXT never
SELECT minimax_m1.grant_training(1::regrole);
SELECT minimax_m1.grant_training(NULL);
SET ROLE m1_teacher;
SELECT minimax_m1.grant_training('m1_teacher');
SELECT minimax_m1.revoke_training('m1_school');
RESET ROLE;
SELECT minimax_m1.grant_training('m1_teacher');

-- ---- pause, resume, cancel ----

INSERT INTO minimax_m1.training_run (name, owner, method, examples, options, path, steps, step, state, leased_until)
VALUES ('held', 'm1_teacher', 'cispo', 'SELECT 1 AS prompt', '{}', 'public', 14, 3, 'running', now() + interval '1 day');
CREATE FUNCTION state_after(action text) RETURNS TABLE (result text, state text, wanted text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT minimax_m1.%s_training(''held'')', action) INTO result;
    SELECT r.state, r.wanted INTO state, wanted FROM minimax_m1.training_run r WHERE name = 'held';
    RETURN NEXT;
END
$$;
CREATE FUNCTION keep_state() RETURNS void LANGUAGE sql AS $$
    INSERT INTO minimax_m1.training_state
    SELECT (jsonb_populate_record(NULL::minimax_m1.training_state, jsonb_build_object('training', id, 'part', 'state', 'step', 3, 'piece', 0, 'data', '\x00'))).*
    FROM minimax_m1.training_run
$$;
-- a runner heeds what is wanted, after the step that it is at
SELECT * FROM state_after('pause');
SELECT * FROM state_after('pause');
SELECT * FROM state_after('resume');
SELECT * FROM state_after('resume');
SELECT * FROM state_after('cancel');
SELECT * FROM state_after('pause');
SELECT * FROM state_after('resume');
SELECT * FROM state_after('drop');
-- without one, it is as is wanted
BEGIN;
UPDATE minimax_m1.training_run SET leased_until = now() - interval '1 s', wanted = NULL;
SELECT * FROM state_after('pause');
SELECT * FROM state_after('pause');
SELECT leased_until FROM minimax_m1.training_run;
SELECT keep_state();
SELECT * FROM state_after('resume');
SELECT * FROM state_after('pause');
SELECT * FROM state_after('cancel');
SELECT count(*) AS states, (SELECT finished_at IS NOT NULL FROM minimax_m1.training_run) AS finished FROM minimax_m1.training_state;
SELECT * FROM state_after('cancel');
SELECT * FROM state_after('pause');
SELECT * FROM state_after('resume');
ROLLBACK;
-- so it is when its runner is gone, as after a crash
BEGIN;
UPDATE minimax_m1.training_run SET leased_by = pg_backend_pid(), wanted = NULL;
SELECT * FROM state_after('pause');
UPDATE minimax_m1.training_run SET state = 'running', leased_by = pg_backend_pid(), leased_until = now() + interval '1 day', wanted = NULL;
SELECT minimax_m1.drop_training('held');
ROLLBACK;
-- one whose reward is gone does not go on, until there is one of that name
BEGIN;
UPDATE minimax_m1.training_run SET state = 'failed', reward = 'public.gone(text,jsonb)', wanted = NULL, leased_until = NULL;
SELECT keep_state();
SELECT * FROM state_after('resume');
ROLLBACK;
-- a step that fails when it was to be the last one ends the training as was wanted
BEGIN;
SELECT * FROM state_after('cancel');
SELECT minimax_m1._training_fail(id, '22012', 'division by zero', NULL, NULL) FROM minimax_m1.training_run;
SELECT state, wanted, sqlstate, error FROM minimax_m1.training_run;
ROLLBACK;
-- one that failed goes on when what was wrong is mended
BEGIN;
UPDATE minimax_m1.training_run SET state = 'failed', wanted = NULL, leased_until = NULL, attempts = 3, sqlstate = '53200', error = 'no memory';
SELECT keep_state();
SELECT * FROM state_after('cancel');
SELECT * FROM state_after('resume');
SELECT attempts, sqlstate, error FROM minimax_m1.training_run;
-- unless what its last step has left is not there
DELETE FROM minimax_m1.training_state;
UPDATE minimax_m1.training_run SET state = 'failed';
SELECT * FROM state_after('resume');
ROLLBACK;

-- ---- waiting ----

CALL minimax_m1.wait_for_training('held', '100 ms');
CALL minimax_m1.wait_for_training(NULL);
CALL minimax_m1.wait_for_training('nothing');
UPDATE minimax_m1.training_run SET wanted = NULL;
BEGIN;
SELECT minimax_m1.pause_training('held');
CALL minimax_m1.wait_for_training('held', '10 s');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL minimax_m1.wait_for_training('held', '10 s');
ROLLBACK;
BEGIN;
UPDATE minimax_m1.training_run SET state = 'paused', wanted = NULL;
CALL minimax_m1.wait_for_training('held', '10 s');
ROLLBACK;

-- ---- which answers are kept ----

INSERT INTO minimax_m1.training_answer (training, step, part, item, sample)
SELECT r.id, s, 'train', 1, 1 FROM minimax_m1.training_run r, generate_series(0, 60) s;
SELECT minimax_m1._forget_rollouts(id, 60) FROM minimax_m1.training_run;
SELECT min(step), min(step) FILTER (WHERE step > 0) AS next, max(step) FROM minimax_m1.training_answer;
SELECT minimax_m1._forget_rollouts(id + 1, 1000) FROM minimax_m1.training_run;
SELECT count(*) FROM minimax_m1.training_answer;

-- ---- whose they are ----

SET ROLE m1_pupil;
SELECT minimax_m1.pause_training('held');
SELECT minimax_m1.resume_training('held');
SELECT minimax_m1.cancel_training('held');
SELECT minimax_m1.drop_training('held');
CALL minimax_m1.wait_for_training('held', '10 s');
SET ROLE m1_teacher;
SELECT minimax_m1.cancel_training('held');
RESET ROLE;
-- who may not train any more may not let it go on
UPDATE minimax_m1.training_run SET state = 'paused', wanted = NULL, leased_until = NULL;
SELECT minimax_m1.revoke_training('m1_teacher');
SET ROLE m1_teacher;
SELECT minimax_m1.resume_training('held');
RESET ROLE;

-- ---- to forget one ----

INSERT INTO minimax_m1.training_example SELECT id, 'train', 1, '{}' FROM minimax_m1.training_run;
INSERT INTO minimax_m1.training_statistics (training, step) SELECT id, 0 FROM minimax_m1.training_run;
SELECT keep_state();
INSERT INTO minimax_m1.adapter_version (name, version, owner, digest, rank, bytes, config) VALUES ('held', 1, 'm1_teacher', 'x', 8, 1, '{}');
SET ROLE m1_teacher;
SELECT minimax_m1.drop_training('held');
RESET ROLE;
SELECT (SELECT count(*) FROM minimax_m1.training_run) AS runs, (SELECT count(*) FROM minimax_m1.training_example) AS examples,
       (SELECT count(*) FROM minimax_m1.training_statistics) AS steps, (SELECT count(*) FROM minimax_m1.training_answer) AS answers,
       (SELECT count(*) FROM minimax_m1.training_state) AS states, (SELECT count(*) FROM minimax_m1.adapter_version) AS adapters;
SELECT minimax_m1.drop_training('held');
SELECT minimax_m1.drop_training(NULL);
DELETE FROM minimax_m1.adapter_version;
DROP OWNED BY m1_teacher, m1_school, m1_pupil;
DROP ROLE m1_teacher, m1_school, m1_pupil;
