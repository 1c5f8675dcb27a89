-- annotate(): a trigger that fills a column.
CREATE TABLE message (id int PRIMARY KEY, body text, note text, label varchar(20));

CREATE TRIGGER classify BEFORE INSERT OR UPDATE ON message FOR EACH ROW
EXECUTE FUNCTION minimax_m1.annotate('label', E'Classify the following text as one of: positive, negative, neutral.\n\n{body}');

INSERT INTO message (id, body) VALUES
    (1, 'Hello, My loyalty card works very well. Thank you. Omar'),
    (2, 'Hi there, The air fryer I ordered arrived in a torn box. I would like a refund. Priya'),
    (3, NULL);
SELECT id, label FROM message ORDER BY id;

-- an update that does not touch the prompt's columns keeps the label, one that does renews it
UPDATE message SET label = 'mine', note = 'x' WHERE id = 1;
UPDATE message SET note = 'y';
SELECT id, label FROM message ORDER BY id;
UPDATE message SET body = body || ' ' WHERE id = 1;
SELECT id, label = 'mine' AS kept FROM message WHERE id = 1;
UPDATE message SET body = NULL WHERE id = 2;
SELECT id, label FROM message WHERE id = 2;
DROP TRIGGER classify ON message;

-- values are not looked at for placeholders, and doubled braces are braces
CREATE TRIGGER greet BEFORE INSERT ON message FOR EACH ROW
EXECUTE FUNCTION minimax_m1.annotate('note', '{body}', '60');
INSERT INTO message (id, body) VALUES (4, 'Hello.');
INSERT INTO message (id, body) VALUES (5, '{id}{{nobody}}');
SELECT id, note IS NOT NULL AS answered FROM message WHERE id IN (4, 5) ORDER BY id;
SELECT note FROM message WHERE id = 4;
DROP TRIGGER greet ON message;

-- misuse
CREATE TRIGGER bad BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('nothere', '{body}');
INSERT INTO message (id, body) VALUES (10, 'x');
DROP TRIGGER bad ON message;
CREATE TRIGGER bad BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('note', '{nothere}');
INSERT INTO message (id, body) VALUES (10, 'x');
DROP TRIGGER bad ON message;
CREATE TRIGGER bad BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('note', '{body');
INSERT INTO message (id, body) VALUES (10, 'x');
DROP TRIGGER bad ON message;
CREATE TRIGGER bad BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('note');
INSERT INTO message (id, body) VALUES (10, 'x');
DROP TRIGGER bad ON message;
CREATE TRIGGER bad AFTER INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('note', '{body}');
INSERT INTO message (id, body) VALUES (10, 'x');
DROP TRIGGER bad ON message;
CREATE TRIGGER bad BEFORE INSERT ON message FOR EACH STATEMENT EXECUTE FUNCTION minimax_m1.annotate('note', '{body}');
INSERT INTO message (id, body) VALUES (10, 'x');
DROP TRIGGER bad ON message;
CREATE TRIGGER bad BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('ordinal', '{body}');
ALTER TABLE message ADD ordinal int GENERATED ALWAYS AS IDENTITY;
INSERT INTO message (id, body) VALUES (10, 'x');
ALTER TABLE message DROP ordinal;
DROP TRIGGER bad ON message;
SELECT count(*) FROM message WHERE id = 10;

-- a domain may refuse that there is no annotation
CREATE DOMAIN given AS text NOT NULL;
ALTER TABLE message ADD must given DEFAULT 'none';
CREATE TRIGGER bad BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('must', '{body}');
INSERT INTO message (id, body) VALUES (10, NULL);
DROP TRIGGER bad ON message;

-- a failing annotation fails the statement, and leaves no row
CREATE TRIGGER bad BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('label', 'Summarize the following text.\n\n{body}');
INSERT INTO message (id, body) VALUES (11, 'To whom it may concern, My air fryer was delivered to the wrong address. I would like a refund. Keiko');
SELECT count(*) FROM message WHERE id = 11;
DROP TABLE message;
