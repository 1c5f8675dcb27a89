/* sql/install/78_agents.sql */

-- ---- Agents: the model answers with the help of functions of this database ----
--
-- A run is a loop: the model writes an answer or calls, calls are made, and what they return goes back as turns of
-- tools. Everything runs with the rights of the caller. What begins with _agent is called by these functions in the
-- caller's name, so that it gives nobody anything that the caller has not.

CREATE TABLE agent (
    id serial PRIMARY KEY,
    owner regrole NOT NULL,
    name name NOT NULL,
    tools text[] NOT NULL,              -- by their whole names: pg_upgrade refuses tables with a regprocedure
    confirm text[] NOT NULL,
    instructions text,
    limits jsonb NOT NULL DEFAULT '{}',
    UNIQUE (owner, name));

CREATE TABLE agent_run (
    id bigserial PRIMARY KEY,
    owner regrole NOT NULL,
    question text NOT NULL,
    tools text[] NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('queued', 'running', 'done', 'failed')),
    started_at timestamptz DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    -- of one that was submitted
    definition jsonb,
    path text,                          -- the search_path of who submitted it
    lease interval,
    attempts int NOT NULL DEFAULT 0,
    claimed_until timestamptz,
    pid int,                            -- of the process that makes it, and when that began: a pid comes again
    process_started timestamptz);

CREATE INDEX agent_run_due ON agent_run (owner, id) WHERE state IN ('queued', 'running');

CREATE INDEX agent_run_running ON agent_run (id) WHERE state = 'running';

CREATE INDEX agent_run_owner ON agent_run (owner, id);

CREATE TABLE agent_step (
    run bigint NOT NULL,
    step int NOT NULL,
    kind text NOT NULL CHECK (kind IN ('reasoning', 'call', 'result', 'answer', 'error')),
    tool text,
    arguments jsonb,
    body text,
    error text,
    tokens int,
    ms float8,
    PRIMARY KEY (run, step));

-- ---- tools ----

-- The schema of the values that a type takes from JSON, in the words of JSON Schema.
CREATE FUNCTION _agent_schema(type oid, nullable boolean) RETURNS json
AS 'MODULE_PATHNAME', 'm1pg_agent_schema' LANGUAGE C STABLE STRICT;

-- The arguments of a function that a call gives, in their order.
CREATE FUNCTION _agent_arguments(
    function oid, OUT name text, OUT type oid, OUT is_optional boolean, OUT place int)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(a.name, ''), a.type, a.place > p.pronargs - p.pronargdefaults, a.place::int
    FROM pg_proc p,
         LATERAL (SELECT x.name, x.type, row_number() OVER (ORDER BY x.ord) AS place
                  FROM ROWS FROM (unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])), unnest(p.proargnames),
                                  unnest(p.proargmodes)) WITH ORDINALITY AS x(type, name, mode, ord)
                  WHERE coalesce(x.mode, 'i') IN ('i', 'b', 'v')) a
    WHERE p.oid = function
    ORDER BY a.place
$$;

-- What keeps a function from being a tool; NULL if nothing does.
CREATE FUNCTION _agent_fault(function oid, read_only boolean) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN p.oid IS NULL THEN 'it does not exist'
                WHEN p.prokind <> 'f' THEN 'it is no plain function'
                WHEN p.provariadic <> 0 THEN 'it takes any number of arguments'
                WHEN r.typtype = 'p' AND r.typname NOT IN ('void', 'record') THEN 'it returns ' || r.typname
                WHEN r.typtype = 'p' AND r.typname = 'record' AND p.proallargtypes IS NULL
                    THEN 'it returns a record whose columns are not known'
                WHEN EXISTS (SELECT FROM @extschema@._agent_arguments(p.oid) a JOIN pg_type t ON t.oid = a.type
                             WHERE a.name = '' OR t.typtype = 'p')
                    THEN 'it has an argument without a name, or of a pseudo-type'
                WHEN read_only AND p.provolatile = 'v'
                    THEN 'it is VOLATILE, and the agent is read only'
           END
    FROM (SELECT function AS id) f LEFT JOIN pg_proc p ON p.oid = f.id LEFT JOIN pg_type r ON r.oid = p.prorettype
$$;

-- The definitions that the model is shown, in the order of the list; raises what keeps a function from being one.
CREATE FUNCTION _agent_tools(tools regprocedure[], read_only boolean) RETURNS json
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f regprocedure;
    fault text;
BEGIN
    FOREACH f IN ARRAY coalesce(tools, '{}') LOOP
        fault := @extschema@._agent_fault(f, read_only);
        IF f IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'minimax_m1: a tool of an agent is NULL';
        ELSIF fault IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('minimax_m1: %s is no tool: %s', f, fault),
                HINT = CASE WHEN fault LIKE '%VOLATILE%'
                            THEN 'Declare it STABLE if it changes nothing, or say read_only => false.'
                            ELSE 'A tool is a function whose arguments have names and types that JSON can give.' END;
        ELSIF NOT has_function_privilege(f, 'EXECUTE') THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('permission denied for function %s', f);
        END IF;
    END LOOP;
    IF (SELECT count(DISTINCT p.proname) FROM pg_proc p WHERE p.oid = ANY (tools)) < cardinality(tools) THEN
        RAISE EXCEPTION USING ERRCODE = 'ambiguous_function',
            MESSAGE = 'minimax_m1: two of the tools have the same name',
            DETAIL = 'The model tells tools apart by their names alone.';
    END IF;
    RETURN (SELECT coalesce(json_agg(json_build_object(
                'name', p.proname,
                'description', coalesce(obj_description(p.oid, 'pg_proc'), ''),
                'parameters', json_build_object(
                    'type', 'object',
                    'properties', coalesce(a.properties, '{}'),
                    'required', coalesce(a.required, '[]'),
                    'additionalProperties', false)) ORDER BY t.place), '[]')
            FROM unnest(tools) WITH ORDINALITY AS t(function, place)
            JOIN pg_proc p ON p.oid = t.function,
            LATERAL (SELECT json_object_agg(x.name, @extschema@._agent_schema(x.type, x.is_optional) ORDER BY x.place) AS properties,
                            json_agg(x.name ORDER BY x.place) FILTER (WHERE NOT x.is_optional) AS required
                     FROM @extschema@._agent_arguments(p.oid) x) a);
END
$$;

-- Calls the function with the arguments of a JSON object, in a subtransaction, and tells what it returned as JSON (a
-- text as it is), or why it failed. `path` is the caller's search_path.
CREATE FUNCTION _agent_call(
    function oid, arguments json, read_only boolean, limit_ms int, max_rows int, path text,
    OUT body text, OUT error text, OUT n_rows bigint)
AS 'MODULE_PATHNAME', 'm1pg_agent_call' LANGUAGE C VOLATILE;

-- Whether the rights are not those of the role that asks: inside SECURITY DEFINER, and the like.
CREATE FUNCTION _agent_in_definer() RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_agent_in_definer' LANGUAGE C VOLATILE;

-- Why a tool may not be called any more: a row that was read may have asked for it. NULL: it may.
CREATE FUNCTION _agent_refusal(function oid, has_read boolean, confirmed oid[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'rows have been read, and whoever asks has not confirmed that this tool may be called then'
    FROM pg_proc p
    WHERE p.oid = function AND p.provolatile = 'v' AND has_read AND (p.oid = ANY (confirmed)) IS NOT TRUE
$$;

-- The text, cut to so many tokens.
CREATE FUNCTION _agent_cut(body text, max_tokens int, OUT kept text, OUT tokens int)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    whole int := @extschema@.count_tokens(body);
BEGIN
    kept := body;
    tokens := whole;
    WHILE tokens > max_tokens AND length(kept) > 0 LOOP
        kept := left(kept, least(length(kept) - 1, (length(kept)::float8 * max_tokens / tokens)::int));
        tokens := @extschema@.count_tokens(kept);
    END LOOP;
    IF tokens < whole THEN
        kept := kept || format(E'\n[cut: the result has %s tokens, of which %s are shown]', whole, tokens);
    END IF;
END
$$;

-- A call as the model has written it; error says why it cannot be made, and body has what it is then.
CREATE FUNCTION _agent_read_call(call json, OUT tool text, OUT arguments jsonb, OUT body text, OUT error text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    tool := call->>'name';
    error := call->>'error';
    body := CASE WHEN tool IS NULL THEN call->>'text' END;
    arguments := call->'arguments';
EXCEPTION WHEN OTHERS THEN
    body := call::text;
    error := SQLERRM;
END
$$;

-- ---- limits ----

-- An interval as a limit in milliseconds, of which 0 would be none.
CREATE FUNCTION _agent_ms(span interval) RETURNS int
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least(greatest(1, ceil(extract(epoch FROM span) * 1000)), 2147483647)::int
$$;

-- Raises what keeps a run from having these limits.
CREATE FUNCTION _agent_check(
    confirm regprocedure[], max_calls int, max_steps int, timeout interval, read_only boolean, max_total_tokens int,
    call_timeout interval, max_rows int, max_result_tokens int)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF array_position(confirm, NULL) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'minimax_m1: a confirmed tool of an agent is NULL';
    ELSIF num_nonnulls(max_calls, max_steps, timeout, read_only, max_total_tokens, call_timeout, max_rows, max_result_tokens) < 8
          OR max_calls < 0 OR least(max_steps, max_total_tokens, max_rows, max_result_tokens) < 1
          OR least(timeout, call_timeout) <= '0' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: a limit of the agent is out of range',
            DETAIL = 'max_calls must be 0 or more, and all other limits above 0; none of them may be NULL.';
    END IF;
END
$$;

-- The limits of an agent with a name, where it has none those of agent().
CREATE FUNCTION _agent_limits(
    limits jsonb, OUT max_calls int, OUT max_steps int, OUT timeout interval, OUT read_only boolean, OUT max_tokens int,
    OUT max_total_tokens int, OUT call_timeout interval, OUT max_rows int, OUT max_result_tokens int,
    OUT thinking_budget int, OUT temperature float8)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    usual constant jsonb := '{"max_calls": 8, "max_steps": 8, "timeout": "2 minutes", "read_only": true, "max_tokens": null,
        "max_total_tokens": 50000, "call_timeout": "10 seconds", "max_rows": 50, "max_result_tokens": 1000,
        "thinking_budget": null, "temperature": null}';
    wrong text := (SELECT min(k) FROM jsonb_object_keys(limits) k WHERE NOT usual ? k);
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: "%s" is no limit of an agent', wrong),
            DETAIL = format('Limits are confirm, %s.', (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(usual) k));
    END IF;
    SELECT l.* INTO max_calls, max_steps, timeout, read_only, max_tokens, max_total_tokens, call_timeout, max_rows,
        max_result_tokens, thinking_budget, temperature
    FROM jsonb_to_record(usual || jsonb_strip_nulls(limits)) AS l (max_calls int, max_steps int, timeout interval,
        read_only boolean, max_tokens int, max_total_tokens int, call_timeout interval, max_rows int, max_result_tokens int,
        thinking_budget int, temperature float8);
    PERFORM @extschema@._agent_check('{}', max_calls, max_steps, timeout, read_only, max_total_tokens, call_timeout, max_rows,
                                     max_result_tokens);
    -- as the settings that they stand for
    SELECT v.name INTO wrong
    FROM (VALUES ('max_tokens', max_tokens::float8, 'max_tokens'), ('thinking_budget', thinking_budget, 'default_thinking_budget'),
                 ('temperature', temperature, 'temperature')) v(name, value, setting)
    JOIN pg_settings s ON s.name = 'minimax_m1.' || v.setting
    WHERE v.value NOT BETWEEN s.min_val::float8 AND s.max_val::float8;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('minimax_m1: %s is out of range', wrong);
    END IF;
END
$$;

-- ---- what is kept of runs ----

CREATE FUNCTION __agent_begin(caller oid, question text, tools text[]) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO @extschema@.agent_run (owner, question, tools) VALUES (caller, question, tools) RETURNING id
$$;

CREATE FUNCTION _agent_begin(question text, tools text[]) RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

CREATE FUNCTION __agent_note(
    caller oid, run bigint, step int, kind text, tool text, arguments jsonb, body text, error text, tokens int, ms float8)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO @extschema@.agent_step
    SELECT r.id, step, kind, tool, arguments, body, error, tokens, ms
    FROM @extschema@.agent_run r WHERE r.id = run AND r.owner = caller AND r.state = 'running';
    UPDATE @extschema@.agent_run r
    SET state = CASE kind WHEN 'answer' THEN 'done' ELSE 'failed' END, finished_at = clock_timestamp()
    WHERE r.id = run AND r.owner = caller AND r.state = 'running' AND kind IN ('answer', 'error');
    SELECT @extschema@._queue_changed()
    FROM @extschema@.agent_run r WHERE r.id = run AND r.definition IS NOT NULL AND kind IN ('answer', 'error')
$$;

CREATE FUNCTION _agent_note(
    run bigint, step int, kind text, tool text, arguments jsonb, body text, error text, tokens int, ms float8)
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

-- ---- the run ----

-- path and longest_request are the caller's search_path and minimax_m1.request_timeout. run: one that was submitted, or
-- NULL.
CREATE FUNCTION _agent_run(
    question text, tools regprocedure[], system_prompt text, max_calls int, max_steps int, timeout interval,
    read_only boolean, confirm regprocedure[], max_tokens int, max_total_tokens int, call_timeout interval, max_rows int,
    max_result_tokens int, thinking_budget int, temperature float8, seed bigint, path text, longest_request int,
    run bigint,
    OUT step int, OUT kind text, OUT tool text, OUT arguments jsonb, OUT body text, OUT error text, OUT tokens int,
    OUT ms float8)
RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET minimax_m1.request_timeout = 0
AS $$
#variable_conflict use_column
DECLARE
    definitions json;
    turns json[] := ARRAY[json_build_object('role', 'user', 'content', question)];
    deadline timestamptz := clock_timestamp() + timeout;
    keeps boolean := run IS NOT NULL OR NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean;
    n int := 0;
    calls int := 0;
    spent bigint := 0;
    has_read boolean := false;
    asked timestamptz;
    began timestamptz;
    reply record;
    call json;
    f oid;
    r record;
    failure text;
BEGIN
    PERFORM @extschema@._agent_check(confirm, max_calls, max_steps, timeout, read_only, max_total_tokens, call_timeout, max_rows,
                                     max_result_tokens);
    definitions := @extschema@._agent_tools(tools, read_only);
    step := 0;
    IF keeps AND run IS NULL THEN
        run := @extschema@._agent_begin(question, (SELECT coalesce(array_agg(t::text), '{}') FROM unnest(tools) t));
    END IF;
    LOOP
        n := n + 1;
        kind := NULL; tool := NULL; arguments := NULL; body := NULL; error := NULL; tokens := NULL; ms := NULL;
        asked := clock_timestamp();
        IF asked >= deadline THEN
            error := format('the run took longer than %s', timeout);
        ELSIF failure IS NOT NULL THEN
            error := failure;
        ELSIF spent >= max_total_tokens THEN
            error := format('the run used %s tokens: max_total_tokens is %s', spent, max_total_tokens);
        ELSIF n > max_steps THEN
            error := format('there was no answer after %s replies', max_steps);
        ELSE
            BEGIN
                PERFORM set_config('minimax_m1.request_timeout',
                    least(nullif(longest_request, 0), @extschema@._agent_ms(deadline - asked))::text, true);
                SELECT * INTO reply
                FROM @extschema@.complete(
                    messages => to_json(turns)::@extschema@.json_text, tools => definitions::@extschema@.json_text,
                    tool_choice => CASE WHEN calls >= max_calls OR n = max_steps THEN 'none' ELSE 'auto' END,
                    system_prompt => system_prompt, max_tokens => max_tokens, thinking_budget => thinking_budget,
                    temperature => temperature, seed => seed);
            EXCEPTION WHEN query_canceled OR OTHERS THEN
                IF SQLSTATE = '57014' AND clock_timestamp() < deadline THEN
                    RAISE;
                END IF;
                error := CASE SQLSTATE WHEN '57014' THEN format('the run took longer than %s', timeout) ELSE SQLERRM END;
            END;
        END IF;
        IF error IS NOT NULL THEN
            step := step + 1; kind := 'error'; ms := extract(epoch FROM clock_timestamp() - asked) * 1000;
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            RETURN;
        END IF;
        ms := extract(epoch FROM clock_timestamp() - asked) * 1000;
        spent := spent + reply.prompt_tokens + reply.completion_tokens;
        IF reply.reasoning IS NOT NULL THEN
            step := step + 1; kind := 'reasoning'; body := reply.reasoning; tokens := reply.reasoning_tokens;
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            ms := NULL;
        END IF;
        tokens := reply.completion_tokens - reply.reasoning_tokens;
        IF reply.tool_calls IS NULL THEN
            step := step + 1; body := reply.content;
            kind := CASE reply.finish_reason WHEN 'length' THEN 'error' WHEN 'loop' THEN 'error' ELSE 'answer' END;
            error := CASE kind WHEN 'error' THEN format('the answer ended by %s', reply.finish_reason) END;
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            RETURN;
        END IF;
        turns := turns || json_build_object('role', 'assistant', 'content', reply.content, 'tool_calls', reply.tool_calls);
        FOR call IN SELECT c FROM json_array_elements(reply.tool_calls) c LOOP
            SELECT c.tool, c.arguments, coalesce(c.body, nullif(reply.content, '')), c.error INTO tool, arguments, body, error
            FROM @extschema@._agent_read_call(call) c;
            step := step + 1; kind := 'call';
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            reply.content := NULL; ms := NULL; tokens := NULL;

            calls := calls + 1;
            began := clock_timestamp();
            f := (SELECT p.oid FROM pg_proc p WHERE p.oid = ANY (tools) AND p.proname = tool);
            body := NULL;
            IF error IS NOT NULL THEN
                error := 'the call could not be read: ' || error;
            ELSIF f IS NULL THEN
                error := 'there is no such tool';
            ELSIF calls > max_calls THEN
                error := format('no call is left: max_calls is %s', max_calls);
            ELSIF began >= deadline THEN
                error := 'no time is left';
            ELSE
                error := @extschema@._agent_refusal(f, has_read, confirm::oid[]);
            END IF;
            IF error IS NULL THEN
                SELECT * INTO r FROM @extschema@._agent_call(f, arguments::json, read_only,
                    @extschema@._agent_ms(least(call_timeout, deadline - began)), max_rows, path);
                -- what an error says may be a row's text, too
                body := r.body; error := r.error; has_read := has_read OR r.n_rows > 0 OR r.error IS NOT NULL;
            END IF;
            body := coalesce('error: ' || error, body);
            BEGIN
                SELECT c.kept, c.tokens INTO body, tokens FROM @extschema@._agent_cut(body, max_result_tokens) c;
            EXCEPTION WHEN query_canceled OR OTHERS THEN
                IF SQLSTATE = '57014' AND clock_timestamp() < deadline THEN
                    RAISE;
                END IF;
                failure := SQLERRM;
                body := left(body, max_result_tokens);
            END;
            turns := turns || json_build_object('role', 'tool', 'name', coalesce(tool, 'unknown'), 'content', body);
            step := step + 1; kind := 'result'; arguments := NULL;
            body := CASE WHEN error IS NULL THEN body END;
            ms := extract(epoch FROM clock_timestamp() - began) * 1000;
            PERFORM @extschema@._agent_note(run, step, kind, tool, arguments, body, error, tokens, ms) WHERE keeps;
            RETURN NEXT;
            EXIT WHEN failure IS NOT NULL;
            ms := NULL; tokens := NULL;
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION agent(
    question text,
    tools regprocedure[] DEFAULT '{}',
    system_prompt text DEFAULT NULL,
    max_calls int DEFAULT 8,
    max_steps int DEFAULT 8,
    timeout interval DEFAULT '2 minutes',
    read_only boolean DEFAULT true,
    confirm regprocedure[] DEFAULT '{}',
    max_tokens int DEFAULT NULL,
    max_total_tokens int DEFAULT 50000,
    call_timeout interval DEFAULT '10 seconds',
    max_rows int DEFAULT 50,
    max_result_tokens int DEFAULT 1000,
    thinking_budget int DEFAULT NULL,
    temperature float8 DEFAULT NULL,
    seed bigint DEFAULT NULL,
    in_definer boolean DEFAULT false)
RETURNS TABLE (step int, kind text, tool text, arguments jsonb, body text, error text, tokens int, ms float8)
LANGUAGE plpgsql COST 1000000 ROWS 10
AS $$
BEGIN
    IF question IS NULL THEN
        RETURN;
    ELSIF NOT coalesce(in_definer, false) AND @extschema@._agent_in_definer() THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'minimax_m1: an agent does not run inside a function that is SECURITY DEFINER',
            DETAIL = 'Whoever asks the question would have its calls made with the rights of the function''s owner.',
            HINT = 'Say in_definer => true if that is meant.';
    END IF;
    RETURN QUERY SELECT r.* FROM @extschema@._agent_run(
        question, coalesce(tools, '{}'::pg_catalog.regprocedure[]), system_prompt, max_calls, max_steps, timeout, read_only,
        coalesce(confirm, '{}'::pg_catalog.regprocedure[]), max_tokens, max_total_tokens, call_timeout, max_rows,
        max_result_tokens, thinking_budget, temperature, seed, pg_catalog.current_setting('search_path'),
        (SELECT s.setting::pg_catalog.int4 FROM pg_catalog.pg_settings s
         WHERE s.name OPERATOR(pg_catalog.=) 'minimax_m1.request_timeout'), NULL) r;
END
$$;

COMMENT ON FUNCTION agent IS 'answers a question with the help of functions of this database, and shows each step';

CREATE FUNCTION ask(question text, tools regprocedure[] DEFAULT '{}', system_prompt text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql COST 1000000
AS $$
DECLARE
    last record;
BEGIN
    SELECT a.kind, a.body, a.error INTO last FROM @extschema@.agent(question, tools, system_prompt) a
    ORDER BY a.step DESC LIMIT 1;
    IF last.kind OPERATOR(pg_catalog.=) 'error'::pg_catalog.text THEN
        IF pg_catalog.current_setting('minimax_m1.on_error') OPERATOR(pg_catalog.=) 'null'::pg_catalog.text THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'external_routine_exception',
            MESSAGE = pg_catalog.concat('minimax_m1: there is no answer: ', last.error),
            HINT = 'agent() shows the steps.';
    END IF;
    RETURN last.body;
END
$$;

COMMENT ON FUNCTION ask IS 'the answer of an agent, read only and with the usual limits';

-- ---- agents with a name ----

CREATE FUNCTION __agent_create(
    caller oid, name name, tools regprocedure[], confirm regprocedure[], instructions text, limits jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF name IS NULL OR tools IS NULL OR array_position(tools, NULL) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'minimax_m1: an agent has a name and tools';
    ELSIF array_position(confirm, NULL) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'minimax_m1: a confirmed tool of an agent is NULL';
    END IF;
    PERFORM @extschema@._agent_limits(limits);
    INSERT INTO @extschema@.agent (owner, name, tools, confirm, instructions, limits)
    VALUES (caller, name, tools::text[], confirm::text[], instructions, limits);
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION USING ERRCODE = 'duplicate_object', MESSAGE = format('minimax_m1: agent "%s" exists already', name);
END
$$;

CREATE FUNCTION _agent_create(name name, tools regprocedure[], confirm regprocedure[], instructions text, limits jsonb)
RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

-- The names in confirm are those of the caller's search_path.
CREATE FUNCTION create_agent(name name, tools regprocedure[], instructions text DEFAULT NULL, limits jsonb DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    limits := pg_catalog.jsonb_strip_nulls(coalesce(limits, '{}'));
    PERFORM @extschema@._agent_create(
        name, tools,
        ARRAY(SELECT c::pg_catalog.regprocedure
              FROM pg_catalog.jsonb_array_elements_text(pg_catalog.jsonb_extract_path(limits, 'confirm')) c),
        instructions, pg_catalog.jsonb_delete(limits, 'confirm'::pg_catalog.text));
END
$$;

COMMENT ON FUNCTION create_agent IS 'gives tools, instructions and limits a name, for run_agent';

CREATE FUNCTION _drop_agent(caller oid, name name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    DELETE FROM @extschema@.agent a WHERE a.owner = caller::regrole AND a.name = name;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('minimax_m1: agent "%s" does not exist', name);
    END IF;
END
$$;

CREATE FUNCTION drop_agent(name name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION drop_agent IS 'forgets an agent; its runs stay';

CREATE VIEW agents WITH (security_barrier) AS
SELECT a.name, a.tools, a.confirm, a.instructions, a.limits, a.owner FROM @extschema@.agent a
WHERE pg_has_role(a.owner::oid, 'USAGE');

COMMENT ON VIEW agents IS 'one''s agents';

CREATE VIEW agent_runs WITH (security_barrier) AS
SELECT r.id, r.question, r.tools, r.state, r.started_at, r.finished_at, r.owner FROM @extschema@.agent_run r
WHERE pg_has_role(r.owner::oid, 'USAGE');

COMMENT ON VIEW agent_runs IS 'one''s runs of agents';

CREATE VIEW agent_steps WITH (security_barrier) AS
SELECT s.run, s.step, s.kind, s.tool, s.arguments, s.body, s.error, s.tokens, s.ms
FROM @extschema@.agent_step s JOIN @extschema@.agent_run r ON r.id = s.run
WHERE pg_has_role(r.owner::oid, 'USAGE');

COMMENT ON VIEW agent_steps IS 'the steps of one''s runs of agents';

-- The functions of an agent, which were named where only pg_catalog's go without their schema.
CREATE FUNCTION _agent_functions(names text[]) RETURNS regprocedure[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN names::regprocedure[];

CREATE FUNCTION run_agent(name name, question text)
RETURNS TABLE (step int, kind text, tool text, arguments jsonb, body text, error text, tokens int, ms float8)
LANGUAGE plpgsql COST 1000000 ROWS 10
AS $$
DECLARE
    a record;
    l record;
BEGIN
    SELECT g.instructions, g.limits, @extschema@._agent_functions(g.tools) AS tools,
           @extschema@._agent_functions(g.confirm) AS confirm
    INTO a FROM @extschema@.agents g
    WHERE g.name OPERATOR(pg_catalog.=) run_agent.name
      AND g.owner OPERATOR(pg_catalog.=) current_user::pg_catalog.regrole;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = pg_catalog.format('minimax_m1: agent "%s" does not exist', name);
    END IF;
    SELECT n.* INTO l FROM @extschema@._agent_limits(a.limits) n;
    RETURN QUERY SELECT r.* FROM @extschema@.agent(
        question, a.tools, a.instructions, max_calls => l.max_calls, max_steps => l.max_steps, timeout => l.timeout,
        read_only => l.read_only, confirm => a.confirm, max_tokens => l.max_tokens, max_total_tokens => l.max_total_tokens,
        call_timeout => l.call_timeout, max_rows => l.max_rows, max_result_tokens => l.max_result_tokens,
        thinking_budget => l.thinking_budget, temperature => l.temperature) r;
END
$$;

COMMENT ON FUNCTION run_agent IS 'answers a question as one''s agent of that name, and shows each step';

-- ---- runs that are made after this transaction ----

-- Raises an error when a run would hold one of the places of all roles for too long.
CREATE FUNCTION _agent_check_timeout(caller oid, timeout interval) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most interval := current_setting('minimax_m1.agent_run_timeout')::interval;
BEGIN
    IF most > '0' AND timeout > most AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = caller) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: a submitted run may take no longer than %s', most),
            DETAIL = format('The timeout of the agent is %s. Runs of all roles share a few processes.', timeout),
            HINT = 'Give the agent a shorter timeout. A superuser can raise minimax_m1.agent_run_timeout, for one role by ALTER ROLE.';
    END IF;
END
$$;

-- Its process has until the end of the lease: a call that is deaf to its limit is ended after as long again.
CREATE FUNCTION __agent_submit(caller oid, question text, tools text[], definition jsonb, path text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    timeout interval := (SELECT l.timeout FROM @extschema@._agent_limits(definition->'limits') l);
    run bigint;
BEGIN
    PERFORM @extschema@._agent_check_timeout(caller, timeout);
    INSERT INTO @extschema@.agent_run (owner, question, tools, state, started_at, definition, path, lease)
    VALUES (caller, question, tools, 'queued', NULL, definition, path, 2 * timeout + '10 seconds') RETURNING id INTO run;
    PERFORM @extschema@._queue_changed();
    RETURN run;
END
$$;

CREATE FUNCTION _agent_submit(question text, tools text[], definition jsonb, path text) RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

CREATE FUNCTION submit_agent(name name, question text) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    a record;
    l record;
BEGIN
    SELECT g.instructions, g.limits, @extschema@._agent_functions(g.tools) AS tools,
           @extschema@._agent_functions(g.confirm) AS confirm
    INTO a FROM @extschema@.agents g
    WHERE g.name OPERATOR(pg_catalog.=) submit_agent.name
      AND g.owner OPERATOR(pg_catalog.=) current_user::pg_catalog.regrole;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = pg_catalog.format('minimax_m1: agent "%s" does not exist', name);
    ELSIF question IS NULL THEN
        RETURN NULL;
    ELSIF @extschema@._agent_in_definer() THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'minimax_m1: an agent is not submitted inside a function that is SECURITY DEFINER';
    END IF;
    SELECT n.* INTO l FROM @extschema@._agent_limits(a.limits) n;
    PERFORM @extschema@._agent_tools(a.tools, l.read_only);
    RETURN @extschema@._agent_submit(
        question, (SELECT coalesce(pg_catalog.array_agg(t::pg_catalog.text), '{}') FROM pg_catalog.unnest(a.tools) t),
        -- functions, not their names: what has a name when the run begins may be another role's
        pg_catalog.jsonb_build_object('tools', a.tools::pg_catalog.oid[], 'confirm', a.confirm::pg_catalog.oid[],
                                      'instructions', a.instructions, 'limits', a.limits,
                                      'adapter', pg_catalog.current_setting('minimax_m1.adapter')),
        pg_catalog.current_setting('search_path'));
END
$$;

COMMENT ON FUNCTION submit_agent IS 'has one''s agent answer a question after this transaction; returns the run';

CREATE FUNCTION __agent_definition(caller oid, run bigint, OUT question text, OUT definition jsonb, OUT path text)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.question, r.definition, r.path FROM @extschema@.agent_run r
    WHERE r.id = run AND r.owner = caller AND r.state = 'running' AND r.definition IS NOT NULL
$$;

CREATE FUNCTION _agent_definition(run bigint, OUT question text, OUT definition jsonb, OUT path text)
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

-- This process makes the run. false: it has been cancelled.
CREATE FUNCTION __agent_take(caller oid, run bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE @extschema@.agent_run r SET pid = a.pid, process_started = a.backend_start
    FROM pg_stat_activity a
    WHERE a.pid = pg_backend_pid()
      AND r.id = run AND r.owner = caller AND r.state = 'running' AND r.definition IS NOT NULL;
    RETURN FOUND;
END
$$;

CREATE FUNCTION _agent_take(run bigint) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

-- The whole of a run that was submitted, as its owner.
CREATE FUNCTION _agent_resume(run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    d record;
    l record;
BEGIN
    SELECT * INTO d FROM @extschema@._agent_definition(run);
    IF d.definition IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO l FROM @extschema@._agent_limits(d.definition->'limits');
    PERFORM set_config('minimax_m1.adapter', d.definition->>'adapter', true);
    PERFORM @extschema@._agent_run(
        d.question, ARRAY(SELECT t::oid::regprocedure
                          FROM jsonb_array_elements_text(d.definition->'tools') WITH ORDINALITY x(t, o) ORDER BY o),
        d.definition->>'instructions', l.max_calls, l.max_steps, l.timeout, l.read_only,
        ARRAY(SELECT c::oid::regprocedure FROM jsonb_array_elements_text(d.definition->'confirm') c),
        l.max_tokens, l.max_total_tokens, l.call_timeout, l.max_rows, l.max_result_tokens, l.thinking_budget, l.temperature,
        NULL, d.path, 0, run);
EXCEPTION WHEN OTHERS THEN
    PERFORM @extschema@._agent_note(run, 1, 'error', NULL, NULL, NULL, SQLERRM, NULL, NULL);
END
$$;

CREATE FUNCTION _cancel_agent_run(caller oid, run bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    was record;
BEGIN
    SELECT r.state, r.pid, r.process_started INTO was FROM @extschema@.agent_run r
    WHERE r.id = run AND r.definition IS NOT NULL AND pg_has_role(caller, r.owner::oid, 'USAGE')
    FOR UPDATE;
    IF NOT FOUND OR was.state NOT IN ('queued', 'running') THEN
        RETURN false;
    END IF;
    UPDATE @extschema@.agent_run r SET state = 'failed', finished_at = clock_timestamp() WHERE r.id = run;
    -- before all that its process has noted, which goes with it
    INSERT INTO @extschema@.agent_step (run, step, kind, error) VALUES (run, 0, 'error', 'the run was cancelled');
    -- a transaction that has looked at the activity before would see it as it was then
    PERFORM pg_stat_clear_snapshot();
    PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a
    WHERE was.state = 'running' AND a.backend_type = 'minimax_m1 agent' AND a.pid = was.pid
      AND a.backend_start = was.process_started;
    PERFORM @extschema@._queue_changed();
    RETURN true;
END
$$;

CREATE FUNCTION cancel_agent_run(run bigint) RETURNS boolean
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION cancel_agent_run IS 'stops a run that was submitted; false when it has ended';

CREATE FUNCTION _forget_agent_runs(caller oid, older_than interval) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH gone AS (
        DELETE FROM @extschema@.agent_run r
        WHERE r.owner = caller AND r.state IN ('done', 'failed') AND r.finished_at <= clock_timestamp() - older_than
        RETURNING r.id),
    steps AS (DELETE FROM @extschema@.agent_step s USING gone WHERE s.run = gone.id)
    SELECT count(*) FROM gone
$$;

CREATE FUNCTION forget_agent_runs(older_than interval) RETURNS bigint
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION forget_agent_runs IS 'forgets one''s runs that ended so long ago, and their steps; returns how many';
