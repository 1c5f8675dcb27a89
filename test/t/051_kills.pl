# Processes of all kinds are killed and disturbed while clients work: in the end every committed row was annotated once,
# every job is done, and no slot, segment, quota or engine is left. KILLS is how many signals there are (make
# check-clients); by default a few.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $kills = $ENV{KILLS} || 16;
my $groups = $ENV{KILLS} ? 8 : 3;
srand(7);
my $node = new_server('kills', 'max_connections = 80', 'minimax_m1.job_retry_delay = 50', 'dynamic_shared_memory_type = mmap',
	'restart_after_crash = on', 'log_statement = none');
wait_ready($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# While the server restarts, there is no answer.
sub try { my $out = ''; return $node->psql('postgres', $_[0], stdout => \$out) == 0 ? $out : undef; }

make_texts($node, 3);
sql(q{
	CREATE TABLE message (id serial PRIMARY KEY, n int, body text, topic text);
	CREATE TABLE written (id int);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.written VALUES (new.id); RETURN new; END';
	SELECT minimax_m1.create_annotator('topic', 'message', 'topic',
		E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\n\n{body}');
	CREATE TRIGGER note AFTER UPDATE ON message FOR EACH ROW EXECUTE FUNCTION note();
	CREATE TABLE asked (job bigint);
	CREATE ROLE clerk;
	SELECT minimax_m1.grant_usage('clerk'), minimax_m1.set_quota('clerk', 10000000, 50)});

# Segments are files here.
sub segments { return sql(q{SELECT count(*) FROM pg_ls_dir('pg_dynshmem')}); }

my $segments = segments();
tell_memory('at the start', memory_at_rest($node));

# ---- clients ----

# No more waits than is done soon, however slow the machine.
my $room = q{(SELECT count(*) FROM (SELECT FROM minimax_m1.job WHERE state = 'pending' LIMIT 100) j) < 100};
my %script = (
	insert => qq{INSERT INTO message (n, body) SELECT n, body FROM text_of WHERE n = (SELECT (random() * 2)::int) AND $room;},
	submit => qq{WITH j AS (SELECT minimax_m1.submit('What is 47 + 35?') AS job WHERE $room) INSERT INTO asked SELECT job FROM j;},
	ask => q{SET ROLE clerk; SELECT minimax_m1.generate('Hello.', max_tokens => 100); RESET ROLE;},
	stream => "BEGIN;\nDECLARE c CURSOR FOR SELECT (minimax_m1.generate_stream('What can you do?')).*;\nFETCH 2 FROM c;\nROLLBACK;",
	count => q{SELECT minimax_m1.count_tokens(repeat('Hello, world! ', 1000));},
	batch => q{SELECT count(*) FROM minimax_m1.generate_batch(array_fill('Hello.'::text, '{4}'));});
my @files;
for my $name (sort keys %script)
{
	my $file = $node->basedir . "/$name.sql";
	append_to_file($file, "$script{$name}\n");
	push @files, '-f', $file;
}

# Groups of four, each of which begins anew when its clients have lost their connections, as long as the flag is there.
my $flag = $node->basedir . '/go_on';
append_to_file($flag, '');
my $connection = $node->connstr('postgres');
my @clients = map { keep_running($flag, 'env', 'PGAPPNAME=client', 'pgbench', '-n', '-c', 4, '-T', 5, @files, $connection) } 1 .. $groups;

# ---- signals ----

sub backend { return try(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'client' ORDER BY random() LIMIT 1}); }

my %process = (
	engine => sub { return try('SELECT engine_pid FROM minimax_m1.model') },
	worker => sub { return eval { worker_pid($node) } },
	launcher => sub { return eval { job_pid($node, 'launcher') } },
	runner => sub { return eval { job_pid($node, 'runner') } },
	backend => \&backend);

# Each with how often it comes. KILL and QUIT of a process that is attached to shared memory restart the server: that
# forgets what may have leaked, so the last third has none of these.
my @kinds = (
	([ engine => 'KILL' ]) x 5, ([ engine => 'TERM' ]) x 2, [ engine => 'ABRT' ], ([ engine => 'SEGV' ]) x 2, ([ engine => 'STOP' ]) x 2,
	([ worker => 'TERM' ]) x 3, [ worker => 'HUP' ], [ worker => 'USR1' ], ([ launcher => 'TERM' ]) x 2, [ launcher => 'HUP' ],
	([ runner => 'TERM' ]) x 4, [ runner => 'INT' ], [ runner => 'HUP' ], ([ backend => 'TERM' ]) x 4, ([ backend => 'INT' ]) x 4);
my @restarts = ([ worker => 'KILL' ], [ runner => 'KILL' ], [ backend => 'KILL' ], [ launcher => 'KILL' ], [ worker => 'QUIT' ]);

my %sent;
for my $i (1 .. $kills)
{
	my $kind = $i % 16 == 8 && $i < $kills * 2 / 3 ? $restarts[ rand @restarts ] : $kinds[ rand @kinds ];
	my ($what, $signal) = @$kind;
	# an engine that never stays up for 10 s is started after a minute at last
	my $pid = wait_for("there is some $what", sub { my $p = $process{$what}->(); return defined $p && $p =~ /^[1-9]\d*$/ ? $p : 0 }, 120);

	kill $signal, $pid;
	$sent{"$what $signal"}++;
	if ($signal eq 'STOP')
	{
		usleep(300_000);
		kill 'CONT', $pid;
	}
	usleep(rand 200_000);
}
figure(join(', ', map { "$_: $sent{$_}" } sort keys %sent));
pass("$kills signals were sent");
unlink $flag;
$_->finish for @clients;

# ---- what is left ----

wait_for('the server answers', sub { defined try('SELECT 1') });
wait_ready($node);
sub wait_drained
{
	wait_for('the queue is empty', sub {
			(try(q{SELECT count(*) FROM minimax_m1.job WHERE state IN ('pending', 'held', 'running')}) // '') eq '0' }, 600);
	return;
}
wait_drained();
# On a slow machine some were running each time that something was killed, until they were suspected and failed.
is(sql(q{SELECT count(*) FROM minimax_m1.job WHERE state = 'failed' AND (sqlstate <> '57P03' OR losses < 3)}), '0',
	'no job failed but those that were killed again and again');
sql(q{SELECT minimax_m1.retry_failed('topic')});
wait_drained();
wait_for('no request is left', sub { is_idle($node) });
my $rows = sql('SELECT count(*) FROM message');
cmp_ok($rows, '>', 0, 'rows were written');
figure("$rows rows, " . sql('SELECT count(*) FROM asked') . ' jobs');
is(sql('SELECT count(*) FROM message m JOIN text_of t USING (n) WHERE m.topic IS DISTINCT FROM t.topic'), '0', 'every row is right');
is(sql('SELECT count(*) FROM (SELECT id FROM written GROUP BY id HAVING count(*) > 1) w'), '0', 'none was written twice');
is(sql('SELECT count(*) FROM message WHERE id NOT IN (SELECT id FROM written)'), '0', 'and each once');
is(sql(q{SELECT count(*) FROM asked, minimax_m1.poll(job) p WHERE p.content IS DISTINCT FROM '82' AND p.state <> 'failed'}), '0',
	'every job is done');
is(sql(q{SELECT reserved, requests FROM minimax_m1.quotas}), '0|0', 'nothing is reserved');
my @engines = slurp_file($node->logfile) =~ /started engine with process ID (\d+)/g;
is_deeply([ grep { process_exists($_) } @engines ], [ engine_pid($node) ], 'of all engines one is left');
wait_for('the runner has left', sub { job_pid($node, 'runner') eq '' });
is(segments(), $segments, 'no segment is left');
my @many = map { start_query($node, q{SELECT count(*) FROM minimax_m1.generate_batch(array_fill('Hello.'::text, '{40}'))}) } 1 .. 4;
is(join(' ', map { finish_query($_)->{out} } @many), '40 40 40 40', 'all places and slots can be taken');
wait_for('they are at rest', sub { is_idle($node) });
tell_memory('in the end', memory_at_rest($node));
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked/, 'nothing bad in the log');
done_testing();
