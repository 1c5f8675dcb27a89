/* sql/install/50_monitoring.sql */

-- ---- Monitoring: requests that run, the engine, and counters ----
--
-- Each view reads a function in C, which is called with the rights of the view's reader: who may read a view has to be
-- allowed to call its function, too.

-- ---- requests ----

CREATE FUNCTION activity_rows(
    OUT request bigint,
    OUT pid int,
    OUT usesysid oid,
    OUT datid oid,
    OUT function text,
    OUT state text,
    OUT queue_position int,
    OUT prompt_tokens int,
    OUT prefilled int,
    OUT generated int,
    OUT submitted_at timestamptz,
    OUT state_since timestamptz,
    OUT prompt text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_activity'
LANGUAGE C VOLATILE PARALLEL SAFE;

CREATE VIEW activity AS
SELECT a.request, a.pid, pg_catalog.pg_get_userbyid(a.usesysid) AS "user", d.datname AS database,
       a.function, a.state, a.queue_position, a.prompt_tokens, a.prefilled, a.generated,
       a.submitted_at, a.state_since, a.prompt
FROM @extschema@.activity_rows() a
LEFT JOIN pg_catalog.pg_database d ON d.oid = a.datid;

COMMENT ON VIEW activity IS 'requests that wait or run';

CREATE FUNCTION cancel(request_id bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_cancel'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION cancel IS 'cancels a request that is shown in the activity view';

-- ---- the engine ----

CREATE FUNCTION model_row(
    OUT name text,
    OUT architecture text,
    OUT parameters bigint,
    OUT layers int,
    OUT experts int,
    OUT device text,
    OUT context int,
    OUT bytes bigint,
    OUT state text,
    OUT engine_restarts bigint,
    OUT engine_pid int,
    OUT last_error text,
    OUT next_try timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_model_info'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1;

CREATE VIEW model AS SELECT * FROM @extschema@.model_row();

COMMENT ON VIEW model IS 'the loaded model and its engine';

-- ---- counters ----

CREATE FUNCTION stats_row(
    OUT requests bigint,
    OUT completed bigint,
    OUT failed bigint,
    OUT cancelled bigint,
    OUT timed_out bigint,
    OUT rejected bigint,
    OUT prompt_tokens bigint,
    OUT cached_tokens bigint,
    OUT reasoning_tokens bigint,
    OUT completion_tokens bigint,
    OUT queue_ms float8,
    OUT prefill_ms float8,
    OUT decode_ms float8,
    OUT stats_reset timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_stats'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1;

-- Of the engine's prefix cache, in the same view.
CREATE FUNCTION prefix_cache_row(
    OUT cache_hits bigint,
    OUT snapshots int,
    OUT snapshot_bytes bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_prefix_cache'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1;

CREATE VIEW stats AS
SELECT s.*, c.* FROM @extschema@.stats_row() s CROSS JOIN @extschema@.prefix_cache_row() c;

COMMENT ON VIEW stats IS 'counters since the server started or stats_reset()';

CREATE FUNCTION stats_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_stats_reset'
LANGUAGE C VOLATILE PARALLEL SAFE;

COMMENT ON FUNCTION stats_reset IS 'sets the counters of the stats view to zero';

CREATE FUNCTION stats_by_function_rows(
    OUT function text,
    OUT requests bigint,
    OUT completed bigint,
    OUT failed bigint,
    OUT cancelled bigint,
    OUT timed_out bigint,
    OUT rejected bigint,
    OUT prompt_tokens bigint,
    OUT cached_tokens bigint,
    OUT reasoning_tokens bigint,
    OUT completion_tokens bigint,
    OUT queue_ms float8,
    OUT prefill_ms float8,
    OUT decode_ms float8,
    OUT cache_hits bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_stats_by_function'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 20;

CREATE VIEW stats_by_function AS SELECT * FROM @extschema@.stats_by_function_rows();

COMMENT ON VIEW stats_by_function IS 'the counters of the stats view for each function';

CREATE FUNCTION last_statement_rows(
    OUT function text,
    OUT calls bigint,
    OUT cache_hits bigint,
    OUT prompt_tokens bigint,
    OUT cached_tokens bigint,
    OUT completion_tokens bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_last_statement'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1;

CREATE VIEW last_statement AS SELECT * FROM @extschema@.last_statement_rows();

COMMENT ON VIEW last_statement IS 'what the last statement of this session that called the model has used';
