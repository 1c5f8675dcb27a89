-- table.sql - what the model gets for each kind of question; :items of each kind.
SELECT name AS model, parameters, context FROM minimax_m1.model;

SELECT k.kind, c.n, round(c.mean::numeric, 3) AS mean, round(c.low::numeric, 3) AS low, round(c.high::numeric, 3) AS high,
       round(c.tokens::numeric, 1) AS tokens, c.errors
FROM kind k,
     LATERAL minimax_m1.compare(format('SELECT q.* FROM question q WHERE q.kind = %L ORDER BY q.id', k.kind), k.reward,
                                ARRAY['base'], items => :items) c
ORDER BY k.ord;
