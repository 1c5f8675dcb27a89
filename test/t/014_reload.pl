# A change of the model while requests run and wait; a crash while they wait or while a model loads; and what a failed
# model says, function by function, until it is healed.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('reload', "minimax_m1.model = '" . tiny() . "'", 'minimax_m1.max_requests = 1');
wait_ready($node);
my $first = engine_pid($node);

sub set
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.$name = '$value'");
	$node->reload;
}

# What runs is finished by the old model; what waits is answered by the new one.
my $running = start_query($node, 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1, 2, 3], 20000), 1)');
wait_for('it runs', sub { $node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE state = 'decode'") eq '1' });
my $waiting = start_query($node, "SELECT minimax_m1.generate('Hello.')");
wait_for('it waits', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity') eq '2' });
set('model', 'm1-nano');
wait_for('the change is known', sub {
		$node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') ne 'ready' });
is($node->safe_psql('postgres', 'SELECT state, name FROM minimax_m1.model'), 'draining|tiny-f32', 'the old model finishes its work');
is(finish_query($running)->{out}, '20000', 'the request that runs is finished') or diag($running->{err});
is(finish_query($waiting)->{out}, 'Hello! How can I help you?', 'the one that waits is answered by the new model') or diag($waiting->{err});
is($node->safe_psql('postgres', 'SELECT state, name FROM minimax_m1.model'), 'ready|m1-nano', 'which is there');
isnt(engine_pid($node), $first, 'in another process');
ok(!process_exists($first), 'the old one is gone');

# A change that changes nothing leaves the engine alone.
my $second = engine_pid($node);
$node->reload;
$node->safe_psql('postgres', 'SELECT pg_sleep(0.5)');
is(engine_pid($node), $second, 'a reload without a change leaves the engine alone');

# A crash: what runs fails, what waits goes on waiting and is answered.
$running = start_query($node, 'SELECT minimax_m1.generate_ids(ARRAY[1, 2, 3], 32000)');
wait_for('it runs', sub { $node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE state = 'decode'") eq '1' });
my @waiting = map { start_query($node, "SELECT minimax_m1.generate('Hello.')") } 1 .. 3;
wait_for('they wait', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity') eq '4' });
kill 'KILL', $second;
is(finish_query($running)->{state}, '57P03', 'a crash fails what runs');
is(finish_query($_)->{out}, 'Hello! How can I help you?', 'but not what waits') or diag($_->{err}) for @waiting;

# A crash while it finishes its work for a change: the new settings are taken up at once, and once.
wait_ready($node);
my $restarts = $node->safe_psql('postgres', 'SELECT engine_restarts FROM minimax_m1.model');
$running = start_query($node, 'SELECT minimax_m1.generate_ids(ARRAY[1, 2, 3], 32000)');
wait_for('it runs', sub { $node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE state = 'decode'") eq '1' });
my $late = start_query($node, "SELECT minimax_m1.generate('Hello.')");
wait_for('it waits', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity') eq '2' });
set('threads', 2);
wait_for('the change is known', sub {
		$node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') eq 'draining' });
kill 'KILL', engine_pid($node);
is(finish_query($running)->{state}, '57P03', 'a crash in a drain fails what runs');
is(finish_query($late)->{out}, 'Hello! How can I help you?', 'but not what waits') or diag($late->{err});
is($node->safe_psql('postgres', 'SELECT engine_restarts FROM minimax_m1.model') - $restarts, 1, 'the engine is started once');
like(slurp_file('/proc/' . engine_pid($node) . '/cmdline'), qr/--threads\0002\0/, 'with the new settings');

# A model that is not there. Every function tells why, and what to do.
set('model', 'no-such-model');
wait_for('the failure is known', sub {
		$node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') eq 'failed' });
for my $call ("generate('Hello.')", "complete('Hello.')", "generate_stream('Hello.')", "summarize('Hello.')", "count_tokens('Hello.')",
	"tokenize('Hello.')", 'detokenize(ARRAY[1])', 'generate_ids(ARRAY[1], 1)', 'logits(ARRAY[1])')
{
	my $start = time();
	my ($state, $message) = sqlstate($node, "SELECT * FROM minimax_m1.$call");

	is($state, '58P01', "$call without a model");
	like($message, qr/no-such-model/, "$call without a model: why");
	cmp_ok(time() - $start, '<', 3, "$call without a model: at once");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity'), '0', 'nothing is left');
# the server starts with it, too
$node->restart;
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the server starts without its model');
wait_for('the failure is known', sub {
		$node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') eq 'failed' });
# tries are not given up, and come less and less often
wait_for('some tries were made, and the next one is to come', sub {
		$node->safe_psql('postgres',
			'SELECT engine_restarts >= 2 AND next_try > clock_timestamp() FROM minimax_m1.model') eq 't' });
is($node->safe_psql('postgres', "SELECT next_try - clock_timestamp() BETWEEN '0.5 s' AND '1 min' FROM minimax_m1.model"), 't',
	'with pauses that grow');
set('model', 'm1-nano');
wait_ready($node);
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?', 'a reload heals it');
is($node->safe_psql('postgres', 'SELECT last_error IS NULL AND next_try IS NULL FROM minimax_m1.model'), 't',
	'and nothing of it is remembered');

# A model without a tokenizer takes ids, and says why it takes no text.
set('model', tiny());
wait_for('the other model', sub {
		$node->safe_psql('postgres', "SELECT state = 'ready' AND name = 'tiny-f32' FROM minimax_m1.model") eq 't' });
for my $call ("generate('Hello.')", "summarize('Hello.')", "count_tokens('Hello.')", 'detokenize(ARRAY[1])')
{
	my ($state, $message) = sqlstate($node, "SELECT minimax_m1.$call");

	like($state, qr/^(?:55000|0A000|58P01|22023)$/, "$call without a tokenizer: $state");
	like($message, qr/tokenizer/, "$call without a tokenizer: why");
}
is($node->safe_psql('postgres', 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1], 3), 1)'), '3', 'ids are continued');

# A setting that the engine is started with reaches it.
set('device', 'cpu');
set('gpus', 2);
wait_for('the engine knows the number of GPUs', sub {
		$node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') eq 'ready' &&
			slurp_file('/proc/' . engine_pid($node) . '/cmdline') =~ /--device\0cpu\0.*--gpus\0002\0/ });
is($node->safe_psql('postgres', 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1], 3), 1)'), '3', 'which means nothing to a CPU');

# Many changes in a row end with the last.
for my $i (1 .. 10)
{
	set('model', $i % 2 ? 'm1-nano' : tiny());
	set('threads', $i % 3);
}
set('model', 'm1-nano');
wait_for('the last one', sub {
		$node->safe_psql('postgres', "SELECT state = 'ready' AND name = 'm1-nano' FROM minimax_m1.model") eq 't' });
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?', 'many changes end with the last');
$node->stop;
unlike(slurp_file($node->logfile), qr/crash of another server process|terminating any other active server processes|PANIC/,
	'the cluster was never restarted');
done_testing();
