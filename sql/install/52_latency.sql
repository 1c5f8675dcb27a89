/* sql/install/52_latency.sql */

-- ---- How long requests take ----

CREATE FUNCTION stats_latency_rows(
    OUT function text,
    OUT seconds float8,
    OUT first_token bigint,
    OUT whole bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_stats_latency'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 420;

CREATE VIEW stats_latency AS SELECT * FROM @extschema@.stats_latency_rows();

COMMENT ON VIEW stats_latency IS 'how many requests of each function took at most so many seconds, to their first token and as a whole';
