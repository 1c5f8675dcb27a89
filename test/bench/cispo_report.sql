-- cispo_report.sql - a line for each task and method: means over seeds, with the half width of a 95 % interval; then the
-- differences of runs with one seed, which draw the same answers in their first step; then what failed.
SELECT task, method, count(*) FILTER (WHERE r.state = 'done') AS runs, count(*) FILTER (WHERE r.state <> 'done') AS failed,
       told(array_agg(before), 2) AS before, told(array_agg(final), 3) AS final,
       told(array_agg(equal_answers), 3) AS "at equal answers", told(array_agg(steps_to_90), 1) AS "steps to 90 %",
       told(array_agg(answers_to_90), 0) AS "answers to 90 %",
       CASE WHEN bool_or(has_target) THEN count(*) FILTER (WHERE has_target AND steps_to_90 IS NULL) END AS never,
       told(array_agg(fall), 3) AS fall
FROM kept_run r LEFT JOIN result USING (task, method, seed) GROUP BY task, method ORDER BY task, method;

SELECT task, method, told(array_agg(answers), 0) AS answers, told(array_agg(updates), 1) AS "updates a step",
       told(array_agg(clipped), 4) AS clipped, told(array_agg(seconds), 0) AS seconds
FROM kept_run JOIN result USING (task, method, seed) GROUP BY task, method ORDER BY task, method;

SELECT task, o.method || ' - cispo' AS difference, count(*) AS pairs, told(array_agg(o.final - c.final), 3) AS final,
       told(array_agg(o.equal_answers - c.equal_answers), 3) AS "at equal answers",
       count(o.steps_to_90 - c.steps_to_90) AS "pairs at 90 %",
       told(array_agg(o.steps_to_90 - c.steps_to_90), 1) AS "steps to 90 %",
       told(array_agg(o.answers_to_90 - c.answers_to_90), 0) AS "answers to 90 %", told(array_agg(o.fall - c.fall), 3) AS fall
FROM result o JOIN result c USING (task, seed) WHERE c.method = 'cispo' AND o.method <> 'cispo'
GROUP BY task, o.method ORDER BY task, o.method;

SELECT task, method, seed, error FROM kept_run WHERE state <> 'done' ORDER BY task, method, seed;
