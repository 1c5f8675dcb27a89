/* sql/minimax_m1--0.2--0.3.sql */

\echo Use "ALTER EXTENSION minimax_m1 UPDATE TO '0.3'" to load this file. \quit

-- The update from 0.1 gave prefix_cache_row() to who could read the stats view. A dump leaves out what a script has
-- granted, as if every database had it; but those roles are this database's, and a dump is to carry what they may do.
UPDATE pg_catalog.pg_init_privs i
SET initprivs = ARRAY[pg_catalog.makeaclitem(p.proowner, p.proowner, 'EXECUTE', false)]
FROM pg_catalog.pg_proc p
WHERE p.oid = '@extschema@.prefix_cache_row()'::pg_catalog.regprocedure
  AND i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = p.oid;
-- Since PostgreSQL 17 such a grant stands among what keeps a role from being dropped, too.
DELETE FROM pg_catalog.pg_shdepend
WHERE classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  AND objid = '@extschema@.prefix_cache_row()'::pg_catalog.regprocedure AND deptype = 'i'
  AND dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database());

-- What an annotator does to its table is done as the table's owner, once the annotator's has been found to have the
-- rights: it used to be the annotator's, with whose rights the table's own code was run.
CREATE FUNCTION _check_annotated_table(role oid, source oid) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_annotated_table' LANGUAGE C STRICT;

-- replaced _annotator_check_rights of sql/install/70_annotators.sql

-- Owners take turns; each one's jobs go by priority, which used to go before all others'.
DROP INDEX job_due;
CREATE INDEX job_due ON job (owner, priority DESC, run_at, id) WHERE state = 'pending' AND losses < 3;
CREATE INDEX job_next ON job (run_at) WHERE state = 'pending';
DROP INDEX job_finished;
CREATE INDEX job_finished ON job (finished_at)
    WHERE state IN ('done', 'failed', 'cancelled') AND (annotator_id IS NULL OR state = 'cancelled');

-- The columns that an annotator fills: the target first, and the status last.
-- new _annotator_fills of sql/install/70_annotators.sql

-- The partition of a row is told with its inputs, and what is in all columns that are filled.
-- replaced _annotator_sql of sql/install/72_annotated_rows.sql

-- Locks are taken in the order of DROP TABLE: the table, then what is here of its annotators.

-- new _lock_annotated of sql/install/70_annotators.sql


-- replaced _drop_annotator of sql/install/70_annotators.sql


-- Triggers of annotators are found by what they do, not by their names.

ALTER TABLE annotator_binding ADD COLUMN triggers oid[];

-- The triggers of an annotator, whatever they are called.
-- new _annotator_triggers of sql/install/74_annotator_ddl.sql

UPDATE annotator_binding b SET triggers = ARRAY(SELECT @extschema@._annotator_triggers(a.source, a.name))
FROM annotator a WHERE a.id = b.annotator_id;
ALTER TABLE annotator_binding ALTER triggers SET NOT NULL;

-- replaced _annotator_bind of sql/install/74_annotator_ddl.sql

-- replaced _annotator_drop_triggers of sql/install/70_annotators.sql

-- replaced _follow_ddl of sql/install/74_annotator_ddl.sql

DROP EVENT TRIGGER minimax_m1_follow_ddl;
-- All of these rename columns: ALTER TYPE those of typed tables, and ALTER VIEW those of anything.
CREATE EVENT TRIGGER minimax_m1_follow_ddl ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER TYPE', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'CREATE TRIGGER')
    EXECUTE FUNCTION _follow_ddl();
ALTER EVENT TRIGGER minimax_m1_follow_ddl ENABLE ALWAYS;

-- replaced _follow_drop of sql/install/74_annotator_ddl.sql

-- Virtual generated columns cannot be in a template, and what is always an identity cannot be filled.

-- The table, what it is a partition of, and its partitions: they have rows in common.
-- new _annotator_family of sql/install/70_annotators.sql

-- Raises an error when an annotator fills what another one does, or leads to what it is asked by itself.
-- new _annotator_check_fills of sql/install/70_annotators.sql

-- replaced _annotator_check of sql/install/70_annotators.sql

-- Schemas, messages and tools keep the order in which they are written: what was jsonb is json_text.

-- The functions that are made anew, until their grants have been copied.
DO $$
DECLARE
    f record;
BEGIN
    FOR f IN
        SELECT p.oid::pg_catalog.regprocedure AS function, p.proname
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'minimax_m1'
        JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
        WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
          AND 'pg_catalog.jsonb'::pg_catalog.regtype = ANY (p.proargtypes)
    LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s RENAME TO %I', f.function, '_old_' || f.proname);
    END LOOP;
END
$$;

-- JSON as it was written: what is given as json or jsonb becomes it, as does a literal. Its order is that of the text,
-- which jsonb has not, and a program's parameter of no known type becomes it, as it would not where both are accepted.
CREATE TYPE json_text;

CREATE FUNCTION _json_text_in(cstring) RETURNS json_text
AS 'json_in' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION _json_text_out(json_text) RETURNS cstring
AS 'json_out' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION _json_text_recv(internal) RETURNS json_text
AS 'json_recv' LANGUAGE internal STABLE STRICT PARALLEL SAFE;

CREATE FUNCTION _json_text_send(json_text) RETURNS bytea
AS 'json_send' LANGUAGE internal STABLE STRICT PARALLEL SAFE;

CREATE TYPE json_text (
    INPUT = _json_text_in,
    OUTPUT = _json_text_out,
    RECEIVE = _json_text_recv,
    SEND = _json_text_send,
    LIKE = pg_catalog.json);

COMMENT ON TYPE json_text IS 'JSON in the order of its text; json and jsonb become it';

CREATE CAST (json AS json_text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (jsonb AS json_text) WITH INOUT AS IMPLICIT;
CREATE CAST (json_text AS json) WITHOUT FUNCTION AS ASSIGNMENT;

-- new complete of sql/install/10_requests.sql

COMMENT ON FUNCTION complete IS 'answers a prompt or a conversation, with reasoning, tool calls and counts';

-- new complete_stream of sql/install/10_requests.sql

COMMENT ON FUNCTION complete_stream IS 'answers as complete does, piece by piece, when called in the select list; then tells what complete tells';

-- new generate_json of sql/install/30_operators.sql

COMMENT ON FUNCTION generate_json IS 'answers a prompt with JSON that a schema describes';

-- new submit of sql/install/60_jobs.sql

COMMENT ON FUNCTION submit IS 'queues a prompt, to be answered after this transaction; returns the job';

-- new _create_annotator of sql/install/70_annotators.sql

-- new create_annotator of sql/install/70_annotators.sql

COMMENT ON FUNCTION create_annotator IS 'keeps a column of a table filled from a prompt over other columns';

-- new _alter_annotator of sql/install/70_annotators.sql

-- new alter_annotator of sql/install/70_annotators.sql

COMMENT ON FUNCTION alter_annotator IS 'changes what is not NULL; enabled => false holds its rows back';

CREATE FUNCTION _check_json_schema(caller oid, json_schema json_text) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_json_schema' LANGUAGE C STRICT;

-- A quota is a setting of the role; the owner of the function is a superuser, who may set it.
-- replaced set_quota of sql/install/40_limits.sql

SELECT pg_catalog.set_config('minimax_m1_update.annotators', c.relacl::text, true)
FROM pg_catalog.pg_class c WHERE c.oid = '@extschema@.annotators'::pg_catalog.regclass;
-- replaced grant_usage of sql/install/90_permissions.sql

DROP VIEW annotators;
ALTER TABLE job ALTER json_schema TYPE json;
ALTER TABLE annotator ALTER json_schema TYPE json;
ALTER TABLE annotator ADD COLUMN adapter name;

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

-- What is new is for nobody but its owner, whatever default privileges say.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT o.object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee
        FROM (SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure) AS object, p.proowner AS owner,
                     coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) AS acl
              FROM pg_catalog.pg_proc p
              WHERE p.oid = ANY ('{@extschema@._check_annotated_table(oid\,oid), @extschema@._lock_annotated(regclass), @extschema@._annotator_triggers(regclass\,name), @extschema@._annotator_family(regclass), @extschema@._annotator_fills(@extschema@.annotator), @extschema@._annotator_check_fills(@extschema@.annotator)}'::pg_catalog.regprocedure[])
                 OR p.prorettype = '@extschema@.json_text'::pg_catalog.regtype
                 OR '@extschema@.json_text'::pg_catalog.regtype = ANY (p.proargtypes)
              UNION ALL
              SELECT 'TYPE @extschema@.json_text', t.typowner,
                     coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
              FROM pg_catalog.pg_type t WHERE t.oid = '@extschema@.json_text'::pg_catalog.regtype
              UNION ALL
              SELECT 'TABLE @extschema@.annotators', c.relowner, c.relacl
              FROM pg_catalog.pg_class c WHERE c.oid = '@extschema@.annotators'::pg_catalog.regclass) o
        CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
        WHERE a.grantee <> o.owner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', r.object, r.grantee);
    END LOOP;
END
$$;

-- Who could use what was made anew can use it. A dump leaves out what a script has granted, as if every database had it;
-- but those roles are this database's, and a dump is to carry what they may do.
DO $$
DECLARE
    o record;
    g record;
    noted aclitem[];
BEGIN
    FOR o IN
        SELECT 'FUNCTION ' || n.oid::pg_catalog.regprocedure AS object, n.oid AS id,
               'pg_catalog.pg_proc'::pg_catalog.regclass AS class, p.proacl AS acl, p.proowner AS owner,
               'DROP FUNCTION ' || p.oid::pg_catalog.regprocedure AS forget
        FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_proc n ON n.pronamespace = p.pronamespace AND '_old_' || n.proname = p.proname
        WHERE p.pronamespace = '@extschema@'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'FUNCTION ' || n.oid::pg_catalog.regprocedure, n.oid, 'pg_catalog.pg_proc'::pg_catalog.regclass, p.proacl,
               p.proowner, NULL
        FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_proc n ON n.pronamespace = p.pronamespace AND n.proname LIKE '\_json\_text\_%'
        WHERE p.pronamespace = '@extschema@'::pg_catalog.regnamespace AND p.proname = '_old_generate_json'
        UNION ALL
        SELECT 'TABLE @extschema@.annotators', c.oid, 'pg_catalog.pg_class'::pg_catalog.regclass,
               nullif(pg_catalog.current_setting('minimax_m1_update.annotators', true), '')::aclitem[], c.relowner, NULL
        FROM pg_catalog.pg_class c WHERE c.oid = '@extschema@.annotators'::pg_catalog.regclass
    LOOP
        SELECT i.initprivs INTO noted FROM pg_catalog.pg_init_privs i
        WHERE i.classoid = o.class AND i.objoid = o.id AND i.objsubid = 0;
        FOR g IN
            SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee,
                   CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS option
            FROM pg_catalog.aclexplode(o.acl) a WHERE a.grantee <> o.owner
        LOOP
            EXECUTE pg_catalog.format('GRANT %s ON %s TO %s%s', g.privilege_type, o.object, g.grantee, g.option);
        END LOOP;
        DELETE FROM pg_catalog.pg_init_privs i
        WHERE noted IS NULL AND i.classoid = o.class AND i.objoid = o.id AND i.objsubid = 0;
        UPDATE pg_catalog.pg_init_privs i SET initprivs = noted
        WHERE noted IS NOT NULL AND i.classoid = o.class AND i.objoid = o.id AND i.objsubid = 0;
        -- since PostgreSQL 17, who was noted is there, too
        DELETE FROM pg_catalog.pg_shdepend s
        WHERE s.classid = o.class AND s.objid = o.id AND s.objsubid = 0 AND s.deptype = 'i'
          AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
          AND s.refobjid NOT IN (SELECT a.grantee FROM pg_catalog.aclexplode(noted) a);
        IF o.forget IS NOT NULL THEN
            EXECUTE o.forget;
        END IF;
    END LOOP;
END
$$;

-- An answer that cannot be written yet is kept: the hash of the prompt that content answers.
ALTER TABLE job ADD COLUMN answered bytea;

-- Jobs and annotators use adapters.
ALTER TABLE job ADD COLUMN adapter name;

-- What statements write into a target while its row waits is kept.
ALTER TABLE job ADD COLUMN target_hash bytea;
-- replaced _backfill_batch of sql/install/72_annotated_rows.sql

CREATE OR REPLACE VIEW jobs WITH (security_barrier) AS
SELECT j.id, a.name AS annotator, j.key, j.state, j.priority, j.dedupe_key, j.attempts, j.max_attempts, j.prompt,
       j.content, j.reasoning, j.finish_reason, j.prompt_tokens, j.completion_tokens, j.error, j.owner,
       j.submitted_at, CASE WHEN j.state = 'pending' THEN j.run_at END AS run_at, j.started_at, j.finished_at,
       coalesce(j.adapter, a.adapter) AS adapter
FROM @extschema@.job j
LEFT JOIN @extschema@.annotator a ON a.id = j.annotator_id
WHERE pg_has_role(j.owner::oid, 'USAGE');

-- ---- Learning ----

-- What was there before this, so that what is new can be told from it.
SELECT pg_catalog.set_config('minimax_m1_update.members', pg_catalog.array_agg(d.classid || '.' || d.objid)::text, true)
FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'minimax_m1'
WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e';

CREATE FUNCTION _check_adapter(role oid, adapter name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_check_adapter' LANGUAGE C STRICT;

DROP FUNCTION _annotator_get(name, int);
-- new _annotator_get of sql/install/72_annotated_rows.sql

-- Raises an error unless there is such a role: a regrole may be any number.
-- new _check_role of sql/install/40_limits.sql

-- Annotations that somebody has changed by hand: what was wrong. What is right is in the annotated row.
CREATE TABLE correction (
    annotator_id int,
    key text[],
    wrong text NOT NULL,
    prompt_hash bytea NOT NULL,         -- of what it was an answer to
    PRIMARY KEY (annotator_id, key));

-- The definition and its jobs; not the triggers.
-- replaced _forget_annotator of sql/install/70_annotators.sql

-- all of sql/install/52_latency.sql

-- all of sql/install/76_rewards.sql

-- all of sql/install/77_evaluation.sql

-- all of sql/install/78_corrections.sql

-- all of sql/install/79_adapters.sql

-- all of sql/install/78_agents.sql

-- all of sql/install/81_training.sql

-- all of sql/install/82_training_views.sql

-- all of sql/install/83_training_control.sql

-- all of sql/install/83_training_plot.sql

-- all of sql/install/84_training_tasks.sql

-- What belongs to a role that was dropped is not carried: its number is another role's in another cluster.
SELECT pg_catalog.pg_extension_config_dump('annotator', $$WHERE owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('job', $$WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('agent', $$WHERE owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('agent_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('agent_run', $$WHERE state IN ('done', 'failed') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('agent_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('agent_step',
    $$WHERE run IN (SELECT a.id FROM @extschema@.agent_run a JOIN pg_catalog.pg_roles r ON r.oid = a.owner)$$);
SELECT pg_catalog.pg_extension_config_dump('correction', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_version', $$WHERE owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('adapter_version_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_piece',
    $$WHERE adapter_id IN (SELECT v.id FROM @extschema@.adapter_version v JOIN pg_catalog.pg_roles r ON r.oid = v.owner)$$);
SELECT pg_catalog.pg_extension_config_dump('adapter_grant', $$WHERE role IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
-- Trainings that have ended, with what they learnt from; those that have not would go on where nobody asked for it.
SELECT pg_catalog.pg_extension_config_dump('training_run',
    $$WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('training_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('training_example',
    $$WHERE training IN (SELECT id FROM @extschema@.training_run WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r))$$);
SELECT pg_catalog.pg_extension_config_dump('training_statistics',
    $$WHERE training IN (SELECT id FROM @extschema@.training_run WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r))$$);
SELECT pg_catalog.pg_extension_config_dump('training_answer',
    $$WHERE training IN (SELECT id FROM @extschema@.training_run WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r))$$);
SELECT pg_catalog.pg_extension_config_dump('training_grant', $$WHERE role IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);

-- It is for nobody but its owner, whatever default privileges say.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT DISTINCT
               CASE WHEN p.oid IS NOT NULL THEN pg_catalog.format('ROUTINE %s', p.oid::pg_catalog.regprocedure)
                    WHEN c.relkind = 'S' THEN pg_catalog.format('SEQUENCE %s', c.oid::pg_catalog.regclass)
                    ELSE pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass) END AS object,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'minimax_m1'
        LEFT JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
        LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid
        CROSS JOIN LATERAL
            pg_catalog.aclexplode(coalesce(c.relacl, p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
          AND d.classid || '.' || d.objid
              <> ALL (pg_catalog.current_setting('minimax_m1_update.members')::text[])
          AND a.grantee <> coalesce(c.relowner, p.proowner)
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', r.object, r.grantee);
    END LOOP;
END
$$;
