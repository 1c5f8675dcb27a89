/* sql/install/80_job_views.sql */

-- ---- Views of jobs and annotators: each reader sees what belongs to roles that the reader is a member of ----

CREATE VIEW jobs WITH (security_barrier) AS
SELECT j.id, a.name AS annotator, j.key, j.state, j.priority, j.dedupe_key, j.attempts, j.max_attempts, j.prompt,
       j.content, j.reasoning, j.finish_reason, j.prompt_tokens, j.completion_tokens, j.error, j.owner,
       j.submitted_at, CASE WHEN j.state = 'pending' THEN j.run_at END AS run_at, j.started_at, j.finished_at,
       coalesce(j.adapter, a.adapter) AS adapter
FROM @extschema@.job j
LEFT JOIN @extschema@.annotator a ON a.id = j.annotator_id
WHERE pg_has_role(j.owner::oid, 'USAGE');

COMMENT ON VIEW jobs IS 'one''s jobs: submitted prompts, and rows to be annotated';

CREATE VIEW job_errors WITH (security_barrier) AS
SELECT j.id, a.name AS annotator, j.key, j.state, j.attempts, j.max_attempts, j.sqlstate, j.error, j.detail, j.hint,
       j.failed_at, CASE WHEN j.state = 'pending' THEN j.run_at END AS next_try, j.owner
FROM @extschema@.job j
LEFT JOIN @extschema@.annotator a ON a.id = j.annotator_id
WHERE j.error IS NOT NULL AND j.state <> 'done'
  AND pg_has_role(j.owner::oid, 'USAGE');

COMMENT ON VIEW job_errors IS 'one''s jobs whose last attempt has failed, and why';

-- The share of rows whose column is filled; reads the table, with the caller's rights. NULL where they do not suffice.
CREATE FUNCTION coverage(source regclass, target_column name) RETURNS float8
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    share float8;
BEGIN
    EXECUTE format('SELECT count(%I)::float8 / nullif(count(*), 0) FROM %s %s', target_column,
                   (SELECT 'ONLY' FROM pg_class WHERE oid = source AND relkind = 'r'), source) INTO share;
    RETURN share;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION coverage IS 'share of a table''s rows whose column is filled';

CREATE VIEW annotators WITH (security_barrier) AS
SELECT a.name, a.source, a.target_column, a.reasoning_column, a.status_column, a.template, a.mode, a.fire, a.enabled,
       a.max_attempts, a.system_prompt, a.max_tokens, a.thinking_budget, a.temperature, a.top_p, a.json_schema,
       a.adapter, a.owner, q.pending, q.running, q.failed, q.oldest_age,
       -- others would run the policies of the table with their own rights
       CASE WHEN pg_get_userbyid(a.owner) = current_user
            THEN @extschema@.coverage(a.source, a.target_column) END AS coverage,
       coalesce(p.done, 0) AS done,
       coalesce(p.rate * exp(- extract(epoch FROM clock_timestamp() - p.last_done) / 60), 0)::float8 AS rate
FROM @extschema@.annotator a
LEFT JOIN @extschema@.annotator_progress p ON p.annotator_id = a.id
CROSS JOIN LATERAL (
    SELECT count(DISTINCT j.key) FILTER (WHERE j.state IN ('pending', 'held')) AS pending,
           count(DISTINCT j.key) FILTER (WHERE j.state = 'running') AS running,
           count(DISTINCT j.key) FILTER (WHERE j.state = 'failed') AS failed,
           clock_timestamp()
               - min(j.submitted_at) FILTER (WHERE j.state IN ('pending', 'held', 'running')) AS oldest_age
    FROM @extschema@.job j WHERE j.annotator_id = a.id) q
WHERE pg_has_role(a.owner::oid, 'USAGE');

COMMENT ON VIEW annotators IS 'one''s annotators, and how far they are';
