/* sql/install/72_annotated_rows.sql */

-- ---- Annotated rows: how they come into the queue, are read and are filled ----

-- ---- triggers, for rows that are written ----

-- AFTER, of an asynchronous annotator: queues the row, in the same transaction.
CREATE FUNCTION enqueue_annotation() RETURNS trigger
AS 'MODULE_PATHNAME', 'm1pg_enqueue_annotation' LANGUAGE C;

COMMENT ON FUNCTION enqueue_annotation IS 'trigger of an asynchronous annotator; made by create_annotator()';

-- BEFORE: fills the row of a synchronous annotator, marks that of one with a status column, and queues what is updated
-- in a partitioned table.
CREATE FUNCTION annotate_row() RETURNS trigger
AS 'MODULE_PATHNAME', 'm1pg_annotate_row' LANGUAGE C;

COMMENT ON FUNCTION annotate_row IS
    'trigger of an annotator that looks at rows before they are written; made by create_annotator()';

-- ---- what triggers and job runner need to know ----

-- The definition, by name or by number.
CREATE FUNCTION _annotator_get(
    annotator name, annotator_id int,
    OUT id int, OUT name name, OUT owner oid, OUT source oid, OUT key_columns name[], OUT target_column name,
    OUT reasoning_column name, OUT status_column name, OUT template text, OUT mode text, OUT max_attempts int,
    OUT enabled boolean, OUT version text, OUT system_prompt text, OUT max_tokens int, OUT thinking_budget int,
    OUT temperature float4, OUT top_p float4, OUT json_schema text, OUT adapter name)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.id, a.name, a.owner::oid, a.source::oid, a.key_columns, a.target_column, a.reasoning_column,
           a.status_column, a.template, a.mode, a.max_attempts, a.enabled, a.xmin::text, a.system_prompt,
           a.max_tokens, a.thinking_budget, a.temperature::float4, a.top_p::float4,
           a.json_schema::text, a.adapter
    FROM @extschema@.annotator a
    WHERE a.name = annotator OR a.id = annotator_id
$$;

-- The statements that read and write one row of an annotator's table. What is read are its partition, the columns of the
-- template and those that are filled. Parameters are the key columns, then the values.
CREATE FUNCTION _annotator_sql(
    annotator_id int,
    OUT read_sql text,
    OUT lock_sql text,
    OUT write_sql text,
    OUT status_sql text,
    OUT keys_sql text,
    OUT keys_after_sql text,
    OUT key_types oid[],
    OUT target_types oid[],
    OUT target_typmods int[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator;
    kind "char";
    relation text;
    inputs text;
    matches text;
    greater text;
    greater_prefix text := '';
    ordering text;
    keys text;
    sets text;
    targets text;
    k record;
BEGIN
    SELECT * INTO STRICT a FROM @extschema@.annotator WHERE id = annotator_id;
    SELECT c.relkind, format('%s %I.%I', CASE c.relkind WHEN 'r' THEN 'ONLY' END, n.nspname, c.relname)
    INTO kind, relation
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = a.source;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_table',
            MESSAGE = format('minimax_m1: the table of annotator "%s" does not exist', a.name);
    END IF;
    SELECT string_agg(format('t.%I', i.name), ', ' ORDER BY i.ord) INTO inputs
    FROM unnest(@extschema@._template_columns(a.template)) WITH ORDINALITY AS i(name, ord);
    -- the primary key's own operators, whatever search_path says
    FOR k IN
        SELECT i.name, i.ord, att.atttypid,
               format('OPERATOR(%I.%s)', eqn.nspname, eqo.oprname) AS eq,
               format('OPERATOR(%I.%s)', gtn.nspname, gto.oprname) AS gt,
               format('OPERATOR(%I.%s)', ltn.nspname, lto.oprname) AS lt
        FROM unnest(a.key_columns) WITH ORDINALITY AS i(name, ord)
        JOIN pg_attribute att ON att.attrelid = a.source AND att.attname = i.name AND NOT att.attisdropped
        JOIN pg_index x ON x.indrelid = a.source AND x.indisprimary AND x.indkey[i.ord - 1] = att.attnum
        JOIN pg_opclass c ON c.oid = x.indclass[i.ord - 1]
        JOIN pg_amop eq ON eq.amopfamily = c.opcfamily AND eq.amoplefttype = c.opcintype
             AND eq.amoprighttype = c.opcintype AND eq.amopstrategy = 3
        JOIN pg_operator eqo ON eqo.oid = eq.amopopr
        JOIN pg_namespace eqn ON eqn.oid = eqo.oprnamespace
        JOIN pg_amop gt ON gt.amopfamily = c.opcfamily AND gt.amoplefttype = c.opcintype
             AND gt.amoprighttype = c.opcintype AND gt.amopstrategy = 5
        JOIN pg_operator gto ON gto.oid = gt.amopopr
        JOIN pg_namespace gtn ON gtn.oid = gto.oprnamespace
        JOIN pg_amop lt ON lt.amopfamily = c.opcfamily AND lt.amoplefttype = c.opcintype
             AND lt.amoprighttype = c.opcintype AND lt.amopstrategy = 1
        JOIN pg_operator lto ON lto.oid = lt.amopopr
        JOIN pg_namespace ltn ON ltn.oid = lto.oprnamespace
        ORDER BY i.ord
    LOOP
        key_types := key_types || k.atttypid;
        matches := concat_ws(' AND ', matches, format('t.%I %s $%s', k.name, k.eq, k.ord));
        greater := concat_ws(' OR ', greater, format('(%st.%I %s $%s)', greater_prefix, k.name, k.gt, k.ord));
        greater_prefix := greater_prefix || format('t.%I %s $%s AND ', k.name, k.eq, k.ord);
        ordering := concat_ws(', ', ordering, format('t.%I USING %s', k.name, k.lt));
        keys := concat_ws(', ', keys, format('t.%I', k.name));
    END LOOP;
    IF cardinality(key_types) IS DISTINCT FROM cardinality(a.key_columns) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('minimax_m1: the primary key of %s is not what annotator "%s" was made for',
                             a.source, a.name),
            HINT = 'Drop the annotator and create it anew.';
    END IF;
    SELECT string_agg(format('%I = $%s', i.name, cardinality(key_types) + i.ord), ', ' ORDER BY i.ord),
           string_agg(format('t.%I', i.name), ', ' ORDER BY i.ord),
           array_agg(att.atttypid ORDER BY i.ord), array_agg(att.atttypmod ORDER BY i.ord)
    INTO sets, targets, target_types, target_typmods
    FROM unnest(@extschema@._annotator_fills(a)) WITH ORDINALITY AS i(name, ord)
    JOIN pg_attribute att ON att.attrelid = a.source AND att.attname = i.name AND NOT att.attisdropped;
    read_sql := format('SELECT %s FROM %s t WHERE %s',
                       concat_ws(', ', 't.tableoid', inputs, targets), relation, matches);
    lock_sql := read_sql || ' FOR NO KEY UPDATE SKIP LOCKED';
    write_sql := format('UPDATE %s t SET %s WHERE %s', relation, sets, matches);
    IF a.status_column IS NOT NULL THEN
        status_sql := format('UPDATE %s t SET %I = $%s WHERE %s', relation, a.status_column,
                             cardinality(key_types) + 1, matches);
    END IF;
    keys_sql := format('SELECT %s FROM %s t WHERE t.%I IS NULL ORDER BY %s', keys, relation, a.target_column, ordering);
    keys_after_sql := format('SELECT %s FROM %s t WHERE t.%I IS NULL AND (%s) ORDER BY %s', keys, relation,
                             a.target_column, greater, ordering);
END
$$;

-- ---- rows that were there before, or have failed ----

-- The keys of up to n rows without annotation, after a key, in key order, as the annotator's owner sees them.
CREATE FUNCTION _unannotated(annotator_id int, after text[], n int) RETURNS text[]
AS 'MODULE_PATHNAME', 'm1pg_unannotated' LANGUAGE C;

-- Queues up to n rows that have no annotation, after a key; returns the last one's key, or NULL at the end.
CREATE FUNCTION _backfill_batch(caller oid, annotator name, after text[], n int) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator := @extschema@._annotator_of(caller, annotator);
    keys text[];
    row_key text[];
BEGIN
    IF n IS NULL OR n NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: batch_size is out of range',
            DETAIL = format('It is %s; it must be between 1 and 1000000.', coalesce(n::text, 'NULL'));
    END IF;
    keys := @extschema@._unannotated(a.id, after, n);
    IF keys = '{}' THEN
        RETURN NULL;
    END IF;
    FOREACH row_key SLICE 1 IN ARRAY keys LOOP
        -- behind what is new; rows that wait or have failed for good are left alone
        INSERT INTO @extschema@.job (owner, annotator_id, key, priority, state, max_attempts, target_hash)
        SELECT a.owner, a.id, row_key, -1, CASE WHEN a.enabled THEN 'pending' ELSE 'held' END, a.max_attempts, ''
        WHERE NOT EXISTS (SELECT FROM @extschema@.job j WHERE j.annotator_id = a.id AND j.key = row_key);
    END LOOP;
    PERFORM @extschema@._queue_changed();
    RETURN CASE WHEN array_length(keys, 1) = n THEN row_key END;
END
$$;

CREATE FUNCTION backfill_batch(name name, after text[], batch_size int) RETURNS text[]
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION backfill_batch IS 'one batch of backfill()';

CREATE PROCEDURE backfill(name name, batch_size int DEFAULT 1000)
LANGUAGE plpgsql
AS $$
DECLARE
    last text[];
BEGIN
    LOOP
        last := @extschema@.backfill_batch(name, last, batch_size);
        COMMIT;
        EXIT WHEN last IS NULL;
    END LOOP;
END
$$;

COMMENT ON PROCEDURE backfill IS 'queues the rows that have no annotation, a transaction for each batch';

CREATE FUNCTION _retry_failed(caller oid, annotator name) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a @extschema@.annotator := @extschema@._annotator_of(caller, annotator);
    n bigint;
BEGIN
    UPDATE @extschema@.job
    SET state = CASE WHEN a.enabled THEN 'pending' ELSE 'held' END, attempts = 0, losses = 0, run_at = now(),
        finished_at = NULL, max_attempts = a.max_attempts
    WHERE annotator_id = a.id AND state = 'failed';
    GET DIAGNOSTICS n = ROW_COUNT;
    PERFORM @extschema@._queue_changed();
    RETURN n;
END
$$;

CREATE FUNCTION retry_failed(name name) RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION retry_failed IS
    'queues again the rows of an annotator that have failed for good; returns their number';
