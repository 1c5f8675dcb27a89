# Annotated tables with partitions: each row is annotated once, wherever it comes in, goes to, or its partition does.
use strict;
use warnings;
use M1Test;
use Test::More;

my $node = new_server('partitions', 'minimax_m1.job_retry_delay = 100');
wait_ready($node);

my $leak = 'Hello, The coffee machine I bought leaks water. I would like a refund. Regards, Omar';
my $parcel = 'Hello, My parcel has not arrived after two weeks. Regards, Ann';
my $template = q{E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\n\n{body}'};

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub answers { return sql('SELECT coalesce(sum(requests), 0) FROM minimax_m1.usage'); }

sub wait_drained
{
	wait_for('the queue is empty', sub { sql("SELECT count(*) FROM minimax_m1.job WHERE state IN ('pending', 'running')") eq '0' });
}

sub create { my ($name, $table, @more) = @_; return join(', ', "SELECT minimax_m1.create_annotator('$name', '$table', 'topic', $template", @more) . ')'; }
sub enable { sql("SELECT minimax_m1.alter_annotator('$_[0]', enabled => $_[1])"); }

# What is in a table: keys and topics.
sub rows { return sql("SELECT string_agg(format('%s%s %s', tableoid::regclass, id, coalesce(topic, '-')), ', ' ORDER BY id) FROM $_[0]"); }

sql(qq{
	CREATE TABLE mail (id int, part int, body text, topic text, status text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
	CREATE TABLE a PARTITION OF mail FOR VALUES IN (1);
	CREATE TABLE b (status text, gone int, topic text, part int NOT NULL, body text, id int NOT NULL);
	ALTER TABLE b DROP COLUMN gone;
	ALTER TABLE mail ATTACH PARTITION b FOR VALUES IN (2);
	CREATE TABLE c PARTITION OF mail FOR VALUES IN (3, 4) PARTITION BY LIST (part);
	CREATE TABLE d PARTITION OF c FOR VALUES IN (3)});
sql(create('mail', 'mail', q{status_column => 'status'}, 'max_attempts => 2'));
sql('CREATE TABLE e PARTITION OF c FOR VALUES IN (4)');

# ---- where rows come in ----

sql(qq{
	INSERT INTO mail SELECT i, i, '$leak' FROM generate_series(1, 4) i;
	INSERT INTO b (id, part, body) VALUES (5, 2, '$parcel');
	INSERT INTO c (id, part, body) VALUES (6, 3, '$parcel');
	COPY e (id, part, body) FROM PROGRAM 'printf "7\\t4\\t$parcel\\n"'});
wait_drained();
is(rows('mail'), 'a1 hardware, b2 hardware, d3 hardware, e4 hardware, b5 delivery, d6 delivery, e7 delivery', 'rows are annotated wherever they come in');
is(sql(q{SELECT DISTINCT status FROM mail}), 'done', 'and say so');
is(answers(), '7', 'the model was asked once for each');
sql(qq{
	INSERT INTO mail VALUES (1, 1, '$parcel'), (2, 2, '$parcel') ON CONFLICT DO NOTHING;
	INSERT INTO mail VALUES (3, 3, '$parcel'), (8, 4, '$leak') ON CONFLICT (id, part) DO UPDATE SET body = excluded.body});
wait_drained();
is(rows('mail'), 'a1 hardware, b2 hardware, d3 delivery, e4 hardware, b5 delivery, d6 delivery, e7 delivery, e8 hardware', 'INSERT ... ON CONFLICT');
is(sql(q{SELECT DISTINCT status FROM mail}), 'done', 'whatever came of it');
is(answers(), '9', 'asks for what it has changed');

# ---- rows that move ----

enable('mail', 'false');
sql(qq{INSERT INTO mail VALUES (9, 1, '$leak'); UPDATE mail SET part = 4 WHERE id = 9; UPDATE mail SET part = 2 WHERE id = 9});
enable('mail', 'true');
wait_drained();
is(sql('SELECT tableoid::regclass, topic, status FROM mail WHERE id = 9'), 'b|hardware|done', 'a row that moved while it waited');
is(answers(), '10', 'is asked for once');
my $engine = engine_pid($node);
kill 'STOP', $engine;
sql(qq{INSERT INTO mail VALUES (10, 1, '$leak')});
wait_for('it is asked', sub { sql(q{SELECT count(*) FROM minimax_m1.activity WHERE function = 'annotate'}) eq '1' });
sql('UPDATE mail SET part = 3 WHERE id = 10');
kill 'CONT', $engine;
wait_drained();
is(sql('SELECT tableoid::regclass, topic, status FROM mail WHERE id = 10'), 'd|hardware|done', 'one that moved while the model was asked');
is(sql('SELECT count(*) FROM minimax_m1.job'), '0', 'and nothing is left of either');

# ---- partitions that come and go ----

my $last = answers();
enable('mail', 'false');
sql(qq{INSERT INTO mail VALUES (11, 1, '$leak'), (12, 2, '$leak'), (13, 3, '$leak'), (14, 4, '$leak')});
sql('ALTER TABLE mail DETACH PARTITION a');
sql('ALTER TABLE mail DETACH PARTITION b CONCURRENTLY');
sql('DROP TABLE d');
enable('mail', 'true');
wait_drained();
is(sql('SELECT topic FROM e WHERE id = 14'), 'hardware', 'rows of a partition that stays are annotated');
is(sql('SELECT count(*) FROM minimax_m1.job'), '0', 'those of one that was detached or dropped are not of the table any more');
is(sql('SELECT count(*) FROM a WHERE id = 11 AND topic IS NULL') . sql('SELECT count(*) FROM b WHERE id = 12 AND topic IS NULL'), '11', 'and left alone');
sql('ALTER TABLE mail ATTACH PARTITION a FOR VALUES IN (1); ALTER TABLE mail ATTACH PARTITION b FOR VALUES IN (2)');
sql(q{CALL minimax_m1.backfill('mail')});
wait_drained();
is(sql('SELECT string_agg(topic, $$ $$) FROM mail WHERE id IN (11, 12)'), 'hardware hardware', 'when they are attached again, backfill finds them');
is(answers() - $last, 3, 'the model was asked once for each');

kill 'STOP', $engine;
sql(qq{INSERT INTO mail VALUES (15, 1, '$leak')});
wait_for('it is asked', sub { sql(q{SELECT count(*) FROM minimax_m1.activity WHERE function = 'annotate'}) eq '1' });
sql(qq{ALTER TABLE mail DETACH PARTITION a; CREATE TABLE f PARTITION OF mail FOR VALUES IN (1); INSERT INTO f VALUES (15, 1, '$parcel')});
kill 'CONT', $engine;
wait_drained();
is(rows('f'), 'f15 delivery', 'another row that took the key is answered by itself');
is(sql('SELECT topic FROM a WHERE id = 15'), '', 'and that of before is not written');

# ---- code of a partition ----

sql(q{
	CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER keep BEFORE UPDATE ON e FOR EACH ROW EXECUTE FUNCTION keep()});
sql(qq{INSERT INTO mail VALUES (16, 4, '$leak'), (17, 1, '$leak')});
wait_drained();
is(sql(q{SELECT key, state, sqlstate FROM minimax_m1.job_errors}), '{16,4}|failed|09000', 'a trigger of one partition fails the rows of that');
is(sql('SELECT topic FROM mail WHERE id = 17'), 'hardware', 'and no others');
sql(q{DROP TRIGGER keep ON e; SELECT minimax_m1.retry_failed('mail')});
wait_drained();
is(sql('SELECT topic, status FROM mail WHERE id = 16'), 'hardware|done', 'without it they are annotated');

# ---- annotators of a table and of its partition ----

sql(q{
	ALTER TABLE mail ADD reply text;
	SELECT minimax_m1.create_annotator('reply', 'b', 'reply', '{body}')});
sql(qq{INSERT INTO mail (id, part, body) VALUES (18, 2, '$leak'), (19, 1, '$leak')});
wait_drained();
is(sql('SELECT string_agg(format($$%s %s$$, topic, reply IS NOT NULL), $$, $$ ORDER BY id) FROM mail WHERE id IN (18, 19)'), 'hardware t, hardware f',
	'a partition has annotators of its own beside those of its table');
my %refused = (
	'another one that fills a column of the table' => [create('twice', 'b'), '42710'],
	'one of the table that fills a column of the partition' => [q{SELECT minimax_m1.create_annotator('twice', 'mail', 'reply', '{body}')}, '42710'],
	'one that changes what its table is asked by' => [q{SELECT minimax_m1.create_annotator('round', 'b', 'body', '{topic}')}, '22023'],
	'also below a partition' => [q{SELECT minimax_m1.create_annotator('round', 'e', 'body', '{topic}')}, '22023']);
is((sqlstate($node, $refused{$_}[0]))[0], $refused{$_}[1], "refused: $_") for sort keys %refused;
sql(q{
	CREATE TABLE g (LIKE mail INCLUDING ALL, CHECK (part = 9));
	SELECT minimax_m1.create_annotator('g', 'g', 'body', '{topic}')});
my ($state, $error) = sqlstate($node, 'ALTER TABLE mail ATTACH PARTITION g FOR VALUES IN (9)');
is($state, '22023', 'refused: a partition that would bring one');
like($error, qr/annotation would change its own input/, 'with the reason');
sql(q{SELECT minimax_m1.drop_annotator('g')});
sql('ALTER TABLE mail ATTACH PARTITION g FOR VALUES IN (9)');
sql(qq{INSERT INTO mail (id, part, body) VALUES (20, 9, '$leak')});
wait_drained();
is(sql('SELECT topic FROM g WHERE id = 20'), 'hardware', 'without it, the partition is attached');

# ---- rows that leave a partition with an annotator of its own ----

sql(q{
	CREATE TABLE ticket (id int, place text, body text, topic text, status text NOT NULL DEFAULT '') PARTITION BY LIST (place);
	CREATE TABLE inbox (place text NOT NULL, status text NOT NULL DEFAULT '', topic text, body text, id int PRIMARY KEY);
	ALTER TABLE ticket ATTACH PARTITION inbox FOR VALUES IN ('inbox');
	CREATE TABLE desk PARTITION OF ticket (PRIMARY KEY (id)) FOR VALUES IN ('desk');
	CREATE TABLE archive PARTITION OF ticket FOR VALUES IN ('archive');
	CREATE TABLE zone PARTITION OF ticket (PRIMARY KEY (id, place)) FOR VALUES IN ('east', 'west') PARTITION BY LIST (place);
	CREATE TABLE east PARTITION OF zone FOR VALUES IN ('east');
	CREATE TABLE west PARTITION OF zone FOR VALUES IN ('west')});
sql(create($_, $_, q{status_column => 'status'})) for 'inbox', 'desk', 'zone';
sql(qq{INSERT INTO ticket SELECT i, 'inbox', '$leak' FROM generate_series(1, 3) i});
wait_drained();
enable($_, 'false') for 'inbox', 'zone';
sql(qq{INSERT INTO ticket SELECT i, 'inbox', '$leak' FROM generate_series(4, 6) i});
sql(qq{INSERT INTO ticket SELECT i, 'east', '$leak' FROM generate_series(7, 8) i});
sql(qq{UPDATE ticket SET body = '$parcel' WHERE id = 6});
$last = answers();
sql($_) for (
	q{UPDATE ticket SET place = 'desk' WHERE id IN (1, 4, 6)},
	qq{UPDATE ticket SET place = 'desk', body = '$parcel' WHERE id = 2},
	qq{UPDATE ticket SET place = 'archive', body = '$parcel' WHERE id = 3},
	q{UPDATE ticket SET place = 'archive' WHERE id IN (5, 8)},
	q{UPDATE ticket SET place = 'west' WHERE id = 7});
enable($_, 'true') for 'inbox', 'zone';
wait_drained();
is(sql('SELECT string_agg(format($$%s %s %s%s$$, id, tableoid::regclass, topic, status), $$, $$ ORDER BY id) FROM ticket'),
	'1 desk hardwaredone, 2 desk deliverydone, 3 archive hardwarefailed, 4 desk hardwaredone, 5 archive failed, 6 desk deliverydone, ' .
	'7 west hardwaredone, 8 archive failed', 'are annotated where they are now, or say that they will not be');
is(answers() - $last, 4, 'the model was asked for those that are');
is(sql('SELECT count(*) FROM minimax_m1.job'), '0', 'and nothing is left of them');
sql(q{SELECT minimax_m1.alter_annotator('inbox', mode => 'sync')});
sql(qq{INSERT INTO ticket VALUES (9, 'inbox', '$leak'); UPDATE ticket SET place = 'archive' WHERE id = 9});
is(sql('SELECT tableoid::regclass, topic, status FROM ticket WHERE id = 9'), 'archive|hardware|done', 'a synchronous annotator is done with them');
is(answers() - $last, 5, 'and does not ask again');
sql(q{SELECT minimax_m1.drop_annotator('zone')});
sql(create('zone', 'zone'));
sql(qq{INSERT INTO ticket SELECT i, 'east', '$leak' FROM generate_series(10, 11) i});
wait_drained();
enable('zone', 'false');
sql(qq{INSERT INTO ticket VALUES (12, 'east', '$leak'); UPDATE ticket SET body = '$parcel' WHERE id = 10});
sql(q{UPDATE ticket SET place = 'desk' WHERE id BETWEEN 10 AND 12});
enable('zone', 'true');
wait_drained();
is(sql(q{SELECT string_agg(format('%s %s', id, topic), ', ' ORDER BY id) FROM desk WHERE id BETWEEN 10 AND 12}),
	'10 delivery, 11 hardware, 12 hardware', 'without a status column, the queue tells which rows wait');
is(answers() - $last, 9, 'and only those are asked for');

done_testing();
