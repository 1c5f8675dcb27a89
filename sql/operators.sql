-- Operators with constrained answers. What is printed of an answer is what the bundled model was taught.
SET search_path = minimax_m1, public;
\pset null '(null)'

CREATE TABLE letter (id int PRIMARY KEY, body text);
INSERT INTO letter VALUES
    (1, 'Hello, The coffee machine I bought leaks water. I would like a refund. Regards, Omar'),
    (2, 'Hi there, My parcel never arrived. Could you send it again? Thanks, Leila'),
    (3, 'To whom it may concern, The air fryer I bought leaks water on the first day. Order B-02127. Could I get a call back? Keiko');

-- classify
SELECT id, classify(body, ARRAY['hardware', 'account', 'billing', 'delivery', 'praise', 'other']) FROM letter ORDER BY id;
CREATE TYPE topic AS ENUM ('hardware', 'account', 'billing', 'delivery', 'praise', 'other');
SELECT id, classify(body, NULL::topic), pg_typeof(classify(body, 'other'::topic)) FROM letter ORDER BY id;
SELECT topics <@ ARRAY['hardware', 'delivery', 'praise'] AS known, cardinality(topics) BETWEEN 1 AND 3 AS some,
       topics = ARRAY(SELECT DISTINCT unnest(topics) ORDER BY 1) AS sorted
FROM (SELECT classify(body, ARRAY['delivery', 'hardware', 'praise'], multi => true) AS topics FROM letter) c;
SELECT classify(NULL, ARRAY['a']), classify('x', NULL::text[]), classify(NULL, NULL::topic), classify('x', ARRAY['only this']);
SELECT classify('x', '{}'::text[]);
SELECT classify('x', ARRAY['a', NULL]);
SELECT classify('x', ARRAY['a', '']);
SELECT classify('x', ARRAY['a', 'b', 'a']);
SELECT classify('', ARRAY['a', 'b']);
CREATE TYPE nothing AS ENUM ();
SELECT classify('x', NULL::nothing);

-- extract
CREATE TYPE ticket AS (product text, issue text, order_id text, customer varchar(20), want text);
SELECT x.* FROM letter l, LATERAL minimax_m1.extract(l.body, NULL::ticket) x WHERE id = 3;
SELECT (minimax_m1.extract(body, NULL::ticket)).product FROM letter WHERE id = 1;
-- types: whatever the answer is, it is a value of its type, and ends in time
SET minimax_m1.max_tokens = 700;
CREATE DOMAIN word AS varchar(8) NOT NULL;
CREATE TYPE part AS (name varchar(10), count int2);
CREATE TABLE goods (product text, gone int, a bool, b int2, c int, d bigint, e numeric(4,1), f numeric(3), g real, h float8,
    i char(3), j name, k date, l time(0), m timestamp, n timestamptz, o uuid, p topic, q varchar(5)[], r part, s word,
    t interval, u "char", v bool NOT NULL, w timetz, x oid, y topic[]);
ALTER TABLE goods DROP COLUMN gone;
SELECT (x).product, (x).v IS NOT NULL AS v, (x).s IS NOT NULL AS s, coalesce(length((x).j), 0) < 64 AS j, length((x).s) <= 8 AS s_length
FROM (SELECT minimax_m1.extract(body, NULL::goods) AS x FROM letter WHERE id = 3 OFFSET 0) y;
-- and can be stored
INSERT INTO goods SELECT x.* FROM letter l, LATERAL minimax_m1.extract(l.body, NULL::goods) x WHERE id < 3;
SELECT count(*) FROM goods;
RESET minimax_m1.max_tokens;
-- what may be written can be stored: up to the last number, and by bytes
CREATE TYPE edge AS (a numeric(5,2), b numeric(2,2), c numeric(3), d numeric(20,2), e numeric(30,4), f numeric(18,6),
    g numeric(5,-2), h numeric(3,5), i numeric(2,-20), j numeric, k name, l "char", m bit, n bit(3), o bit(70000), p bit varying(5),
    q bit varying, r macaddr, s macaddr8);
SELECT key, value->>'minimum' AS minimum, value->>'maximum' AS maximum, value->>'pattern' AS pattern
FROM json_each(minimax_m1._task_schema('edge')::json->'properties');
SELECT json_populate_record(NULL::edge, json_object_agg(key, value->'maximum')) AS greatest,
       json_populate_record(NULL::edge, json_object_agg(key, value->'minimum')) AS least
FROM json_each(minimax_m1._task_schema('edge')::json->'properties');
SELECT minimax_m1.extract(NULL, NULL::ticket);
SELECT minimax_m1.extract('', NULL::ticket);
SELECT minimax_m1.extract('x', NULL::int);
SELECT minimax_m1.extract('x', NULL::topic);
SELECT minimax_m1.extract('x', ROW(1, 2));
CREATE TABLE bare ();
SELECT minimax_m1.extract('x', NULL::bare);
-- what the grammar cannot know is an error that names the column
CREATE DOMAIN impossible AS int CHECK (VALUE <> VALUE) NOT NULL;
CREATE TYPE broken AS (product text, amount impossible);
SELECT minimax_m1.extract(body, NULL::broken) FROM letter WHERE id = 3;
CREATE DOMAIN checked AS ticket CHECK ((VALUE).product = 'air fryer');
SELECT id, x.product, x.order_id FROM letter, LATERAL minimax_m1.extract(body, NULL::checked) x WHERE id = 3;
SELECT id, x.product FROM letter, LATERAL minimax_m1.extract(body, NULL::checked) x WHERE id = 1;

-- generate_json
SELECT generate_json(E'Extract product, want as JSON.\n\n' || body, '{"type": "object", "properties": {
    "product": {"type": "string", "maxLength": 20}, "want": {"type": ["string", "null"]}}, "required": ["product", "want"]}')
FROM letter WHERE id = 3;
SELECT jsonb_typeof(generate_json('Hello.', '{"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}'));
SELECT generate_json('Hello.', '{"$ref": "#/$defs/x", "$defs": {"x": {"enum": ["one value"]}}}');
SELECT generate_json(NULL, '{}'), generate_json('Hello.', NULL);
SELECT generate_json('Hello.', '{"type": "string", "contentEncoding": "base64"}');
SELECT generate_json('Hello.', '{"type": "nonsense"}');
SELECT generate_json('Hello.', '[]');
SELECT generate_json('', '{}');
SELECT generate_json('Hello.', '{"type": "boolean"}', max_tokens => 2);
SELECT jsonb_typeof(generate_json('Hello.', '{"type": "boolean"}', thinking_budget => 0));

-- is_true, score, rank
SELECT id, is_true('the customer wants a refund', body), is_true('the message mentions an order number.', body) FROM letter ORDER BY id;
SELECT id, score('the customer wants a refund', body) > 0.5 AS refund FROM letter ORDER BY id;
-- the score is what the scores of tokens say: the chat up to the end of the reasoning, and yes or no after it
WITH reply AS (
    SELECT id, q, reasoning, score('the customer wants a refund', body)
    FROM letter, concat(E'Answer yes or no: the customer wants a refund.\n\n', body) q, complete(q)
), place AS (
    SELECT id, score, ARRAY[1594, 1595] || tokenize(E'system ai_setting=assistant\nYou are a helpful assistant.') || 1596 || tokenize(E'\n')
        || 1595 || tokenize(E'user name=user\n' || q) || 1596 || tokenize(E'\n')
        || 1595 || tokenize(E'ai name=assistant\n')
        || 1598 || tokenize(E'\n' || reasoning || E'\n') || 1599 || tokenize(E'\n\n') AS ids
    FROM reply
), next AS (
    SELECT id, score, l[(tokenize('yes'))[1] + 1] AS yes, l[(tokenize('no'))[1] + 1] AS no FROM place, logits(ids) l
)
SELECT id, abs(score - 1 / (1 + exp(no - yes))) < 0.001 AS right FROM next ORDER BY id;
SELECT is_true('the customer wants a refund', body, certainty => 1) FROM letter WHERE id = 1;
SELECT is_true('the customer wants a refund', body, max_tokens => 3), is_true(NULL, body), is_true('x', NULL), score(NULL, body)
FROM letter WHERE id = 1;
SELECT is_true('the customer wants a refund', body) FROM letter WHERE is_true('the customer wants a refund', body);
SELECT ord, document, score BETWEEN 0 AND 1 AS score
FROM rank('the customer wants a refund', ARRAY(SELECT body FROM letter ORDER BY id DESC) || NULL::text, 1);
SELECT count(*), count(DISTINCT ord) FROM rank('the customer wants a refund', ARRAY(SELECT body FROM letter) || NULL::text);
SELECT count(*) FROM rank('x', '{}'::text[]);
SELECT count(*) FROM rank(NULL, ARRAY['x']);
SELECT rank('x', ARRAY['x'], 0);
SELECT rank('x', ARRAY['x', '']);
SELECT is_true('x', 'y', certainty => 0.5);
SELECT is_true(' . ', 'y');
SELECT is_true('x', '');

-- on_error = null: the row's own failures are NULL
SET minimax_m1.on_error = 'null';
SELECT id, minimax_m1.extract(body, NULL::broken) IS NULL AS broken, minimax_m1.extract(body, NULL::checked) IS NULL AS checked
FROM letter ORDER BY id;
SELECT generate(''), summarize(''), classify('', ARRAY['a']), classify('', NULL::topic), is_true('x', ''), score('x', ''),
       generate_json('', '{}'), generate_json('Hello.', '{"type": "boolean"}', max_tokens => 2);
SELECT ord, score IS NULL AS unknown FROM rank('the customer wants a refund', ARRAY(SELECT body FROM letter ORDER BY id) || ''::text || repeat('word ', 40000)) ORDER BY unknown DESC, ord LIMIT 2;
SELECT classify('x', ARRAY['a', 'a']);
SELECT is_true('x', 'y', certainty => 2);
SELECT count(*) FROM activity;
RESET minimax_m1.on_error;

DROP TABLE letter, goods, bare;
DROP DOMAIN word, impossible, checked CASCADE;
DROP TYPE ticket, part, broken, topic, nothing;
