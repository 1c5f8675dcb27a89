-- Annotations that were changed by hand, as examples of what is right. What the model wrote is not printed.
CREATE TABLE question (id int PRIMARY KEY, body text, answer text);
SELECT minimax_m1.create_annotator('answers', 'question', 'answer', '{body}', system_prompt => 'You are brief.');
INSERT INTO question (id, body) VALUES (1, 'What is 2 plus 2?'), (2, 'What is 47 + 35?'), (3, 'Who are you?');
SELECT bool_and(answer IS NOT NULL) AS answered FROM question;
CREATE PROCEDURE wait_until_answered() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 600 LOOP
        COMMIT;
        EXIT WHEN NOT EXISTS (SELECT FROM minimax_m1.job WHERE state IN ('pending', 'running'));
        PERFORM pg_sleep(0.05);
    END LOOP;
END
$$;
CALL wait_until_answered();
-- what the runner writes is no correction, nor is an update that leaves the target as it was
UPDATE question SET answer = answer, id = id;
SELECT count(*) FROM minimax_m1.corrections('answers');
CREATE TEMP TABLE was AS SELECT * FROM question;
UPDATE question SET answer = 'four' WHERE id = 1;
UPDATE question SET answer = 'eighty-two' WHERE id = 2;
SELECT c.prompt, c.wrong = w.answer AS wrong, c."right", c.system_prompt
FROM minimax_m1.corrections('answers') c JOIN was w ON w.body = c.prompt ORDER BY w.id;
-- the last word counts, and beside it what was first
UPDATE question SET answer = 'IV' WHERE id = 1;
SELECT c.wrong = w.answer AS wrong, c."right" FROM minimax_m1.corrections('answers') c JOIN was w ON w.body = c.prompt WHERE w.id = 1;
-- taken back, cleared, or gone
UPDATE question q SET answer = w.answer FROM was w WHERE w.id = q.id AND q.id = 1;
SELECT prompt FROM minimax_m1.corrections('answers');
UPDATE question SET answer = 'a model' WHERE id = 3;
DELETE FROM question WHERE id = 2;
SELECT prompt FROM minimax_m1.corrections('answers');
UPDATE question SET answer = NULL WHERE id = 3;
SELECT prompt FROM minimax_m1.corrections('answers');
-- what was right for another question is not for this one, also when the first comes back
UPDATE question SET answer = 'V' WHERE id = 1;
SELECT minimax_m1.alter_annotator('answers', enabled => false);
UPDATE question SET body = 'What is 2 plus 3?' WHERE id = 1;
UPDATE question SET answer = 'by hand while it waits' WHERE id = 1;
SELECT prompt FROM minimax_m1.corrections('answers');
SELECT minimax_m1.alter_annotator('answers', enabled => true);
CALL wait_until_answered();
SELECT prompt FROM minimax_m1.corrections('answers');
UPDATE question SET body = 'What is 2 plus 2?' WHERE id = 1;
CALL wait_until_answered();
SELECT prompt FROM minimax_m1.corrections('answers');
-- they are examples of what is right
UPDATE question SET answer = 'four' WHERE id = 1;
SELECT item, reward FROM minimax_m1.evaluate('SELECT prompt, "right" AS answer FROM minimax_m1.corrections(''answers'')', 'reward_exact');
-- a row that is loaded again as it was has its correction; one that the model has answered anew, wherever it came from, has none
CREATE TABLE kept AS SELECT * FROM question;
TRUNCATE question;
INSERT INTO question SELECT * FROM kept;
SELECT prompt FROM minimax_m1.corrections('answers');
TRUNCATE question;
INSERT INTO question (id, body) SELECT id, body FROM kept;
CALL wait_until_answered();
SELECT count(*) FROM minimax_m1.correction WHERE key = '{1}';
DROP TABLE kept;
-- however the session writes dates
CREATE TABLE visit (day date PRIMARY KEY, asked timestamptz, answer text);
SELECT minimax_m1.create_annotator('visits', 'visit', 'answer', 'When was {asked}?', system_prompt => 'You are brief.');
INSERT INTO visit VALUES ('2026-11-28', '2026-03-04 05:06:07+00');
CALL wait_until_answered();
SET datestyle = 'SQL, DMY';
SET timezone = 'Asia/Tokyo';
UPDATE visit SET answer = 'long ago';
SELECT prompt, "right" FROM minimax_m1.corrections('visits');
UPDATE visit SET answer = NULL;
SELECT count(*) FROM minimax_m1.correction WHERE key = '{2026-11-28}';
RESET datestyle;
RESET timezone;
SELECT minimax_m1.drop_annotator('visits');
DROP TABLE visit;
-- only for who may change the annotator
CREATE ROLE visitor;
SELECT minimax_m1.grant_usage('visitor');
SET ROLE visitor;
SELECT * FROM minimax_m1.corrections('answers');
RESET ROLE;
SELECT * FROM minimax_m1.corrections('nothing');
SELECT * FROM minimax_m1.corrections(NULL);
SELECT minimax_m1.drop_annotator('answers');
SELECT count(*) FROM minimax_m1.correction;
-- synchronous, and of a partition
CREATE TABLE parted (id int PRIMARY KEY, body text, answer text) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
SELECT minimax_m1.create_annotator('parted', 'parted', 'answer', '{body}');
INSERT INTO parted VALUES (1, 'What is 2 plus 2?', 'by hand');
UPDATE parted SET answer = 'four';
SELECT prompt, wrong, "right" FROM minimax_m1.corrections('parted');
SELECT minimax_m1.create_annotator('now', 'question', 'answer', '{body}', mode => 'sync');
UPDATE question SET answer = 'two and two' WHERE id = 1;
SELECT prompt, wrong, "right" FROM minimax_m1.corrections('now');
DELETE FROM question WHERE id = 1;
INSERT INTO question (id, body) VALUES (1, 'What is 2 plus 2?');
SELECT count(*) FROM minimax_m1.correction c JOIN minimax_m1.annotator a ON a.id = c.annotator_id WHERE a.name = 'now';
-- what the model was asked for by an INSERT that becomes an UPDATE is the model's, also where a trigger has changed it since, and
-- whatever the conflict is about; what MERGE writes itself is not
UPDATE question SET answer = 'two and two' WHERE id = 1;
INSERT INTO question (id, body) VALUES (1, 'What is 2 plus 2?')
ON CONFLICT (id) DO UPDATE SET body = excluded.body, answer = excluded.answer;
SELECT answer <> 'two and two' AS "the model's", (SELECT count(*) FROM minimax_m1.corrections('now')) AS corrections FROM question WHERE id = 1;
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.answer := upper(NEW.answer) || '!'; RETURN NEW; END $$;
CREATE TRIGGER zz_shout BEFORE INSERT ON question FOR EACH ROW EXECUTE FUNCTION shout();
INSERT INTO question (id, body) VALUES (1, 'What is 2 plus 2?') ON CONFLICT (id) DO UPDATE SET answer = excluded.answer;
SELECT answer LIKE '%!' AS changed, (SELECT count(*) FROM minimax_m1.corrections('now')) AS corrections FROM question WHERE id = 1;
DROP TRIGGER zz_shout ON question;
DROP FUNCTION shout;
CREATE UNIQUE INDEX question_body ON question (body);
INSERT INTO question VALUES (4, 'What is 2 plus 4?', 'two and four');
INSERT INTO question (id, body) VALUES (5, 'What is 2 plus 4?') ON CONFLICT (body) DO UPDATE SET answer = excluded.answer;
SELECT answer <> 'two and four' AS "the model's", (SELECT count(*) FROM minimax_m1.corrections('now')) AS corrections FROM question WHERE id = 4;
MERGE INTO question q USING (VALUES (1, 'What is 2 plus 2?', 'four'), (6, 'What is 2 plus 6?', NULL)) v(id, body, answer) ON q.id = v.id
WHEN MATCHED THEN UPDATE SET answer = v.answer WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.body, v.answer);
SELECT prompt, "right" FROM minimax_m1.corrections('now');
-- what another server wrote is no correction, and takes the place of one
SELECT minimax_m1.alter_annotator('now', fire => 'always');
SET session_replication_role = replica;
UPDATE question SET answer = 'vier' WHERE id = 1;
RESET session_replication_role;
SELECT count(*) FROM minimax_m1.corrections('now');
DROP TABLE question, parted;
SELECT count(*) FROM minimax_m1.correction;
DROP PROCEDURE wait_until_answered;
DROP OWNED BY visitor;
DROP ROLE visitor;
