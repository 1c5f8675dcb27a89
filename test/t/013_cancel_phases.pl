# Giving up on a request in every phase of its life, beyond those of 002_cancel: while it is read, while it waits, while
# its prompt is prefilled, while it streams, and when the engine itself does not answer.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_server('cancel_phases', 'minimax_m1.max_requests = 1');
wait_ready($node);
my $engine = engine_pid($node);

# Prefilling this takes seconds.
my $long_prompt = q{SELECT minimax_m1.generate('Hello.' || repeat(' word', 15000))};
my $blocker = 'SELECT minimax_m1.generate_ids(ARRAY[1, 2, 3], 32000)';

# Processor time of the engine in seconds.
sub engine_time
{
	my @fields = split / /, slurp_file("/proc/$engine/stat") =~ s/.*\) //r;

	return ($fields[11] + $fields[12]) / POSIX::sysconf(&POSIX::_SC_CLK_TCK);
}

# An engine with nothing to do uses next to no time, and has a place for the next request.
sub check_idle
{
	my ($how) = @_;

	wait_for("$how: the slot is free", sub { is_idle($node) }, 10);
	wait_for("$how: the engine rests", sub {
			my $before = engine_time();
			usleep(300_000);
			return engine_time() - $before < 0.06 }, 10);
	is($node->safe_psql('postgres', "SET statement_timeout = '20s'; SELECT minimax_m1.generate('Hello.')"),
		'Hello! How can I help you?', "$how: the engine rests, and answers the next");
}

sub wait_state
{
	my ($state, $count) = @_;

	wait_for("$count requests: $state", sub {
			$node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE state = '$state'") eq $count });
}

check_idle('at first');

# Prefill.
for (
	[ 'cancel()', 'SELECT minimax_m1.cancel(request) FROM minimax_m1.activity', '57014' ],
	[ 'pg_cancel_backend', 'SELECT pg_cancel_backend(pid) FROM minimax_m1.activity', '57014' ],
	[ 'pg_terminate_backend', 'SELECT pg_terminate_backend(pid) FROM minimax_m1.activity', '57P01' ])
{
	my ($how, $command, $state) = @$_;
	my $q = start_query($node, $long_prompt);

	wait_state('prefill', 1);
	my $start = time();
	$node->safe_psql('postgres', $command);
	is(finish_query($q)->{state}, $state, "$how in prefill");
	cmp_ok(time() - $start, '<', 5, "$how in prefill: at once");
	check_idle("$how in prefill");
}
is((sqlstate($node, "SET statement_timeout = '300ms'; $long_prompt"))[0], '57014', 'statement_timeout in prefill');
check_idle('statement_timeout in prefill');
is((sqlstate($node, "SET minimax_m1.request_timeout = '300ms'; $long_prompt"))[0], '57014', 'request_timeout in prefill');
check_idle('request_timeout in prefill');

# The queue: the one that runs is not disturbed.
my $running = start_query($node, $blocker);
wait_state('decode', 1);
is((sqlstate($node, "SET statement_timeout = '300ms'; SELECT minimax_m1.generate('Hello.')"))[0], '57014',
	'statement_timeout in the queue');
is((sqlstate($node, "SET minimax_m1.request_timeout = '300ms'; SELECT minimax_m1.generate('Hello.')"))[0], '57014',
	'request_timeout in the queue');
my $killed = start_query($node, "SELECT minimax_m1.generate('Hello.')");
wait_state('queued', 1);
$killed->{run}->signal('KILL');
eval { $killed->{run}->finish };
wait_for('the killed client has left the queue', sub {
		$node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity') eq '1' }, 10);
pass('a killed client leaves the queue');
my $waiting = start_query($node, "SELECT minimax_m1.generate('Hello.')");
wait_state('queued', 1);
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM minimax_m1.activity WHERE state = 'queued'});
is(finish_query($waiting)->{state}, '57P01', 'pg_terminate_backend in the queue');
# tokenizing needs no place
is($node->safe_psql('postgres', "SET statement_timeout = '20s'; SELECT minimax_m1.count_tokens('Hello.')"), '2',
	'tokens are counted meanwhile');
is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity'), '1', 'the running request is still there');
# one that waits behind a cancelled one moves up and is answered
$waiting = start_query($node, "SELECT minimax_m1.generate('Hello.')");
wait_state('queued', 1);
$node->safe_psql('postgres', q{SELECT minimax_m1.cancel(request) FROM minimax_m1.activity WHERE state <> 'queued'});
is(finish_query($running)->{state}, '57014', 'the running one is cancelled');
is(finish_query($waiting)->{out}, 'Hello! How can I help you?', 'and the one behind it is answered');
check_idle('the queue');

# A stream whose reader gives up: LIMIT, an error of the query, a savepoint.
for (
	[ 'LIMIT', q{SELECT count(*) FROM (SELECT minimax_m1.generate_stream('What can you do?', temperature => 100, top_p => 1, seed => 1) LIMIT 1) s}, 'none' ],
	[ 'an error', q{SELECT 1 / (3 - (s).seq) FROM (SELECT minimax_m1.generate_stream('What can you do?', temperature => 100, top_p => 1, seed => 1) s) t}, '22012' ],
	[ 'a savepoint', q{BEGIN; SAVEPOINT s; DECLARE c CURSOR FOR SELECT minimax_m1.generate_stream('What can you do?', temperature => 100, top_p => 1, seed => 1);
		FETCH 1 FROM c; ROLLBACK TO s; SELECT 1 / (1 - count(*)) FROM minimax_m1.activity; COMMIT}, 'none' ],
	[ 'statement_timeout', q{SET statement_timeout = '100ms'; SELECT minimax_m1.generate_stream('What can you do?', temperature => 100, top_p => 1, seed => i) FROM generate_series(1, 1000) i}, '57014' ])
{
	my ($how, $query, $state) = @$_;

	is((sqlstate($node, $query))[0], $state, "a stream ended by $how");
	check_idle("a stream ended by $how");
}

# An engine that does not answer: the client is free at once, whatever becomes of the engine.
kill 'STOP', $engine;
for (
	[ 'statement_timeout', "SET statement_timeout = '300ms'; SELECT minimax_m1.generate('Hello.')" ],
	[ 'request_timeout', "SET minimax_m1.request_timeout = '300ms'; SELECT minimax_m1.generate('Hello.')" ],
	[ 'statement_timeout of the tokenizer', "SET statement_timeout = '300ms'; SELECT minimax_m1.count_tokens('Hello.')" ])
{
	my ($how, $query) = @$_;
	my $start = time();

	is((sqlstate($node, $query))[0], '57014', "$how with a stopped engine");
	cmp_ok(time() - $start, '<', 5, "$how with a stopped engine: at once");
}
ok(is_idle($node), 'no slot is held');
kill 'CONT', $engine;
check_idle('the stopped engine goes on');
is(engine_pid($node), $engine, 'it is the same engine');
is($node->safe_psql('postgres', 'SELECT failed FROM minimax_m1.stats'), '0', 'nothing counts as failed');
$node->stop;
done_testing();
