/* sql/install/81_training.sql */

-- ---- Trainings: adapters that are learnt from the answers to the rows of a query ----
--
-- A training is queued by train() and is the runner's of its database from the commit on. Everything that counts is in
-- these tables: what a step has led to is written in one transaction, and whoever goes on goes on from there.
--
-- References are names and no OIDs, as a dump or pg_upgrade would not keep those.

CREATE TABLE training_run (
    id serial PRIMARY KEY,
    name name NOT NULL UNIQUE,          -- also that of the adapter whose versions it makes
    owner regrole NOT NULL,
    method text NOT NULL CHECK (method IN ('sft', 'cispo', 'grpo', 'dapo', 'dr_grpo')),
    examples text NOT NULL,             -- queries, as they were given
    holdout text,
    reward text,                        -- its qualified signature; NULL with sft
    options jsonb NOT NULL,             -- all of them, defaults filled in
    path text NOT NULL,                 -- the search_path of who called train()
    steps int NOT NULL CHECK (steps > 0),
    step int NOT NULL DEFAULT 0,        -- done
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled')),
    wanted text CHECK (wanted IN ('pause', 'cancel')),  -- what the runner is to do after the step it is at
    leased_by int,                      -- process ID of the runner
    leased_until timestamptz,
    attempts int NOT NULL DEFAULT 0,    -- starts since the last step that ended
    base_digest text,                   -- of the model at the first step; another one later fails it
    examples_digest text,
    best_step int,                      -- with the best held-out reward; its adapter is adapter_id
    adapter_id int,                     -- adapter_version.id; NULL: none was better than the beginning
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
    example jsonb NOT NULL,             -- with its column prompt or messages, and for sft answer
    solved int NOT NULL DEFAULT 0,      -- times in a row that all of its answers were right
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
    tokens bigint,
    length_mean float8,                 -- of answers, in tokens
    length_p99 float8,
    truncated float8,                   -- shares
    entropy float8,
    kl float8,
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

-- What the engine needs to go on after the last step, in pieces of a megabyte.
CREATE TABLE training_state (
    training int,
    step int NOT NULL,
    piece int,
    data bytea NOT NULL,
    PRIMARY KEY (training, piece));

-- Weights do not become smaller.
ALTER TABLE training_state ALTER COLUMN data SET STORAGE EXTERNAL;
