# The worker ends: who waits is told or waits for the next one, it comes back, and the cluster does not restart.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('worker_killed', "minimax_m1.model = '" . tiny() . "'", 'minimax_m1.max_requests = 2');
wait_ready($node);
my $log_begin = -s $node->logfile;
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $bystander = start_query($node, 'SELECT 42 FROM pg_sleep(3)');

for my $round (1 .. 3)
{
	wait_ready($node);
	my ($worker, $engine) = (worker_pid($node), engine_pid($node));
	my @running = map { start_query($node, long_query()) } 1 .. 4;

	# and the worker has taken all of them up: one that it has not would wait for the next worker
	wait_for('two requests run and two wait', sub {
			$node->safe_psql('postgres', q{SELECT string_agg(state, ' ' ORDER BY state), bool_and(state_since > submitted_at)
				FROM minimax_m1.activity}) eq 'decode decode queued queued|t' });
	# pg_terminate_backend() does not know processes without a database, so the signal that it would send.
	kill 'TERM', $worker;
	is(finish_query($_)->{state}, '57P03', "round $round: a waiting client gets a retryable SQLSTATE") for @running;
	like($running[$_]{err}, qr/HINT: .*[Tt]ry again/, "round $round: and a hint") for 0, 3;
	wait_for('worker and engine are gone', sub { !process_exists($worker) && !process_exists($engine) }, 10);
	pass("round $round: worker and engine are gone");
	is($node->safe_psql('postgres', "SET statement_timeout = '30s'; SELECT array_length(minimax_m1.generate_ids(ARRAY[1], 3), 1)"),
		'3', "round $round: the next request waits for the next worker, and is answered");
	isnt(worker_pid($node), $worker, "round $round: it is another worker");
	ok(is_idle($node), "round $round: nothing is left");
}

# A stream that is open meanwhile fails when it is read, and its session goes on.
my ($state, $message, $out) = sqlstate($node, q{
	SELECT state FROM minimax_m1.model;
	BEGIN;
	DECLARE c CURSOR FOR SELECT minimax_m1.generate_ids(ARRAY[1, 2, 3], 2000000);
	SAVEPOINT s;
	SET LOCAL statement_timeout = '1s';
	FETCH c;
	ROLLBACK;
	SELECT 'still here'});
is($state, '57014', 'a cursor that is cut short');
like($out, qr/still here/, 'leaves its session alive');

is(finish_query($bystander)->{out}, '42', 'another session was never disturbed');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');
my $log = slurp_file($node->logfile, $log_begin);
unlike($log, qr/crash of another server process|terminating any other active server processes|PANIC/, 'nor the cluster');
my @engines = $log =~ /started engine with process ID (\d+)/g;
is(scalar(@engines), 3, 'an engine for each new worker');
is_deeply([ grep { process_exists($_) } @engines ], [ engine_pid($node) ], 'of which the last one is left');
$node->stop;
done_testing();
