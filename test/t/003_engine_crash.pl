# A killed engine fails the requests in flight, comes back by itself, and the cluster does not restart.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('crash', "minimax_m1.model = '" . tiny() . "'");
wait_ready($node);

# The worker is the engine's parent.
sub parent_of
{
	my ($child) = @_;

	return slurp_file("/proc/$child/stat") =~ /\) \S (\d+)/ ? $1 : die "no process $child";
}

my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

for my $round (1 .. 3)
{
	my @running = map { start_query($node, long_query()) } 1 .. 3;
	my $pid = engine_pid($node);

	wait_for('three requests run', sub {
			$node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE state = 'decode'") eq '3' });
	kill 'KILL', $pid;
	for my $q (@running)
	{
		finish_query($q);
		is($q->{state}, '57P03', "round $round: a request in flight fails with a retryable SQLSTATE");
	}
	like($running[0]{err}, qr/safe to try again/, "round $round: the hint says so");
	# the very next request waits for the new engine, or is told when to come back
	wait_for('the engine is back', sub {
			$node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') eq 'ready' });
	is($node->safe_psql('postgres', 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1], 3), 1)'), '3',
		"round $round: the new engine answers");
	isnt(engine_pid($node), $pid, "round $round: it is a new process");
	ok(!process_exists($pid), "round $round: the old one is gone");
}
is($node->safe_psql('postgres', 'SELECT engine_restarts FROM minimax_m1.model'), '3', 'restarts are counted');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');
unlike(slurp_file($node->logfile), qr/terminating any other active server processes|crash of another server process/,
	'the cluster was not restarted');
ok(is_idle($node), 'nothing is left');

# A few ends in a row, each soon after the last: none of them refuses anybody, requests wait for the next engine.
sub state { return $node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model'); }

$node->restart;
wait_ready($node);
for my $round (1 .. 3)
{
	kill_engine($node);
	is($node->safe_psql('postgres', 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1], 3), 1)'), '3',
		"end $round in a row: the engine is replaced at once");
}
# Beyond, there are pauses, which are short at first.
for (1 .. 20)
{
	last if wait_for('the engine is ready or given up', sub { state() =~ /ready|failed/ }) && state() eq 'failed';
	kill_engine($node);
}
is((sqlstate($node, 'SELECT minimax_m1.generate_ids(ARRAY[1], 3)'))[0], '57P03', 'after more of them, requests are told');
is($node->safe_psql('postgres', q{SELECT next_try IS NULL OR next_try - clock_timestamp() < '2 s' FROM minimax_m1.model}), 't',
	'the next try is soon');
wait_ready($node);
is($node->safe_psql('postgres', 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1], 3), 1)'), '3', 'and heals it');
$started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

# The worker itself: clients are told, it comes back, the cluster does not restart.
my $q = start_query($node, long_query());
wait_for('a request runs', sub {
		$node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE state = 'decode'") eq '1' });
my $pid = engine_pid($node);
kill 'TERM', parent_of($pid);
is(finish_query($q)->{state}, '57P03', 'a terminated worker fails its requests');
wait_for('the engine is gone', sub { !process_exists($pid) });
pass('its engine is gone');
is($node->safe_psql('postgres', 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1], 3), 1)'), '3',
	'a request waits for the new worker and is answered');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');
unlike(slurp_file($node->logfile), qr/terminating any other active server processes/, 'nor the cluster');
$node->stop;
done_testing();
