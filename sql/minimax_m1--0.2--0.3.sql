/* sql/minimax_m1--0.2--0.3.sql */

\echo Use "ALTER EXTENSION minimax_m1 UPDATE TO '0.3'" to load this file. \quit

-- The update from 0.1 gave prefix_cache_row() to who could read the stats view. A dump leaves out what a script has
-- granted, as if every database had it; but those roles are this database's, and a dump is to carry what they may do.
UPDATE pg_catalog.pg_init_privs i
SET initprivs = ARRAY[pg_catalog.makeaclitem(p.proowner, p.proowner, 'EXECUTE', false)]
FROM pg_catalog.pg_proc p
WHERE p.oid = '@extschema@.prefix_cache_row()'::pg_catalog.regprocedure
  AND i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = p.oid;
