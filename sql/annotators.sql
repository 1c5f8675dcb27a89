-- Annotators: columns that are kept filled.
\set SHOW_CONTEXT never
CREATE ROLE m1_owner;
CREATE ROLE m1_writer;
CREATE ROLE m1_stranger;
SELECT minimax_m1.grant_usage(r) FROM unnest('{m1_owner,m1_stranger}'::regrole[]) r;
CREATE SCHEMA shop AUTHORIZATION m1_owner;
GRANT USAGE ON SCHEMA shop TO m1_writer, m1_stranger;
-- waits until the rows of an annotator are done
CREATE PROCEDURE drained(annotator name) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 600 LOOP
        COMMIT;
        IF NOT EXISTS (SELECT FROM minimax_m1.jobs j WHERE j.annotator = drained.annotator AND j.state IN ('pending', 'running')) THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RAISE EXCEPTION 'it does not drain';
END $$;
\set template 'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\n\n{body}'
\set leak 'Hello, The coffee machine I bought leaks water. I would like a refund. Regards, Omar'
\set parcel 'Hi there, My parcel never arrived. Could you send it again? Thanks, Leila'

SET ROLE m1_owner;
CREATE TABLE shop.message (id int PRIMARY KEY, body text, note text, topic varchar(20), why text, status text);
GRANT INSERT, SELECT, UPDATE, DELETE ON shop.message TO m1_writer;
SELECT minimax_m1.create_annotator('topic', 'shop.message', 'topic', replace(:'template', '\n', E'\n'),
                                   reasoning_column => 'why', status_column => 'status');

-- whoever writes the table needs no right on the queue
SET ROLE m1_writer;
INSERT INTO shop.message (id, body) VALUES (1, :'leak'), (2, :'parcel'), (3, NULL);
INSERT INTO shop.message (id, body, topic) VALUES (4, :'leak', 'mine');
RESET ROLE;
CALL drained('topic');
SELECT id, topic, why IS NOT NULL AS why, status FROM shop.message ORDER BY id;

-- an update of other columns keeps the annotation; one of the text renews it; NULL clears it; what is given is kept
SET ROLE m1_writer;
UPDATE shop.message SET note = 'x';
SELECT id, status FROM shop.message WHERE status = 'pending';
RESET ROLE;
SELECT count(*) AS queued FROM minimax_m1.jobs;
SET ROLE m1_writer;
BEGIN;
UPDATE shop.message SET body = :'parcel' WHERE id = 1;
UPDATE shop.message SET body = NULL WHERE id = 2;
UPDATE shop.message SET body = :'leak' WHERE id = 3;
UPDATE shop.message SET body = :'parcel', topic = 'mine too' WHERE id = 4;
SELECT id FROM shop.message WHERE status = 'pending' ORDER BY id;
COMMIT;
RESET ROLE;
CALL drained('topic');
SELECT id, topic, why IS NOT NULL AS why, status FROM shop.message ORDER BY id;
-- a row whose key changes, and one that is deleted
UPDATE shop.message SET id = 5, body = :'leak' WHERE id = 1;
DELETE FROM shop.message WHERE id = 5;
UPDATE shop.message SET id = 6 WHERE id = 3;
CALL drained('topic');
SELECT id, topic FROM shop.message ORDER BY id;

-- the view, as its owner and as others see it
SET ROLE m1_owner;
SELECT name, source, target_column, mode, enabled, owner, pending, running, failed, oldest_age, coverage > 0.6 AS coverage, done > 3 AS done, rate > 0 AS rate
FROM minimax_m1.annotators;
-- whoever may act for the owner does not read the table by looking
RESET ROLE;
SELECT coverage FROM minimax_m1.annotators;
SET ROLE m1_stranger;
SELECT count(*) FROM minimax_m1.annotators;
\set VERBOSITY sqlstate
SELECT minimax_m1.alter_annotator('topic', enabled => false);
SELECT minimax_m1.drop_annotator('topic');
SELECT minimax_m1.retry_failed('topic');
CALL minimax_m1.backfill('topic');
SELECT minimax_m1.create_annotator('mine', 'shop.message', 'topic', '{body}');
SELECT * FROM minimax_m1.annotator;
SELECT minimax_m1._unannotated(1, NULL, 10);
\set VERBOSITY default
-- a trigger made by hand queues nothing of another table
CREATE TEMP TABLE message (id int PRIMARY KEY, body text, topic text, why text, status text);
CREATE TRIGGER t AFTER INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.enqueue_annotation('topic');
INSERT INTO message VALUES (1, 'x');
CREATE OR REPLACE TRIGGER t AFTER INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.enqueue_annotation('nothere');
INSERT INTO message VALUES (1, 'x');
DROP TABLE message;
RESET ROLE;

-- rights are those of the owner when the annotation is written
REVOKE UPDATE ON shop.message FROM m1_owner;
INSERT INTO shop.message (id, body) VALUES (10, :'leak');
SELECT minimax_m1.alter_annotator('topic', max_attempts => 1);
CALL drained('topic');
SELECT id, topic, status FROM shop.message WHERE id = 10;
SELECT annotator, key, state, attempts, sqlstate, error, owner FROM minimax_m1.job_errors;
GRANT UPDATE ON shop.message TO m1_owner;
SELECT minimax_m1.retry_failed('topic');
CALL drained('topic');
SELECT id, topic, status FROM shop.message WHERE id = 10;

-- held back, and let go
SELECT minimax_m1.alter_annotator('topic', enabled => false, max_attempts => 5);
INSERT INTO shop.message (id, body) VALUES (11, :'parcel');
SELECT pending FROM minimax_m1.annotators;
SELECT state FROM minimax_m1.jobs WHERE annotator = 'topic';
SELECT minimax_m1.alter_annotator('topic', enabled => true);
CALL drained('topic');
SELECT id, topic, status FROM shop.message WHERE id = 11;

-- backfill: rows that came while there was no trigger, in batches
ALTER TABLE shop.message DISABLE TRIGGER minimax_m1_topic;
INSERT INTO shop.message (id, body) SELECT i, :'leak' FROM generate_series(20, 26) i;
ALTER TABLE shop.message ENABLE TRIGGER minimax_m1_topic;
SET ROLE m1_owner;
SELECT minimax_m1.alter_annotator('topic', enabled => false);
CALL minimax_m1.backfill('topic', 3);
CALL minimax_m1.backfill('topic', 7);
SELECT pending FROM minimax_m1.annotators;
SELECT minimax_m1.alter_annotator('topic', enabled => true);
RESET ROLE;
CALL drained('topic');
SELECT count(topic) FROM shop.message WHERE id BETWEEN 20 AND 26;
CALL minimax_m1.backfill('topic', 0);
CALL minimax_m1.backfill('nothere');

-- a dropped trigger, primary key or table takes the annotator with it
SET ROLE m1_owner;
ALTER TABLE shop.message DROP CONSTRAINT message_pkey;
DROP TRIGGER z_minimax_m1_topic ON shop.message;
SELECT count(*) FROM minimax_m1.annotators;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.message'::regclass;
SELECT minimax_m1.create_annotator('topic', 'shop.message', 'topic', '{body}');
DROP TABLE shop.message;
SELECT count(*) FROM minimax_m1.annotators;

-- keys of several columns and types, in a partitioned table with columns in another order
CREATE TABLE shop.ticket (day date, no numeric, code "char", body text, topic text, PRIMARY KEY (day, no, code)) PARTITION BY RANGE (day);
CREATE TABLE shop.ticket_1 PARTITION OF shop.ticket FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE shop.ticket_2 (topic text, gone int, code "char" NOT NULL, body text, no numeric NOT NULL, day date NOT NULL);
ALTER TABLE shop.ticket_2 DROP COLUMN gone;
ALTER TABLE shop.ticket ATTACH PARTITION shop.ticket_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
SELECT minimax_m1.create_annotator('ticket', 'shop.ticket', 'topic', replace(:'template', '\n', E'\n'));
SET datestyle = 'SQL, DMY';
INSERT INTO shop.ticket VALUES ('2026-01-02', 1.50, 'a', :'leak'), ('2026-02-01', 'NaN', ' ', :'parcel');
RESET datestyle;
CREATE TABLE shop.ticket_3 PARTITION OF shop.ticket FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
INSERT INTO shop.ticket VALUES ('2026-03-04', 3, 'c', :'leak');
RESET ROLE;
CALL drained('ticket');
SELECT day, no, code, topic, tableoid::regclass FROM shop.ticket ORDER BY day;
SET ROLE m1_owner;
UPDATE shop.ticket SET day = '2026-02-02', body = :'parcel' WHERE no = 3;
UPDATE shop.ticket SET topic = NULL WHERE no = 1.5;
\set VERBOSITY sqlstate
UPDATE shop.ticket SET no = NULL WHERE no = 1.5;
\set VERBOSITY default
CALL minimax_m1.backfill('ticket', 1);
RESET ROLE;
CALL drained('ticket');
SELECT day, no, code, topic, tableoid::regclass FROM shop.ticket ORDER BY no;
SET ROLE m1_owner;
-- one row is one key, whatever the session's time zone
CREATE TABLE shop.moment (at timestamptz PRIMARY KEY, body text, topic text);
SELECT minimax_m1.create_annotator('moment', 'shop.moment', 'topic', '{body}');
SELECT minimax_m1.alter_annotator('moment', enabled => false);
SET timezone = 'Asia/Tokyo';
INSERT INTO shop.moment VALUES ('2026-01-02 03:04:05+00', 'x');
SET timezone = 'America/Lima';
UPDATE shop.moment SET body = 'y';
RESET timezone;
SELECT count(DISTINCT key) FROM minimax_m1.jobs WHERE annotator = 'moment';
DROP TABLE shop.moment;
ALTER TABLE shop.ticket DETACH PARTITION shop.ticket_1;
INSERT INTO shop.ticket_1 VALUES ('2026-01-03', 9, 'z', 'x');
SELECT name, pending FROM minimax_m1.annotators;
DROP SCHEMA shop CASCADE;
SELECT count(*) FROM minimax_m1.annotators;

-- synchronous
RESET ROLE;
GRANT CREATE ON SCHEMA public TO m1_owner;
SET ROLE m1_owner;
CREATE TABLE letter (id int PRIMARY KEY, body text, topic text, why text, status text, summary text, upper text GENERATED ALWAYS AS (upper(body)) STORED);
SELECT minimax_m1.create_annotator('topic', 'letter', 'topic', replace(:'template', '\n', E'\n'), mode => 'sync', reasoning_column => 'why', status_column => 'status');
INSERT INTO letter (id, body) VALUES (1, :'leak'), (2, NULL) RETURNING id, topic, why IS NOT NULL AS why, status;
UPDATE letter SET body = :'parcel' WHERE id = 1 RETURNING topic, status;
UPDATE letter SET body = NULL WHERE id = 1 RETURNING topic, status;
SELECT minimax_m1.alter_annotator('topic', mode => 'async');
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'letter'::regclass ORDER BY tgname;
SELECT minimax_m1.alter_annotator('topic', fire => 'always');
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'letter'::regclass ORDER BY tgname;

-- answers that follow a schema
CREATE TABLE form (id int PRIMARY KEY, body text, facts jsonb);
SELECT minimax_m1.create_annotator('form', 'form', 'facts', E'Extract topic as JSON.\n\n{body}', mode => 'sync',
    json_schema => '{"type": "object", "properties": {"topic": {"enum": ["hardware", "delivery"]}}, "required": ["topic"], "additionalProperties": false}');
INSERT INTO form VALUES (1, :'leak') RETURNING facts->>'topic' IN ('hardware', 'delivery') AS follows;
SELECT minimax_m1.alter_annotator('form', mode => 'async');
INSERT INTO form VALUES (2, :'parcel');
RESET ROLE;
CALL drained('form');
SET ROLE m1_owner;
SELECT id, facts->>'topic' IN ('hardware', 'delivery') AS follows FROM form ORDER BY id;
-- one that is cut off is none
SELECT minimax_m1.alter_annotator('form', max_tokens => 1);
INSERT INTO form VALUES (3, :'leak');
RESET ROLE;
CALL drained('form');
SET ROLE m1_owner;
SELECT key, state, attempts, sqlstate FROM minimax_m1.job_errors WHERE annotator = 'form';
SELECT minimax_m1.alter_annotator('form', mode => 'sync');
\set VERBOSITY sqlstate
INSERT INTO form VALUES (4, :'leak');
\set VERBOSITY default
SELECT id, facts IS NULL AS empty FROM form WHERE id > 2 ORDER BY id;
-- a schema is checked at the cost of who gives it
RESET ROLE;
SELECT minimax_m1.set_quota('m1_owner', 0);
SET ROLE m1_owner;
\set VERBOSITY sqlstate
SELECT minimax_m1.create_annotator('other', 'form', 'facts', '{body}', json_schema => '{"enum": ["yes"]}');
SELECT minimax_m1.alter_annotator('form', json_schema => '{"enum": ["yes"]}');
\set VERBOSITY default
RESET ROLE;
SELECT minimax_m1.set_quota('m1_owner');
-- and kept in its order
SET ROLE m1_owner;
SELECT minimax_m1.alter_annotator('form', json_schema => '{"type": "string", "enum": ["yes"], "$comment": 1.50}'::json);
SELECT json_schema FROM minimax_m1.annotators WHERE name = 'form';
RESET ROLE;
SET ROLE m1_owner;
DROP TABLE form;

-- an annotation that feeds another, and what would never end
SELECT minimax_m1.create_annotator('summary', 'letter', 'summary', 'Hello.{topic}');
\set VERBOSITY sqlstate
SELECT minimax_m1.create_annotator('cycle', 'letter', 'body', '{summary}');
SELECT minimax_m1.create_annotator('self', 'letter', 'summary', '{summary}');

-- definitions that cannot work
SELECT minimax_m1.create_annotator('topic', 'letter', 'body', 'x');
SELECT minimax_m1.create_annotator('a b', 'letter', 'body', 'x');
SELECT minimax_m1.create_annotator(NULL, 'letter', 'body', 'x');
SELECT minimax_m1.create_annotator('x', 'letter', 'nothere', 'x');
SELECT minimax_m1.create_annotator('x', 'letter', 'id', 'x');
SELECT minimax_m1.create_annotator('x', 'letter', 'upper', 'x');
SELECT minimax_m1.create_annotator('x', 'letter', 'topic', 'x');
ALTER TABLE letter ADD ordinal int GENERATED ALWAYS AS IDENTITY;
SELECT minimax_m1.create_annotator('x', 'letter', 'ordinal', 'x');
SELECT minimax_m1.create_annotator('x', 'letter', 'body', 'x', status_column => 'ordinal');
ALTER TABLE letter DROP ordinal;
SELECT minimax_m1.create_annotator('x', 'letter', 'body', '{nothere}');
SELECT minimax_m1.create_annotator('x', 'letter', 'body', '{');
SELECT minimax_m1.create_annotator('x', 'letter', 'body', 'x', reasoning_column => 'body');
SELECT minimax_m1.create_annotator('x', 'letter', 'body', 'x', mode => 'later');
SELECT minimax_m1.create_annotator('x', 'letter', 'body', 'x', fire => 'never');
SELECT minimax_m1.create_annotator('x', 'letter', 'body', 'x', max_attempts => 0);
SELECT minimax_m1.create_annotator('x', 'letter', 'body', 'x', max_tokens => 0);
SELECT minimax_m1.create_annotator('x', 'letter', 'body', 'x', temperature => 'NaN');
SELECT minimax_m1.create_annotator('x', 'letter', 'body', 'x', json_schema => '{"type": "nothing"}');
SELECT minimax_m1.create_annotator('x', 'letter', 'body', '{upper}', mode => 'sync');
SELECT minimax_m1.create_annotator('x', 'pg_class', 'relname', 'x');
SELECT minimax_m1.create_annotator('x', 'minimax_m1.jobs', 'state', 'x');
CREATE TABLE keyless (body text, topic text);
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE, body text, topic text);
CREATE TEMP TABLE fleeting (id int PRIMARY KEY, body text, topic text);
SELECT minimax_m1.create_annotator('x', 'keyless', 'topic', '{body}');
SELECT minimax_m1.create_annotator('x', 'deferred', 'topic', '{body}');
SELECT minimax_m1.create_annotator('x', 'fleeting', 'topic', '{body}');
SELECT minimax_m1.alter_annotator('topic', template => '{nothere}');
SELECT minimax_m1.alter_annotator('topic', max_attempts => 0);
SELECT minimax_m1.alter_annotator('nothere');
SELECT minimax_m1.drop_annotator('nothere');
INSERT INTO minimax_m1.annotator DEFAULT VALUES;
\set VERBOSITY default
SELECT minimax_m1.create_annotator('x', 'keyless', 'topic', '{body}');
SELECT name FROM minimax_m1.annotators ORDER BY name;

-- renamed columns; template braces stay what they are
SELECT minimax_m1.alter_annotator('summary', template => '{{topic}} {topic}');
ALTER TABLE letter RENAME topic TO subject;
ALTER TABLE letter RENAME id TO number;
SELECT name, target_column, template FROM minimax_m1.annotators WHERE name = 'summary';
SELECT target_column FROM minimax_m1.annotators WHERE name = 'topic';
INSERT INTO letter (number, body) VALUES (7, :'leak');
RESET ROLE;
CALL drained('topic');
CALL drained('summary');
SELECT number, subject, summary IS NOT NULL AS summary FROM letter WHERE number = 7;
-- whatever command renames them
CREATE TYPE letter_form AS (id int, body text, topic text);
CREATE TABLE typed OF letter_form (PRIMARY KEY (id));
CREATE TABLE plain (id int PRIMARY KEY, body text, topic text);
SELECT minimax_m1.create_annotator('typed', 'typed', 'topic', '{body}'), minimax_m1.create_annotator('plain', 'plain', 'topic', '{body}');
ALTER TYPE letter_form RENAME ATTRIBUTE body TO words CASCADE;
ALTER VIEW plain RENAME COLUMN body TO seen;
SELECT name, template FROM minimax_m1.annotators WHERE name IN ('typed', 'plain') ORDER BY name;
ALTER MATERIALIZED VIEW plain RENAME COLUMN seen TO kept;
SELECT template FROM minimax_m1.annotators WHERE name = 'plain';
ALTER FOREIGN TABLE plain RENAME COLUMN kept TO far;
SELECT template FROM minimax_m1.annotators WHERE name = 'plain';
-- triggers by other names are the annotator's all the same
ALTER TRIGGER minimax_m1_plain ON plain RENAME TO mine;
SELECT minimax_m1.alter_annotator('plain', mode => 'sync');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'plain'::regclass;
ALTER TRIGGER z_minimax_m1_plain ON plain RENAME TO mine;
SELECT minimax_m1.drop_annotator('plain');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'plain'::regclass;
ALTER TRIGGER minimax_m1_typed ON typed RENAME TO mine;
DROP TRIGGER mine ON typed;
SELECT name FROM minimax_m1.annotators WHERE name IN ('typed', 'plain');
DROP TABLE plain;
DROP TYPE letter_form CASCADE;
-- a name of 64 letters is no column's, though there is one of the first 63
CREATE TABLE long_name (id int PRIMARY KEY, xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx text, topic text);
SELECT minimax_m1.create_annotator('long_name', 'long_name', 'topic', '{' || repeat('x', 64) || '}');
SELECT minimax_m1.create_annotator('long_name', 'long_name', 'topic', '{' || repeat('x', 63) || '}');
DROP TABLE long_name;
SELECT minimax_m1.drop_annotator('summary'), minimax_m1.drop_annotator('topic');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'letter'::regclass;
SELECT count(*) FROM minimax_m1.job WHERE annotator_id IS NOT NULL;
DROP TABLE letter, keyless, deferred;
DROP PROCEDURE drained;
DROP OWNED BY m1_owner, m1_writer, m1_stranger;
DROP ROLE m1_owner, m1_writer, m1_stranger;
