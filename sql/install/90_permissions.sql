/* sql/install/90_permissions.sql */

-- ---- Permissions ----
--
-- Using the model costs time of the whole server: nobody may unless told so.

-- All but what administers, and what is internal.
CREATE FUNCTION grant_usage(role regrole)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fn regprocedure;
    vw regclass;
BEGIN
    PERFORM @extschema@._check_role(role);
    EXECUTE format('GRANT USAGE ON SCHEMA @extschema@ TO %s', role);
    FOR fn IN
        SELECT p.oid
        FROM pg_proc p
        WHERE p.pronamespace = '@extschema@'::regnamespace
          AND p.proname NOT IN ('grant_usage', 'stats_reset', 'set_quota', 'set_price', 'usage_reset', 'grant_training',
                                'revoke_training')
          -- what makes a json_text of jsonb, an agent, an evaluation, a plot or a task is called in the caller's name
          AND p.proname !~ '^_(?!(json_text|agent|evaluation|plot|task)_)'
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', fn, role);
    END LOOP;
    FOR vw IN
        SELECT c.oid
        FROM pg_class c
        WHERE c.relnamespace = '@extschema@'::regnamespace
          AND c.relkind = 'v'
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO %s', vw, role);
    END LOOP;
END
$$;

COMMENT ON FUNCTION grant_usage IS 'allows a role to use the model';

-- What has been made is for nobody but its owner, whatever default privileges say.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT DISTINCT
               CASE WHEN p.oid IS NOT NULL THEN pg_catalog.format('ROUTINE %s', p.oid::pg_catalog.regprocedure)
                    WHEN t.oid IS NOT NULL THEN pg_catalog.format('TYPE %s', t.oid::pg_catalog.regtype)
                    WHEN c.relkind = 'S' THEN pg_catalog.format('SEQUENCE %s', c.oid::pg_catalog.regclass)
                    ELSE pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass) END AS object,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'minimax_m1'
        LEFT JOIN pg_catalog.pg_proc p
            ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
        LEFT JOIN pg_catalog.pg_class c
            ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid
        LEFT JOIN pg_catalog.pg_type t
            ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = d.objid
            -- later releases make members of arrays and of tables' rows, too, whose rights are not their own
            AND t.typelem = 0
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_class row WHERE row.oid = t.typrelid AND row.relkind <> 'c')
        CROSS JOIN LATERAL
            pg_catalog.aclexplode(coalesce(c.relacl, p.proacl, pg_catalog.acldefault('f', p.proowner), t.typacl,
                                           pg_catalog.acldefault('T', t.typowner))) a
        WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
          AND a.grantee <> coalesce(c.relowner, p.proowner, t.typowner)
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', r.object, r.grantee);
    END LOOP;
END
$$;

-- This takes nothing away, but notes what the owner may do, as an installation that began as 0.1 has it.
REVOKE ALL ON activity, model, stats FROM PUBLIC;
