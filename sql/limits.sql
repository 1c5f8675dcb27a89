-- Caps of a statement, quotas of a role, usage and what it costs, and what the planner knows of a call.
CREATE ROLE m1_alice;
CREATE ROLE m1_bob;
CREATE ROLE m1_auditor IN ROLE pg_read_all_stats;
SELECT minimax_m1.grant_usage(r) FROM unnest('{m1_alice,m1_bob,m1_auditor}'::regrole[]) r;
CREATE TABLE letter (id int PRIMARY KEY, sender int, body text);
INSERT INTO letter SELECT i, i % 7, 'Hello.' FROM generate_series(1, 20) i;
GRANT SELECT ON letter TO m1_alice;
-- what a statement fails with, in one line
CREATE FUNCTION failure_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE query;
    RETURN 'no failure';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    -- the minute that is under way counts
    RETURN concat_ws(' | ', SQLSTATE, SQLERRM, detail, regexp_replace(hint, '6[01] minutes', 'an hour'));
END $$;
GRANT EXECUTE ON FUNCTION failure_of TO m1_alice, m1_bob;

-- The cap of calls: of a query, a loop, a trigger; each statement starts anew.
SET minimax_m1.max_calls_per_statement = 3;
SELECT count(minimax_m1.generate_ids('{1}', 1)) FROM letter WHERE id <= 3;
SELECT count(minimax_m1.generate_ids('{1}', 1)) FROM letter WHERE id <= 4;
SELECT calls FROM minimax_m1.last_statement;
SELECT count(minimax_m1.count_tokens(body)) FROM letter;
DO $$ BEGIN FOR i IN 1..3 LOOP PERFORM minimax_m1.generate_ids('{1}', 1); END LOOP; END $$;
DO $$ BEGIN FOR i IN 1..4 LOOP PERFORM minimax_m1.logits('{1}'); END LOOP; END $$;
SELECT function, calls FROM minimax_m1.last_statement;
-- an exception block does not start it anew
DO $$
DECLARE
    done int := 0;
BEGIN
    FOR i IN 1..10 LOOP
        BEGIN
            PERFORM minimax_m1.generate_ids('{1}', 1);
            done := done + 1;
        EXCEPTION WHEN configuration_limit_exceeded THEN
            NULL;
        END;
    END LOOP;
    RAISE NOTICE '% calls were made', done;
END $$;
CREATE TABLE note (body text, answer text);
CREATE TRIGGER ask BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('answer', '{body}');
INSERT INTO note SELECT 'Hello.' FROM generate_series(1, 4);
SELECT count(*) FROM note;
INSERT INTO note SELECT 'Hello.' FROM generate_series(1, 3);
SELECT count(answer) FROM note;
-- a stream is one call, however many rows it has
SELECT count(*) > 3 FROM (SELECT minimax_m1.generate_stream('Hello.')) s;
RESET minimax_m1.max_calls_per_statement;

-- The cap of tokens: before a call, and in the middle of one.
SET minimax_m1.max_tokens_per_statement = 50;
SELECT cardinality(minimax_m1.generate_ids('{1,2,3}', 40));
SELECT count(minimax_m1.generate_ids('{1,2,3}', 22)) FROM letter;
SELECT calls, prompt_tokens + completion_tokens AS tokens FROM minimax_m1.last_statement;
SELECT failure_of($$SELECT minimax_m1.generate_ids('{1,2,3}', 30000)$$);
SELECT prompt_tokens, completion_tokens BETWEEN 48 AND 1000 AS stopped FROM minimax_m1.last_statement;
SELECT failure_of($$SELECT minimax_m1.generate(repeat('Hello. ', 100))$$);
-- requests that run side by side share it: what is under way counts, and what has ended
SET minimax_m1.max_tokens_per_statement = 120;
SELECT failure_of($$SELECT minimax_m1.generate_stream('What can you do?', max_tokens => 2000, temperature => 100, top_p => 1, seed => 1),
    minimax_m1.generate_stream('What can you do?', max_tokens => 2000, temperature => 100, top_p => 1, seed => 1)$$);
SET minimax_m1.max_tokens_per_statement = 100;
SELECT failure_of($$SELECT minimax_m1.generate_stream('Hello.'),
    minimax_m1.generate_stream('What can you do?', max_tokens => 2000, temperature => 100, top_p => 1, seed => 1)$$);
SELECT sum(calls) FROM minimax_m1.last_statement;
-- a request that is refused is no call
RESET minimax_m1.max_tokens_per_statement;
SELECT minimax_m1.set_quota('m1_alice', 0);
SET ROLE m1_alice;
SELECT left(failure_of($$SELECT minimax_m1.generate('Hello.')$$), 5);
SELECT count(*) FROM minimax_m1.last_statement;
RESET ROLE;
SELECT minimax_m1.set_quota('m1_alice');
SET minimax_m1.max_calls_per_statement = -1;

-- A quota: exactly what fits, and not one token more.
SELECT minimax_m1.set_quota('m1_alice', 100, NULL);
SET ROLE m1_alice;
SELECT failure_of($$SELECT minimax_m1.generate_ids('{1,2,3}', 98)$$);
SELECT cardinality(minimax_m1.generate_ids('{1,2,3}', 50));
SELECT tokens_per_hour, max_concurrent, used_last_hour, reserved, requests FROM minimax_m1.quotas;
SELECT failure_of($$SELECT minimax_m1.generate_ids('{1,2,3}', 45)$$);
SELECT cardinality(minimax_m1.generate_ids('{1,2,3}', 34));
SELECT cardinality(minimax_m1.logits('{1,2,3,4,5,6,7,8,9,10}')) > 0 AS last_tokens;
SELECT failure_of($$SELECT minimax_m1.logits('{1}')$$);
SELECT used_last_hour FROM minimax_m1.quotas;
-- every function is refused, but for those that cost no tokens
SELECT f, left(failure_of('SELECT minimax_m1.' || f), 5) AS state
FROM unnest(ARRAY[$$generate('Hello.', max_tokens => 1)$$, $$complete('Hello.')$$, $$generate_stream('Hello.')$$,
    $$summarize('Hello.')$$, $$generate_ids('{1}', 1)$$, $$logits('{1}')$$, $$count_tokens('Hello.')$$,
    $$tokenize('Hello.')$$, $$detokenize('{1}')$$]) f;
RESET ROLE;
-- a change holds at once, in the same transaction too, and a rollback takes it back
BEGIN;
SELECT minimax_m1.set_quota('m1_alice', 1000, NULL);
SET ROLE m1_alice;
SELECT cardinality(minimax_m1.generate_ids('{1}', 1));
ROLLBACK;
SET ROLE m1_alice;
SELECT left(failure_of($$SELECT minimax_m1.generate_ids('{1}', 1)$$), 5);
RESET ROLE;
SELECT minimax_m1.set_quota('m1_alice', 0, 0);
SET ROLE m1_alice;
SELECT failure_of($$SELECT minimax_m1.count_tokens('Hello.')$$);
RESET ROLE;
SELECT minimax_m1.set_quota('m1_alice');
SELECT count(*) FROM minimax_m1.quotas;
SET ROLE m1_alice;
SELECT cardinality(minimax_m1.generate_ids('{1}', 1));
RESET ROLE;

-- Two streams at a time are one too many.
SELECT minimax_m1.set_quota('m1_alice', NULL, 1);
SET ROLE m1_alice;
BEGIN;
DECLARE c CURSOR FOR SELECT minimax_m1.generate_stream('What can you do?', temperature => 100, top_p => 1, seed => 1);
MOVE 1 FROM c;
SAVEPOINT s;
SELECT minimax_m1.count_tokens('Hello.');
ROLLBACK TO s;
SELECT requests FROM minimax_m1.quotas;
CLOSE c;
SELECT minimax_m1.count_tokens('Hello.');
COMMIT;
SELECT requests, reserved FROM minimax_m1.quotas;
-- a function of another owner is charged to that one
RESET ROLE;
CREATE FUNCTION as_owner() RETURNS int LANGUAGE sql SECURITY DEFINER AS $$SELECT cardinality(minimax_m1.generate_ids('{1}', 1))$$;
ALTER FUNCTION as_owner OWNER TO m1_bob;
SELECT minimax_m1.set_quota('m1_alice', 0);
SET ROLE m1_alice;
SELECT as_owner();
RESET ROLE;
SELECT function, requests FROM minimax_m1.usage WHERE role = 'm1_bob';

-- What a role must not do: set, lift or see what is not its own.
SET ROLE m1_alice;
SELECT minimax_m1.set_quota('m1_alice', 1000000);
ALTER ROLE m1_alice SET minimax_m1.quota_tokens_per_hour = '1000000';
ALTER ROLE m1_alice RESET minimax_m1.quota_tokens_per_hour;
ALTER ROLE m1_alice RESET ALL;
SET minimax_m1.quota_tokens_per_hour = '1000000';
SELECT minimax_m1.usage_reset();
SELECT minimax_m1.set_price(1, 1);
SELECT * FROM minimax_m1.prices;
SELECT role, tokens_per_hour FROM minimax_m1.quotas;
SELECT DISTINCT role FROM minimax_m1.usage;
SELECT minimax_m1.role_use('m1_bob'::regrole);
SET ROLE m1_bob;
SELECT role, tokens_per_hour FROM minimax_m1.quotas;
SELECT DISTINCT role FROM minimax_m1.usage;
SELECT DISTINCT role FROM minimax_m1.bill;
SET ROLE m1_auditor;
SELECT role, tokens_per_hour FROM minimax_m1.quotas;
SELECT DISTINCT role FROM minimax_m1.usage WHERE role LIKE 'm1\_%' ORDER BY role;
RESET ROLE;

-- Bad values.
SELECT minimax_m1.set_quota('m1_alice', -1);
SELECT minimax_m1.set_quota('m1_alice', 1000000000000000000);
SELECT minimax_m1.set_quota('m1_alice', 1, -1);
SELECT minimax_m1.set_quota(NULL, 1);
SELECT minimax_m1.set_quota('-', 1);
SELECT minimax_m1.set_quota('m1_nobody', 1);
SELECT minimax_m1.grant_usage(NULL);
ALTER ROLE m1_alice SET minimax_m1.quota_tokens_per_hour = 'many';
ALTER ROLE m1_alice SET minimax_m1.quota_max_concurrent = -2;
SELECT minimax_m1.set_quota('m1_alice', 999999999999999999, 2147483647);
SET ROLE m1_alice;
SELECT cardinality(minimax_m1.generate_ids('{1}', 1));
RESET ROLE;
SELECT minimax_m1.set_quota('m1_alice');

-- Usage and the bill: the numbers of complete() are those of the usage, and each million tokens costs its price.
SELECT minimax_m1.usage_reset() > 0 AS reset;
SELECT count(*) FROM minimax_m1.usage;
SELECT minimax_m1.stats_reset();
SET ROLE m1_alice;
CREATE TEMP TABLE reply AS
SELECT c.* FROM generate_series(1, 3) i,
    LATERAL minimax_m1.complete(repeat('What is 47 + 35? ', i * i * i), max_tokens => 60) c;
SELECT function, context_tier, requests, completed, failed, cancelled FROM minimax_m1.usage ORDER BY context_tier;
SELECT (SELECT (count(*), sum(prompt_tokens), sum(cached_tokens), sum(reasoning_tokens), sum(completion_tokens))::text FROM reply) =
       (SELECT (sum(requests), sum(prompt_tokens), sum(cached_tokens), sum(reasoning_tokens), sum(completion_tokens))::text
        FROM minimax_m1.usage) AS usage_is_right,
       (SELECT (count(*), sum(prompt_tokens), sum(completion_tokens))::text FROM reply) =
       (SELECT (completed, prompt_tokens, completion_tokens)::text FROM minimax_m1.stats) AS stats_are_right,
       (SELECT (count(*), sum(prompt_tokens), sum(completion_tokens))::text FROM reply) =
       (SELECT (calls, prompt_tokens, completion_tokens)::text FROM minimax_m1.last_statement) AS statement_is_right;
SELECT context_tier, amount FROM minimax_m1.bill ORDER BY context_tier;
RESET ROLE;
SELECT minimax_m1.set_price(0.4, 2.2, 0.1, since => '2020-01-01');
SELECT minimax_m1.set_price(9, 9, since => (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month')::date);
SELECT minimax_m1.set_price(1.3, 8.8, min_context => 200, since => '2020-01-01');
SELECT minimax_m1.set_price(1.3, 8.8, min_context => 300, since => '2020-01-01');
SET ROLE m1_alice;
SELECT sum(amount) = (SELECT sum(((prompt_tokens - cached_tokens) * CASE WHEN prompt_tokens >= 200 THEN 1.3 ELSE 0.4 END
                                  + cached_tokens * CASE WHEN prompt_tokens >= 200 THEN 1.3 ELSE 0.1 END
                                  + completion_tokens * CASE WHEN prompt_tokens >= 200 THEN 8.8 ELSE 2.2 END) / 1000000)
                      FROM reply) AS bill_is_right
FROM minimax_m1.bill;
RESET ROLE;
-- a price is set anew, and the latest before the month counts, with all its tiers
SELECT minimax_m1.set_price(1000000, 0, 0, since => '2020-02-01');
SELECT minimax_m1.set_price(2000000, 0, 0, since => '2020-02-01');
SET ROLE m1_alice;
SELECT sum(amount) / sum(prompt_tokens - cached_tokens) AS price FROM minimax_m1.bill;
RESET ROLE;
SELECT minimax_m1.set_price(-1, 1, since => '2020-03-01');
SELECT minimax_m1.set_price(1, 1, since => '2020-01-02');
SELECT minimax_m1.usage_reset('2020-01-01');
SELECT count(*) > 0 AS kept FROM minimax_m1.usage;
DELETE FROM minimax_m1.prices;

-- A request that is cancelled costs what it took; one that fails costs nothing.
SELECT minimax_m1.usage_reset() > 0 AS reset;
SET minimax_m1.request_timeout = '100ms';
SELECT minimax_m1.generate_ids('{1,2,3}', 32000);
RESET minimax_m1.request_timeout;
SELECT minimax_m1.generate_ids('{1,2,1600}', 5);
SELECT function, requests, completed, failed, cancelled, prompt_tokens, completion_tokens > 0 AS completion
FROM minimax_m1.usage;

-- Statistics: each function's counters add up to all.
SELECT bool_and(requests = completed + failed + cancelled + timed_out) AS each_has_an_end FROM minimax_m1.stats_by_function;
SELECT (SELECT (sum(requests), sum(completed), sum(failed), sum(rejected), sum(prompt_tokens), sum(completion_tokens))::text
        FROM minimax_m1.stats_by_function) =
       (SELECT (requests, completed, failed, rejected, prompt_tokens, completion_tokens)::text FROM minimax_m1.stats) AS they_add_up;

SELECT count(*) AS bounds, min(seconds), max(seconds) FILTER (WHERE seconds < 'Infinity') AS longest, bool_and(first_token >= whole) AS first_is_first,
       max(whole) = (SELECT completed FROM minimax_m1.stats_by_function s WHERE s.function = 'generate_ids') AS all_are_counted
FROM minimax_m1.stats_latency WHERE function = 'generate_ids';
SELECT bool_and(first_token >= before AND whole >= before_whole) AS they_rise
FROM (SELECT first_token, whole, lag(first_token, 1, 0::bigint) OVER w AS before, lag(whole, 1, 0::bigint) OVER w AS before_whole
      FROM minimax_m1.stats_latency WINDOW w AS (PARTITION BY function ORDER BY seconds)) t;

-- The planner: whatever is cheap comes first in whatever order it is written, and a short reply before a long one.
CREATE FUNCTION filter_of(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) SELECT FROM letter WHERE ' || condition LOOP
        IF line LIKE '%Filter:%' THEN
            RETURN regexp_replace(line, ', NULL::[a-z ]+(\[\])?', '', 'g');
        END IF;
    END LOOP;
END $$;
ANALYZE letter;
SELECT filter_of($$minimax_m1.generate(body) = 'x' AND sender = 3$$);
SELECT filter_of($$sender = 3 AND minimax_m1.generate(body) = 'x'$$);
SELECT filter_of($$minimax_m1.generate(body) = 'x' AND minimax_m1.count_tokens(body) > 1 AND length(body) > 2$$);
SELECT filter_of($$minimax_m1.generate(body) = 'x' AND minimax_m1.generate(body, max_tokens => 2) = 'y'$$);
SELECT filter_of($$minimax_m1.generate(body, max_tokens => 2) = 'y' AND minimax_m1.generate(body) = 'x'$$);
SELECT filter_of($$minimax_m1.generate(body || repeat('x', 10000)) = 'x' AND minimax_m1.generate('$$ || repeat('a', 2000) || $$') = 'x'$$) ~ 'Filter: \(\(minimax_m1.generate\(\(body' AS shorter_prompt_first;
EXPLAIN (COSTS OFF) SELECT FROM letter WHERE minimax_m1.generate(body) = 'x' AND id = 3;
CREATE FUNCTION rows_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
    RETURN plan #>> '{0,Plan,Plan Rows}';
END $$;
SELECT rows_of($$SELECT * FROM minimax_m1.generate_stream('x')$$) AS unknown,
       rows_of($$SELECT * FROM minimax_m1.generate_stream('x', max_tokens => 7)$$) AS at_most_7;

-- nothing is left behind
SELECT count(*) FROM minimax_m1.activity;
DROP FUNCTION as_owner, failure_of, filter_of, rows_of;
DROP TABLE letter, note, reply;
REVOKE ALL ON ALL ROUTINES IN SCHEMA minimax_m1 FROM m1_alice, m1_bob, m1_auditor;
REVOKE ALL ON ALL TABLES IN SCHEMA minimax_m1 FROM m1_alice, m1_bob, m1_auditor;
REVOKE ALL ON SCHEMA minimax_m1 FROM m1_alice, m1_bob, m1_auditor;
SELECT minimax_m1.set_quota('m1_alice', 5, 5);
DROP ROLE m1_alice, m1_bob, m1_auditor;
SELECT count(*) FROM minimax_m1.quotas;
