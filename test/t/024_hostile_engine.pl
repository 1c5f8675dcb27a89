# An engine that says what cannot be: the request fails with an error that says so, a new engine is started, no backend
# crashes, and nothing of it is counted.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('hostile');
my %calls = (
	1 => "minimax_m1.generate('Hello.')",
	2 => "minimax_m1.count_tokens('Some words.')",
	ends => "minimax_m1.summarize(repeat('Some words. ', 2000))",
	tokens => "minimax_m1.tokenize(repeat('Some words. ', 2000))",
	3 => 'minimax_m1.detokenize(ARRAY[1])',
	4 => 'minimax_m1.logits(ARRAY[1])',
	scored => "minimax_m1.score('it is so', 'It is so.')",
	ids => 'minimax_m1.generate_ids(ARRAY[1], 3)',
	measured => "minimax_m1.complete('Hello.', logprobs => true, top_logprobs => 2)");
my ($lies) = run_command([ 'python3', fake_engine(), '--list' ]);
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

sub believe
{
	my ($lie) = @_;
	my $before = engine_pid($node);

	set_fake_engine($node, $lie);
	wait_for('it is the engine', sub {
			$node->safe_psql('postgres', 'SELECT name FROM minimax_m1.model') eq 'fake' && engine_pid($node) ne $before });
}

# With the truth, all calls are answered: what is refused below is refused for the lie.
believe('nothing');
for my $kind (sort keys %calls)
{
	is((sqlstate($node, "SELECT $calls{$kind}"))[0], 'none', "the truth is believed: $calls{$kind}");
}

# What the answer is for looks at its words, too.
sub judged { my ($state, $message) = sqlstate($node, "SELECT $_[0]"); return "$state $message"; }

my $other = qr/^XX000 .*not among the categories.*It is "yes"/s;
is($node->safe_psql('postgres', "SELECT minimax_m1.classify('x', ARRAY['no', 'yes'])"), '{yes}', 'an answer that is among the categories');
like(judged("minimax_m1.classify('x', ARRAY['no', 'maybe'])"), $other, 'one that is not');
like(judged("minimax_m1.classify('x', NULL::mood)"), $other, 'nor in the enum') if $node->safe_psql('postgres', "CREATE TYPE mood AS ENUM ('no', 'maybe')") eq '';
is($node->safe_psql('postgres', "SET minimax_m1.on_error = 'null'; SELECT minimax_m1.classify('x', ARRAY['no', 'maybe']) IS NULL"), 't', 'it is NULL where on_error says so');
believe('says ["yes", "no"]');
is($node->safe_psql('postgres', "SELECT minimax_m1.classify('x', ARRAY['no', 'yes'], true)"), '{no,yes}', 'several that are');
like(judged("minimax_m1.classify('x', ARRAY['no', 'maybe'], true)"), $other, 'several that are not');
my $complete = q{(minimax_m1.complete('x', tools => '[{"name": "f"}]')).tool_calls};
is($node->safe_psql('postgres', "SELECT $complete"), '["yes", "no"]', 'calls that are JSON');
believe('says [1, oops');
like(judged($complete), qr/^22P02 .*invalid input syntax for type json/s, 'calls that are none');
like(judged(q{s FROM (SELECT minimax_m1.complete_stream('x', tools => '[{"name": "f"}]') AS s OFFSET 0) t}), qr/^22P02 .*invalid input syntax for type json/s, 'nor in a stream');
believe('nothing');
$node->safe_psql('postgres', 'SELECT minimax_m1.stats_reset(), minimax_m1.usage_reset()');

for (grep { !/^0\|/ } split /\n/, $lies)
{
	my ($kind, $who, $lie) = split /\|/;
	my ($state, $message);
	my $expected = $who eq 'asked' ? qr/^XX001 .*the engine's .*probabilities .*cannot be.*HINT:/s : qr/^57P03 .*the engine went away.*It sent /s;

	believe($lie);
	($state, $message) = sqlstate($node, "SELECT $calls{$kind}");
	like("$state $message", $expected, "not believed: $lie");
}
is($node->safe_psql('postgres', 'SELECT bool_and(prompt_tokens BETWEEN 0 AND 100000 AND completion_tokens
	BETWEEN 0 AND 1000 AND decode_ms BETWEEN 0 AND 1000000) FROM minimax_m1.stats_by_function'), 't',
	'nothing absurd is counted');
is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.usage WHERE least(prompt_tokens, cached_tokens,
	reasoning_tokens, completion_tokens) < 0 OR greatest(prompt_tokens, completion_tokens) > 100000'), '0',
	'nor in usage');

for my $lie (map { /^0\|worker\|(.*)/ } split /\n/, $lies)
{
	set_fake_engine($node, $lie);
	wait_for("\"$lie\" is noticed", sub {
			(sqlstate($node, 'SELECT minimax_m1.logits(ARRAY[1])'))[1] =~ /greeting with numbers that cannot be/ });
	pass("not believed: $lie");
}

# One that goes on with a reply that it was told to pause: the worker keeps no more of it than it has memory for.
sub peak_kib { return slurp_file('/proc/' . worker_pid($node) . '/status') =~ /VmHWM:\s+(\d+)/ ? $1 : die 'no worker'; }

$node->safe_psql('postgres', q{ALTER SYSTEM SET minimax_m1.unread_memory = 0});
believe('flood');
my $peak = peak_kib();
my $failed = $node->safe_psql('postgres', 'SELECT failed FROM minimax_m1.stats');
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe(q{BEGIN; DECLARE c CURSOR FOR SELECT (minimax_m1.generate_stream('Hello.')).*; FETCH c});
wait_for('the request has failed', sub { $node->safe_psql('postgres', 'SELECT failed FROM minimax_m1.stats') > $failed });
is((sqlstate($node, "SELECT $calls{1}"))[0], 'none', 'an engine that floods answers others when it is done');
cmp_ok(peak_kib() - $peak, '<', 128 * 1024, 'and has not filled the memory of the worker');
$session->query('SELECT count(*) FROM (SELECT 1) x; FETCH ALL c');
like($session->{stderr}, qr/the engine sent more of the reply than there is memory for/, 'whose reply it was is told');
$session->quit;
$node->safe_psql('postgres', q{ALTER SYSTEM RESET minimax_m1.unread_memory});

set_fake_engine($node, '');
wait_ready($node);
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?',
	'an honest engine heals it');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');
unlike(slurp_file($node->logfile), qr/terminating any other active server processes|was terminated by signal (?!9)/,
	'no process crashed');
$node->stop;
done_testing();
