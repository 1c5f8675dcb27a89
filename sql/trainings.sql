-- Trainings to look at: views, and the curve. The tables are filled by hand here, so that everything is known.
SET search_path = public, minimax_m1;
\pset null '(null)'
\set SHOW_CONTEXT never
CREATE ROLE m1_teacher;
CREATE ROLE m1_pupil;
SELECT grant_usage('m1_teacher'), grant_usage('m1_pupil');

-- a reward that rises, with held-out rows asked at every third step; 'paused' has no runner that would change it
CREATE FUNCTION fill_training(name name, method text, owner regrole, state text, steps int, done int) RETURNS int
LANGUAGE sql AS $$
    WITH run AS (
        INSERT INTO training_run (name, owner, method, examples, options, path, steps, step, state)
        VALUES (name, owner, method, 'SELECT 1 AS prompt', '{}', 'public', steps, done, state) RETURNING id),
    numbers AS (
        SELECT i, CASE WHEN i > 0 THEN 0.46 + 0.5 * i / steps + 0.04 * (i % 2) END AS reward,
               CASE WHEN i % 3 = 0 OR i = done THEN 0.45 + 0.5 * i / steps END AS heldout
        FROM generate_series(0, done) i),
    step AS (
        INSERT INTO training_statistics (training, step, reward, heldout, heldout_error, loss, heldout_loss, groups,
                                         sampling_ms, reward_ms, training_ms)
        SELECT id, i, CASE WHEN method <> 'sft' THEN reward END, CASE WHEN method <> 'sft' THEN heldout END,
               CASE WHEN method <> 'sft' AND heldout IS NOT NULL THEN 0.08 END,
               CASE WHEN method = 'sft' THEN 3.0 - reward END, CASE WHEN method = 'sft' THEN 3.2 - heldout END, 8 + i,
               CASE WHEN i > 0 THEN 1000 * i END, 10, 490
        FROM run, numbers RETURNING 1)
    SELECT id FROM run
$$;
SELECT fill_training('voucher', 'cispo', 'm1_teacher', 'paused', 14, 10) AS voucher \gset
SELECT fill_training('shown <&> "shown"', 'sft', 'm1_teacher', 'paused', 6, 6) AS shown \gset
SELECT fill_training('new', 'cispo', 'm1_teacher', 'paused', 14, 0) AS new \gset
DELETE FROM training_statistics WHERE training = :new;

-- ---- views ----

SELECT name, owner, method, state, step, steps, round(reward::numeric, 3) AS reward, round(reward_start::numeric, 3) AS start,
       round(reward_best::numeric, 3) AS best
FROM training ORDER BY name;
SELECT name, round(heldout::numeric, 3) AS heldout, heldout_error, round(heldout_start::numeric, 3) AS start,
       round(heldout_best::numeric, 3) AS best, round(heldout_loss::numeric, 3) AS loss,
       round(heldout_loss_start::numeric, 3) AS loss_start, round(heldout_loss_best::numeric, 3) AS loss_best
FROM training ORDER BY name;
-- four steps to go, and the last five took 8 s + 0.5 s each on average
SELECT name, time_left FROM training ORDER BY name;
UPDATE training_run SET state = 'done', best_step = 9, verdict = 'better' WHERE id = :voucher;
SELECT name, time_left, best_step, verdict, adapter_version FROM training WHERE name = 'voucher';
SELECT step, round(reward::numeric, 3) AS reward, groups, sampling_ms FROM training_step WHERE training = 'voucher' AND step < 3 ORDER BY step;

INSERT INTO training_example (training, part, item, example) VALUES
    (:voucher, 'train', 1, '{"prompt": "A?", "voucher": "yes"}'), (:voucher, 'holdout', 1, '{"prompt": "B?", "voucher": "no"}');
INSERT INTO training_answer (training, step, part, item, sample, content, reasoning, reward, advantage, finish_reason, prompt_tokens, completion_tokens, error) VALUES
    (:voucher, 1, 'train', 1, 1, 'yes', 'It leaks.', 1, 0.5, 'stop', 9, 3, NULL),
    (:voucher, 1, 'train', 1, 2, 'no', NULL, 0, -0.5, 'stop', 9, 3, NULL),
    (:voucher, 1, 'holdout', 1, 1, 'maybe', NULL, NULL, NULL, 'length', 9, 8, 'the reward failed');
SELECT training, step, part, item, sample, example, content, reasoning, reward, advantage, error FROM rollout ORDER BY part, item, sample;
SELECT content, example->>'voucher' AS wanted FROM rollout WHERE reward = 0;

-- an adapter says which training it comes from, and what that has changed
INSERT INTO adapter_version (name, version, owner, digest, rank, bytes, config, training, step, heldout_before, heldout_after, heldout_measure)
VALUES ('voucher', 1, 'm1_teacher', 'x', 8, 100, '{}', 'voucher', 9, 0.45, 0.771, 'reward') RETURNING id AS adapter \gset
INSERT INTO adapter_version (name, version, owner, digest, rank, bytes, config) VALUES ('by_hand', 1, 'm1_teacher', 'y', 8, 100, '{}');
UPDATE training_run SET adapter_id = :adapter WHERE id = :voucher;
SELECT name, version, latest, training, step, round(heldout_before::numeric, 3) AS before, round(heldout_after::numeric, 3) AS after
FROM adapter ORDER BY name;
SELECT adapter_version FROM training WHERE name = 'voucher';

-- ---- the curve ----

\t on
\pset format unaligned
SELECT plot_training('voucher');
SELECT plot_training('voucher', 40, 8);
SELECT plot_training('shown <&> "shown"', width => 60);
SELECT plot_training('new', 40, 8);
-- right answers, where held-out rows have a reward, which decides
SELECT fill_training('judged', 'sft', 'm1_teacher', 'paused', 6, 6) AS judged \gset
UPDATE training_statistics SET heldout = 0.5 + step / 20.0, heldout_error = 0.1 WHERE training = :judged AND heldout_loss IS NOT NULL;
SELECT plot_training('judged', 40, 8);
DELETE FROM training_statistics WHERE training = :judged;
DELETE FROM training_run WHERE id = :judged;
-- a client that has not these characters
SET client_encoding = 'LATIN1';
SELECT plot_training('voucher', 48, 10);
RESET client_encoding;
-- more steps than columns, and values beyond 0 and 1
SELECT fill_training('long', 'grpo', 'm1_teacher', 'paused', 200, 200) AS long \gset
UPDATE training_statistics SET reward = 30 * reward - 20, heldout = 30 * heldout - 20, heldout_error = 4 WHERE training = :long;
SELECT plot_training('long', 60, 14);
UPDATE training_statistics SET reward = 1e12 * reward, heldout = NULL, heldout_error = NULL WHERE training = :long;
SELECT plot_training('long', 60, 8);
UPDATE training_statistics SET reward = -5 WHERE training = :long;
SELECT plot_training('long', 60, 8);
-- every line is as wide as was asked for, at most
SELECT max(length(l)), count(*) FROM plot_training('long', 400, 100) l;
SELECT plot_training('shown <&> "shown"', 480, 160, format => 'svg');
SELECT plot_training('new', format => 'svg') ~ '^<svg .*</svg>$' AS empty;
SELECT s ~ '<script|javascript|href|<image' AS active, s ~ 'width="640" height="320"' AS size
FROM plot_training('voucher', format => 'svg') s;
UPDATE training_run SET name = E'a\x01]]>\nb' WHERE id = :new;
SELECT substring(s, '<title>.*?</title>') FROM plot_training(E'a\x01]]>\nb', format => 'svg') s;
\t off
\pset format aligned
SELECT plot_training('voucher', 39);
SELECT plot_training('voucher', 401);
SELECT plot_training('voucher', 72, 7);
SELECT plot_training('voucher', 72, 101);
SELECT plot_training('voucher', 72, 18, 'svg');
SELECT plot_training('voucher', 640, 100, 'svg');
SELECT plot_training('voucher', format => 'png');
SELECT plot_training('nothing');
SELECT count(*) FROM plot_training(NULL);
SELECT count(*) FROM plot_training('voucher', NULL, NULL, NULL);

-- ---- whose they are ----

SET ROLE m1_pupil;
SELECT (SELECT count(*) FROM training) AS trainings, (SELECT count(*) FROM training_step) AS steps, (SELECT count(*) FROM rollout) AS rollouts;
SELECT plot_training('voucher');
SELECT count(*) FROM training_run;
SET ROLE m1_teacher;
SELECT (SELECT count(*) FROM training) AS trainings, (SELECT count(*) FROM training_step) > 0 AS steps, (SELECT count(*) FROM rollout) AS rollouts,
       (SELECT count(*) FROM plot_training('voucher')) AS lines;
RESET ROLE;

DELETE FROM training_run;
DELETE FROM training_statistics;
DELETE FROM training_example;
DELETE FROM training_answer;
DELETE FROM adapter_version;
DROP OWNED BY m1_teacher, m1_pupil;
DROP ROLE m1_teacher, m1_pupil;
