# Databases whose jobs nobody's commit announces, roles that are gone, and servers that cannot run jobs.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('jobs_everywhere', 'minimax_m1.job_retry_delay = 100', 'minimax_m1.max_job_runners = 0', 'wal_level = logical',
	'max_wal_senders = 4', 'max_replication_slots = 4');
wait_ready($node);

sub in_db { my ($db, $sql) = @_; return $node->safe_psql($db, $sql); }

sub waiting { return in_db($_[0], q{SELECT count(*) FROM minimax_m1.job WHERE state IN ('pending', 'running')}); }

sub wait_done
{
	my ($db, $what) = @_;
	wait_for($what, sub { waiting($db) eq '0' }, 20);
	is(in_db($db, q{SELECT DISTINCT state FROM minimax_m1.job}), 'done', $what);
}

sub set_runners { $node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.max_job_runners = $_[0]"); $node->reload; }

# ---- copies of databases ----

in_db('postgres', 'CREATE DATABASE shop');
in_db('shop', q{CREATE EXTENSION minimax_m1; SELECT minimax_m1.submit('Hello.')});
in_db('postgres', 'CREATE DATABASE first TEMPLATE shop');
in_db('postgres', 'CREATE DATABASE closed TEMPLATE shop');
in_db('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS false');
in_db('postgres', 'CREATE DATABASE old TEMPLATE shop');
in_db('postgres', 'ALTER DATABASE old RENAME TO new');
set_runners(2);
wait_done('shop', 'jobs that waited for a runner are run when one is allowed');
wait_done('first', 'so are those of a copy');
wait_done('new', 'and of a database that was renamed');
in_db('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS true');
wait_done('closed', 'a database that was closed to connections is looked at when it is opened');
unlike(slurp_file($node->logfile), qr/is not currently accepting connections/, 'and was left alone until then');

# A template is a database like others, also after a restart.
set_runners(0);
in_db('shop', q{SELECT minimax_m1.submit('Hello.')});
in_db('postgres', 'ALTER DATABASE shop IS_TEMPLATE true');
set_runners(2);
$node->restart;
wait_ready($node);
wait_done('shop', 'jobs of a template are run');

# Whoever copies, renames, moves or drops a database need not wait for its jobs.
sub runner { return in_db('postgres', qq{SELECT pid FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job runner' AND datname = '$_[0]'}); }

sub beside_a_job
{
	my ($db, $sql) = @_;
	my $engine = engine_pid($node);
	kill 'STOP', $engine;
	in_db($db, q{SELECT minimax_m1.submit('Hello.')});
	wait_for('a job runs', sub { in_db($db, q{SELECT count(*) FROM minimax_m1.job WHERE state = 'running'}) eq '1' && runner($db) ne '' });
	my $runner = runner($db);
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	my $stayed = runner($db) eq $runner;
	kill 'CONT', $engine;
	return ($err, $stayed);
}

in_db('postgres', q{CREATE ROLE nobody; CREATE ROLE maker CREATEDB});
my ($err, $stayed) = beside_a_job('shop', 'SET ROLE nobody; CREATE DATABASE stolen TEMPLATE shop');
like($err, qr/permission denied/, 'who may not copy a database');
ok($stayed, 'does not disturb its jobs');
wait_for('which go on', sub { waiting('shop') eq '0' });
for my $role ('maker', 'postgres')
{
	($err) = beside_a_job('shop', "SET ROLE $role; CREATE DATABASE of_$role TEMPLATE shop");
	is($err, '', "$role copies a database with jobs under way");
	wait_done($_, 'which are done there and here') for 'shop', "of_$role";
}
in_db('postgres', "SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''");
($err) = beside_a_job('of_maker', 'ALTER DATABASE of_maker SET TABLESPACE elsewhere');
is($err, '', 'one is moved');
wait_done('of_maker', 'and goes on');
($err) = beside_a_job('of_maker', 'ALTER DATABASE of_maker RENAME TO moved');
is($err, '', 'renamed');
wait_done('moved', 'and goes on');
($err) = beside_a_job('moved', 'DROP DATABASE moved');
is($err, '', 'and dropped');
in_db('postgres', 'ALTER DATABASE shop IS_TEMPLATE false');

# ---- rows that replication brings ----

in_db('postgres', 'CREATE DATABASE branch');
in_db($_, q{CREATE TABLE mail (id int PRIMARY KEY, body text, topic text)}) for 'shop', 'branch';
in_db('branch', q{CREATE EXTENSION minimax_m1; ALTER TABLE mail ADD seen text;
	SELECT minimax_m1.create_annotator('brought', 'mail', 'topic', '{body}', fire => 'always'),
		minimax_m1.create_annotator('written', 'mail', 'seen', '{body}')});
in_db('shop', q{CREATE PUBLICATION mail FOR TABLE mail});
in_db('shop', q{SELECT pg_create_logical_replication_slot('mail', 'pgoutput')});
in_db('branch', sprintf(q{CREATE SUBSCRIPTION mail CONNECTION $c$%s$c$ PUBLICATION mail WITH (create_slot = false, copy_data = false)}, $node->connstr('shop')));
in_db('shop', q{INSERT INTO mail SELECT i, 'Hello.' FROM generate_series(1, 3) i; UPDATE mail SET body = 'What can you do?' WHERE id = 2});
wait_for('rows are brought', sub { in_db('branch', q{SELECT count(*) FROM mail WHERE body ~ 'can' OR id <> 2}) eq '3' });
wait_for('they are done', sub { waiting('branch') eq '0' });
is(in_db('branch', q{SELECT string_agg((topic ~ '^Hello')::text || (seen IS NULL), ' ' ORDER BY id) FROM mail WHERE id <> 2}), 'truetrue truetrue',
	'rows that replication brings are annotated where that is asked for');
in_db('branch', $_) for 'ALTER SUBSCRIPTION mail DISABLE', 'ALTER SUBSCRIPTION mail SET (slot_name = NONE)', 'DROP SUBSCRIPTION mail';
wait_for('the slot is free', sub { in_db('shop', q{SELECT active FROM pg_replication_slots}) eq 'f' });
in_db('shop', q{SELECT pg_drop_replication_slot('mail')});

# ---- roles that are gone ----

in_db('postgres', q{
	CREATE ROLE leaver; SELECT minimax_m1.grant_usage('leaver');
	CREATE TABLE t (id int PRIMARY KEY, body text, topic text);
	GRANT SELECT, UPDATE, TRIGGER ON t TO leaver; GRANT USAGE ON SCHEMA public TO leaver;
	SET ROLE leaver; SELECT minimax_m1.create_annotator('left', 't', 'topic', '{body}')});
set_runners(0);
in_db('postgres', q{SET ROLE leaver; SELECT minimax_m1.submit('Hello.'), minimax_m1.submit('Hello.')});
in_db('postgres', q{INSERT INTO t VALUES (1, 'Hello.'); DROP OWNED BY leaver; DROP ROLE leaver});
my $requests = in_db('postgres', 'SELECT coalesce(sum(requests), 0) FROM minimax_m1.usage');
set_runners(2);
wait_for('their jobs have ended', sub { waiting('postgres') eq '0' });
is(in_db('postgres', q{SELECT DISTINCT state || ' ' || sqlstate || ' ' || error FROM minimax_m1.job}),
	'failed 42704 minimax_m1: the role that the job belongs to was dropped', 'jobs of a dropped role fail');
is(in_db('postgres', 'SELECT coalesce(sum(requests), 0) FROM minimax_m1.usage'), $requests, 'and ask nothing');

# ---- the end of an annotator, beside the end of its table ----

my @deadlocks = ();
for my $i (1 .. 10)
{
	in_db('postgres', qq{CREATE TABLE both_$i (id int PRIMARY KEY, body text, topic text);
		SELECT minimax_m1.create_annotator('both_$i', 'both_$i', 'topic', '{body}')});
	my @other = ("SELECT minimax_m1.drop_annotator('both_$i')", "SELECT minimax_m1.alter_annotator('both_$i', mode => 'sync')");
	my @queries = map { start_query($node, $_) } ($i % 2 ? ("DROP TABLE both_$i", $other[$i % 4 == 1]) : ($other[$i % 4 == 0], "DROP TABLE both_$i"));
	finish_query($_) for @queries;
	push @deadlocks, grep { /40P01|XX000|42601/ } map { $_->{err} } @queries;
}
is("@deadlocks", '', 'drop_annotator beside DROP TABLE does not deadlock');
is(in_db('postgres', q{SELECT count(*) FROM minimax_m1.annotator WHERE name LIKE 'both%'}), '0', 'and nothing is left');

# The order of the locks: whoever waits for the table holds nothing that DROP TABLE wants.
in_db('postgres', q{CREATE TABLE pair (id int PRIMARY KEY, body text, topic text);
	SELECT minimax_m1.create_annotator('pair', 'pair', 'topic', '{body}')});
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE pair IN ACCESS SHARE MODE');
my $drop = start_query($node, q{SELECT minimax_m1.drop_annotator('pair')});
wait_for('it waits', sub { in_db('postgres', q{SELECT count(*) FROM pg_locks WHERE NOT granted}) eq '1' });
$holder->query_safe('DROP TABLE pair; COMMIT');
$holder->quit;
like(finish_query($drop)->{err}, qr/42704.*annotator "pair" does not exist|^$/s, 'who comes second finds no annotator');

# ---- a server that has started, and that no session has asked anything ----

set_runners(4);
$node->stop;
truncate($node->logfile, 0);
$node->start;
wait_for('the launcher is there', sub { job_pid($node, 'launcher') ne '' });
unlike(slurp_file($node->logfile), qr/job launcher" \(PID \d+\) exited/, 'the launcher starts before any session');

# ---- too few background workers ----

$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
truncate($node->logfile, 0);
$node->restart;
my @warnings = slurp_file($node->logfile) =~ /WARNING: .*max_worker_processes is too low for jobs/g;
is(scalar @warnings, 1, 'a server that cannot run jobs says so when it starts');
my ($state, $err) = sqlstate($node, q{SELECT minimax_m1.submit('Hello.'); SELECT minimax_m1.submit('Hello.')});
is(() = $err =~ /WARNING: .*jobs wait/g, 1, 'and each session that submits is told once');
done_testing();
