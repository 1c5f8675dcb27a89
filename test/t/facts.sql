-- What the catalogs tell of the extension: "OBJECT: FACT = VALUE", a line for each column of each row. OIDs are told as
-- names, and trees of nodes by the function that spells them. 035_update.pl compares databases by it.
SET search_path = pg_catalog, pg_temp;

-- the extension, its schema and members, and what came with them: types, constraints, defaults, indexes, rules
CREATE TEMP TABLE object AS
WITH RECURSIVE object(class, id) AS (
	SELECT o.*
	FROM pg_extension e, LATERAL (VALUES ('pg_extension'::regclass, e.oid), ('pg_namespace', e.extnamespace)) o
	WHERE e.extname = 'minimax_m1'
	UNION
	SELECT d.classid, d.objid FROM pg_depend d JOIN object o ON (d.refclassid, d.refobjid) = (o.class, o.id)
	WHERE d.deptype IN ('e', 'a', 'i', 'I', 'P', 'S'))
SELECT class, id, pg_describe_object(class, id, 0) AS name FROM object;

-- columns that hold OIDs, and of what
CREATE TEMP TABLE reference AS
SELECT fktable AS catalog, fkcols[1] AS key, pktable AS class
FROM pg_get_catalog_foreign_keys()
WHERE cardinality(fkcols) = 1;

CREATE FUNCTION pg_temp.named(class oid, value text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN value ~ '^[1-9][0-9]*$' THEN pg_describe_object(class, value::oid, 0) ELSE value END
$$;

CREATE FUNCTION pg_temp.named(class oid, value jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT CASE jsonb_typeof(value)
		WHEN 'array' THEN (SELECT string_agg(pg_temp.named(class, v), ', ' ORDER BY i)
			FROM jsonb_array_elements_text(value) WITH ORDINALITY e(v, i))
		ELSE pg_temp.named(class, value #>> '{}') END
$$;

CREATE FUNCTION pg_temp.sorted(acl jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(a, ' ' ORDER BY a) FROM jsonb_array_elements_text(nullif(acl, 'null')) a
$$;

CREATE FUNCTION pg_temp.definition(class regclass, id oid) RETURNS text LANGUAGE sql AS $$
	SELECT CASE class::text
		WHEN 'pg_attrdef' THEN (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE oid = id)
		WHEN 'pg_class' THEN (SELECT CASE relkind WHEN 'v' THEN pg_get_viewdef(id) WHEN 'i' THEN pg_get_indexdef(id) END
			FROM pg_class WHERE oid = id)
		WHEN 'pg_constraint' THEN pg_get_constraintdef(id)
		WHEN 'pg_policy' THEN (
			SELECT concat_ws(' check ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
			FROM pg_policy WHERE oid = id)
		WHEN 'pg_proc' THEN (
			SELECT CASE prokind WHEN 'a' THEN pg_get_function_arguments(id) ELSE pg_get_functiondef(id) END
			FROM pg_proc WHERE oid = id)
		WHEN 'pg_rewrite' THEN pg_get_ruledef(id)
		WHEN 'pg_trigger' THEN pg_get_triggerdef(id) END
$$;

-- the rows of a catalog that tell of objects of a class
CREATE FUNCTION pg_temp.cells(catalog regclass, key text, class regclass)
RETURNS TABLE (name text, fact text, value text) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format($query$
		SELECT pg_describe_object(o.class, o.id, coalesce((row.cells ->> 'attnum')::int, 0)), a.attname::text,
			CASE WHEN a.atttypid = 'aclitem[]'::regtype THEN pg_temp.sorted(row.cells -> a.attname)
				WHEN r.key IS NULL THEN row.cells ->> a.attname
				ELSE pg_temp.named(r.class, row.cells -> a.attname) END
		FROM object o
		JOIN %s t ON t.%I = o.id
		CROSS JOIN LATERAL (SELECT to_jsonb(t) OFFSET 0) row(cells)
		JOIN pg_attribute a ON a.attrelid = %L::regclass AND a.attnum > 0 AND a.atttypid <> 'pg_node_tree'::regtype
		LEFT JOIN reference r ON r.catalog = a.attrelid AND r.key = a.attname
		WHERE o.class = %L::regclass $query$, catalog, key, catalog, class);
END
$$;

CREATE FUNCTION pg_temp.facts() RETURNS TABLE (name text, fact text, value text) LANGUAGE sql AS $$
	SELECT f.* FROM (SELECT DISTINCT class FROM object) c, pg_temp.cells(c.class, 'oid', c.class) f
	UNION ALL SELECT * FROM pg_temp.cells('pg_attribute', 'attrelid', 'pg_class')
	UNION ALL SELECT * FROM pg_temp.cells('pg_index', 'indexrelid', 'pg_class')
	UNION ALL SELECT * FROM pg_temp.cells('pg_sequence', 'seqrelid', 'pg_class')
	UNION ALL SELECT * FROM pg_temp.cells('pg_aggregate', 'aggfnoid', 'pg_proc')
	UNION ALL SELECT name, 'definition', pg_temp.definition(class, id) FROM object
	UNION ALL SELECT pg_describe_object(classoid, objoid, objsubid), 'initprivs', pg_temp.sorted(to_jsonb(initprivs))
		FROM pg_init_privs JOIN object ON (classoid, objoid) = (class, id)
	UNION ALL SELECT pg_describe_object(classoid, objoid, objsubid), 'comment', description
		FROM pg_description JOIN object ON (classoid, objoid) = (class, id)
	UNION ALL SELECT pg_describe_object(classoid, objoid, objsubid), 'label', label
		FROM pg_seclabel JOIN object ON (classoid, objoid) = (class, id)
	UNION ALL SELECT pg_describe_object(classid, objid, objsubid), 'depends',
			concat_ws(' ', deptype, pg_describe_object(refclassid, refobjid, refobjsubid))
		FROM pg_depend JOIN object ON (classid, objid) = (class, id)
	UNION ALL SELECT name, 'depends', concat_ws(' ', deptype, pg_describe_object(refclassid, refobjid, 0))
		FROM pg_shdepend JOIN object ON (classid, objid) = (class, id)
		WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
	UNION ALL SELECT 'pg_dump', 'carries', concat_ws(' ', c.id::regclass, c.condition)
		FROM pg_extension, unnest(extconfig, extcondition) c(id, condition) WHERE extname = 'minimax_m1'
$$;

-- without what each database counts for itself, and what is told in another way
SELECT regexp_replace(format('%s: %s = %s', name, fact, replace(value, E'\n', E'\\n')),
		'(pg_toast_|pg_attver=)[0-9]+', '\1N', 'g')
FROM pg_temp.facts()
WHERE fact NOT IN ('oid', 'relfilenode', 'relfrozenxid', 'relminmxid', 'relpages', 'reltuples', 'relallvisible',
	'extconfig', 'extcondition');
