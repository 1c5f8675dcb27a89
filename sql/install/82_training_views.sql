/* sql/install/82_training_views.sql */

-- ---- Trainings to look at: each reader sees those of roles that the reader is a member of ----

CREATE VIEW training WITH (security_barrier) AS
SELECT r.name, r.owner, r.method, r.state, r.step, r.steps,
       s.reward, s.reward_start, s.reward_best,
       s.heldout, s.heldout_error, s.heldout_start, s.heldout_best, r.best_step,
       s.heldout_loss, s.heldout_loss_start, s.heldout_loss_best,
       CASE WHEN r.state IN ('queued', 'running', 'paused')
            THEN make_interval(secs => round((s.step_ms * (r.steps - r.step) / 1000)::numeric)::float8) END AS time_left,
       r.verdict, r.sqlstate, r.error, r.detail, r.hint, v.version AS adapter_version,
       r.created_at, r.started_at, r.finished_at
FROM @extschema@.training_run r
LEFT JOIN @extschema@.adapter_version v ON v.id = r.adapter_id
CROSS JOIN LATERAL (
    -- the newest and the oldest of what steps have told, where they have
    SELECT (array_agg(t.reward ORDER BY t.step DESC) FILTER (WHERE t.reward IS NOT NULL))[1] AS reward,
           (array_agg(t.reward ORDER BY t.step) FILTER (WHERE t.reward IS NOT NULL))[1] AS reward_start,
           max(t.reward) AS reward_best,
           (array_agg(t.heldout ORDER BY t.step DESC) FILTER (WHERE t.heldout IS NOT NULL))[1] AS heldout,
           (array_agg(t.heldout_error ORDER BY t.step DESC) FILTER (WHERE t.heldout IS NOT NULL))[1] AS heldout_error,
           (array_agg(t.heldout ORDER BY t.step) FILTER (WHERE t.heldout IS NOT NULL))[1] AS heldout_start,
           max(t.heldout) AS heldout_best,
           (array_agg(t.heldout_loss ORDER BY t.step DESC) FILTER (WHERE t.heldout_loss IS NOT NULL))[1] AS heldout_loss,
           (array_agg(t.heldout_loss ORDER BY t.step) FILTER (WHERE t.heldout_loss IS NOT NULL))[1] AS heldout_loss_start,
           min(t.heldout_loss) AS heldout_loss_best,
           -- of the last few: answers may become longer
           avg(coalesce(t.sampling_ms, 0) + coalesce(t.reward_ms, 0) + coalesce(t.training_ms, 0))
               FILTER (WHERE t.step > greatest(0, r.step - 5)) AS step_ms
    FROM @extschema@.training_statistics t WHERE t.training = r.id) s
WHERE pg_has_role(r.owner::oid, 'USAGE');

COMMENT ON VIEW training IS 'one''s trainings: how far they are, and what has become better';

CREATE VIEW training_step WITH (security_barrier) AS
SELECT r.name AS training, s.step, s.reward, s.reward_sd, s.heldout, s.heldout_error, s.heldout_n, s.heldout_loss, s.loss,
       s.groups, s.useful_groups, s.solved_groups, s.hopeless_groups, s.answers, s.reward_errors, s.unanswered,
       s.tokens, s.length_mean, s.length_p99, s.truncated,
       s.entropy, s.kl, s.clipped, s.gradient_norm, s.router_load, s.mismatch, s.rerouted, s.updates, s.dropped,
       s.sampling_ms, s.reward_ms, s.training_ms, s.ended_at
FROM @extschema@.training_statistics s
JOIN @extschema@.training_run r ON r.id = s.training
WHERE pg_has_role(r.owner::oid, 'USAGE');

COMMENT ON VIEW training_step IS 'the steps of one''s trainings, in numbers';

CREATE VIEW rollout WITH (security_barrier) AS
SELECT r.name AS training, a.step, a.part, a.item, a.sample, e.example, a.content, a.reasoning, a.tool_calls,
       a.reward, a.advantage, a.finish_reason, a.prompt_tokens, a.completion_tokens, a.error
FROM @extschema@.training_answer a
JOIN @extschema@.training_run r ON r.id = a.training
LEFT JOIN @extschema@.training_example e ON (e.training, e.part, e.item) = (a.training, a.part, a.item)
WHERE pg_has_role(r.owner::oid, 'USAGE');

COMMENT ON VIEW rollout IS 'the answers of one''s trainings, with the rows that they answer and what they got';

-- Adapters, too, because where one comes from is a training.
CREATE VIEW adapter WITH (security_barrier) AS
SELECT v.name, v.version, v.owner, v.base_digest, v.digest, v.rank, v.bytes, v.created_at,
       v.version = max(v.version) OVER (PARTITION BY v.name) AS latest,
       v.training, v.step, v.heldout_before, v.heldout_after, v.heldout_measure
FROM @extschema@.adapter_version v
WHERE pg_has_role(v.owner::oid, 'USAGE')
      OR EXISTS (SELECT FROM @extschema@.adapter_grant g WHERE g.name = v.name AND pg_has_role(g.role::oid, 'USAGE'));

COMMENT ON VIEW adapter IS 'the adapters that one may use, each version of them, and the training that it comes from';
