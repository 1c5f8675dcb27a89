# However the server stops, no engine is left behind.
use strict;
use warnings;
use M1Test;
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
done_testing();
