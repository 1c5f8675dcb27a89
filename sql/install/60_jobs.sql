/* sql/install/60_jobs.sql */

-- ---- Jobs: prompts that are answered after the transaction that queues them ----
--
-- A job is submitted, or belongs to an annotator. The job runner claims what is due and keeps the answer in the row, or
-- writes it into the row that is annotated.
--
-- Internal functions that need to know who called them take it as their first argument and are reached through the
-- public function of the same name, which is m1pg_gate: it runs the internal one as the owner of the extension, with
-- search_path pinned. The tables are reached in no other way.

-- One row for each prompt that was submitted, and for each row that an annotator has yet to see. Triggers only add
-- rows, so that they never wait for the runner; it drops what has become superfluous.
--
-- A job is pending until a runner leases it at run_at or later, running while it is leased, and ends as done, failed or
-- cancelled; after a failure that is worth another attempt it is pending again. It is held while its annotator is not
-- enabled.
CREATE TABLE job (
    id bigserial PRIMARY KEY,
    owner regrole NOT NULL,
    annotator_id int,                   -- NULL: submitted
    key text[],                         -- of the annotated row
    prompt text,
    system_prompt text,
    max_tokens int,
    thinking_budget int,
    temperature float4,
    top_p float4,
    seed bigint,
    stop text[],
    json_schema json,
    priority int NOT NULL DEFAULT 0,
    dedupe_key text,
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'held', 'running', 'done', 'failed', 'cancelled')),
    attempts int NOT NULL DEFAULT 0,
    max_attempts int NOT NULL DEFAULT 5,
    losses int NOT NULL DEFAULT 0,      -- times that the engine or the runner went away under it
    run_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    leased_by int,                      -- process ID
    leased_at timestamptz,
    lease_until timestamptz,
    submitted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    started_at timestamptz,
    finished_at timestamptz,
    content text,
    reasoning text,
    finish_reason text,
    prompt_tokens int,
    completion_tokens int,
    sqlstate text,                      -- of the last failure, as the rest
    error text,
    detail text,
    hint text,
    failed_at timestamptz,
    answered bytea,                     -- the hash of the prompt that content answers, while the row cannot be written
    adapter name,                       -- of the session that submitted it; NULL: the model without one
    target_hash bytea,                  -- of what the annotated row's target held when it was queued; empty: nothing
    CHECK ((annotator_id IS NULL) = (key IS NULL)),
    CHECK ((annotator_id IS NULL) = (prompt IS NOT NULL)),
    CHECK ((state = 'running') = (lease_until IS NOT NULL)))
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1);

-- Owners take turns; each one's jobs go by priority. What waits for its time, for having failed or for the end of
-- something else, is passed by.
CREATE INDEX job_due ON job (owner, priority DESC, run_at, id) WHERE state = 'pending' AND losses < 3;
CREATE INDEX job_suspect ON job (run_at) WHERE state = 'pending' AND losses >= 3;
CREATE INDEX job_next ON job (run_at) WHERE state = 'pending';
CREATE INDEX job_running ON job (lease_until) WHERE state = 'running';
-- What is forgotten after a while: not the failed rows of an annotator.
CREATE INDEX job_finished ON job (finished_at)
    WHERE state IN ('done', 'failed', 'cancelled') AND (annotator_id IS NULL OR state = 'cancelled');
CREATE INDEX job_row ON job (annotator_id, key) WHERE annotator_id IS NOT NULL;
CREATE UNIQUE INDEX job_dedupe ON job (owner, dedupe_key)
    WHERE dedupe_key IS NOT NULL AND state NOT IN ('failed', 'cancelled');

-- After commit, wakes this database's job runner, and whoever waits for a job if something has ended.
CREATE FUNCTION _queue_changed() RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_queue_changed' LANGUAGE C;

-- ---- submitting ----

CREATE FUNCTION submit(
    prompt text,
    system_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    top_p float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL,
    priority int DEFAULT 0,
    dedupe_key text DEFAULT NULL,
    max_attempts int DEFAULT 5,
    json_schema json_text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_submit'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION submit IS 'queues a prompt, to be answered after this transaction; returns the job';

-- ---- what has become of it ----

-- The job with this id, if the caller may see it.
CREATE FUNCTION _job_of(caller oid, job_id bigint) RETURNS job
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    j @extschema@.job;
BEGIN
    SELECT * INTO j FROM @extschema@.job WHERE id = job_id;
    IF j.id IS NULL OR NOT pg_has_role(caller, j.owner::oid, 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('minimax_m1: job %s does not exist', job_id),
            DETAIL = 'It may belong to another role, or have been forgotten after minimax_m1.job_retention.';
    END IF;
    RETURN j;
END
$$;

CREATE FUNCTION _poll(
    caller oid, job bigint,
    OUT state text, OUT content text, OUT reasoning text, OUT error text, OUT sqlstate text, OUT detail text,
    OUT hint text, OUT finish_reason text, OUT attempts int, OUT prompt_tokens int, OUT completion_tokens int,
    OUT seed bigint, OUT submitted_at timestamptz, OUT started_at timestamptz, OUT finished_at timestamptz)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    j @extschema@.job;
BEGIN
    IF job IS NULL THEN
        RETURN;
    END IF;
    j := @extschema@._job_of(caller, job);
    state := j.state; content := j.content; reasoning := j.reasoning; error := j.error; sqlstate := j.sqlstate;
    detail := j.detail; hint := j.hint; finish_reason := j.finish_reason; attempts := j.attempts;
    prompt_tokens := j.prompt_tokens; completion_tokens := j.completion_tokens; seed := j.seed;
    submitted_at := j.submitted_at; started_at := j.started_at; finished_at := j.finished_at;
END
$$;

CREATE FUNCTION poll(
    job bigint,
    OUT state text, OUT content text, OUT reasoning text, OUT error text, OUT sqlstate text, OUT detail text,
    OUT hint text, OUT finish_reason text, OUT attempts int, OUT prompt_tokens int, OUT completion_tokens int,
    OUT seed bigint, OUT submitted_at timestamptz, OUT started_at timestamptz, OUT finished_at timestamptz)
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION poll IS 'state and answer of a job';

CREATE FUNCTION _cancel_job(caller oid, job bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF job IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM @extschema@._job_of(caller, job);
    UPDATE @extschema@.job j
    SET state = 'cancelled', finished_at = now(), leased_by = NULL, leased_at = NULL, lease_until = NULL
    WHERE j.id = job AND j.state IN ('pending', 'held', 'running');
    IF FOUND THEN
        PERFORM @extschema@._queue_changed();
    END IF;
    RETURN FOUND;
END
$$;

CREATE FUNCTION cancel_job(job bigint) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION cancel_job IS 'cancels a job that has not ended; false when it has';

-- ---- waiting ----

-- How many of these jobs have not ended, and whether one of those was queued by this transaction.
CREATE FUNCTION _unfinished(caller oid, jobs bigint[], OUT unfinished bigint, OUT own boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    j @extschema@.job;
    i bigint;
BEGIN
    unfinished := 0;
    own := false;
    FOREACH i IN ARRAY coalesce(jobs, '{}') LOOP
        -- one that has been forgotten has ended
        CONTINUE WHEN i IS NULL OR NOT EXISTS (SELECT FROM @extschema@.job WHERE id = i)
            AND i BETWEEN 1 AND (SELECT last_value FROM @extschema@.job_id_seq);
        j := @extschema@._job_of(caller, i);
        IF j.state IN ('pending', 'held', 'running') THEN
            unfinished := unfinished + 1;
            own := own OR @extschema@._is_own(j.id);
        END IF;
    END LOOP;
END
$$;

-- Whether this transaction has queued the job.
CREATE FUNCTION _is_own(job_id bigint) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_is_own_job' LANGUAGE C STRICT;

CREATE PROCEDURE wait_for(jobs bigint[], timeout interval DEFAULT NULL)
AS 'MODULE_PATHNAME', 'm1pg_wait_for' LANGUAGE C;

COMMENT ON PROCEDURE wait_for IS 'returns when all of the jobs have ended';
