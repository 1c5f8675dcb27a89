# generate_batch(): one statement keeps the whole batch busy, an error belongs to its row, and a cancel ends all.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my @cases = grep { !$_->{tools} } greedy_cases();

# A stopped engine keeps requests where they are. Before that it answers one, so that it has let go of earlier ones.
sub freeze
{
	my ($node) = @_;
	my $pid = engine_pid($node);

	$node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')");
	kill 'STOP', $pid;
	return $pid;
}

# SQL for an array of n prompts, greedy cases over and over.
sub prompts
{
	my ($n) = @_;

	return 'ARRAY[' . join(', ', map { quote($cases[ $_ % @cases ]{user}) } 0 .. $n - 1) . ']';
}

# How many rows are not as the greedy cases say.
sub count_wrong
{
	my ($n, $out) = @_;
	my @rows = split /\x1e/, $out;
	my $wrong = @rows == $n ? 0 : $n;

	for my $i (0 .. $#rows)
	{
		my $case = $cases[ $i % @cases ];
		my $want = join("\x1f", $i + 1, $case->{content}, $case->{reasoning} // '', '');

		utf8::encode($want) if utf8::is_utf8($want);
		next if $rows[$i] eq $want;
		diag("wanted: $want\ngot: $rows[$i]") if $wrong++ < 3;
	}
	return $wrong;
}

sub batch_query
{
	my ($prompts) = @_;

	return qq{SELECT string_agg(concat_ws(E'\\x1f', ord, coalesce(content, ''), coalesce(reasoning, ''), coalesce(error, '')), E'\\x1e')
		FROM minimax_m1.generate_batch($prompts)};
}

my $node = new_server('batch');
wait_ready($node);
my $activity = "SELECT count(DISTINCT pid), count(*), count(*) FILTER (WHERE queue_position IS NULL) FROM minimax_m1.activity";

# Eight in the engine, and the next ones already in the queue.
my $pid = freeze($node);
$node->safe_psql('postgres', 'SELECT minimax_m1.stats_reset()');
my $q = start_query($node, batch_query(prompts(64)));
wait_for('the window is full', sub { $node->safe_psql('postgres', $activity) eq '1|11|8' });
pass('one backend has all places of the engine, and a few requests waiting');
is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT function, '') FROM minimax_m1.activity"), 'generate_batch',
	'the activity view names the function');
kill 'CONT', $pid;
$q = finish_query($q);
is(count_wrong(64, $q->{out}), 0, '64 prompts have their 64 answers, in order');
is($q->{err}, '', 'and no error');
is($node->safe_psql('postgres', 'SELECT completed, failed, rejected FROM minimax_m1.stats'), '64|0|0', 'each was asked once');
ok(is_idle($node), 'nothing is left');

# A cancel ends all requests.
for my $how ('pg_cancel_backend', 'pg_terminate_backend')
{
	freeze($node);
	$q = start_query($node, "SET minimax_m1.on_error = 'null'; " . batch_query(prompts(64)));
	wait_for('the window is full', sub { $node->safe_psql('postgres', $activity) eq '1|11|8' });
	$node->safe_psql('postgres', "SELECT $how(pid) FROM minimax_m1.activity LIMIT 1");
	is(finish_query($q)->{state}, $how eq 'pg_cancel_backend' ? '57014' : '57P01', $how);
	ok(wait_for('the slots are free', sub { is_idle($node) }, 10), "$how: ends all of its requests");
	kill 'CONT', $pid;
}
is((sqlstate($node, "SET statement_timeout = '200ms'; SET minimax_m1.on_error = 'null';
	SELECT count(*) FROM minimax_m1.generate_batch(array_fill('What can you do?'::text, ARRAY[2000]))"))[0], '57014',
	'statement_timeout');
ok(wait_for('the slots are free', sub { is_idle($node) }, 10), 'statement_timeout ends all of its requests');

# A request that is cancelled by itself, or is late, is one row.
freeze($node);
$q = start_query($node, "SELECT ord, content, error FROM minimax_m1.generate_batch(ARRAY['Hello.', 'Hello.', 'Hello.'])");
wait_for('three requests', sub { $node->safe_psql('postgres', $activity) eq '1|3|3' });
$node->safe_psql('postgres', 'SELECT minimax_m1.cancel(request) FROM minimax_m1.activity ORDER BY request LIMIT 1');
kill 'CONT', $pid;
is(finish_query($q)->{out}, join("\n", '1||the request was cancelled', map { "$_|Hello! How can I help you?|" } 2, 3),
	'cancel() of one request');
freeze($node);
is($node->safe_psql('postgres', "SET minimax_m1.request_timeout = '200ms';
	SELECT ord, content, error FROM minimax_m1.generate_batch(ARRAY['Hello.', 'Hello.'])"),
	join("\n", map { "$_||canceling request due to request timeout" } 1, 2), 'request_timeout');
kill 'CONT', $pid;

# So are errors: prompts that do not fit, which are also longer than the queue between the processes.
is($node->safe_psql('postgres', "SELECT ord, content, left(error, 41) FROM minimax_m1.generate_batch(
		ARRAY['Hello.', NULL, '', repeat('word ', 40000), 'Hello.'] || array_fill(repeat('word ', 40000), ARRAY[12]) || 'Hello.'::text)"),
	join("\n", '1|Hello! How can I help you?|', '2||', '3||the prompt is empty: It must have at leas',
		'4||the prompt is longer than the context: Th', '5|Hello! How can I help you?|',
		(map { "$_||the prompt is longer than the context: Th" } 6 .. 17), '18|Hello! How can I help you?|'), 'errors of rows');

# A long prompt that fits passes through the queue in pieces.
my $filler = 'The colour is fine. ' x 1000;
is($node->safe_psql('postgres', "SELECT count(*), count(error) FROM minimax_m1.generate_batch(
		array_fill(" . quote($filler) . "::text, ARRAY[3]), max_tokens => 1)"), '3|0', 'prompts longer than the queue');

# The caller's seed is every row's; without one, rows with the same prompt differ.
my $wild = "array_fill('What can you do?'::text, ARRAY[4]), temperature => 3, top_p => 1, max_tokens => 20, thinking_budget => 0";
is($node->safe_psql('postgres', "SELECT count(DISTINCT content) FROM minimax_m1.generate_batch($wild, seed => 7)"), '1', 'one seed');
cmp_ok($node->safe_psql('postgres', "SELECT count(DISTINCT content) FROM minimax_m1.generate_batch($wild)"), '>', 1, 'no seed');

# A reply that the database's encoding does not have.
$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('latin', 'CREATE EXTENSION minimax_m1');
my $strange = q{temperature => 100, top_p => 1, seed => 1, max_tokens => 200, thinking_budget => 0};
is($node->safe_psql('latin', "SELECT content IS NULL, error FROM minimax_m1.generate_batch(ARRAY['Hello.'], $strange)"),
	"t|the reply has characters that the database's encoding does not have", 'characters that LATIN1 does not have');
is((sqlstate($node, "SELECT minimax_m1.generate('Hello.', $strange)", connstr => $node->connstr('latin')))[0], '22P05',
	'generate() raises that');
is($node->safe_psql('latin', "SET minimax_m1.on_error = 'null'; SELECT minimax_m1.generate('Hello.', $strange) IS NULL"), 't',
	'or makes NULL of it');

# The engine dies: what it had fails, the rest is answered by the next one.
freeze($node);
$q = start_query($node, batch_query("array_fill('Hello.'::text, ARRAY[40])"));
wait_for('the window is full', sub { $node->safe_psql('postgres', $activity) eq '1|11|8' });
kill 'KILL', $pid;
my @rows = split /\x1e/, finish_query($q)->{out};
is(scalar(grep { /Hello! How can I help you\?/ } @rows), 32, 'a killed engine: the others are answered');
is(scalar(grep { /^\d+\x1f\x1f\x1f./ } @rows), 8, 'and eight have an error');
is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.generate_batch(NULL)'), '0', 'no array, no rows');
is($node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.generate_batch('{}')"), '0', 'an empty array, no rows');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked/, 'nothing bad in the log');

# Where nothing may wait, the batch fills what there is, and goes on when a place is free.
$node = new_server('no_queue', 'minimax_m1.max_requests = 2', 'minimax_m1.max_queue = 0');
wait_ready($node);
is(count_wrong(20, $node->safe_psql('postgres', batch_query(prompts(20)))), 0, 'two places for 20 prompts');
cmp_ok($node->safe_psql('postgres', 'SELECT rejected FROM minimax_m1.stats'), '<=', 20, 'it does not knock all the time');
$node->stop;
done_testing();
