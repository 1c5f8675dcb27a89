/* sql/install/74_annotator_ddl.sql */

-- ---- Annotators follow their tables: renamed columns, dropped columns, triggers and tables, restores ----

-- The triggers of an annotator, whatever they are called.
CREATE FUNCTION _annotator_triggers(source regclass, annotator name) RETURNS SETOF oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT oid FROM pg_trigger
    WHERE tgrelid = source AND NOT tgisinternal
      AND tgfoid IN ('@extschema@.enqueue_annotation()'::regprocedure, '@extschema@.annotate_row()'::regprocedure)
      AND tgargs = convert_to(annotator::text, 'UTF8') || decode('00', 'hex')
$$;

-- Notes which columns and triggers the names stand for, and makes the triggers depend on the columns.
CREATE FUNCTION _annotator_bind(id_ int) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
    used name[];
    numbers int2[];
    names name[];
    triggers oid[] := ARRAY(SELECT @extschema@._annotator_triggers(source, name) FROM @extschema@.annotator WHERE id = id_);
    t oid;
BEGIN
    SELECT * INTO STRICT a FROM @extschema@.annotator WHERE id = id_;
    used := @extschema@._template_columns(a.template)::name[] || a.key_columns || @extschema@._annotator_fills(a);
    SELECT array_agg(attname), array_agg(attnum) INTO names, numbers
    FROM pg_attribute WHERE attrelid = a.source AND attname = ANY (used) AND NOT attisdropped;
    INSERT INTO @extschema@.annotator_binding AS b VALUES (a.id, names, numbers, triggers)
    ON CONFLICT (annotator_id) DO UPDATE
    SET columns = excluded.columns, numbers = excluded.numbers, triggers = excluded.triggers;
    FOREACH t IN ARRAY triggers LOOP
        PERFORM @extschema@._depend(t, 'pg_class'::regclass, a.source, numbers);
        PERFORM @extschema@._depend(t, 'pg_constraint'::regclass, c.oid, '{0}')
        FROM pg_constraint c WHERE c.conrelid = a.source AND c.contype = 'p';
    END LOOP;
END
$$;

-- Makes a trigger depend on columns, or on the primary key: dropping that then needs CASCADE, which drops the trigger.
CREATE FUNCTION _depend(trigger oid, class oid, object oid, columns int2[]) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_depend' LANGUAGE C STRICT;

-- ---- what is renamed or restored ----

-- The template, with a column by its new name.
CREATE FUNCTION _template_rename(template text, old name, new name) RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_template_rename' LANGUAGE C STRICT;

-- Names follow their columns.
CREATE FUNCTION _follow_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    a record;
BEGIN
    FOR r IN
        SELECT b.annotator_id, u.old, att.attname AS new
        FROM @extschema@.annotator_binding b
        JOIN @extschema@.annotator t ON t.id = b.annotator_id,
             unnest(b.columns, b.numbers) u(old, number)
        JOIN pg_attribute att ON att.attnum = u.number
        WHERE att.attrelid = t.source AND att.attname <> u.old AND NOT att.attisdropped
    LOOP
        UPDATE @extschema@.annotator
        SET target_column = CASE target_column WHEN r.old THEN r.new ELSE target_column END,
            reasoning_column = CASE reasoning_column WHEN r.old THEN r.new ELSE reasoning_column END,
            status_column = CASE status_column WHEN r.old THEN r.new ELSE status_column END,
            key_columns = array_replace(key_columns, r.old, r.new),
            template = @extschema@._template_rename(template, r.old, r.new)
        WHERE id = r.annotator_id;
        UPDATE @extschema@.annotator_binding SET columns = array_replace(columns, r.old, r.new)
        WHERE annotator_id = r.annotator_id;
    END LOOP;
    -- a partition may bring annotators of its own
    IF tg_tag = 'ALTER TABLE' THEN
        PERFORM @extschema@._annotator_check_fills(t) FROM @extschema@.annotator t
        WHERE EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c, LATERAL pg_partition_tree(c.objid::regclass) p
                      WHERE c.classid = 'pg_class'::regclass AND p.relid = t.source);
    END IF;
    -- a restore makes the triggers after the definitions
    IF tg_tag = 'CREATE TRIGGER' THEN
        FOR a IN
            SELECT t.id FROM @extschema@.annotator t
            JOIN pg_event_trigger_ddl_commands() c ON c.classid = 'pg_trigger'::regclass
            WHERE c.objid IN (SELECT @extschema@._annotator_triggers(t.source, t.name))
        LOOP
            PERFORM @extschema@._annotator_bind(a.id);
        END LOOP;
    END IF;
END
$$;

-- All of these rename columns: ALTER TYPE those of typed tables, and ALTER VIEW those of anything.
CREATE EVENT TRIGGER minimax_m1_follow_ddl ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER TYPE', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'CREATE TRIGGER')
    EXECUTE FUNCTION _follow_ddl();
ALTER EVENT TRIGGER minimax_m1_follow_ddl ENABLE ALWAYS;

-- ---- what is dropped ----

-- Who drops a trigger, or what it depends on, drops the annotator.
CREATE FUNCTION _follow_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
BEGIN
    FOR a IN
        SELECT t.* FROM @extschema@.annotator t
        -- alter_annotator() and drop_annotator() forget this before they drop its triggers
        JOIN @extschema@.annotator_binding b ON b.annotator_id = t.id
        WHERE EXISTS (
            SELECT FROM pg_event_trigger_dropped_objects() d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = t.source AND d.objsubid = 0
               OR d.classid = 'pg_trigger'::regclass AND d.objid = ANY (b.triggers))
    LOOP
        PERFORM @extschema@._forget_annotator(a.id);
        IF EXISTS (SELECT FROM pg_class WHERE oid = a.source) THEN
            PERFORM @extschema@._annotator_drop_triggers(a);
        END IF;
    END LOOP;
END
$$;

CREATE EVENT TRIGGER minimax_m1_follow_drop ON sql_drop
    EXECUTE FUNCTION _follow_drop();
ALTER EVENT TRIGGER minimax_m1_follow_drop ENABLE ALWAYS;
