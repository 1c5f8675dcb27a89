-- Agents: functions of the database as tools, with the rights of who asks. What the bundled model makes of results is not
-- looked at here; what it may do is.
\set SHOW_CONTEXT never
CREATE SCHEMA desk;
SET search_path = desk, minimax_m1;
CREATE TABLE orders (order_id text PRIMARY KEY, status text);
INSERT INTO orders VALUES ('B-12345', 'shipped'), ('D-77904', 'delayed');
CREATE FUNCTION lookup_order(order_id text) RETURNS TABLE (status text) LANGUAGE sql STABLE
AS $$ SELECT o.status FROM orders o WHERE o.order_id = lookup_order.order_id $$;
COMMENT ON FUNCTION lookup_order IS 'Status of an order';
CREATE FUNCTION delete_order(order_id text) RETURNS void LANGUAGE sql
AS $$ DELETE FROM orders o WHERE o.order_id = delete_order.order_id $$;

-- definitions from signatures
CREATE TYPE speed AS ENUM ('slow', 'fast');
CREATE DOMAIN percent AS int CHECK (value BETWEEN 0 AND 100);
CREATE TYPE place AS (city text, code varchar(5));
CREATE FUNCTION ship(to_place place, how speed, items int[], rebate percent DEFAULT 0, OUT cost numeric, OUT days int)
LANGUAGE sql STABLE AS $$ SELECT cardinality(items) * 2.50 - rebate, CASE how WHEN 'fast' THEN 1 ELSE 5 END $$;
SELECT jsonb_pretty(_agent_tools('{"ship(place,speed,int[],percent)"}', true)::jsonb);
CREATE FUNCTION unnamed(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION poly(a anyelement) RETURNS anyelement LANGUAGE sql STABLE AS 'SELECT a';
CREATE FUNCTION vary(VARIADIC a int[]) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION loose() RETURNS record LANGUAGE sql STABLE AS 'SELECT 1, 2';
CREATE FUNCTION lookup_order(order_id int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'by number' $$;
DO $$
DECLARE
    list regprocedure[];
BEGIN
    FOREACH list SLICE 1 IN ARRAY ARRAY[['unnamed(int)'], ['poly(anyelement)'], ['vary(int[])'], ['sum(int)'], ['loose()'], ['delete_order(text)'],
                                        ['0'], [NULL]]::regprocedure[] LOOP
        BEGIN
            PERFORM _agent_tools(list, true);
            RAISE NOTICE '% is a tool', list;
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE '% %', SQLSTATE, SQLERRM;
        END;
    END LOOP;
END
$$;
SELECT _agent_tools('{lookup_order(text), lookup_order(int)}', true);

-- calls: arguments become values of their types, and results JSON
CREATE FUNCTION call(f regprocedure, arguments json, read_only boolean DEFAULT true, limit_ms int DEFAULT 5000, max_rows int DEFAULT 3)
RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(body, 'error: ' || error) || ' (' || n_rows || ')'
    FROM minimax_m1._agent_call(f, arguments, read_only, limit_ms, max_rows, current_setting('search_path'))
$$;
SELECT call('lookup_order(text)', '{"order_id": "B-12345"}');
SELECT call('lookup_order(text)', '{"order_id": "B-12345'' OR true --"}');
SELECT call('lookup_order(int)', '{"order_id": 7}');
SELECT call('ship(place,speed,int[],percent)', '{"to_place": {"city": "Oslo", "code": "0150"}, "how": "fast", "items": [1, 2]}');
SELECT call('ship(place,speed,int[],percent)', '{"to_place": null, "how": "slow", "items": [1], "rebate": 101}');
SELECT call('ship(place,speed,int[],percent)', '{"how": "fast", "items": [1]}');
SELECT call('ship(place,speed,int[],percent)', '{"to_place": null, "how": "quick", "items": [1]}');
SELECT call('lookup_order(text)', '{"order_id": "x", "force": true}');
CREATE FUNCTION many() RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT generate_series(1, 10)';
SELECT call('many()', '{}');
CREATE FUNCTION nothing() RETURNS text LANGUAGE sql STABLE AS 'SELECT NULL::text';
SELECT call('nothing()', '{}');

-- what a tool may do: nothing but read, unless it is VOLATILE and asked for; each call by itself, within a time
SELECT call('delete_order(text)', '{"order_id": "B-12345"}');
CREATE FUNCTION lies(a int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN EXECUTE 'DELETE FROM orders'; RETURN a; END $$;
SELECT call('lies(int)', '{"a": 1}', read_only => false);
CREATE FUNCTION unlocks(a int) RETURNS int LANGUAGE plpgsql AS
$$ BEGIN SET transaction_read_only = off; DELETE FROM orders; RETURN a; END $$;
SELECT call('unlocks(int)', '{"a": 1}');
CREATE FUNCTION slow(a int) RETURNS text LANGUAGE sql STABLE AS 'SELECT pg_sleep(30)::text';
SELECT call('slow(int)', '{"a": 1}', limit_ms => 50);
CREATE FUNCTION half(a int) RETURNS int LANGUAGE plpgsql AS
$$ BEGIN DELETE FROM orders; RETURN 1 / (a - a); END $$;
SELECT call('half(int)', '{"a": 1}', read_only => false);
SELECT count(*) FROM orders;
SELECT call('delete_order(text)', '{"order_id": "D-77904"}', read_only => false);
SELECT count(*) FROM orders;
-- another function of that name that the arguments fit
CREATE FUNCTION twin(a int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'listed' $$;
CREATE FUNCTION twin(a int, b int DEFAULT 1) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'other' $$;
SELECT call('twin(int,int)', '{"a": 1, "b": 2}'), call('twin(int,int)', '{"a": 1}');

-- once rows have been read, a tool that changes something needs a confirmation
SELECT f, has_read, confirmed, _agent_refusal(f, has_read, confirmed::oid[]) IS NULL AS may_be_called
FROM unnest('{lookup_order(text), delete_order(text)}'::regprocedure[]) f, unnest('{f,t}'::bool[]) has_read,
     (VALUES ('{}'::regprocedure[]), ('{delete_order(text)}'), ('{NULL}')) v(confirmed) ORDER BY 1, 2, 3;

-- a run: the bundled model asks for the order, and its call and the result are steps
SELECT kind, tool, arguments, body, error FROM agent('Where is order B-12345?', '{lookup_order(text)}') WHERE step BETWEEN 2 AND 3;
SELECT q.kind IN ('answer', 'error') AS ends FROM (SELECT kind FROM agent('Where is order B-12345?', '{lookup_order(text)}')
    ORDER BY step DESC LIMIT 1) q;
SELECT count(*) FILTER (WHERE kind = 'call') AS calls, max(kind) FILTER (WHERE step = 1) AS first
FROM agent('Hello.', '{}');
SELECT ask('Hello.');
-- caps end it with an error that is a step, and no exception
SELECT kind, error FROM agent('Where is order B-12345?', '{lookup_order(text)}', timeout => '1 microsecond');
SELECT kind, error ~ 'max_total_tokens is 10$' AS error
FROM agent('Where is order B-12345?', '{lookup_order(text)}', max_total_tokens => 10) WHERE kind = 'error';
SELECT count(*) AS calls FROM agent('Where is order B-12345?', '{lookup_order(text)}', max_calls => 0) WHERE kind = 'call';
SELECT count(*) <= 2 AS calls FROM agent('Where is order B-12345?', '{lookup_order(text)}', max_calls => 2) WHERE kind = 'result' AND error IS NULL;
SELECT * FROM agent('Where is order B-12345?', '{lookup_order(text)}', max_steps => 0);
SELECT * FROM agent('Where is order B-12345?', '{lookup_order(text)}', call_timeout => NULL);
SELECT * FROM agent('Where is order B-12345?', '{delete_order(text)}');
\set VERBOSITY sqlstate
SELECT * FROM agent('Where is order B-12345?', ARRAY[to_regprocedure('typo(text)')]);
SELECT * FROM agent('Where is order B-12345?', '{delete_order(text)}', read_only => false, confirm => ARRAY[to_regprocedure('typo(text)')]);
\set VERBOSITY default
SELECT ask('Where is order B-12345?', '{lookup_order(text)}', repeat('x ', 100000));
-- what a failing tool says goes back to the model
CREATE FUNCTION broken_order(order_id text) RETURNS text LANGUAGE plpgsql STABLE AS
$$ BEGIN RAISE EXCEPTION 'order % is not readable', order_id USING HINT = 'Try another one.'; END $$;
SELECT tool, body, error FROM agent('Where is order B-12345?', '{broken_order(text)}') WHERE kind = 'result' ORDER BY step LIMIT 1;
-- a limit of less than a millisecond is one
CREATE FUNCTION slow_order(order_id text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT pg_sleep(5)::text $$;
SELECT error FROM agent('Where is order B-12345?', '{slow_order(text)}', call_timeout => '0.4 ms') WHERE kind = 'result' ORDER BY step LIMIT 1;
SELECT _agent_ms(i) FROM unnest('{1 us,400 us,1 ms,1.5 s,1 year}'::interval[]) i;
-- long results are cut
CREATE FUNCTION order_text(order_id text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT repeat('shipped ', 500) $$;
SELECT body ~ E'^(shipped )+(s[a-z]*)?\n\\[cut: the result has \\d+ tokens, of which \\d+ are shown\\]$' AS cut, tokens <= 20 AS within
FROM agent('Where is order B-12345?', '{order_text(text)}', max_result_tokens => 20) WHERE kind = 'result' ORDER BY step LIMIT 1;

-- rights: the caller's, at each call; not inside SECURITY DEFINER
CREATE ROLE regress_agent_user;
SELECT grant_usage('regress_agent_user');
GRANT USAGE ON SCHEMA desk TO regress_agent_user;
GRANT SELECT ON orders TO regress_agent_user;
REVOKE EXECUTE ON FUNCTION lookup_order(text) FROM PUBLIC;
CREATE FUNCTION reckless(q text) RETURNS bigint LANGUAGE sql SECURITY DEFINER
AS $$ SELECT count(*) FROM minimax_m1.agent(q, '{lookup_order(text)}') $$;
CREATE FUNCTION careful(q text) RETURNS boolean LANGUAGE sql SECURITY DEFINER
AS $$ SELECT count(*) > 0 FROM minimax_m1.agent(q, '{lookup_order(text)}', in_definer => true) $$;
SET ROLE regress_agent_user;
SELECT * FROM agent('Where is order B-12345?', '{lookup_order(text)}');
SELECT call('lookup_order(text)', '{"order_id": "B-12345"}');
SELECT call('delete_order(text)', '{"order_id": "B-12345"}', read_only => false);
SELECT reckless('Where is order B-12345?');
SELECT careful('Where is order B-12345?');
SELECT count(*) FROM agent_runs;
SELECT count(*) FROM agent_step;
RESET ROLE;

-- runs and steps are kept, of failed ones, too
SELECT state, count(*) > 0 AS some FROM agent_runs GROUP BY state ORDER BY state;
SELECT count(*) AS without_end FROM agent_runs r
WHERE (SELECT s.kind NOT IN ('answer', 'error') FROM agent_steps s WHERE s.run = r.id ORDER BY s.step DESC LIMIT 1);
SELECT forget_agent_runs('1 hour'), forget_agent_runs('0') > 0 AS forgotten;
SELECT (SELECT count(*) FROM agent_runs) AS runs, (SELECT count(*) FROM agent_step WHERE run NOT IN (SELECT id FROM agent_runs)) AS orphans;
SELECT cancel_agent_run(0);
BEGIN READ ONLY;
SELECT kind FROM agent('Hello.', '{}') WHERE kind = 'answer';
COMMIT;

-- agents with a name
SELECT create_agent('helpdesk', '{lookup_order(text)}', 'You look up orders.', '{"max_calls": 1}');
SELECT create_agent('helpdesk', '{}');
SELECT create_agent('other', '{}', limits => '{"max_call": 1}');
-- what cannot be a limit is refused when it is given, and names are those of the search_path then
CREATE FUNCTION try_agent(limits jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM minimax_m1.create_agent('other', '{delete_order(text)}', limits => limits);
    RETURN minimax_m1.drop_agent('other')::text || 'taken';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
SELECT l, try_agent(l) FROM unnest(ARRAY['{"max_rows": -1}', '{"max_calls": -1}', '{"max_steps": 0}', '{"max_calls": "x"}', '{"max_rows": 1.5}',
    '{"timeout": "0 s"}', '{"call_timeout": "soon"}', '{"read_only": "perhaps"}', '{"max_tokens": 0}', '{"thinking_budget": -2}',
    '{"temperature": -1}', '{"confirm": [null]}', '{"confirm": ["typo(text)"]}', '{"confirm": "delete_order(text)"}',
    '{"confirm": null, "max_calls": null}', '{"confirm": ["delete_order(text)"], "temperature": 0.5, "timeout": "1 year"}', '[]', '1']::jsonb[]) l;
SELECT create_agent('other', '{delete_order(text)}', limits => '{"confirm": ["delete_order(text)"], "max_calls": 2}');
SELECT name, tools, confirm, limits FROM agents WHERE name = 'other';
SELECT drop_agent('other');
SELECT count(*) FILTER (WHERE kind = 'result' AND error IS NULL) AS calls FROM run_agent('helpdesk', 'Where is order B-12345?');
SELECT name, tools, instructions, limits FROM agents;
SELECT drop_agent('helpdesk');
SELECT drop_agent('helpdesk');
SELECT * FROM run_agent('helpdesk', 'Hello.');
-- pg_upgrade refuses tables that hold what a number of this server names
SELECT a.attrelid::regclass, a.attname, a.atttypid::regtype
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relnamespace = 'minimax_m1'::regnamespace AND c.relkind IN ('r', 'm') AND NOT a.attisdropped
  AND coalesce(nullif(t.typelem, 0), t.oid)::regtype::text ~ '^reg' AND coalesce(nullif(t.typelem, 0), t.oid)
      NOT IN ('regclass'::regtype, 'regrole'::regtype, 'regtype'::regtype);
DROP OWNED BY regress_agent_user;
DROP ROLE regress_agent_user;
SET client_min_messages = warning;
DROP SCHEMA desk CASCADE;
