# Many clients at once: a full queue is an error, and what is accepted is answered rightly.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('overload', "minimax_m1.model = '" . tiny() . "'", 'minimax_m1.max_requests = 1',
	'minimax_m1.max_queue = 1');
wait_ready($node);
my @accepted = map { start_query($node, long_query()) } 1 .. 2;
wait_for('the queue is full', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity') eq '2' });
my ($state, $message) = sqlstate($node, 'SELECT minimax_m1.generate_ids(ARRAY[1], 3)');
is($state, '53400', 'a full queue refuses');
like($message, qr/queue is full/, 'and says so');
is($node->safe_psql('postgres', 'SELECT rejected FROM minimax_m1.stats'), '1', 'and is counted');
is($node->safe_psql('postgres', "SELECT string_agg(state || coalesce(queue_position::text, ''), ' ' ORDER BY request) FROM minimax_m1.activity"),
	'decode queued1', 'the activity view shows who runs and who waits');
$node->safe_psql('postgres', 'SELECT minimax_m1.cancel(request) FROM minimax_m1.activity');
finish_query($_) for @accepted;
wait_for('all is quiet', sub { is_idle($node) });
$node->stop;

$node = new_server('clients', 'max_connections = 120');
wait_ready($node);
my @cases = greedy_cases();
my @clients;
for my $i (0 .. 63)
{
	my $case = $cases[ $i % @cases ];
	my $tools = $case->{tools} ? quote(JSON::PP->new->encode($case->{tools})) . '::jsonb' : 'NULL';
	my $q = start_query($node, 'SELECT content FROM generate_series(1, 5) i, LATERAL minimax_m1.complete('
		  . quote($case->{user}) . " || left('', i), tools => $tools)");
	push @clients, [ $q, $case ];
}
my $wrong = 0;
for (@clients)
{
	my ($q, $case) = @$_;

	finish_query($q);
	$wrong++ if $q->{out} ne join("\n", ($case->{content}) x 5) || $q->{err} ne '';
}
is($wrong, 0, '64 clients at once all get their right answers');
is($node->safe_psql('postgres', 'SELECT completed, failed, rejected FROM minimax_m1.stats'), '320|0|0', 'all are counted');
ok(is_idle($node), 'nothing is left');

# A client that does not read its stream pauses only itself.
$node->safe_psql('postgres', q{
	BEGIN;
	DECLARE c CURSOR FOR SELECT minimax_m1.generate_stream('What can you do?', temperature => 2, max_tokens => 20000);
	FETCH 1 FROM c;
	SELECT minimax_m1.generate('Hello.');
	CLOSE c;
	COMMIT});
my $idler = start_query($node, q{
	BEGIN;
	DECLARE c CURSOR FOR SELECT minimax_m1.generate_stream('What can you do?', temperature => 100, top_p => 1, max_tokens => 32000);
	FETCH 1 FROM c;
	SELECT pg_sleep(3);
	COMMIT});
wait_for('the stream has begun', sub {
		$node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE function = 'generate_stream'") eq '1' });
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?',
	'others are served beside a stream that nobody reads');
is(finish_query($idler)->{err}, '', 'the idle stream ends well');
wait_for('all is quiet', sub { is_idle($node) });
pass('its request is gone with its transaction');
$node->stop;
done_testing();
