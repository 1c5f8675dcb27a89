# Durable jobs under a microscope: what happens to a row, a lease or a transaction while the model works. A stopped
# engine keeps requests where they are.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('jobs', 'autovacuum = off', 'minimax_m1.max_requests = 2', 'minimax_m1.job_retry_delay = 100', 'minimax_m1.job_lease = 5');
wait_ready($node);

my $leak = 'Hello, The coffee machine I bought leaks water. I would like a refund. Regards, Omar';
my $parcel = 'Hi there, My parcel never arrived. Could you send it again? Thanks, Leila';
my $template = q{E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\n\n{body}'};

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub stop_engine { my $pid = engine_pid($node); kill 'STOP', $pid; return $pid; }

sub wait_running
{
	my ($n) = @_;
	wait_for("$n jobs run", sub { sql("SELECT count(*) FROM minimax_m1.activity WHERE function IN ('annotate', 'submit')") eq $n });
}

sub wait_drained
{
	wait_for('the queue is empty', sub {
			sql("SELECT count(*) FROM minimax_m1.jobs WHERE state IN ('pending', 'running')") eq '0' });
}

sub topic { return sql("SELECT coalesce(topic, 'none') FROM message WHERE id = $_[0]"); }

sql(qq{
	CREATE TABLE message (id int PRIMARY KEY, body text, topic text);
	CREATE TABLE written (id int, topic text);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.written VALUES (new.id, new.topic); RETURN new; END';
	CREATE TRIGGER note AFTER UPDATE OF topic ON message FOR EACH ROW EXECUTE FUNCTION note();
	SELECT minimax_m1.create_annotator('topic', 'message', 'topic', $template)});

# While the model works, no transaction is open: the runner holds back no vacuum.
my $engine = stop_engine();
sql(qq{INSERT INTO message VALUES (1, '$leak')});
wait_running(1);
wait_for('the runner has no transaction', sub {
		sql(q{SELECT string_agg(format('%s %s %s', state, xact_start IS NULL, backend_xmin IS NULL AND backend_xid IS NULL), ' ')
			FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job runner'}) eq 'idle t t' });
pass('no transaction is open while the model works');
is(sql(q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'minimax_m1 job runner'}),
	'0', 'and no lock is held');
is(sql(q{SELECT string_agg(format('%s %s', function, "user"), ' ') FROM minimax_m1.activity}), 'annotate postgres',
	'activity shows the annotation, as its owner');

# The row changes meanwhile: what was asked is not what is written.
sql(qq{UPDATE message SET body = '$parcel' WHERE id = 1});
kill 'CONT', $engine;
wait_drained();
is(topic(1), 'delivery', 'a row that changes while it is annotated gets the annotation of its new text');
is(sql('SELECT string_agg(topic, \' \') FROM written'), 'delivery', 'and never that of its old one');

# Changed without a trigger: the hash alone tells.
sql('TRUNCATE written');
stop_engine();
sql(qq{UPDATE message SET body = '$leak' WHERE id = 1});
wait_running(1);
sql(qq{SET session_replication_role = replica; UPDATE message SET body = '$parcel ' WHERE id = 1});
kill 'CONT', $engine;
wait_drained();
is(sql('SELECT string_agg(topic, \' \') FROM written'), 'delivery', 'a change behind the trigger\'s back is noticed, too');

# Changed and changed back: one annotation, not two.
sql('TRUNCATE written');
stop_engine();
sql(qq{UPDATE message SET body = '$leak' WHERE id = 1});
wait_running(1);
sql(qq{UPDATE message SET body = '$parcel' WHERE id = 1; UPDATE message SET body = '$leak' WHERE id = 1});
is(sql(q{SELECT pending || ' ' || running FROM minimax_m1.annotators}), '1 1', 'many changes of a row are one pending row');
kill 'CONT', $engine;
wait_drained();
is(topic(1), 'hardware', 'a row that changes back is right');

# Deleted meanwhile: the job goes with it.
stop_engine();
sql(qq{INSERT INTO message VALUES (2, '$leak')});
wait_running(1);
sql('DELETE FROM message WHERE id = 2');
kill 'CONT', $engine;
wait_drained();
is(sql('SELECT count(*) FROM minimax_m1.jobs'), '0', 'the job of a deleted row is gone');

# Locked meanwhile, by a transaction that ends later.
sql('TRUNCATE written');
stop_engine();
sql(qq{INSERT INTO message VALUES (3, '$leak'), (4, '$parcel')});
wait_running(2);
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; SELECT 1 FROM message WHERE id = 3 FOR UPDATE');
kill 'CONT', $engine;
wait_for('the other row is annotated', sub { topic(4) eq 'delivery' });
is(topic(3), 'none', 'a locked row waits, and holds up no other');
$locker->query_safe('COMMIT');
wait_drained();
is(topic(3), 'hardware', 'and is annotated when it is free');
$locker->query_safe('BEGIN; LOCK TABLE message IN ACCESS EXCLUSIVE MODE');
my $job = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')});
is(sql("CALL minimax_m1.wait_for(ARRAY[$job], '30 s'); SELECT content FROM minimax_m1.poll($job)"), '82',
	'a locked table holds up no other job');
$locker->query_safe('ROLLBACK');

# Two entries of a row that is locked: one of them stays.
sql(q{SELECT minimax_m1.alter_annotator('topic', enabled => false)});
sql(qq{UPDATE message SET body = '$parcel' WHERE id = 3; UPDATE message SET body = NULL WHERE id = 3});
is(sql('SELECT count(*) FROM minimax_m1.job WHERE annotator_id IS NOT NULL'), '2', 'each change of a row is an entry');
$locker->query_safe('BEGIN; SELECT 1 FROM message WHERE id = 3 FOR UPDATE');
sql(q{SELECT minimax_m1.alter_annotator('topic', enabled => true)});
wait_for('one of two entries is left', sub { sql('SELECT count(*) FROM minimax_m1.job WHERE annotator_id IS NOT NULL') eq '1' });
$locker->query_safe('COMMIT');
wait_drained();
is(topic(3), 'none', 'a locked row with two entries keeps one');

# A statement that is rolled back leaves no job; a row and its job go together.
sql(qq{BEGIN; INSERT INTO message VALUES (5, '$leak'); SELECT minimax_m1.submit('Hello.'); ROLLBACK});
is(sql(q{SELECT count(*) FROM minimax_m1.jobs WHERE state <> 'done'}), '0', 'a rolled-back transaction leaves no job');

# The lease. A job that a living process holds is left alone; one whose lease has run out is taken.
stop_engine();
$job = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')});
wait_running(1);
my $holder = $node->background_psql('postgres');
my $holder_pid = $holder->query_safe('SELECT pg_backend_pid()');
sql(qq{UPDATE minimax_m1.job SET leased_by = $holder_pid, leased_at = clock_timestamp(), lease_until = clock_timestamp() + '1 h' WHERE id = $job});
kill 'CONT', $engine;
my $other = sql(q{SELECT minimax_m1.submit('Hello.')});
sql("CALL minimax_m1.wait_for(ARRAY[$other], '30 s')");
wait_for('no request runs', sub { is_idle($node) });
is(sql("SELECT state, content IS NULL FROM minimax_m1.poll($job)"), 'running|t',
	'a result is not written when the lease has gone to another');
# a runner looks for what others have let slip when it comes and before it goes
sub no_runner
{
	wait_for('the runner has left', sub {
			sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job runner'}) eq '0' });
}
no_runner();
$other = sql(q{SELECT minimax_m1.submit('Hello.')});
sql("CALL minimax_m1.wait_for(ARRAY[$other], '30 s')");
no_runner();
is(sql("SELECT state, leased_by, losses FROM minimax_m1.job WHERE id = $job"), "running|$holder_pid|0", 'a lease that holds is respected');
sql(qq{UPDATE minimax_m1.job SET lease_until = clock_timestamp() + '0.5 s' WHERE id = $job});
$other = sql(q{SELECT minimax_m1.submit('Hello.')});
sql("CALL minimax_m1.wait_for(ARRAY[$job], '30 s')");
is(sql("SELECT state, content, attempts FROM minimax_m1.poll($job)"), 'done|82|0', 'one that has ended is taken up');
$holder->quit;
# a long job's lease is renewed: three times over it would have ended; one that was let slip meanwhile is taken up
stop_engine();
$job = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')});
wait_running(1);
$other = sql(q{SELECT minimax_m1.submit('Hello.')});
wait_running(2);
sql("UPDATE minimax_m1.job SET leased_at = clock_timestamp(), lease_until = clock_timestamp() WHERE id = $other");
wait_for('a busy runner has taken up the lost job', sub { sql("SELECT losses FROM minimax_m1.job WHERE id = $other") eq '1' });
pass('a runner that is never idle takes up lost jobs, too');
wait_for('the lease was renewed', sub { sql("SELECT lease_until > leased_at + '7 s' FROM minimax_m1.job WHERE id = $job") eq 't' });
kill 'CONT', $engine;
sql("CALL minimax_m1.wait_for(ARRAY[$job], '30 s')");
is(sql("SELECT state, content FROM minimax_m1.poll($job)"), 'done|82', 'the lease of a long job is renewed');

# A job that is cancelled stops in the engine; its place goes to another.
stop_engine();
$job = sql(q{SELECT minimax_m1.submit('What can you do?', temperature => 100, top_p => 1)});
wait_running(1);
is(sql("SELECT minimax_m1.cancel_job($job)"), 't', 'a running job is cancelled');
wait_for('its request has ended', sub { is_idle($node) });
kill 'CONT', $engine;
is(sql("SELECT state FROM minimax_m1.poll($job)"), 'cancelled', 'and stays so');
is(sql("SELECT minimax_m1.cancel_job($job)"), 'f', 'once');

# A job under which the engine was lost is run alone; while somebody has it locked, the others go on.
$job = sql(q{BEGIN; SELECT minimax_m1.submit('Hello.'); UPDATE minimax_m1.job SET losses = 3, run_at = now() + '1 s' WHERE state = 'pending'; COMMIT});
$holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT 1 FROM minimax_m1.job WHERE id = $job FOR UPDATE");
$node->safe_psql('postgres', 'SELECT pg_sleep(1)');
$other = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')});
sql("CALL minimax_m1.wait_for(ARRAY[$other], '30 s')");
is(sql("SELECT state FROM minimax_m1.poll($other)"), 'done', 'a locked suspect holds up no other job');
$holder->query_safe('COMMIT');
$holder->quit;
sql("CALL minimax_m1.wait_for(ARRAY[$job], '30 s')");
is(sql("SELECT state FROM minimax_m1.poll($job)"), 'done', 'and runs when it is free');

# What a statement writes into the column while its row waits, however it does, is kept; what is changed after that is asked.
sql(qq{
	CREATE TABLE kept (id int PRIMARY KEY, body text, topic text, status text);
	INSERT INTO kept SELECT i, '$leak' FROM generate_series(1, 2) i;
	SELECT minimax_m1.create_annotator('kept', 'kept', 'topic', $template, status_column => 'status');
	SELECT minimax_m1.alter_annotator('kept', enabled => false);
	SELECT minimax_m1.backfill_batch('kept', NULL, 10);
	INSERT INTO kept SELECT i, '$leak' FROM generate_series(3, 12) i;
	UPDATE minimax_m1.job SET state = 'failed' WHERE key = '{12}';
	UPDATE kept SET status = 'failed' WHERE id = 12});
sql($_) for (
	q{UPDATE kept SET topic = 'mine' WHERE id IN (1, 3, 4, 11)},
	qq{UPDATE kept SET body = '$parcel', topic = 'mine' WHERE id = 5},
	q{UPDATE kept SET id = 16, topic = 'mine' WHERE id = 6},
	q{DELETE FROM kept WHERE id = 7}, qq{INSERT INTO kept VALUES (7, '$leak', 'mine', 'done')},
	qq{INSERT INTO kept VALUES (8, '$leak', 'mine') ON CONFLICT (id) DO UPDATE SET topic = excluded.topic},
	q{UPDATE kept SET topic = 'no' WHERE id = 9}, q{UPDATE kept SET topic = NULL WHERE id = 9},
	qq{UPDATE kept SET body = '$parcel' WHERE id = 11},
	q{UPDATE kept SET topic = 'mine' WHERE id = 12}, q{SELECT minimax_m1.retry_failed('kept')});
my $asked = sql(q{SELECT requests FROM minimax_m1.usage});
sql(q{SELECT minimax_m1.alter_annotator('kept', enabled => true)});
wait_drained();
is(sql(q{SELECT string_agg(format('%s %s', id, topic), ', ' ORDER BY id) FROM kept}),
	'1 mine, 2 hardware, 3 mine, 4 mine, 5 mine, 7 mine, 8 mine, 9 hardware, 10 hardware, 11 delivery, 12 mine, 16 mine',
	'what statements write into rows that wait is kept');
is(sql(q{SELECT string_agg(DISTINCT status, ' ') FROM kept WHERE id > 2}), 'done', 'and those rows wait no longer');
is(sql('SELECT requests FROM minimax_m1.usage') - $asked, 4, 'nor is the model asked for them');
stop_engine();
sql(q{UPDATE kept SET body = body || ' Ann' WHERE id IN (4, 10)});
wait_running(2);
sql(qq{UPDATE kept SET topic = 'mine, too' WHERE id IN (4, 10); UPDATE kept SET body = '$parcel' WHERE id = 10});
kill 'CONT', $engine;
wait_drained();
is(sql(q{SELECT string_agg(format('%s %s %s', id, topic, status), ', ' ORDER BY id) FROM kept WHERE id IN (4, 10)}), '4 mine, too done, 10 delivery done',
	'also while the model works');
is(sql('SELECT count(*) FROM minimax_m1.job WHERE annotator_id IS NOT NULL'), '0', 'and nothing is left of their jobs');
sql('DROP TABLE kept');

# Failures: attempts with pauses in between, then a dead letter; others go on.
sql(qq{ALTER TABLE message ADD CHECK (topic <> 'hardware' OR id <> 10);
	SELECT minimax_m1.alter_annotator('topic', max_attempts => 3);
	INSERT INTO message VALUES (10, '$leak'), (11, '$parcel'), (12, '$leak')});
wait_drained();
is(sql(q{SELECT string_agg(id || ' ' || topic, ' ' ORDER BY id) FROM message WHERE id BETWEEN 10 AND 12}), '11 delivery 12 hardware',
	'one bad row holds up no other');
is(sql(q{SELECT key, state, attempts, sqlstate, error ~ 'violates check constraint' FROM minimax_m1.job_errors}), '{10}|failed|3|23514|t',
	'and ends as a dead letter that says why');
is(sql(q{SELECT pending, running, failed FROM minimax_m1.annotators}), '0|0|1', 'which is counted');
sql('ALTER TABLE message DROP CONSTRAINT message_check');
is(sql(q{SELECT minimax_m1.retry_failed('topic')}), '1', 'it is tried again on request');
wait_drained();
is(topic(10), 'hardware', 'and succeeds');
is(sql('SELECT count(*) FROM minimax_m1.job_errors'), '0', 'nothing is left of it');
# the pause doubles with each attempt, up to an hour
sql(qq{ALTER TABLE message ADD CONSTRAINT never CHECK (topic IS NULL OR id NOT BETWEEN 13 AND 15);
	SELECT minimax_m1.alter_annotator('topic', max_attempts => 100, enabled => false);
	INSERT INTO message SELECT i, '$leak' FROM generate_series(13, 15) i;
	UPDATE minimax_m1.job SET attempts = CASE key WHEN '{13}' THEN 3 WHEN '{14}' THEN 5 ELSE 40 END WHERE state = 'held';
	SELECT minimax_m1.alter_annotator('topic', enabled => true)});
wait_for('each has failed', sub { sql(q{SELECT count(failed_at) FROM minimax_m1.job WHERE key IN ('{13}', '{14}', '{15}')}) eq '3' });
is(sql(q{SELECT bool_and(abs(extract(epoch FROM run_at - failed_at) - least(3600, 0.1 * 2 ^ (attempts - 1))) < 0.05), max(attempts)
	FROM minimax_m1.job WHERE failed_at IS NOT NULL}), 't|41', 'pauses double up to an hour');
sql(q{DELETE FROM minimax_m1.job; DELETE FROM message WHERE id BETWEEN 13 AND 15; ALTER TABLE message DROP CONSTRAINT never;
	SELECT minimax_m1.alter_annotator('topic', max_attempts => 3)});
# what cannot succeed is not tried twice
$job = sql(q{SELECT minimax_m1.submit(repeat('What can you do? ', 20000))});
sql("CALL minimax_m1.wait_for(ARRAY[$job], '60 s')");
is(sql("SELECT state, attempts, sqlstate FROM minimax_m1.poll($job)"), 'failed|1|54000', 'a prompt that does not fit fails at once');

# An outage: no attempts, and all goes on by itself.
$node->append_conf('postgresql.conf', "minimax_m1.model = 'no-such-model'");
$node->reload;
wait_for('the model is gone', sub { sql('SELECT state FROM minimax_m1.model') eq 'failed' });
sql(qq{INSERT INTO message SELECT i, '$leak' FROM generate_series(20, 29) i});
$job = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')});
$node->safe_psql('postgres', 'SELECT pg_sleep(1.5)');
is(sql(q{SELECT pending, running, failed FROM minimax_m1.annotators}), '10|0|0', 'without an engine, everything waits');
is(sql('SELECT count(*) FROM minimax_m1.job_errors WHERE annotator IS NOT NULL'), '0', 'and nothing is held against it');
$node->append_conf('postgresql.conf', "minimax_m1.model = 'm1-nano'");
$node->reload;
sql("CALL minimax_m1.wait_for(ARRAY[$job], '60 s')");
wait_drained();
is(sql(q{SELECT count(*) FROM message WHERE topic = 'hardware' AND id BETWEEN 20 AND 29}), '10', 'then it goes on by itself');
is(sql("SELECT state, attempts FROM minimax_m1.poll($job)"), 'done|0', 'with no attempt charged');

# Priorities, where one place is left.
$node->append_conf('postgresql.conf', 'minimax_m1.job_requests = 1');
$node->reload;
$engine = stop_engine();
sql(q{SELECT minimax_m1.submit('Hello.')});
wait_running(1);
sql(q{SELECT minimax_m1.submit('Hello.', priority => p) FROM unnest('{0,5,-3,9}'::int[]) p});
kill 'CONT', $engine;
wait_drained();
is(sql(q{SELECT string_agg(priority::text, ' ' ORDER BY started_at) FROM (SELECT * FROM minimax_m1.jobs ORDER BY id DESC LIMIT 4) j}),
	'9 5 0 -3', 'the highest priority goes first');

# Idle, there is no runner; nor one in a database without the extension.
no_runner();
sql('CREATE DATABASE other');
$node->safe_psql('other', q{CREATE EXTENSION minimax_m1});
is($node->safe_psql('other', q{SELECT minimax_m1.submit('What is 47 + 35?') AS job}), '1', 'a second database has its own queue');
wait_for('it is served', sub { $node->safe_psql('other', 'SELECT content FROM minimax_m1.poll(1)') eq '82' });
is(sql(q{SELECT count(*) FROM minimax_m1.jobs WHERE content = '82' AND prompt ~ '47'}) > 0, 1, 'besides the first');
$node->safe_psql('other', 'DROP EXTENSION minimax_m1');
sql('DROP DATABASE other');
is(sql(q{SELECT count(*) FROM pg_database WHERE datname = 'other'}), '0', 'which can be dropped');

# More requests than the server takes: jobs are refused as others are, and come again.
$node->append_conf('postgresql.conf', "max_prepared_transactions = 2\nminimax_m1.max_queue = 0\nminimax_m1.job_requests = 0");
$node->restart;
wait_ready($node);
$engine = stop_engine();
my @busy = map { start_query($node, q{SELECT minimax_m1.generate('Hello.')}) } 1 .. 2;
wait_for('two requests take all places', sub { sql('SELECT count(*) FROM minimax_m1.activity') eq '2' });
my $rejected = sql('SELECT rejected FROM minimax_m1.stats');
$job = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')});
wait_for('the job was refused twice', sub { sql('SELECT rejected FROM minimax_m1.stats') >= $rejected + 2 });
is(sql("SELECT state, attempts, sqlstate, error ~ 'queue is full' FROM minimax_m1.job_errors WHERE id = $job"), 'pending|0|53400|t',
	'a full queue is not held against a job, which says why it waits');
kill 'CONT', $engine;
finish_query($_) for @busy;
sql("CALL minimax_m1.wait_for(ARRAY[$job], '60 s')");
is(sql("SELECT state, content, attempts FROM minimax_m1.poll($job)"), 'done|82|0', 'which is done when there is room');

# A role that has no room for more: its backlog waits, and others go on.
$node->append_conf('postgresql.conf', "minimax_m1.max_queue = 100\nminimax_m1.job_retry_delay = 60000");
$node->restart;
wait_ready($node);
sql(q{CREATE ROLE poor; SELECT minimax_m1.grant_usage('poor'), minimax_m1.set_quota('poor', max_concurrent => 0);
	SET ROLE poor; SELECT count(minimax_m1.submit('Hello.', priority => 1)) FROM generate_series(1, 30)});
$job = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')});
sql("CALL minimax_m1.wait_for(ARRAY[$job], '30 s')");
is(sql(q{SELECT count(*) <= 2 FROM minimax_m1.job_errors WHERE error ~ 'as its quota allows'}), 't', 'a refused role\'s other jobs are left alone');
sql(q{SELECT count(minimax_m1.cancel_job(id)) FROM minimax_m1.jobs WHERE state = 'pending'});
$node->append_conf('postgresql.conf', 'minimax_m1.job_retry_delay = 100');
$node->reload;

# A prepared transaction's job runs once that is committed.
sql(qq{BEGIN; INSERT INTO message VALUES (40, '$parcel'); PREPARE TRANSACTION 'later'});
is(topic(40), '', 'a prepared row is not there');
sql(q{COMMIT PREPARED 'later'});
wait_for('it is annotated', sub { topic(40) eq 'delivery' });
pass('a prepared transaction\'s row is annotated when it is committed');

# Where nothing waits, nothing wakes: looked at again behind what takes a minute anyway.
$node->safe_psql('postgres', 'CREATE DATABASE quiet');
$node->safe_psql('quiet', q{CREATE EXTENSION minimax_m1; CREATE TABLE t (id int PRIMARY KEY, body text, topic text);
	SELECT minimax_m1.create_annotator('a', 't', 'topic', '{body}'); INSERT INTO t VALUES (1, 'Hello.')});
my $of_quiet = q{FROM pg_stat_activity WHERE datname = 'quiet'};
wait_for('its row is annotated', sub { $node->safe_psql('quiet', 'SELECT topic IS NOT NULL FROM t') eq 't' });
wait_for('its runner has left', sub { sql("SELECT count(*) $of_quiet") eq '0' });
sleep 2;
my $commits = q{SELECT xact_commit FROM pg_stat_database WHERE datname = 'quiet'};
my ($before, $left) = (sql($commits), time());

# What has ended is forgotten in time.
$node->append_conf('postgresql.conf', 'minimax_m1.job_retention = 0');
$node->reload;
$job = sql(q{SELECT minimax_m1.submit('Hello.')});
wait_for('finished jobs are forgotten', sub { sql('SELECT count(*) FROM minimax_m1.jobs') eq '0' }, 90);
pass('finished jobs are forgotten after job_retention');
sleep 1 while time() - $left < 70;
is(sql($commits), $before, 'no runner comes to a database where nothing waits');
ok(is_idle($node), 'no request is left');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked|was terminated by signal/, 'nothing bad in the log');
done_testing();
