/* sql/install/81_training.sql */

-- ---- Trainings: adapters that are learnt from the answers to the rows of a query ----
--
-- A training is queued by train() and is the runner's of its database from the commit on. Everything that counts is in
-- these tables: what a step has led to is written in one transaction, and whoever goes on goes on from there.
--
-- References are names and no OIDs, as a dump or pg_upgrade would not keep those; but for what is run as the owner, which
-- may not become another function of that name, and is forgotten when the training has ended.

CREATE TABLE training_run (
    id serial PRIMARY KEY,
    name name NOT NULL UNIQUE,          -- also that of the adapter whose versions it makes
    owner regrole NOT NULL,
    method text NOT NULL CHECK (method IN ('sft', 'cispo', 'grpo', 'dapo', 'dr_grpo')),
    examples text NOT NULL,             -- queries, as they were given
    holdout text,                       -- NULL: none, or examples has a column held_out
    reward text,                        -- its signature with schema; NULL: none
    reward_function oid,                -- as train() or resume_training() has found it
    options jsonb NOT NULL,             -- all of them, defaults filled in
    path text NOT NULL,                 -- the search_path of who called train()
    steps int NOT NULL CHECK (steps > 0),
    step int NOT NULL DEFAULT 0,        -- done
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled')),
    wanted text CHECK (wanted IN ('pause', 'cancel')),  -- what the runner is to do after the step it is at
    leased_by int,                      -- process ID of the runner; once that is gone, another one goes on
    leased_until timestamptz,
    attempts int NOT NULL DEFAULT 0,    -- starts since the last step that ended
    base_digest text,                   -- of the model at the first step; another one later fails it
    examples_digest text,
    best_step int,                      -- with the best held-out reward; its adapter is adapter_id
    from_adapter int,                   -- adapter_version.id that it begins from, as the next; NULL: it begins with a new one
    adapter_id int,                     -- that it has made; NULL: none was better than the beginning
    verdict text,                       -- in words, at the end
    sqlstate text,                      -- of what it failed with, as the rest
    error text,
    detail text,
    hint text,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz);

-- The rows of both queries, as they were when train() was called.
CREATE TABLE training_example (
    training int,
    part text CHECK (part IN ('train', 'holdout')),
    item int,                           -- its row of the query, from 1
    example jsonb NOT NULL,             -- with its column prompt or messages; for sft answer, maybe reasoning and weight
    solved int NOT NULL DEFAULT 0,      -- times in a row that all of its answers were right
    asked jsonb,                        -- as strings, what of prompt, system_prompt, messages and tools the example says otherwise
    PRIMARY KEY (training, part, item));

-- A row for each step that ended. Step 0 is what held-out rows got before any.
CREATE TABLE training_statistics (
    training int,
    step int,
    reward float8,                      -- mean and spread over all answers that had one
    reward_sd float8,
    heldout float8,                     -- where held-out rows were asked at this step
    heldout_error float8,
    heldout_n int,
    heldout_loss float8,                -- of sft
    loss float8,
    groups int,
    useful_groups int,                  -- whose rewards differ
    solved_groups int,
    hopeless_groups int,
    answers int,
    reward_errors int,
    unanswered int,                     -- of the answers, those that the model could not give
    tokens bigint,
    length_mean float8,                 -- of answers, in tokens
    length_p99 float8,
    truncated float8,                   -- shares
    entropy float8,
    kl float8,                          -- of grpo with kl_coef: from what the training began with, before the updates
    clipped float8,
    gradient_norm float8,
    router_load float8,
    mismatch float8,                    -- largest |log-probability when sampled - when trained| before the first update
    rerouted bigint,                    -- rows whose experts would be others by now
    updates int,
    dropped int,                        -- of them, those whose loss or gradient was no number
    sampling_ms float8,
    reward_ms float8,
    training_ms float8,
    ended_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (training, step));

-- Answers, and what the reward made of them.
CREATE TABLE training_answer (
    training int,
    step int,
    part text CHECK (part IN ('train', 'holdout')),
    item int,
    sample int,
    content text,
    reasoning text,
    tool_calls json,
    reward float8,
    advantage float8,
    finish_reason text,
    prompt_tokens int,
    completion_tokens int,
    error text,
    PRIMARY KEY (training, step, part, item, sample));

-- In pieces of a megabyte: what the engine needs to go on after the last step, and the adapter's files in PEFT's format
-- after the best one. Nothing of it is needed when the training has ended.
CREATE TABLE training_state (
    training int,
    step int NOT NULL,
    piece int,
    data bytea NOT NULL,
    part text DEFAULT 'state' CHECK (part IN ('state', 'best')),
    PRIMARY KEY (training, part, piece));

-- Weights do not become smaller.
ALTER TABLE training_state ALTER COLUMN data SET STORAGE EXTERNAL;

-- ---- train ----

CREATE FUNCTION _training_option(options jsonb, option text, lowest float8, highest float8) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- NaN is above all numbers
    IF NOT (options->>option)::float8 BETWEEN lowest AND highest THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: %s is out of range', option),
            DETAIL = format('It is %s; it must be between %s and %s.', options->>option, lowest, highest),
            HINT = 'Leave it out to have its default.';
    END IF;
END
$$;

-- How long a reward, and a request, may take: as the session has it, or what is kept of a training, if that is longer.
CREATE FUNCTION _training_limits(kept jsonb) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_object_agg(name, CASE WHEN 0 IN (now, was) THEN 0 ELSE greatest(now, was) END)
    FROM unnest('{reward_timeout,request_timeout}'::text[]) name,
         LATERAL (SELECT (extract(epoch FROM current_setting('minimax_m1.' || name)::interval) * 1000)::int, (kept->>name)::int) ms(now, was)
$$;

-- What is not given has these values.
CREATE FUNCTION _training_defaults(method text, steps int) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'group_size', 8, 'prompts_per_step', 48, 'updates_per_step', CASE method WHEN 'sft' THEN 1 ELSE 8 END,
        'is_cap', 5, 'clip_low', 0.2, 'clip_high', CASE method WHEN 'dapo' THEN 0.28 ELSE 0.2 END, 'kl_coef', 0,
        'learning_rate', 0.001, 'rank', 16, 'max_tokens', current_setting('minimax_m1.max_tokens')::int,
        'thinking_budget', current_setting('minimax_m1.default_thinking_budget')::int, 'length_penalty', 0, 'drop_solved', 0,
        'seed', 1, 'system_prompt', current_setting('minimax_m1.system_prompt'), 'temperature', 1,
        'reward_errors', 'fail', 'evaluate_every', greatest(1, ceil(steps / 20.0)::int)) || @extschema@._training_limits('{}')
$$;

-- What is given and would change nothing is an error: whoever gives it expects that it does.
CREATE FUNCTION _training_check_given(method text, reward text, given jsonb, held_out int) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_answers constant text[] := '{cispo,grpo,dapo,dr_grpo}';
    option text;
BEGIN
    SELECT m.option INTO option
    FROM (VALUES ('is_cap', '{cispo}'), ('clip_low', '{grpo,dapo,dr_grpo}'), ('clip_high', '{grpo,dapo,dr_grpo}'),
                 ('group_size', of_answers), ('temperature', of_answers), ('length_penalty', of_answers),
                 ('drop_solved', of_answers)) m(option, methods)
    WHERE given ? m.option AND method <> ALL (m.methods) LIMIT 1;
    IF option IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: the method %s has no %s', method, option),
            DETAIL = 'It would change nothing.',
            HINT = 'Leave it out, or use a method that has it.';
    END IF;
    SELECT o INTO option FROM unnest('{choices,json_schema,regex,max_tokens,reward_errors}'::text[]) o WHERE given ? o LIMIT 1;
    IF reward IS NULL AND option IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: without a reward, the method %s has no %s', method, option),
            DETAIL = 'It is one of answers, and none are asked for.',
            HINT = 'Leave it out; or give a reward, which held-out rows are asked for.';
    ELSIF held_out = 0 AND (given ? 'evaluate_every' OR method = 'sft' AND reward IS NOT NULL) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: without held-out rows, %s would change nothing',
                             CASE WHEN given ? 'evaluate_every' THEN 'evaluate_every' ELSE 'the reward of sft' END),
            DETAIL = 'It is about those.',
            HINT = 'Give the rows as holdout, or by a column held_out; or leave it out.';
    ELSIF given ?& '{adapter,rank}' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: adapter and rank exclude each other',
            DETAIL = 'What begins from an adapter has its rank.',
            HINT = 'Leave rank out.';
    END IF;
END
$$;

CREATE FUNCTION _training_check_options(method text, o jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM @extschema@._training_option(o, r.name, r.lowest, r.highest)
    FROM (VALUES ('group_size', 2, 1000), ('prompts_per_step', 1, 10000), ('updates_per_step', 1, 1000), ('is_cap', 0, 1e6),
                 ('clip_low', 0, 1), ('clip_high', 0, 1e6), ('kl_coef', 0, 1e6), ('learning_rate', 1e-12, 1), ('rank', 1, 1024),
                 ('max_tokens', 1, 1e7), ('thinking_budget', -1, 1e7), ('length_penalty', 0, 1e7), ('drop_solved', 0, 1e6),
                 ('seed', 0, 9e15), ('temperature', 0.01, 100), ('evaluate_every', 1, 1e6)) r(name, lowest, highest);
    IF NOT (o->>'reward_errors') IN ('fail', 'zero', 'skip') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: reward_errors "%s" is not known', o->>'reward_errors'),
            HINT = 'Use fail, zero or skip.';
    ELSIF (o->>'kl_coef')::float8 > 0 AND method <> 'grpo' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: the method %s has no kl_coef', method),
            DETAIL = 'Its loss says nothing of how far the model goes from where it began; that of grpo does.',
            HINT = 'Leave it at 0, as MiniMax-M1 did, or use the method grpo.';
    ELSIF (SELECT count(*) FROM jsonb_object_keys(o) k WHERE k IN ('choices', 'json_schema', 'regex')) > 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: choices, json_schema and regex exclude each other',
            HINT = 'Give one of them.';
    END IF;
END
$$;

-- What a row of sft shows.
CREATE FUNCTION _training_check_shown(example jsonb, thinking_budget int) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF example->>'answer' IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_column',
            MESSAGE = 'minimax_m1: a row has no answer to be learnt',
            HINT = 'For sft, name what is right: SELECT ... AS prompt, ... AS answer.';
    ELSIF example->>'reasoning' <> '' AND thinking_budget = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: a row has reasoning to be learnt, and thinking_budget is 0',
            DETAIL = 'With that, the model answers without any.',
            HINT = 'Set thinking_budget to -1, or leave the column out.';
    ELSIF jsonb_typeof(example->'weight') NOT IN ('number', 'null') OR (example->>'weight')::float8 NOT BETWEEN 1e-6 AND 1e6 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: a row has a weight that is none',
            DETAIL = format('It is %s; it must be a number between 1e-6 and 1e6.', example->'weight'),
            HINT = 'Leave rows that are not to be learnt out with WHERE.';
    END IF;
END
$$;

CREATE FUNCTION _training_exists(caller oid, training name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
        MESSAGE = format('minimax_m1: training "%s" already exists', training),
        HINT = CASE WHEN EXISTS (SELECT FROM @extschema@.training_run r WHERE r.name = training AND pg_has_role(caller, r.owner::oid, 'USAGE'))
                    THEN 'Take another name, or drop that training; its adapter stays.' ELSE 'Take another name.' END;
END
$$;

CREATE FUNCTION _training_check_name(caller oid, training name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF training IN ('', 'base') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: "%s" is no name for a training', training),
            DETAIL = 'It is also that of the adapter; base is the name of the model without one.';
    ELSIF EXISTS (SELECT FROM @extschema@.training_run r WHERE r.name = training) THEN
        PERFORM @extschema@._training_exists(caller, training);
    END IF;
    PERFORM @extschema@._adapter_free(caller, training);
END
$$;

-- A held-out row that is learnt from, too, tells how well it was learnt by heart.
CREATE FUNCTION _training_note_overlap(train_rows jsonb[], holdout_rows jsonb[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked constant text[] := '{prompt,messages,system_prompt,tools}';
    n bigint;
BEGIN
    SELECT count(*) INTO n
    FROM unnest(holdout_rows) h
    WHERE (SELECT jsonb_object_agg(k, h->k) FROM unnest(asked) k) IN
          (SELECT (SELECT jsonb_object_agg(k, t.r->k) FROM unnest(asked) k) FROM unnest(train_rows) t(r));
    IF n > 0 THEN
        RAISE NOTICE USING
            MESSAGE = format('minimax_m1: %s of %s held-out rows ask what rows ask that are learnt from', n, cardinality(holdout_rows)),
            DETAIL = 'How well they are answered tells less of whether the rule was learnt than of whether those rows were.',
            HINT = 'Let no prompt be in both parts.';
    END IF;
END
$$;

-- What train() found out: the reward with its signature, and the rows of both queries. Returns all of the options.
CREATE FUNCTION _train(
    caller oid, name name, method text, examples text, holdout text, reward text, reward_function oid, steps int, path text,
    train_rows jsonb[], holdout_rows jsonb[], train_asked jsonb[], holdout_asked jsonb[], given jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    options jsonb;
    run int;
BEGIN
    -- that is the model without one
    IF given->>'adapter' = 'base' THEN
        given := given - 'adapter';
    END IF;
    options := @extschema@._training_defaults(method, steps) || given;
    PERFORM @extschema@._training_allowed(caller), @extschema@._training_check_name(caller, name),
            @extschema@._training_check_options(method, options), @extschema@._training_check_given(method, reward, given, cardinality(holdout_rows));
    PERFORM @extschema@._training_note_overlap(train_rows, holdout_rows);
    IF method = 'sft' THEN
        PERFORM @extschema@._training_check_shown(r, (options->>'thinking_budget')::int) FROM unnest(train_rows || holdout_rows) r;
    END IF;
    -- whoever is queueing one of that name is waited for
    INSERT INTO @extschema@.training_run (name, owner, method, examples, holdout, reward, reward_function, options, path, steps, from_adapter)
    VALUES (name, caller, method, examples, holdout, reward, reward_function, options, path, steps,
            (SELECT v.id FROM @extschema@.adapter_version v WHERE v.name = options->>'adapter' ORDER BY v.version DESC LIMIT 1))
    ON CONFLICT DO NOTHING RETURNING id INTO run;
    IF run IS NULL THEN
        PERFORM @extschema@._training_exists(caller, name);
    END IF;
    INSERT INTO @extschema@.training_example (training, part, item, example, asked)
    SELECT run, 'train', e.n, e.row, e.asked FROM unnest(train_rows, train_asked) WITH ORDINALITY e(row, asked, n)
    UNION ALL SELECT run, 'holdout', e.n, e.row, e.asked FROM unnest(holdout_rows, holdout_asked) WITH ORDINALITY e(row, asked, n);
    UPDATE @extschema@.training_run r
    SET examples_digest = (SELECT encode(sha256(string_agg(sha256(convert_to(e.example::text, 'UTF8')), '' ORDER BY e.part, e.item)), 'hex')
                           FROM @extschema@.training_example e WHERE e.training = run)
    WHERE r.id = run;
    PERFORM @extschema@._queue_changed();
    RETURN options;
END
$$;

CREATE FUNCTION train(
    name name,
    method text DEFAULT 'cispo',
    examples text DEFAULT NULL,
    holdout text DEFAULT NULL,
    reward text DEFAULT NULL,
    steps int DEFAULT 20,
    group_size int DEFAULT NULL,
    prompts_per_step int DEFAULT NULL,
    updates_per_step int DEFAULT NULL,
    is_cap float8 DEFAULT NULL,
    clip_low float8 DEFAULT NULL,
    clip_high float8 DEFAULT NULL,
    kl_coef float8 DEFAULT NULL,
    learning_rate float8 DEFAULT NULL,
    rank int DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    length_penalty int DEFAULT NULL,
    drop_solved int DEFAULT NULL,
    seed bigint DEFAULT NULL,
    system_prompt text DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    choices text[] DEFAULT NULL,
    json_schema json_text DEFAULT NULL,
    regex text DEFAULT NULL,
    adapter name DEFAULT NULL,
    reward_errors text DEFAULT NULL,
    evaluate_every int DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_train'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION train IS 'learns an adapter of that name from the rows of a query, after this transaction';

-- ---- for the runner ----

-- Whether this process trains here; NULL: whether any does.
CREATE FUNCTION _training_has_process(process int) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_stat_activity a
                   WHERE a.backend_type = 'minimax_m1 training' AND a.datname = current_database()
                     AND a.pid = coalesce(process, a.pid))
$$;

CREATE FUNCTION _training_end(run int, ending text) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE @extschema@.training_run r
    SET state = ending, wanted = NULL, leased_by = NULL, leased_until = NULL,
        reward_function = CASE ending WHEN 'paused' THEN r.reward_function END,
        finished_at = CASE WHEN ending <> 'paused' THEN clock_timestamp() END
    WHERE r.id = run;
    DELETE FROM @extschema@.training_state s WHERE s.training = run AND ending IN ('done', 'cancelled');
$$;

-- What held-out rows got at a step: their reward, or without one their loss.
CREATE FUNCTION _training_heldout(r training_run, step int) RETURNS float8
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN r.reward IS NOT NULL THEN s.heldout ELSE s.heldout_loss END
    FROM @extschema@.training_statistics s WHERE s.training = r.id AND s.step = $2
$$;

-- The best adapter as the next version of the training's name, with what it has changed, which drop_training() forgets. Its bytes are the engine's: "m1peft01", the length of the
-- config in four bytes, the config, and the safetensors file, of which there may be more than a value holds.
CREATE FUNCTION _training_keep_adapter(run int) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    piece_bytes constant int := 1048576;
    r @extschema@.training_run;
    head bytea;
    begin_at int := 0;                  -- of the safetensors file
    size bigint;
    adapter int;
    next_version int;
BEGIN
    SELECT t.* INTO r FROM @extschema@.training_run t WHERE t.id = run;
    SELECT s.data INTO head FROM @extschema@.training_state s WHERE s.training = run AND s.part = 'best' AND s.piece = 0;
    FOR i IN REVERSE 11 .. 8 LOOP
        begin_at := begin_at * 256 + get_byte(head, i);
    END LOOP;
    begin_at := begin_at + 12;
    SELECT string_agg(s.data, '' ORDER BY s.piece) INTO head
    FROM @extschema@.training_state s WHERE s.training = run AND s.part = 'best' AND s.piece <= begin_at / piece_bytes;
    SELECT sum(length(s.data)) - begin_at INTO size
    FROM @extschema@.training_state s WHERE s.training = run AND s.part = 'best';
    SELECT a.* INTO adapter, next_version
    FROM @extschema@._add_adapter(r.owner, r.name, r.base_digest, size,
                                  convert_from(substr(head, 13, begin_at - 12), 'UTF8')::json) a;
    -- each with the beginning of the one behind it
    INSERT INTO @extschema@.adapter_piece (adapter_id, piece, data)
    SELECT adapter, s.piece - begin_at / piece_bytes,
           substr(s.data, begin_at % piece_bytes + 1) || coalesce(substr(n.data, 1, begin_at % piece_bytes), '')
    FROM @extschema@.training_state s
    LEFT JOIN @extschema@.training_state n ON (n.training, n.part, n.piece) = (s.training, s.part, s.piece + 1)
    WHERE s.training = run AND s.part = 'best' AND s.piece >= begin_at / piece_bytes AND length(s.data) > begin_at % piece_bytes;
    UPDATE @extschema@.adapter_version v
    SET digest = @extschema@._adapter_digest(adapter), training = r.name, step = r.best_step,
        heldout_before = h.before, heldout_after = h.after,
        heldout_measure = CASE WHEN h.after IS NOT NULL THEN CASE WHEN r.reward IS NULL THEN 'loss' ELSE 'reward' END END
    FROM (SELECT @extschema@._training_heldout(r, 0), @extschema@._training_heldout(r, r.best_step)) h(before, after)
    WHERE v.id = adapter;
    UPDATE @extschema@.training_run t SET adapter_id = adapter WHERE t.id = run;
    RETURN next_version;
END
$$;

-- What has become of held-out rows, in words; `version`: that was made, NULL = none.
CREATE FUNCTION _training_verdict(r training_run, version int) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    what text := CASE WHEN r.reward IS NOT NULL THEN 'reward' ELSE 'loss' END;
    before numeric := round(@extschema@._training_heldout(r, 0)::numeric, 3);
    after numeric := round(@extschema@._training_heldout(r, r.best_step)::numeric, 3);
BEGIN
    IF NOT EXISTS (SELECT FROM @extschema@.training_statistics s WHERE s.training = r.id AND s.step = 0)
       OR NOT EXISTS (SELECT FROM @extschema@.training_example e WHERE e.training = r.id AND e.part = 'holdout') THEN
        RETURN CASE WHEN version IS NULL THEN 'no version was made' ELSE
            format('there are no held-out rows to tell what was learnt; version %s of adapter "%s" is what step %s left', version, r.name, r.best_step) END;
    ELSIF version IS NULL THEN
        RETURN CASE WHEN before IS NULL THEN format('held-out rows had no %s: no version was made', what) ELSE
            format('held-out %s was never better than the %s before the first step: no version was made', what, before) END;
    END IF;
    RETURN format('held-out %s went from %s to %s at step %s, which is version %s of adapter "%s"', what, coalesce(before::text, 'none'),
                  after, r.best_step, version, r.name);
END
$$;

-- Only what held-out rows were answered better with is kept. It is done, or was cancelled; `nothing`: there was nothing left
-- to learn from.
CREATE FUNCTION _training_finish(run int, ending text, nothing boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r @extschema@.training_run;
    version int;
BEGIN
    SELECT t.* INTO r FROM @extschema@.training_run t WHERE t.id = run;
    IF r.best_step IS NOT NULL THEN
        version := @extschema@._training_keep_adapter(run);
    END IF;
    UPDATE @extschema@.training_run t
    SET verdict = @extschema@._training_verdict(r, version)
            || CASE WHEN nothing THEN format('; after step %s there was nothing left to learn from', r.step)
                    WHEN ending = 'cancelled' THEN format('; it was cancelled after step %s', r.step) ELSE '' END
            || coalesce((SELECT format('; the model could not give %s of %s answers: see rollout.error', sum(s.unanswered), sum(s.answers))
                         FROM @extschema@.training_statistics s WHERE s.training = run HAVING sum(s.unanswered) > 0), '')
    WHERE t.id = run;
    PERFORM @extschema@._training_end(run, ending);
END
$$;

-- What a failed step has to say is kept. One that was to end after this step is over all the same, with the best adapter so far; unless
-- that is what fails.
CREATE FUNCTION _training_fail(run int, sqlstate text, error text, detail text, hint text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE @extschema@.training_run r SET sqlstate = $2, error = $3, detail = $4, hint = $5 WHERE r.id = run;
    IF (SELECT r.wanted = 'cancel' FROM @extschema@.training_run r WHERE r.id = run) THEN
        BEGIN
            PERFORM @extschema@._training_finish(run, 'cancelled', false);
            RETURN;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END IF;
    PERFORM @extschema@._training_end(run, 'failed');
END
$$;
