/* sql/install/84_training_tasks.sql */

-- ---- Trainings whose prompt, constraint and reward come with the task ----
--
-- What is trained is what classify() and extract() ask, and answers are sampled under the grammar that they use: so that
-- they use what was learnt. Without a search_path of their own, as train() notes the caller's. What begins with _task is
-- called in the caller's name.

CREATE FUNCTION _task_classify(categories text[]) RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_classify_task' LANGUAGE C STABLE STRICT;

CREATE FUNCTION _task_extract(type regtype) RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_extract_task' LANGUAGE C STABLE STRICT;

CREATE FUNCTION _task_schema(type regtype) RETURNS text
AS 'MODULE_PATHNAME', 'm1pg_extract_schema' LANGUAGE C STABLE STRICT;

-- JSON with its keys in their order and blanks behind its signs, as models write it.
CREATE FUNCTION _task_json(value json) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE json_typeof(value)
        WHEN 'object' THEN (SELECT '{' || coalesce(string_agg(to_json(e.key)::text || ': ' || @extschema@._task_json(e.value),
                                                              ', ' ORDER BY e.n), '') || '}'
                            FROM json_each(value) WITH ORDINALITY e(key, value, n))
        WHEN 'array' THEN (SELECT '[' || coalesce(string_agg(@extschema@._task_json(e.value), ', ' ORDER BY e.n), '') || ']'
                           FROM json_array_elements(value) WITH ORDINALITY e(value, n))
        ELSE value::text END
$$;

-- A category, unless it is none of those: one that no answer can be would only ever be wrong.
CREATE FUNCTION _task_category(category text, categories text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF category IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'minimax_m1: the category of a row is NULL',
            HINT = 'Leave such rows out with WHERE.';
    ELSIF category <> ALL (categories) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: "%s" is none of the categories', category),
            DETAIL = 'The column category of the query has it.';
    END IF;
    RETURN category;
END
$$;

-- An answer as an object: of a type, as JSON, or as the text of that.
CREATE FUNCTION _task_object(answer jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE jsonb_typeof(answer) WHEN 'string' THEN (answer #>> '{}')::jsonb ELSE answer END;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN answer;
END
$$;

-- The same, once it is one of the type: with fields of no other type, as no answer can have those.
CREATE FUNCTION _task_answer(answer jsonb, type text, fields text[]) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    object jsonb := @extschema@._task_object(nullif(answer, 'null'));
    unknown text;
BEGIN
    IF object IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'minimax_m1: the answer of a row is NULL',
            HINT = 'Leave such rows out with WHERE.';
    ELSIF jsonb_typeof(object) <> 'object' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: the answer of a row is no %s', type),
            DETAIL = format('It is %s.', left(answer::text, 100)),
            HINT = 'Give a value of the type, or a JSON object of its fields.';
    END IF;
    SELECT k INTO unknown FROM jsonb_object_keys(object) k WHERE k <> ALL (fields) LIMIT 1;
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: the answer of a row has a field "%s", and %s has none', unknown, type),
            HINT = format('The fields are %s.', array_to_string(fields, ', '));
    END IF;
    RETURN object;
END
$$;

-- The rows of a query as examples: with the prompt before their other columns, and behind them what is left to be added.
-- The query is there once, as what it gives may be others the next time.
CREATE FUNCTION _task_examples(query text, task text, document name, columns text, more text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(E'WITH q AS MATERIALIZED (%s\n) SELECT %L || E''\\n\\n'' || q.%I AS prompt, %s%s FROM q',
                  regexp_replace(query, ';\s*$', ''), task, document, columns, more)
$$;

-- The columns of a query, which is not run for that.
CREATE FUNCTION _task_columns(query text) RETURNS text[]
LANGUAGE plpgsql STABLE STRICT
AS $$
DECLARE
    columns text[];
    why text;
BEGIN
    EXECUTE format(E'SELECT pg_catalog.array_agg(k) FROM (SELECT q.* FROM (VALUES (1)) v LEFT JOIN (%s\n) q ON false) task_row, '
                   'LATERAL pg_catalog.json_object_keys(pg_catalog.to_json(task_row)) k', regexp_replace(query, ';\s*$', ''))
    INTO columns;
    RETURN columns;
EXCEPTION WHEN syntax_error THEN
    GET STACKED DIAGNOSTICS why = MESSAGE_TEXT;
    RAISE EXCEPTION USING ERRCODE = 'syntax_error',
        MESSAGE = pg_catalog.format('minimax_m1: "%s" is not one query', pg_catalog.left(query, 1000)),
        DETAIL = pg_catalog.format('It must be a single SELECT that changes nothing: %s.', why);
END
$$;

-- The same, among which are those of the task.
CREATE FUNCTION _task_needs(query text, needed name[]) RETURNS text[]
LANGUAGE plpgsql STABLE STRICT
AS $$
DECLARE
    columns text[] := coalesce(@extschema@._task_columns(query), '{}');
    missing text;
BEGIN
    SELECT n INTO missing FROM pg_catalog.unnest(needed) n WHERE n::text <> ALL (columns) LIMIT 1;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_column',
            MESSAGE = pg_catalog.format('minimax_m1: the query has no column "%s"', missing),
            HINT = pg_catalog.format('Name its columns: SELECT ... AS %I, ... AS %I.', needed[1], needed[2]);
    END IF;
    RETURN columns;
END
$$;

-- The columns of examples of train_extract(): the answer as an object, or where it is `shown`, in the words of extract(), and all
-- other columns of the query.
CREATE FUNCTION _task_answers(query text, type regtype, shown boolean) RETURNS text
LANGUAGE sql STABLE STRICT
AS $$
    SELECT format(CASE WHEN shown THEN '@extschema@._task_json(pg_catalog.to_json(pg_catalog.jsonb_populate_record(NULL::%s, %s))) AS answer'
                       ELSE '%2$s AS answer' END, type,
                  format('@extschema@._task_answer(pg_catalog.to_jsonb(q.answer), %L, %L::pg_catalog.text[])', type,
                         (SELECT array_agg(a.attname::text ORDER BY a.attnum)
                          FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid
                          WHERE t.oid = type AND a.attnum > 0 AND NOT a.attisdropped)))
           || coalesce((SELECT string_agg(format(', q.%I', c), '') FROM unnest(@extschema@._task_columns(query)) c WHERE c <> 'answer'), '')
$$;

-- The column by which train() holds rows out: a fifth of the texts, by a hash, so that equal texts stay together.
CREATE FUNCTION _task_fifth(document name, seed bigint) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(', pg_catalog.hashtextextended(q.%1$I::pg_catalog.text, %2$L) OPERATOR(pg_catalog.<=) (SELECT '
                  'pg_catalog.percentile_disc(0.2) WITHIN GROUP (ORDER BY pg_catalog.hashtextextended(h.%1$I::pg_catalog.text, %2$L)) '
                  'FROM q h) AS held_out', document, coalesce(seed, 0))
$$;

-- Of train(), those that a task leaves to be chosen.
CREATE FUNCTION _task_options() RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(o ORDER BY n)
    FROM pg_proc p, unnest(p.proargnames) WITH ORDINALITY a(o, n)
    WHERE p.pronamespace = '@extschema@'::regnamespace AND p.proname = 'train'
      AND o <> ALL ('{name,method,examples,holdout,reward,steps,choices,json_schema,regex}'::text[])
$$;

-- Calls train() with the task's own arguments, and options of its by their names. The query itself may hold rows out.
CREATE FUNCTION _task_train(
    name name, method text, query text, holdout text, task text, needed name[], columns text, holdout_columns text, reward text,
    steps int, task_options jsonb, options jsonb)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    by_hash boolean := holdout IS NULL AND 'held_out' <> ALL (@extschema@._task_needs(query, needed));
    examples text;
    held_out text := @extschema@._task_examples(holdout, task, needed[1], holdout_columns, '');
    call text := 'SELECT @extschema@.train(name => $1, method => $2, examples => $3, holdout => $4, reward => $5';
    o record;
BEGIN
    IF name IS NULL OR query IS NULL OR task IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = format('minimax_m1: the %s NULL', CASE WHEN name IS NULL THEN 'name is' WHEN query IS NULL THEN 'query is' ELSE 'categories are' END);
    ELSIF jsonb_typeof(options) <> 'object' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'minimax_m1: the options are no JSON object',
            HINT = 'Give those of train() by their names: {"group_size": 16}.';
    END IF;
    PERFORM @extschema@._task_needs(holdout, needed);
    IF by_hash THEN
        RAISE NOTICE 'minimax_m1: a fifth of the texts, chosen by the seed, is held out';
    END IF;
    examples := @extschema@._task_examples(query, task, needed[1], columns,
        CASE WHEN by_hash THEN @extschema@._task_fifth(needed[1], (options->>'seed')::bigint) ELSE '' END);
    IF steps IS NOT NULL THEN
        call := call || format(', steps => %L', steps);
    END IF;
    FOR o IN SELECT key FROM jsonb_object_keys(options) key WHERE key <> ALL (@extschema@._task_options()) LOOP
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: "%s" is no option of this training', o.key),
            DETAIL = CASE WHEN task_options ? o.key OR o.key = 'regex' THEN 'Answers have the form of the task.'
                          ELSE 'train() has none of that name, or it is an argument here.' END,
            HINT = 'The options are ' || array_to_string(@extschema@._task_options(), ', ') || '.';
    END LOOP;
    -- sft imitates answers, and draws none
    FOR o IN SELECT key, value FROM jsonb_each_text(coalesce(options, '{}') || CASE method WHEN 'sft' THEN '{}' ELSE task_options END) LOOP
        call := call || format(', %I => %L', o.key, o.value);
    END LOOP;
    EXECUTE call || ')' USING name, method, examples, held_out, CASE WHEN method <> 'sft' THEN reward END;
END
$$;

-- ---- classify ----

-- The query's columns are input and category, as many others as train() knows, or rewards or readers want, and none prompt or
-- answer.
CREATE FUNCTION train_classify(
    name name,
    query text,
    categories text[],
    holdout text DEFAULT NULL,
    method text DEFAULT 'cispo',
    steps int DEFAULT NULL,
    options jsonb DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    task text := @extschema@._task_classify(categories);
    columns text := format('@extschema@._task_category(q.category::pg_catalog.text, %L::pg_catalog.text[]) AS answer, q.*', categories);
BEGIN
    PERFORM @extschema@._task_train(name, method, query, holdout, task, '{input,category}', columns, columns, '@extschema@.reward_exact', steps,
        jsonb_build_object('choices', categories::text), options);
END
$$;

COMMENT ON FUNCTION train_classify(name, text, text[], text, text, int, jsonb) IS
    'trains an adapter for classify(): the query returns input and category';

CREATE FUNCTION train_classify(
    name name,
    query text,
    target anyenum,
    holdout text DEFAULT NULL,
    method text DEFAULT 'cispo',
    steps int DEFAULT NULL,
    options jsonb DEFAULT NULL)
RETURNS void
LANGUAGE sql
AS $$
    SELECT @extschema@.train_classify(name, query, enum_range(target)::text[], holdout, method, steps, options)
$$;

COMMENT ON FUNCTION train_classify(name, text, anyenum, text, text, int, jsonb) IS
    'the same, where the categories are the labels of an enum';

-- ---- extract ----

-- The query's columns are document and answer, a value of the type or its JSON, and as many others as with train_classify().
CREATE FUNCTION train_extract(
    name name,
    query text,
    target anyelement,
    holdout text DEFAULT NULL,
    method text DEFAULT 'cispo',
    steps int DEFAULT NULL,
    options jsonb DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    type regtype := pg_typeof(target);
BEGIN
    PERFORM @extschema@._task_train(name, method, query, holdout, @extschema@._task_extract(type), '{document,answer}',
        @extschema@._task_answers(query, type, method = 'sft'), @extschema@._task_answers(holdout, type, method = 'sft'), '@extschema@.reward_json', steps,
        jsonb_build_object('json_schema', @extschema@._task_schema(type)), options);
END
$$;

COMMENT ON FUNCTION train_extract(name, text, anyelement, text, text, int, jsonb) IS
    'trains an adapter for extract(): the query returns document, and answer, a value of the type';
