/* sql/install/85_dumps.sql */

-- ---- Dumps: which rows pg_dump carries ----
--
-- Definitions, results and prices; what was waiting is not carried, so that a restored database runs no model. Nor is what belongs to a
-- role that was dropped: its number is another role's in another cluster.

SELECT pg_catalog.pg_extension_config_dump('prices', '');
SELECT pg_catalog.pg_extension_config_dump('annotator', $$WHERE owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('annotator_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('job', $$WHERE state IN ('done', 'failed', 'cancelled') AND owner IN (SELECT r.oid FROM pg_catalog.pg_roles r)$$);
SELECT pg_catalog.pg_extension_config_dump('job_id_seq', '');
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
