-- The functions and what they return. Greedy sampling (test/regress.conf) makes the answers repeatable.
SET search_path = minimax_m1, public;
\pset null '(null)'

-- generate
SELECT generate('What is 47 + 35?');
SELECT generate('Hello.');
SELECT generate(NULL);
SELECT generate('Hello.', stop => ARRAY['How']);
SELECT generate('Hello.', max_tokens => 11);
SELECT length(generate('What is 47 + 35?', thinking_budget => 0)) > 0 AS answered;

-- complete
SELECT content, reasoning, tool_calls, finish_reason, prompt_tokens, cached_tokens, reasoning_tokens,
       completion_tokens, seed, model, queue_ms >= 0 AS queued, prefill_ms > 0 AS prefilled, decode_ms > 0 AS decoded
FROM complete('Hello.', seed => 42);
SELECT content FROM complete(messages => '[{"role": "user", "content": "Hello."}]');
SELECT content, prompt_tokens
FROM complete(messages => '[{"role": "system", "content": "You are a helpful assistant."},
                            {"role": "user", "content": [{"type": "text", "text": "Hello."}]}]');
SELECT content FROM complete();
SELECT finish_reason, completion_tokens FROM complete('What is 47 + 35?', max_tokens => 5);
SELECT finish_reason, reasoning_tokens <= 20 AS within FROM complete('What is 47 + 35?', thinking_budget => 20);
SELECT tool_calls, prompt_tokens
FROM complete('What is the weather in Turin?', tools => '[
  {"name": "lookup_order", "description": "Status of an order",
   "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}},
  {"name": "get_weather", "description": "Current weather of a city",
   "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]');

-- the same seed gives the same text, another seed another
SELECT a = b AS same_seed, a = c AS other_seed
FROM generate('What can you do?', temperature => 3, top_p => 1, seed => 1, max_tokens => 30) a,
     generate('What can you do?', temperature => 3, top_p => 1, seed => 1, max_tokens => 30) b,
     generate('What can you do?', temperature => 3, top_p => 1, seed => 2, max_tokens => 30) c;

-- generate_stream: in the select list, and stopped early
SELECT (s).* FROM (SELECT generate_stream('Hello.') AS s OFFSET 0) t;
SELECT string_agg((s).delta, '' ORDER BY (s).seq) FROM (SELECT generate_stream('Hello.') AS s) t
WHERE (s).channel = 'content';
SELECT generate_stream('Hello.') LIMIT 2;
SELECT count(*) FROM generate_stream(NULL);
BEGIN;
DECLARE c CURSOR FOR SELECT generate_stream('Hello.');
FETCH 2 FROM c;
CLOSE c;
COMMIT;
SELECT count(*) FROM activity;

-- summarize
SELECT summarize('To whom it may concern, My air fryer was delivered to the wrong address. My order number is D-77904. I would like a refund. Best wishes, Keiko');
SELECT summarize(NULL);

-- tokens
SELECT count_tokens('Hello, world!'), count_tokens(''), count_tokens(NULL);
SELECT detokenize(tokenize(E'naïve — “quotes” 你好\nline')) ;
SELECT tokenize('<end_of_sentence>') <> ARRAY[1596] AS plain_text;
SELECT array_length(generate_ids(tokenize('Hello'), 5), 1);
SELECT array_length(logits(tokenize('Hello')), 1);

-- views
SELECT name, architecture, parameters, layers, experts, context, bytes, state, engine_restarts, last_error FROM model;
SELECT requests > 0 AS requests, completed > 0 AS completed, rejected, prompt_tokens > 0 AS prompt_tokens FROM stats;
SELECT stats_reset();
SELECT requests, completed, prompt_tokens FROM stats;
SELECT cancel(123456789);
