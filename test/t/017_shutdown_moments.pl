# Shutdown at awkward moments: whatever the engine is doing, none is left.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('shutdown_moments', "minimax_m1.model = '" . tiny() . "'", 'minimax_m1.max_requests = 2');
# of this run only, should a log of an earlier one be there
my $log_begin = (slurp_file($node->logfile) =~ /.*starting PostgreSQL/s) ? $+[0] : 0;

# All processes that run the staged engine for this server's worker, zombies included.
sub worker_of
{
	my ($engine) = @_;

	return slurp_file("/proc/$engine/stat") =~ /\) \S (\d+)/ ? $1 : die "no process $engine";
}

sub children_of
{
	my ($parent) = @_;

	return grep { (-r "/proc/$_/stat" ? (eval { slurp_file("/proc/$_/stat") } // '') : '') =~ /\) \S \Q$parent\E / }
	  map { m{/proc/(\d+)$} ? $1 : () } glob('/proc/[0-9]*');
}

sub engine_and_worker
{
	wait_ready($node);
	my $engine = engine_pid($node);
	my $worker = worker_of($engine);

	is_deeply([ children_of($worker) ], [$engine], 'the engine is the worker\'s only child');
	return ($engine, $worker);
}

sub gone
{
	my ($how, @pids) = @_;

	wait_for("$how: the processes are gone", sub { !grep { process_exists($_) } @pids }, 20);
	pass("$how: no process is left");
}

# Smart: what runs is finished first.
my ($engine, $worker) = engine_and_worker();
my $q = start_query($node, 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1, 2, 3], 4000), 1)');
wait_for('the request runs', sub { !is_idle($node) });
$node->stop('smart');
is(finish_query($q)->{out}, '4000', 'smart: a request in flight is finished') or diag($q->{err});
gone('smart', $engine, $worker);
$node->start;

# Requests that run and requests that wait, in all other ways.
for my $mode (qw(fast immediate))
{
	($engine, $worker) = engine_and_worker();
	my @running = map { start_query($node, long_query()) } 1 .. 5;

	wait_for('five requests are there', sub {
			$node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity') eq '5' });
	$node->stop($mode);
	gone($mode, $engine, $worker);
	for my $q (@running)
	{
		finish_query($q);
		like($q->{err}, qr/57P0[1-3]|server closed the connection|terminating connection/, "$mode: its client is told");
	}
	$node->start;
}

# An engine that hangs does not hold up the server's end.
for my $mode (qw(smart fast immediate))
{
	($engine, $worker) = engine_and_worker();
	my $start = time();

	kill 'STOP', $engine;
	$node->stop($mode);
	cmp_ok(time() - $start, '<', 20, "$mode: a stopped engine does not hold it up");
	gone("$mode with a stopped engine", $engine, $worker);
	$node->start;
}

# A restart in one go, right after the start, while the model may be loading: no two engines, and no server that hangs.
for (1 .. 5)
{
	$node->stop('fast');
	$node->start;
}
($engine, $worker) = engine_and_worker();
my @log = slurp_file($node->logfile, $log_begin) =~ /started engine with process ID (\d+)/g;
is_deeply([ grep { process_exists($_) } @log ], [$engine], 'of all engines of this server, one is left');

# Stopping while a model that cannot be loaded waits for its next try.
$node->append_conf('postgresql.conf', "minimax_m1.model = '/nonexistent/model'");
$node->restart;
wait_for('the failure is known', sub {
		$node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') eq 'failed' });
my $start = time();
$node->stop('fast');
cmp_ok(time() - $start, '<', 10, 'a failed model does not hold up the end');
@log = slurp_file($node->logfile, $log_begin) =~ /started engine with process ID (\d+)/g;
is_deeply([ grep { process_exists($_) } @log ], [], 'no engine of all of them is left');
unlike(slurp_file($node->logfile, $log_begin), qr/PANIC|server process .* was terminated by signal/, 'nothing crashed');
done_testing();
