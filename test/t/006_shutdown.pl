# However the server stops, no engine is left behind; and what happens without preloading.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = new_server('shutdown', "minimax_m1.model = '" . tiny() . "'");

for my $mode (qw(smart fast immediate))
{
	wait_ready($node);
	my $pid = engine_pid($node);
	my $q = $mode eq 'smart' ? undef : start_query($node, long_query());

	wait_for('the request runs', sub { !is_idle($node) }) if $q;
	ok(process_exists($pid), "$mode: the engine runs");
	$node->stop($mode);
	wait_for('the engine is gone', sub { !process_exists($pid) }, 10);
	pass("$mode: no engine is left");
	if ($q)
	{
		finish_query($q);
		isnt($q->{err}, '', "$mode: the request in flight failed");
	}
	$node->start;
}

# A killed postmaster: everything goes.
wait_ready($node);
my $pid = engine_pid($node);
$node->kill9;
wait_for('the engine is gone', sub { !process_exists($pid) }, 30);
pass('kill -9 of the postmaster: no engine is left');

my $plain = new_server('not_preloaded', "shared_preload_libraries = ''");
my ($state, $message) = sqlstate($plain, "SELECT minimax_m1.generate('Hello.')");
is($state, '55000', 'without preloading');
like($message, qr/Add minimax_m1 to shared_preload_libraries/, 'the hint says what to do');
is((sqlstate($plain, "SELECT * FROM minimax_m1.$_"))[0], '55000', "view $_") for qw(activity model stats);
is((sqlstate($plain, "SELECT minimax_m1.$_"))[0], '55000', $_)
  for ("cancel(1)", "summarize('x')", "count_tokens('x')", "stats_reset()", "generate_stream('x')");
$plain->stop;
done_testing();
