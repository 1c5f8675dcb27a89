-- questions.sql - questions with answers that can be checked, of the kinds that MiniMax-M1 is evaluated by. They are made
-- by arithmetic on their numbers alone, so that they are the same on every machine and version.

CREATE TABLE kind (ord int, kind text PRIMARY KEY, reward text);
-- What is asked is prompt or messages; evaluate() takes a query that has one of them, so each is asked as messages.
CREATE TABLE question (id int GENERATED ALWAYS AS IDENTITY, kind text, messages json, tools json, answer jsonb, format text);

-- A number from 0 to n - 1 that looks like chance.
CREATE FUNCTION draw(seed bigint, n int) RETURNS int LANGUAGE sql IMMUTABLE AS
'SELECT (((seed * 2654435761 + 104729) % 4294967291) * 40503 % 4294967291 / 65537 % n)::int';

CREATE FUNCTION pick(seed bigint, words text[]) RETURNS text LANGUAGE sql IMMUTABLE AS
'SELECT words[1 + draw(seed, cardinality(words))]';

CREATE FUNCTION asked(question text) RETURNS json LANGUAGE sql IMMUTABLE AS
$$SELECT json_build_array(json_build_object('role', 'user', 'content', question))$$;

-- Boxed answers: a sum, a product, and a story with two steps.
INSERT INTO kind VALUES (1, 'boxed: sums', 'reward_number'), (2, 'boxed: products', 'reward_number'),
                        (3, 'boxed: stories', 'reward_number');
INSERT INTO question (kind, messages, answer)
SELECT 'boxed: sums', asked(format('What is %s + %s? Put the final answer into \boxed{}.', a, b)), to_jsonb(a + b)
FROM (SELECT 10 + draw(i, 90) AS a, 10 + draw(i + 1000, 90) AS b FROM generate_series(1, 50) i) s;
INSERT INTO question (kind, messages, answer)
SELECT 'boxed: products', asked(format('What is %s times %s? Put the final answer into \boxed{}.', a, b)), to_jsonb(a * b)
FROM (SELECT 3 + draw(i + 2000, 17) AS a, 3 + draw(i + 3000, 17) AS b FROM generate_series(1, 50) i) s;
INSERT INTO question (kind, messages, answer)
SELECT 'boxed: stories',
       asked(format('%s has %s boxes with %s %s each and gives %s of them away. How many %s are left? '
                    'Put the final answer into \boxed{}.', who, a, b, what, c, what)), to_jsonb(a * b - c)
FROM (SELECT pick(i, '{Ana,Omar,Keiko,Hugo,Leila}') AS who, pick(i + 100, '{apples,pens,stamps,shells}') AS what,
             2 + draw(i + 4000, 8) AS a, 3 + draw(i + 5000, 9) AS b, 1 + draw(i + 6000, 5) AS c
      FROM generate_series(1, 50) i) s;

-- Needles: codes of boxes in a text of about so many tokens, asked for in several rounds; the last one is the question.
CREATE FUNCTION haystack(seed bigint, sentences int, codes int[]) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(
        format('The %s walked to the %s and %s there for a while.', pick(seed + s, '{gardener,baker,pilot,teacher,painter}'),
               pick(seed + s + 7, '{harbour,market,library,station,bridge}'), pick(seed + s + 13, '{waited,read,sang,slept,talked}'))
        || coalesce(format(' The code of box %s is %s.', c.n, c.code), ''), ' ' ORDER BY s)
    FROM generate_series(1, sentences) s
    LEFT JOIN unnest(codes) WITH ORDINALITY c(code, n) ON s = 1 + c.n * sentences / (cardinality(codes) + 1)
$$;

CREATE FUNCTION rounds(hay text, codes int[]) RETURNS json LANGUAGE sql AS $$
    SELECT json_agg(json_build_object('role', m.role, 'content', m.content) ORDER BY m.n, m.role DESC)
    FROM (SELECT c.n, 'user' AS role,
                 CASE c.n WHEN 1 THEN 'Read this text. ' || hay || E'\n\n' ELSE '' END
                 || format('What is the code of box %s? Answer with the number alone.', c.n) AS content
          FROM unnest(codes) WITH ORDINALITY c(code, n)
          UNION ALL
          SELECT c.n, 'assistant', c.code::text
          FROM unnest(codes) WITH ORDINALITY c(code, n) WHERE c.n < cardinality(codes)) m
$$;

INSERT INTO kind
SELECT 3 + k.n, format('needles: %sk tokens', k.thousands), 'reward_number'
FROM unnest('{1,4,8,16,30}'::int[]) WITH ORDINALITY k(thousands, n);
-- As many sentences as fill so many tokens of this model, or its context.
INSERT INTO question (kind, messages, answer)
SELECT format('needles: %sk tokens', t.thousands),
       rounds(haystack(i * 1000, greatest(8, (least(t.thousands * 1000, m.context - 1500) / per_sentence)::int), codes), codes),
       to_jsonb(codes[3])
FROM unnest('{1,4,8,16,30}'::int[]) t(thousands), generate_series(1, 10) i, minimax_m1.model m,
     LATERAL (SELECT minimax_m1.count_tokens(haystack(1, 100, '{}')) / 100.0 AS per_sentence) s,
     LATERAL (SELECT ARRAY[1000 + draw(i + 7000, 9000), 1000 + draw(i + 8000, 9000), 1000 + draw(i + 9000, 9000)] AS codes) c;

-- Calls of tools, of which one is right.
INSERT INTO kind VALUES (10, 'tool calls', 'reward_json');
INSERT INTO question (kind, messages, tools, answer)
SELECT 'tool calls', asked(c.question), '[
    {"name": "get_weather", "description": "Current weather of a city",
     "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
    {"name": "lookup_order", "description": "Status of an order",
     "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}}]',
       jsonb_build_array(jsonb_build_object('name', c.tool, 'arguments', jsonb_build_object(c.argument, c.value)))
FROM (SELECT format('What is the weather in %s?', city) AS question, 'get_weather' AS tool, 'city' AS argument, city AS value
      FROM (SELECT pick(i, '{Oslo,Lima,Kyoto,Cairo,Quito,Hanoi,Berlin,Nairobi}') AS city FROM generate_series(1, 25) i) w
      UNION ALL
      SELECT format('Where is my order %s?', code), 'lookup_order', 'order_id', code
      FROM (SELECT format('%s-%s', pick(i, '{A,B,C,D}'), 10000 + draw(i + 10000, 90000)) AS code
            FROM generate_series(1, 25) i) o) c;

-- Instructions whose following can be checked.
INSERT INTO kind VALUES (11, 'instructions', 'reward_format');
INSERT INTO question (kind, messages, format)
SELECT 'instructions', asked(format('Tell me about %s. %s', t.topic, r.rule)), r.format
FROM unnest('{the sea,a bakery,winter,trains,a refund}'::text[]) t(topic),
     (VALUES ('Answer with exactly three words.', '^\S+\s+\S+\s+\S+$'),
             ('Write capital letters only.', '^[^a-z]*[A-Z][^a-z]*$'),
             ('Answer with one word.', '^\w+\W*$'),
             ('End with the word END.', 'END\W*$'),
             ('Begin with the word Well.', '^Well\M'),
             ('Do not use the letter e.', '^[^eE]+$'),
             ('Write a list of three lines that begin with a dash.', '^\s*-[^\n]*\n\s*-[^\n]*\n\s*-[^\n]*$'),
             ('Answer with a number.', '^-?[0-9][0-9.,]*$')) r(rule, format);
