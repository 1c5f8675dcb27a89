-- cispo_report.sql - a line for each task and method: means over seeds, with the half width of a 95 % interval.
SELECT task, method, count(*) AS seeds, round(avg(heldout_before)::numeric, 3) AS before,
       round(avg(final)::numeric, 3) AS final, round((1.96 * stddev_samp(final) / sqrt(count(*)))::numeric, 3) AS "+-",
       round(avg(steps_to_90), 1) AS steps_to_90, round((1.96 * stddev_samp(steps_to_90) / sqrt(count(*)))::numeric, 1) AS "+- ",
       round(avg(answers_to_90)) AS answers_to_90, count(*) - count(steps_to_90) AS never, round(avg(fall)::numeric, 3) AS fall
FROM result GROUP BY task, method ORDER BY task, method;
