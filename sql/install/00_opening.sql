/* sql/install/00_opening.sql */

\echo Use "CREATE EXTENSION minimax_m1" to load this file. \quit

-- The whole of this version, joined by make from the parts in sql/install in the order of their names. A part opens
-- with what it is about; then come its tables, and the functions and views over them. Everything has its final form
-- where it is made.
--
-- Functions whose names begin with an underscore are internal: nobody but the extension's owner may call them. The last
-- part says who may call the others.

-- A schema of this name that was there before is used; its owner could replace what is made in it.
DO $$
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
            WHERE n.oid = '@extschema@'::pg_catalog.regnamespace) THEN
        RAISE EXCEPTION 'minimax_m1: the owner of schema "@extschema@" is not a superuser'
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Drop the schema, or give it another owner when you know what is in it.';
    END IF;
END
$$;
