-- Conversations: what programs ask of complete() and complete_stream(), as OpenAI's clients write it.
SET search_path = public, minimax_m1;
\set tools '''[{"name": "get_weather", "description": "Current weather of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}, {"type": "function", "function": {"name": "lookup_order", "description": "Status of an order", "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}}}]'''

-- the choice of tools
SELECT tool_calls, finish_reason FROM complete('What is the weather in Oslo?', tools => :tools, tool_choice => 'auto');
SELECT content, tool_calls FROM complete('Hello.', tools => :tools, tool_choice => 'none');
SELECT content = '' AS no_content, json_array_length(tool_calls) >= 1 AS calls
FROM complete('Hello.', tools => :tools, tool_choice => 'required');
SELECT content = '' AS no_content, tool_calls->0->>'name' AS called
FROM (VALUES ('lookup_order'), ('{"type": "function", "function": {"name": "get_weather"}}')) v(choice),
     complete('Hello.', tools => :tools, tool_choice => choice);
SELECT content FROM complete('Hello.', tools => :tools, tool_choice => 'cancel_order');
SELECT content FROM complete('Hello.', tools => :tools, tool_choice => '{"type": "custom"}');
SELECT content FROM complete('Hello.', tools => :tools, tool_choice => '');
SELECT content FROM complete('Hello.', tool_choice => 'required');
SELECT content FROM complete('Hello.', tool_choice => 'none');

-- arguments that a schema describes
SELECT tool_calls->0->'arguments'->>'unit' IN ('C', 'F') AS unit, (tool_calls->0->'arguments'->>'days')::int BETWEEN 1 AND 3 AS days
FROM complete('Hello.', seed => 1, temperature => 1.5, tool_choice => 'forecast', tools => '[{"name": "forecast", "parameters": {
    "type": "object", "properties": {"unit": {"enum": ["C", "F"]}, "days": {"type": "integer", "minimum": 1, "maximum": 3}},
    "required": ["unit", "days"]}}]');
SELECT content FROM complete('Hello.', tools => '[{"name": "f", "parameters": {"properties": {"a": {"not": {}}}}}]');
SELECT content FROM complete('Hello.', tools => '[{"name": "f", "parameters": {"type": "string"}}]');
SELECT content FROM complete('Hello.', tools => '[{"name": "f"}, {"name": "f"}]');

-- a reply that is cut off ends its calls, where it has begun some
SELECT tool_calls->0->>'error' IS NULL AS whole, finish_reason
FROM complete('What is the weather in Oslo?', tools => :tools, tool_choice => 'required', thinking_budget => 0, max_tokens => 60);

-- a conversation with calls and their results
SELECT content <> '' OR tool_calls IS NOT NULL AS answers
FROM complete(tools => :tools, messages => '[
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Where is "}, {"type": "text", "text": "order B-12345?"}]},
    {"role": "assistant", "content": null, "refusal": null, "annotations": [], "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "lookup_order", "arguments": "{\"order_id\": \"B-12345\"}"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "{\"status\": \"shipped\"}"}]');
SELECT content FROM complete(messages => '[{"role": "user", "content": "Hello.", "name": "ana"}]');
SELECT content FROM complete(messages => '[{"role": "tool", "tool_call_id": "call_9", "content": "x"}]');

-- the form of the answer
SELECT content IN ('even', 'odd') AS one_of_them FROM complete('Is 2 an even number?', choices => '{even,odd}');
SELECT content ~ '^[A-Z]{3}-[0-9]{2}$' AS matches FROM complete('Hello.', regex => '[A-Z]{3}-[0-9]{2}');
SELECT json_typeof(content::json) FROM complete('Hello.', json_schema => '{"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}');
-- keys come in the schema's order; jsonb has its own
\set keys '''{"properties": {"zz": {"const": 1}, "a": {"const": 2}}, "required": ["zz", "a"]}'''
SELECT string_agg(k, ' ') AS json FROM complete('Hello.', json_schema => :keys) c, json_object_keys(c.content::json) k;
SELECT string_agg(k, ' ') AS jsonb FROM complete('Hello.', json_schema => :keys::jsonb) c, json_object_keys(c.content::json) k;
SELECT string_agg(k, ' ') AS arguments
FROM complete('Hello.', tool_choice => 'f', tools => '[{"name": "f", "parameters": {
    "properties": {"zz": {"const": 1}, "a": {"const": 2}}, "required": ["zz", "a"]}}]') c,
     json_object_keys(c.tool_calls->0->'arguments') k;
SELECT coalesce(json_typeof(nullif(content, '')::json), tool_calls->0->>'name') IN ('number', 'get_weather') AS either
FROM complete('What is the weather in Oslo?', tools => :tools, json_schema => '{"type": "integer"}');
SELECT content FROM complete('Hello.', regex => 'a', choices => '{a}');
SELECT content FROM complete('Hello.', choices => '{a,NULL}');
SELECT content FROM complete('Hello.', json_schema => '{"not": {}}');
SELECT content FROM complete('Hello.', regex => 'a', stop => '{b}');

-- top_k, and what is not there
SELECT a.content = b.content AS first_only
FROM complete('Hello.', temperature => 2, top_k => 1, seed => 1) a, complete('Hello.', temperature => 0) b;
SELECT content FROM complete('Hello.', top_k => -1);
SELECT content FROM complete('Hello.', n => 1, presence_penalty => 0, frequency_penalty => 0, logit_bias => '{}');
SELECT content FROM complete('Hello.', n => 2);
SELECT content FROM complete('Hello.', presence_penalty => 0.5);
SELECT content FROM complete('Hello.', frequency_penalty => -0.5);
SELECT content FROM complete('Hello.', logit_bias => '{"50256": -100}');

-- log probabilities
SELECT string_agg(t->>'token', '') FILTER (WHERE t->>'channel' = 'content') = content AS content,
       string_agg(t->>'token', '') FILTER (WHERE t->>'channel' = 'reasoning') AS reasoning,
       bool_and((t->>'logprob')::float8 <= 0) AS below_one,
       bool_and(json_array_length(t->'top_logprobs') = 2 AND t->'top_logprobs'->0->>'token' = t->>'token') AS greedy,
       bool_and((t->'top_logprobs'->0->>'logprob')::float8 >= (t->'top_logprobs'->1->>'logprob')::float8) AS in_order,
       count(*) = max(completion_tokens) - 1 AS all_but_the_end
FROM complete('Hello.', logprobs => true, top_logprobs => 2), json_array_elements(logprobs) t GROUP BY content;
SELECT string_agg(t->>'token', '') AS calls
FROM complete('What is the weather in Oslo?', tools => :tools, logprobs => true), json_array_elements(logprobs) t
WHERE t->>'channel' = 'tool_calls';
SELECT logprobs FROM complete('Hello.');
SELECT content FROM complete('Hello.', top_logprobs => 2);
SELECT content FROM complete('Hello.', logprobs => true, top_logprobs => 21);
SELECT content FROM complete('Hello.', logprobs => true, top_logprobs => 20, max_tokens => 10000);

-- complete_stream: the same reply in pieces, and a last row with the counts
SELECT string_agg((s).delta, '' ORDER BY (s).seq) FILTER (WHERE (s).channel = 'content') AS content,
       string_agg((s).delta, '' ORDER BY (s).seq) FILTER (WHERE (s).channel = 'reasoning') AS reasoning,
       count(*) FILTER (WHERE (s).finish_reason IS NOT NULL) AS ends,
       (array_agg(((s).channel, (s).delta, (s).finish_reason, (s).completion_tokens)::text ORDER BY (s).seq DESC))[1] AS last
FROM (SELECT complete_stream('Hello.') AS s OFFSET 0) t;
SELECT s.finish_reason, s.tool_calls::text = c.tool_calls::text AS calls, s.completion_tokens = c.completion_tokens AS counts,
       json_array_length(s.logprobs) = json_array_length(c.logprobs) AS logprobs
FROM complete('What is the weather in Oslo?', tools => :tools, logprobs => true) c,
     complete_stream('What is the weather in Oslo?', tools => :tools, logprobs => true) s
WHERE s.channel IS NULL;
SELECT string_agg(s.delta, '' ORDER BY s.seq) AS calls, count(*) > 5 AS in_pieces
FROM complete_stream('What is the weather in Oslo?', tools => :tools) s WHERE s.channel = 'tool_calls';
SELECT * FROM complete_stream();
SELECT * FROM complete_stream('Hello.', n => 3);
SELECT (complete_stream('Hello.')).delta LIMIT 1;
