# Jobs of one role, however many and however important to it, do not hold up another role's.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('job_turns', 'minimax_m1.max_requests = 2', 'minimax_m1.job_requests = 1');
wait_ready($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub stop_engine { my $pid = engine_pid($node); kill 'STOP', $pid; return $pid; }

sub wait_for_jobs
{
	wait_for('all jobs are done', sub { sql(q{SELECT count(*) FROM minimax_m1.job WHERE state IN ('pending', 'running')}) eq '0' });
}

sql(q{CREATE ROLE flood; CREATE ROLE victim; CREATE ROLE other;
	SELECT minimax_m1.grant_usage(r) FROM unnest('{flood,victim,other}'::regrole[]) r});

# A backlog of the highest priority that there is, and a job of somebody else.
my $engine = stop_engine();
sql(q{SET ROLE flood; SELECT count(minimax_m1.submit('Hello.')) FROM generate_series(1, 3000)});
sql('UPDATE minimax_m1.job SET priority = 2147483647');
my $job = sql(q{SET ROLE victim; SELECT minimax_m1.submit('What is 47 + 35?')});
kill 'CONT', $engine;
sql("CALL minimax_m1.wait_for(ARRAY[$job], '60 s')");
is(sql("SELECT content FROM minimax_m1.poll($job)"), '82', 'a job beside 3000 of another role is done');
cmp_ok(sql("SELECT count(*) FROM minimax_m1.job f JOIN minimax_m1.job v ON f.started_at BETWEEN v.submitted_at AND v.started_at
	WHERE f.owner = 'flood'::regrole AND v.id = $job"), '<=', 2, 'after one turn of the other role');
is(sql(q{SELECT count(*) > 1000 FROM minimax_m1.job WHERE state = 'pending'}), 't', 'whose backlog is still there');

# The same for the row that waits longest; and a session's request.
$job = sql(q{SET ROLE other; SELECT minimax_m1.submit('What is 47 + 35?', priority => -1000)});
sql("CALL minimax_m1.wait_for(ARRAY[$job], '60 s')");
is(sql("SELECT state FROM minimax_m1.poll($job)"), 'done', 'the lowest priority of a role is no worse beside other roles');
like(sql(q{SET ROLE victim; SET statement_timeout = '30s'; SELECT minimax_m1.generate('Hello.')}), qr/Hello/, 'nor is a session held up');

# Only a few entries of a long queue are looked at to take the next jobs, however many may not be taken.
my $read = q{SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'job')
	+ (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'job')};
sub hold_all { sql(q{UPDATE minimax_m1.job SET state = 'held' WHERE state = 'pending'}); }

sub runner_has_left
{
	wait_for('the runner has left', sub {
			sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job runner'}) eq '0' });
}

# As queues mostly are when they are analyzed: the planner believes so for a while, whatever comes.
sub empty_queue
{
	sql('TRUNCATE minimax_m1.job');
	sql(q{INSERT INTO minimax_m1.job (owner, prompt) VALUES ('flood', ''); DELETE FROM minimax_m1.job});
	sql('ANALYZE minimax_m1.job');
}
sql('ALTER TABLE minimax_m1.job SET (autovacuum_enabled = off)');

# What the runner has read for each of 20 jobs of a role that has 100000 others; it tells once a second.
sub read_for_each
{
	my ($who, $others) = @_;
	hold_all();
	runner_has_left();
	empty_queue();
	sql("INSERT INTO minimax_m1.job (owner, prompt, max_tokens, thinking_budget, temperature, top_p, seed, priority, state, losses, run_at, finished_at)
		SELECT 'flood'::regrole, 'Hello.', 1, 0, 0, 1, 1, $others FROM generate_series(1, 100000) i");
	my $read_before = sql($read);
	my $jobs = sql("SET ROLE $who; SELECT array_agg(minimax_m1.submit('Hello.')) FROM generate_series(1, 20)");
	# however little is known of a table that is new
	sql("SET enable_seqscan = off; CALL minimax_m1.wait_for('$jobs', '60 s')");
	# one with nothing to do leaves; the other goes on
	$others =~ /pending.*0, now..,/ ? sql('SELECT pg_sleep(1.1)') : runner_has_left();
	my $read_after = sql($read);
	return ($read_after - $read_before) / sql(q{SELECT count(*) FROM minimax_m1.job WHERE state = 'done' AND attempts = 0 AND content IS NOT NULL});
}

my %others = (
	'are due' => q{i % 7, 'pending', 0, now(), NULL},
	'wait for their time' => q{i % 7, 'pending', 0, now() + '1 day', NULL},
	'have failed with the engine and wait' => q{0, 'pending', 3, now() + '1 day', NULL},
	'are done' => q{0, 'done', 0, now(), now()},
	'are held' => q{0, 'held', 0, now(), NULL});
for my $which (sort keys %others)
{
	for my $who ($which eq 'are due' ? 'victim' : ('flood', 'victim'))
	{
		my $each = read_for_each($who, $others{$which});
		figure("beside 100000 jobs of a role that $which, entries read for each of $who: $each");
		cmp_ok($each, '<', 2000, "100000 jobs of a role that $which are not gone through for each of $who");
	}
}
hold_all();
runner_has_left();

# Nor are rows of an annotator.
empty_queue();
sql(qq{
	CREATE TABLE message (id int PRIMARY KEY, body text, topic text);
	SELECT minimax_m1.create_annotator('topic', 'message', 'topic', '{body}', max_tokens => 1, thinking_budget => 0);
	INSERT INTO minimax_m1.job (owner, annotator_id, key, run_at)
	SELECT owner, id, ARRAY[i::text], now() + '1 day' FROM minimax_m1.annotator, generate_series(101, 100100) i});
my $rows_before = sql($read);
sql(q{INSERT INTO message SELECT i, 'Hello.' FROM generate_series(1, 20) i});
wait_for('rows are annotated', sub { sql('SELECT count(topic) FROM message') eq '20' });
runner_has_left();
my $of_row = (sql($read) - $rows_before) / 20;
figure("beside 100000 rows that wait for their time, entries read for each row: $of_row");
cmp_ok($of_row, '<', 2000, '100000 rows that wait for their time are not gone through for each row');
sql(q{DROP TABLE message});
empty_queue();

# Nor those that a transaction has locked, or written, which has not ended: they are gone through now and then.
$engine = stop_engine();
sql(q{SELECT minimax_m1.submit('Hello.')});
wait_for('it runs', sub { !is_idle($node) });
sql("INSERT INTO minimax_m1.job (owner, prompt, max_tokens, thinking_budget, temperature, top_p, seed)
	SELECT 'flood'::regrole, 'Hello.', 1, 0, 0, 1, 1 FROM generate_series(1, 150000) i");
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT count(*) FROM (SELECT FROM minimax_m1.job WHERE state = 'pending' FOR UPDATE) l});
my $before = sql($read);
kill 'CONT', $engine;
my $jobs = sql(q{SET ROLE victim; SELECT array_agg(minimax_m1.submit('Hello.')) FROM generate_series(1, 20)});
sql("SET enable_seqscan = off; CALL minimax_m1.wait_for('$jobs', '60 s'); SELECT pg_sleep(1.1)");
my $each = (sql($read) - $before) / 20;
figure("beside 150000 jobs of a role that are locked, entries read for each of victim: $each");
cmp_ok($each, '<', 150000, '150000 jobs of a role that are locked are not gone through for each of another role');
$jobs = sql(q{SET ROLE flood; SELECT array_agg(minimax_m1.submit('Hello.')) FROM generate_series(1, 3)});
sql("SET enable_seqscan = off; CALL minimax_m1.wait_for('$jobs', '60 s')");
pass('and those of that role that are not locked are done');
$holder->query_safe(q{UPDATE minimax_m1.job SET state = 'held' WHERE state = 'pending'; COMMIT});
$holder->quit;
runner_has_left();
sql('TRUNCATE minimax_m1.job');

# A share of three jobs to one, and each role's own by priority.
sql('ALTER ROLE other SET minimax_m1.share = 3');
$engine = stop_engine();
sql(q{SELECT minimax_m1.submit('Hello.')});
wait_for('it runs', sub { !is_idle($node) });
sql(q{SET ROLE flood; SELECT minimax_m1.submit('Hello.', priority => 1000 - i) FROM generate_series(1, 8) i});
sql(q{SET ROLE other; SELECT minimax_m1.submit('Hello.', priority => i) FROM generate_series(1, 8) i});
kill 'CONT', $engine;
wait_for_jobs();
my $first = q{(SELECT * FROM minimax_m1.job WHERE owner <> 'postgres'::regrole ORDER BY started_at, id LIMIT 8)};
is(sql("SELECT string_agg(format('%s %s', owner, n), ' ' ORDER BY owner::text) FROM (SELECT owner, count(*) AS n FROM $first f GROUP BY 1) s"),
	'flood 2 other 6', 'a role with a share of 3 has three jobs done where another has one');
is(sql(q{SELECT string_agg(priority::text, ' ' ORDER BY started_at) FROM minimax_m1.job WHERE owner = 'other'::regrole}),
	'8 7 6 5 4 3 2 1', 'and they go by priority');

# Those under which the engine was lost run alone, one after the other, but let others have their turns in between.
$engine = stop_engine();
sql(q{SELECT minimax_m1.submit('Hello.')});
wait_for('it runs', sub { !is_idle($node) });
sql(q{SET ROLE flood; SELECT minimax_m1.submit('Hello.') FROM generate_series(1, 6)});
sql(q{UPDATE minimax_m1.job SET losses = 3 WHERE owner = 'flood'::regrole AND state = 'pending'});
sql(q{SET ROLE victim; SELECT minimax_m1.submit('Hello.') FROM generate_series(1, 2)});
kill 'CONT', $engine;
wait_for_jobs();
cmp_ok(sql(q{SELECT count(*) FROM minimax_m1.job WHERE losses = 3 AND started_at <
	(SELECT max(started_at) FROM minimax_m1.job WHERE owner = 'victim'::regrole)}), '<=', 2, 'suspects of one role do not hold up another');

# Priorities have bounds for ordinary roles.
my ($state) = sqlstate($node, q{SET ROLE flood; SELECT minimax_m1.submit('Hello.', priority => 1001)});
is($state, '22023', 'a priority beyond them is refused');
($state) = sqlstate($node, q{SELECT minimax_m1.submit('Hello.', priority => -2147483648)});
is($state, 'none', 'but not of a superuser');
wait_for_jobs();
$node->stop;
done_testing();
