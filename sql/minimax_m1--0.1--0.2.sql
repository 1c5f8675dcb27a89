/* sql/minimax_m1--0.1--0.2.sql */

\echo Use "ALTER EXTENSION minimax_m1 UPDATE TO '0.2'" to load this file. \quit

-- ---- Prefix cache: what the stats view tells of it ----

CREATE FUNCTION prefix_cache_row(
    OUT cache_hits bigint,
    OUT snapshots int,
    OUT snapshot_bytes bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_prefix_cache'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1;

CREATE OR REPLACE VIEW stats AS
SELECT s.*, c.* FROM @extschema@.stats_row() s CROSS JOIN @extschema@.prefix_cache_row() c;

REVOKE ALL ON FUNCTION prefix_cache_row() FROM PUBLIC;

-- Whoever could read the view still can: functions of a view are called with its reader's rights.
DO $$
DECLARE
    reader regrole;
BEGIN
    FOR reader IN
        SELECT a.grantee
        FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
        WHERE p.oid = '@extschema@.stats_row()'::pg_catalog.regprocedure AND a.grantee <> p.proowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION @extschema@.prefix_cache_row() TO %s', reader);
    END LOOP;
END
$$;
