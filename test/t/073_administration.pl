# Databases and extensions that go while they are used, and columns that an annotator needs: as docs/clients.md has it. Jobs,
# streams and a training that are there end, nothing of them is left, and others go on.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('administration', 'minimax_m1.max_requests = 8', 'minimax_m1.job_retry_delay = 100',
	'dynamic_shared_memory_type = mmap', 'log_statement = none');
wait_ready($node);

sub sql { my ($query, $db) = @_; return $node->safe_psql($db // 'postgres', $query); }

sub segments { return sql(q{SELECT count(*) FROM pg_ls_dir('pg_dynshmem')}); }

sub processes { return sql(q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'}); }

my $segments = segments();
my @streams;

# A database with rows that are annotated, jobs, streams that are read by clients, and a training that has made a step.
sub load
{
	sql('CREATE DATABASE shop') if sql(q{SELECT count(*) FROM pg_database WHERE datname = 'shop'}) eq '0';
	sql('CREATE EXTENSION minimax_m1', 'shop');
	sql(slurp_file(root() . '/test/t/mail.sql'), 'shop');
	sql(q{CREATE TABLE letter (id int PRIMARY KEY, body text, topic text);
		SELECT minimax_m1.create_annotator('topic', 'letter', 'topic', '{body}')}, 'shop');
	teach_vouchers($node, 'vouchers', database => 'shop', steps => 1000);
	wait_for('it has made a step', sub { sql('SELECT count(*) FROM minimax_m1.training_statistics', 'shop') > 1 }, 180);
	sql(q{INSERT INTO letter SELECT i, 'What can you do? ' || i FROM generate_series(1, 2000) i;
		SELECT count(minimax_m1.submit('What can you do? ' || i)) FROM generate_series(1, 2000) i}, 'shop');
	@streams = map { start_query($node, q{SELECT (minimax_m1.generate_stream('What can you do?')).delta FROM generate_series(1, 100000)}, 'shop') } 1 .. 3;
	wait_for('all of it is at work', sub {
			sql(q{SELECT count(*) FILTER (WHERE function = 'generate_stream') > 0 AND count(*) FILTER (WHERE function IN ('annotate', 'submit')) > 0
				FROM minimax_m1.activity}) eq 't'
				&& sql(q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND backend_type = 'minimax_m1 training'}) eq '1' });
	return;
}

sub nothing_is_left
{
	my ($of) = @_;

	wait_for("no request of $of is left", sub { is_idle($node) });
	is(sql(q{SELECT minimax_m1.generate('What is 47 + 35?')}), '82', "$of: others go on");
	wait_for('no segment is left', sub { segments() eq $segments });
	is(sql('SELECT engine_restarts FROM minimax_m1.model'), '0', 'the engine is as it was');
	return;
}

# ---- columns ----

sql('CREATE DATABASE shop');
sql('CREATE EXTENSION minimax_m1', 'shop');
sql(q{CREATE TABLE note (id int PRIMARY KEY, body varchar(100), topic text);
	SELECT minimax_m1.create_annotator('topic', 'note', 'topic', '{body}')}, 'shop');
my ($state, $message) = sqlstate($node, 'ALTER TABLE note ALTER body TYPE text', connstr => $node->connstr('shop'));
is($state, '0A000', 'the type of a column of a template cannot be altered');
like($message, qr/cannot alter type of a column used in a trigger definition.*depends on column "body"/s, 'and PostgreSQL says so');
sql(q{SELECT minimax_m1.drop_annotator('topic'); ALTER TABLE note ALTER body TYPE text;
	SELECT minimax_m1.create_annotator('topic', 'note', 'topic', '{body}')}, 'shop');
sql(q{INSERT INTO note VALUES (1, 'Hello.')}, 'shop');
wait_for('its row is annotated', sub { sql('SELECT count(topic) FROM note', 'shop') eq '1' });
pass('without the annotator it can, and then there may be one again');

# ---- a database whose runner has work ----

my $engine = engine_pid($node);
kill 'STOP', $engine;
sql(q{SELECT minimax_m1.submit('Hello.')}, 'shop');
wait_for('a job runs', sub { !is_idle($node) });
is((sqlstate($node, 'DROP DATABASE shop'))[0], 'none', 'DROP DATABASE does not fail where the runner has work');
is(processes(), '0', 'which has made way');
kill 'CONT', $engine;

# ---- under load ----

load();
is((sqlstate($node, 'DROP EXTENSION minimax_m1 CASCADE', connstr => $node->connstr('shop')))[0], 'none', 'the extension can be dropped');
wait_for('its processes have left', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND backend_type LIKE 'minimax%'}) eq '0' });
$node->psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'});
finish_query($_) for @streams;
nothing_is_left('DROP EXTENSION');
sql('DROP TABLE letter, mail; DROP FUNCTION voucher_ok', 'shop');

load();
is((sqlstate($node, 'DROP DATABASE shop WITH (FORCE)'))[0], 'none', 'the database can be dropped, with FORCE');
is(processes(), '0', 'nobody is there any more');
is(join(' ', map { finish_query($_)->{state} // 'none' } @streams), '57P01 57P01 57P01', 'streams are told that they were ended');
nothing_is_left('DROP DATABASE');
sql('CREATE DATABASE shop');
sql('CREATE EXTENSION minimax_m1', 'shop');
my $job = sql(q{SELECT minimax_m1.submit('What is 47 + 35?')}, 'shop');
sql("CALL minimax_m1.wait_for(ARRAY[$job], '60 s')", 'shop');
is(sql("SELECT content FROM minimax_m1.poll($job)", 'shop'), '82', 'a database of that name is used like any other');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked|was terminated by signal/, 'nothing bad in the log');
done_testing();
