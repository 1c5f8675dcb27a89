-- Nobody may use the model unless told so; prompts of others are not shown.
CREATE ROLE m1_user;
CREATE ROLE m1_other;

SET ROLE m1_user;
SELECT minimax_m1.generate('Hello.');
RESET ROLE;

GRANT USAGE ON SCHEMA minimax_m1 TO m1_user;
SET ROLE m1_user;
SELECT minimax_m1.generate('Hello.');
SELECT * FROM minimax_m1.activity;
SELECT minimax_m1.cancel(1);
RESET ROLE;

SELECT minimax_m1.grant_usage('m1_user');
SET ROLE m1_user;
SELECT minimax_m1.generate('Hello.');
SELECT content FROM minimax_m1.complete('Hello.');
SELECT count(*) FROM (SELECT minimax_m1.generate_stream('Hello.')) s;
SELECT minimax_m1.count_tokens('Hello.');
SELECT state FROM minimax_m1.model;
SELECT count(*) FROM minimax_m1.activity;
SELECT requests > 0 FROM minimax_m1.stats;
SELECT minimax_m1.stats_reset();
SELECT minimax_m1.grant_usage('m1_other');
SET minimax_m1.model = 'x';
RESET ROLE;

REVOKE ALL ON ALL ROUTINES IN SCHEMA minimax_m1 FROM m1_user;
REVOKE ALL ON ALL TABLES IN SCHEMA minimax_m1 FROM m1_user;
REVOKE ALL ON SCHEMA minimax_m1 FROM m1_user;
DROP ROLE m1_user, m1_other;
