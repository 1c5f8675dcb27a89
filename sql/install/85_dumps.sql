/* sql/install/85_dumps.sql */

-- ---- Dumps: which rows pg_dump carries ----
--
-- Definitions, results and prices; what was waiting is not carried, so that a restored database runs no model.

SELECT pg_catalog.pg_extension_config_dump('prices', '');
SELECT pg_catalog.pg_extension_config_dump('annotator', '');
SELECT pg_catalog.pg_extension_config_dump('annotator_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('job', $$WHERE state IN ('done', 'failed', 'cancelled')$$);
SELECT pg_catalog.pg_extension_config_dump('job_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('agent', '');
SELECT pg_catalog.pg_extension_config_dump('agent_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('agent_run', $$WHERE state IN ('done', 'failed')$$);
SELECT pg_catalog.pg_extension_config_dump('agent_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('agent_step', '');
SELECT pg_catalog.pg_extension_config_dump('correction', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_version', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_version_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_piece', '');
SELECT pg_catalog.pg_extension_config_dump('adapter_grant', '');
-- Trainings that have ended, with what they learnt from; those that have not would go on where nobody asked for it.
SELECT pg_catalog.pg_extension_config_dump('training_run', $$WHERE state IN ('done', 'failed', 'cancelled')$$);
SELECT pg_catalog.pg_extension_config_dump('training_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('training_example',
    $$WHERE training IN (SELECT id FROM @extschema@.training_run WHERE state IN ('done', 'failed', 'cancelled'))$$);
SELECT pg_catalog.pg_extension_config_dump('training_statistics',
    $$WHERE training IN (SELECT id FROM @extschema@.training_run WHERE state IN ('done', 'failed', 'cancelled'))$$);
SELECT pg_catalog.pg_extension_config_dump('training_answer',
    $$WHERE training IN (SELECT id FROM @extschema@.training_run WHERE state IN ('done', 'failed', 'cancelled'))$$);
SELECT pg_catalog.pg_extension_config_dump('training_grant', '');
