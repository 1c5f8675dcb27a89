/* sql/install/83_training_control.sql */

-- ---- Trainings: who may, and to hold, end and forget them ----

-- ---- who may train, beside superusers ----
--
-- Apart from grant_usage(): a training takes the engine for minutes or days.

CREATE TABLE training_grant (
    role regrole PRIMARY KEY);

CREATE FUNCTION _training_allowed(caller oid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE oid = caller)
       AND NOT EXISTS (SELECT FROM @extschema@.training_grant g WHERE pg_has_role(caller, g.role::oid, 'USAGE')) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'minimax_m1: permission denied to train',
            HINT = format('A superuser allows it: SELECT minimax_m1.grant_training(%L).', pg_get_userbyid(caller));
    END IF;
END
$$;

CREATE FUNCTION _grant_training(caller oid, role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM @extschema@._check_role(role);
    INSERT INTO @extschema@.training_grant VALUES (role) ON CONFLICT DO NOTHING;
END
$$;

CREATE FUNCTION grant_training(role regrole) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION grant_training IS 'allows a role, which may use the model, to train adapters';

CREATE FUNCTION _revoke_training(caller oid, role regrole) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM @extschema@.training_grant g WHERE g.role = $2
$$;

CREATE FUNCTION revoke_training(role regrole) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION revoke_training IS 'takes back what grant_training() has given; what has been queued goes on';

-- ---- what its owner may do with a training ----

-- The training of this name, locked, if the caller may see it.
CREATE FUNCTION _training_of(caller oid, training name) RETURNS training_run
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r @extschema@.training_run;
BEGIN
    SELECT t.* INTO r FROM @extschema@.training_run t WHERE t.name = training FOR UPDATE;
    IF r.id IS NULL OR NOT pg_has_role(caller, r.owner::oid, 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('minimax_m1: training "%s" does not exist', training),
            HINT = 'The view minimax_m1.training shows those that you may see.';
    END IF;
    RETURN r;
END
$$;

-- Whether a runner is at it, who will heed what is wanted: as long as its process is there, however long its step takes.
CREATE FUNCTION _training_is_held(r training_run) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.state = 'running' AND CASE WHEN r.leased_by IS NULL THEN coalesce(r.leased_until > clock_timestamp(), false)
                                        ELSE @extschema@._training_has_process(r.leased_by) END
$$;

-- What its runner is to do after the step that it is at; or, where none is at it, what becomes of it now.
CREATE FUNCTION _training_leave(r training_run, want text, ending text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF @extschema@._training_is_held(r) THEN
        UPDATE @extschema@.training_run t SET wanted = want WHERE t.id = r.id;
    ELSIF ending = 'cancelled' THEN
        PERFORM @extschema@._training_finish(r.id, ending, false);
    ELSE
        PERFORM @extschema@._training_end(r.id, ending);
    END IF;
END
$$;

CREATE FUNCTION _pause_training(caller oid, name name) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r @extschema@.training_run := @extschema@._training_of(caller, name);
BEGIN
    IF r.state NOT IN ('queued', 'running') OR r.wanted IS NOT NULL THEN
        RETURN r.state IN ('queued', 'running') AND r.wanted = 'pause';
    END IF;
    PERFORM @extschema@._training_leave(r, 'pause', 'paused');
    PERFORM @extschema@._queue_changed();
    RETURN true;
END
$$;

CREATE FUNCTION pause_training(name name) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION pause_training IS 'holds a training after the step that it is at; false when there is nothing to hold';

-- One that failed goes on from its last step, too, when what was wrong has been mended; with the reward that has the name now.
CREATE FUNCTION _resume_training(caller oid, name name) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r @extschema@.training_run := @extschema@._training_of(caller, name);
BEGIN
    PERFORM @extschema@._training_allowed(caller);
    IF NOT (r.state IN ('paused', 'failed') OR r.state = 'running' AND coalesce(r.wanted = 'pause', false)) THEN
        RETURN false;
    ELSIF r.state <> 'running' AND r.step > 0
          AND NOT EXISTS (SELECT FROM @extschema@.training_state s WHERE s.training = r.id AND s.part = 'state') THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('minimax_m1: what step %s of training "%s" has left is not there', r.step, r.name),
            DETAIL = 'A dump does not carry it.',
            HINT = 'Begin a new training: drop this one, or take another name.';
    ELSIF r.reward IS NOT NULL AND r.reward_function IS NULL AND to_regprocedure(r.reward) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_function',
            MESSAGE = format('minimax_m1: the reward %s of training "%s" does not exist', r.reward, r.name),
            HINT = 'Create it, or begin a new training by another one.';
    END IF;
    UPDATE @extschema@.training_run t
    SET state = CASE WHEN t.state = 'running' THEN t.state ELSE 'queued' END, wanted = NULL, attempts = 0, finished_at = NULL,
        reward_function = coalesce(t.reward_function, to_regprocedure(t.reward)),
        options = t.options || @extschema@._training_limits(t.options),
        sqlstate = NULL, error = NULL, detail = NULL, hint = NULL
    WHERE t.id = r.id;
    PERFORM @extschema@._queue_changed();
    RETURN true;
END
$$;

CREATE FUNCTION resume_training(name name) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION resume_training IS
    'lets a training that was paused, or has failed, go on from its last step; false when it is neither';

CREATE FUNCTION _cancel_training(caller oid, name name) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r @extschema@.training_run := @extschema@._training_of(caller, name);
BEGIN
    IF r.state NOT IN ('queued', 'running', 'paused') THEN
        RETURN false;
    END IF;
    PERFORM @extschema@._training_leave(r, 'cancel', 'cancelled');
    PERFORM @extschema@._queue_changed();
    RETURN true;
END
$$;

CREATE FUNCTION cancel_training(name name) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION cancel_training IS 'ends a training after the step that it is at, with the best adapter so far; false when it has ended';

CREATE FUNCTION _drop_training(caller oid, name name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r @extschema@.training_run := @extschema@._training_of(caller, name);
BEGIN
    IF @extschema@._training_is_held(r) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_in_use',
            MESSAGE = format('minimax_m1: training "%s" is running', name),
            HINT = 'Cancel it first, and wait for it.';
    END IF;
    DELETE FROM @extschema@.training_state t WHERE t.training = r.id;
    DELETE FROM @extschema@.training_answer t WHERE t.training = r.id;
    DELETE FROM @extschema@.training_statistics t WHERE t.training = r.id;
    DELETE FROM @extschema@.training_example t WHERE t.training = r.id;
    DELETE FROM @extschema@.training_run t WHERE t.id = r.id;
END
$$;

CREATE FUNCTION drop_training(name name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION drop_training IS 'forgets a training, its examples, steps and answers; adapters stay';

-- ---- retention: the runner calls this with each step that it writes ----

-- What held-out rows got before the first step stays, to be compared with.
CREATE FUNCTION _forget_rollouts(training int, step int) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM @extschema@.training_answer a
    WHERE a.training = $1 AND a.step > 0 AND a.step <= $2 - current_setting('minimax_m1.training_retention')::int
          AND current_setting('minimax_m1.training_retention')::int >= 0
$$;

-- ---- waiting ----

CREATE FUNCTION _is_current(xid) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_is_current' LANGUAGE C STRICT;

-- Whether there is anything to wait for; and whether that was queued, or changed, by this very transaction. One that was
-- dropped, or is another's, is an error.
CREATE FUNCTION _training_unfinished(caller oid, training name, OUT unfinished bigint, OUT own boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
BEGIN
    SELECT t.state, t.owner, t.xmin INTO r FROM @extschema@.training_run t WHERE t.name = training;
    IF r.state IS NULL OR NOT pg_has_role(caller, r.owner::oid, 'USAGE') THEN
        PERFORM @extschema@._training_of(caller, training);
    END IF;
    unfinished := (r.state IN ('queued', 'running'))::int;
    own := unfinished > 0 AND @extschema@._is_current(r.xmin);
END
$$;

-- Why one that was waited for has failed; no row if it has not.
CREATE FUNCTION _training_failure(caller oid, training name)
RETURNS TABLE (sqlstate text, message text, detail text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(r.sqlstate, 'XX000'),
           format('minimax_m1: training "%s" has failed: %s', r.name, coalesce(regexp_replace(r.error, '^minimax_m1: ', ''), 'unknown error')),
           r.detail, r.hint
    FROM @extschema@.training_run r
    WHERE r.name = training AND r.state = 'failed' AND pg_has_role(caller, r.owner::oid, 'USAGE')
$$;

CREATE PROCEDURE wait_for_training(name name, timeout interval DEFAULT NULL)
AS 'MODULE_PATHNAME', 'm1pg_wait_for_training' LANGUAGE C;

COMMENT ON PROCEDURE wait_for_training IS 'returns when the training has ended, or is paused; warns if it has failed';
