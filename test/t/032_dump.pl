# Dump and restore carry definitions and results and run no model; a standby says why it takes no jobs; 0.1 is updated.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('dump', 'wal_level = replica', 'max_wal_senders = 4');
wait_ready($node);

sub sql { my ($query, $db) = @_; return $node->safe_psql($db // 'postgres', $query); }

my $leak = 'Hello, The coffee machine I bought leaks water. I would like a refund. Regards, Omar';
my $parcel = 'Hi there, My parcel never arrived. Could you send it again? Thanks, Leila';

# The way from 0.1.
sql('CREATE DATABASE old');
sql(q{CREATE EXTENSION minimax_m1 VERSION '0.1'}, 'old');
is(sql(q{SELECT to_regclass('minimax_m1.job') IS NULL}, 'old'), 't', 'version 0.1 has no queue');
sql('CREATE ROLE someone LOGIN');
sql(q{SELECT minimax_m1.grant_usage('someone')}, 'old');
sql(q{ALTER EXTENSION minimax_m1 UPDATE}, 'old');
is(sql(q{SELECT extversion FROM pg_extension WHERE extname = 'minimax_m1'}, 'old'), '0.3', 'it is updated');
my $objects = q{SELECT string_agg(pg_describe_object(classid, objid, 0), E'\n' ORDER BY pg_describe_object(classid, objid, 0))
	FROM pg_depend WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'minimax_m1')};
is(sql($objects, 'old'), sql($objects), 'to what CREATE EXTENSION makes');
my $job = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')}, 'old');
sql("CALL minimax_m1.wait_for(ARRAY[$job], '30 s')", 'old');
is(sql("SELECT content FROM minimax_m1.poll($job)", 'old'), '82', 'and works');
my ($state) = sqlstate($node, 'SET ROLE someone; SELECT minimax_m1.submit(\'Hello.\')', connstr => $node->connstr('old'));
is($state, '42501', 'who had a grant for 0.1 has none for what is new');

# A database with definitions, results, failures and work that waits.
sql(qq{
	GRANT CREATE ON SCHEMA public TO someone;
	SELECT minimax_m1.grant_usage('someone');
	SET ROLE someone;
	CREATE TABLE message (gone int, id int PRIMARY KEY, body text, topic text);
	ALTER TABLE message DROP COLUMN gone;
	SELECT minimax_m1.create_annotator('topic', 'message', 'topic',
		E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\\n\\n{body}');
	INSERT INTO message VALUES (1, '$leak'), (2, '$parcel');
	RESET ROLE;
	CREATE TABLE parted (id int PRIMARY KEY, body text, topic text) PARTITION BY RANGE (id);
	CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
	SELECT minimax_m1.create_annotator('parted', 'parted', 'topic', '{body}', fire => 'always')});
$job = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')});
sql("CALL minimax_m1.wait_for(ARRAY[$job], '30 s')");
wait_for('the rows are annotated', sub { sql('SELECT count(topic) FROM message') eq '2' });
sql(q{SELECT minimax_m1.alter_annotator('topic', enabled => false)});
sql(qq{INSERT INTO message VALUES (3, '$leak')});
is(sql('SELECT pending FROM minimax_m1.annotators WHERE name = \'topic\''), '1', 'one row waits');
sql(q{UPDATE minimax_m1.annotator SET enabled = true});

my $requests = sql('SELECT requests FROM minimax_m1.stats');
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
sql('CREATE DATABASE new');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('new'), '-f', $dump ], 'the dump is restored');
is(sql('SELECT name, source, owner, enabled, fire FROM minimax_m1.annotators ORDER BY name', 'new'),
	"parted|parted|postgres|t|always\ntopic|message|someone|t|origin", 'with its definitions');
is(sql('SELECT id, topic FROM message ORDER BY id', 'new'), "1|hardware\n2|delivery\n3|", 'the annotations');
is(sql("SELECT state, content FROM minimax_m1.poll($job)", 'new'), 'done|82', 'and the results of jobs');
is(sql(q{SELECT count(*) FROM minimax_m1.jobs WHERE state <> 'done'}, 'new'), '0', 'what waited is not carried');
is(sql('SELECT requests FROM minimax_m1.stats'), $requests, 'and no model is run');

# The restored one works: backfill does what is missing, new rows come, names are followed, numbers go on.
sql(q{CALL minimax_m1.backfill('topic')}, 'new');
wait_for('the missing row is annotated', sub { sql('SELECT topic FROM message WHERE id = 3', 'new') eq 'hardware' });
sql(qq{INSERT INTO message VALUES (4, '$parcel')}, 'new');
wait_for('a new row is annotated', sub { sql('SELECT topic FROM message WHERE id = 4', 'new') eq 'delivery' });
pass('backfill and triggers work in the restored database');
cmp_ok(sql(q{SELECT minimax_m1.submit('Hello.')}, 'new'), '>', $job, 'numbers of jobs go on');
sql('ALTER TABLE message RENAME COLUMN body TO letter; ALTER TABLE message RENAME COLUMN topic TO subject', 'new');
is(sql(q{SELECT target_column, template ~ '{letter}' FROM minimax_m1.annotators WHERE name = 'topic'}, 'new'), 'subject|t',
	'its names follow renamed columns');
($state) = sqlstate($node, 'ALTER TABLE message DROP COLUMN letter', connstr => $node->connstr('new'));
is($state, '2BP01', 'a column that is needed is not dropped');
sql('ALTER TABLE message DROP COLUMN letter CASCADE', 'new');
is(sql(q{SELECT name FROM minimax_m1.annotators}, 'new'), 'parted', 'but with CASCADE, and the annotator with it');

# Data alone, over tables that have triggers: rows that come annotated are left as they are.
$requests = sql('SELECT requests FROM minimax_m1.stats');
my $data = $node->basedir . '/data.sql';
$node->command_ok([ 'pg_dump', '--data-only', '-t', 'message', '-d', $node->connstr('postgres'), '-f', $data ], 'pg_dump --data-only');
sql(q{DELETE FROM message WHERE id = 3});
$node->command_ok([ 'pg_dump', '--data-only', '-t', 'message', '-d', $node->connstr('postgres'), '-f', $data ], 'pg_dump --data-only');
sql('TRUNCATE message');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $data ], 'data alone is restored');
is(sql(q{SELECT count(*) FROM minimax_m1.jobs WHERE annotator = 'topic' AND key <> '{3}'}), '0', 'and queues nothing');
is(sql('SELECT requests FROM minimax_m1.stats'), $requests, 'so that no model is run');

# A standby.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
wait_ready($standby);
is($standby->safe_psql('postgres', q{SELECT minimax_m1.generate('What is 47 + 35?')}), '82', 'a standby generates');
($state, my $message) = sqlstate($standby, q{SELECT minimax_m1.submit('Hello.')});
is($state, '25006', 'but takes no jobs');
like($message, qr/on a standby.*HINT: .*primary/s, 'and says why');
($state) = sqlstate($standby, q{SELECT minimax_m1.create_annotator('x', 'message', 'topic', '{body}')});
is($state, '25006', 'nor definitions');
($state, $message) = sqlstate($standby, q{SELECT minimax_m1.train('x', examples => 'SELECT 1 AS prompt', reward => 'minimax_m1.reward_exact')});
is($state, '25006', 'nor trainings');
like($message, qr/a standby trains nothing.*HINT: .*primary/s, 'and says why');
is($standby->safe_psql('postgres', "SELECT content FROM minimax_m1.poll($job)"), '82', 'results can be read');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'minimax_m1 job'}), '0',
	'nobody looks after a queue there');
# promoted, it takes over
$node->wait_for_catchup($standby);
$node->stop;
$standby->promote;
$job = $standby->safe_psql('postgres', q{SELECT minimax_m1.submit('What is 47 + 35?')});
$standby->safe_psql('postgres', "CALL minimax_m1.wait_for(ARRAY[$job], '60 s')");
is($standby->safe_psql('postgres', "SELECT content FROM minimax_m1.poll($job)"), '82', 'promoted, it runs the queue');
$standby->stop;
done_testing();
