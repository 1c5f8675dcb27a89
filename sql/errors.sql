-- Bad input: each its own error.
SET search_path = minimax_m1, public;

CREATE FUNCTION state_of(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE query;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

SELECT generate('');
SELECT generate('Hello.', max_tokens => 0);
SELECT generate('Hello.', max_tokens => -5);
SELECT generate('Hello.', thinking_budget => -2);
SELECT generate('Hello.', temperature => -1);
SELECT generate('Hello.', temperature => 'NaN');
SELECT generate('Hello.', top_p => 0);
SELECT generate('Hello.', top_p => 1.5);
SELECT generate('Hello.', stop => ARRAY['']);
SELECT generate('Hello.', stop => ARRAY[NULL]::text[]);
SELECT generate('Hello.', stop => array_fill('x'::text, ARRAY[17]));
SELECT content FROM complete('Hello.', messages => '[{"role": "user", "content": "Hello."}]');
SELECT content FROM complete(messages => '{}');
SELECT content FROM complete(messages => '[]');
SELECT content FROM complete(messages => '[1]');
SELECT content FROM complete(messages => '[{"role": "wizard", "content": "x"}]');
SELECT content FROM complete(messages => '[{"role": "user"}]');
SELECT content FROM complete(messages => '[{"role": "user", "content": [{"type": "image"}]}]');
SELECT content FROM complete(messages => '[{"role": "system", "content": "x"}]');
SELECT content FROM complete(messages => '[{"role": "tool", "content": "x"}]');
SELECT content FROM complete('Hello.', tools => '"x"');
SELECT content FROM complete('Hello.', tools => '[{}]');
SELECT generate_stream('', temperature => 0);
SELECT summarize('');
SELECT summarize('x', max_tokens => 0);
SELECT detokenize(ARRAY[-1]);
SELECT detokenize(ARRAY[1600]);
SELECT detokenize(ARRAY[1, NULL]);
SELECT generate_ids(ARRAY[]::int[], 1);
SELECT generate_ids(ARRAY[1], 0);
SELECT generate_ids(ARRAY[1600], 1);
SELECT logits(ARRAY[]::int[]);
SELECT generate(repeat('word ', 40000));

SELECT q, state_of(q) FROM unnest(ARRAY[
    $$SELECT minimax_m1.generate('')$$,
    $$SELECT minimax_m1.generate('x', temperature => -1)$$,
    $$SELECT * FROM minimax_m1.complete(messages => '[1]')$$,
    $$SELECT minimax_m1.generate(repeat('word ', 40000))$$,
    $$SELECT minimax_m1.detokenize(ARRAY[1600])$$,
    $$SELECT minimax_m1.generate('Hello.')$$]) q;

-- settings
SET minimax_m1.top_p = 0;
SET minimax_m1.temperature = -1;
SET minimax_m1.max_requests = 2;
SET minimax_m1.model = 'other';
SET minimax_m1.nonsense = 1;

-- nothing is left behind
SELECT count(*) FROM activity;
SELECT generate('Hello.');
DROP FUNCTION state_of;
