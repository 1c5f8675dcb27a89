# Every way to give up on a request: it stops within a step, its slot is free, and the engine serves others.
use strict;
use warnings;
use M1Test;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('cancel', "minimax_m1.model = '" . tiny() . "'", 'minimax_m1.max_requests = 1');
wait_ready($node);

sub wait_running
{
	wait_for('a request runs', sub {
			$node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE state <> 'queued'") eq '1' });
}

# With one place in the engine, another answer proves that the place is free again.
sub check_free
{
	my ($how) = @_;
	my $start = time();

	ok(wait_for('the slot is free', sub { is_idle($node) }, 10), "$how: the slot is free");
	is($node->safe_psql('postgres', 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1], 3), 1)'), '3',
		"$how: the engine serves the next request");
	cmp_ok(time() - $start, '<', 10, "$how: at once");
}

my ($state) = sqlstate($node, "SET statement_timeout = '300ms'; " . long_query());
is($state, '57014', 'statement_timeout');
check_free('statement_timeout');

($state, my $message) = sqlstate($node, "SET minimax_m1.request_timeout = '300ms'; " . long_query());
is($state, '57014', 'request_timeout');
like($message, qr/request timeout/, 'request_timeout says so');
check_free('request_timeout');

my $q = start_query($node, long_query());
wait_running();
my $pid = $node->safe_psql('postgres', 'SELECT pid FROM minimax_m1.activity');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
is(finish_query($q)->{state}, '57014', 'pg_cancel_backend');
check_free('pg_cancel_backend');

$q = start_query($node, long_query());
wait_running();
$pid = $node->safe_psql('postgres', 'SELECT pid FROM minimax_m1.activity');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
is(finish_query($q)->{state}, '57P01', 'pg_terminate_backend');
check_free('pg_terminate_backend');

$q = start_query($node, long_query());
wait_running();
my $request = $node->safe_psql('postgres', 'SELECT request FROM minimax_m1.activity');
is($node->safe_psql('postgres', "SELECT minimax_m1.cancel($request)"), 't', 'cancel() finds the request');
$q = finish_query($q);
is($q->{state}, '57014', 'cancel()');
like($q->{err}, qr/was cancelled/, 'cancel() says so');
check_free('cancel()');

# A client that is killed while it waits: nobody reads the socket any more.
$q = start_query($node, long_query());
wait_running();
$q->{run}->signal('KILL');
eval { $q->{run}->finish };
check_free('killed client');

# A request that waits in the queue can be cancelled too, and the one that runs is not disturbed.
$q = start_query($node, long_query());
wait_running();
my $waiting = start_query($node, 'SELECT minimax_m1.generate_ids(ARRAY[1], 3)');
wait_for('a request waits', sub {
		$node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity WHERE queue_position = 1') eq '1' });
$node->safe_psql('postgres', "SELECT minimax_m1.cancel(request) FROM minimax_m1.activity WHERE state = 'queued'");
is(finish_query($waiting)->{state}, '57014', 'a waiting request is cancelled');
is($node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE state = 'decode'"), '1',
	'the running request goes on');
$node->safe_psql('postgres', 'SELECT minimax_m1.cancel(request) FROM minimax_m1.activity');
is(finish_query($q)->{state}, '57014', 'and is cancelled in its turn');

# A savepoint takes an error like any other; the transaction goes on.
is($node->safe_psql('postgres', q{
	DO $$ BEGIN
		PERFORM minimax_m1.generate_ids(ARRAY[1], 0);
	EXCEPTION WHEN invalid_parameter_value THEN
		RAISE NOTICE 'caught';
	END $$;
	SELECT array_length(minimax_m1.generate_ids(ARRAY[1], 2), 1)}), '2', 'errors are caught in subtransactions');
ok(is_idle($node), 'nothing is left');
$node->stop;
done_testing();
