# Operators over tables among failures: what on_error takes, what it never takes, and who may call them.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('operators', 'minimax_m1.max_requests = 4');
wait_ready($node);
my $letter = quote('Hi there, My desk lamp never arrived. I would like a refund. Thanks, Leila');
$node->safe_psql('postgres', q{
	CREATE TYPE topic AS ENUM ('hardware', 'delivery', 'praise');
	CREATE TYPE ticket AS (product text, customer text)});

# Every function that returns one value.
my %calls = (
	generate => "generate($letter)",
	summarize => "summarize($letter)",
	generate_json => qq{generate_json($letter, '{"type": "boolean"}')},
	'classify with an array' => "classify($letter, ARRAY['hardware', 'delivery'])",
	'classify with an enum' => "classify($letter, NULL::topic)",
	extract => "extract($letter, NULL::ticket)",
	is_true => "is_true('the customer is unhappy', $letter)",
	score => "score('the customer is unhappy', $letter)");

# Any of them, when the engine holds still: a timeout of the request becomes NULL, one of the statement does not, nor a cancel.
my $pid = engine_pid($node);
for my $name (sort keys %calls)
{
	my $query = "SELECT minimax_m1.$calls{$name} IS NULL";

	is($node->safe_psql('postgres', $query), 'f', "$name: answers");
	kill 'STOP', $pid;
	is((sqlstate($node, "SET minimax_m1.request_timeout = '50ms'; $query"))[0], '57014', "$name: request_timeout is an error");
	is($node->safe_psql('postgres', "SET minimax_m1.on_error = 'null'; SET minimax_m1.request_timeout = '50ms'; $query"), 't',
		"$name: or NULL");
	is((sqlstate($node, "SET minimax_m1.on_error = 'null'; SET statement_timeout = '50ms'; $query"))[0], '57014',
		"$name: statement_timeout is an error in any case");
	my $q = start_query($node, "SET minimax_m1.on_error = 'null'; $query");
	my $request = wait_for('the request is there', sub {
			$node->safe_psql('postgres', 'SELECT max(request) FROM minimax_m1.activity') });
	$node->safe_psql('postgres', "SELECT minimax_m1.cancel($request)");
	is(finish_query($q)->{state}, '57014', "$name: so is cancel()");
	$q = start_query($node, "SET minimax_m1.on_error = 'null'; $query");
	wait_for('the request is there', sub { !is_idle($node) });
	$node->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM minimax_m1.activity');
	is(finish_query($q)->{state}, '57014', "$name: so is pg_cancel_backend");
	kill 'CONT', $pid;
	wait_for('nothing is left', sub { is_idle($node) }, 10);
}

# A filter does not take rows for true that the engine has not looked at.
$node->safe_psql('postgres', "CREATE TABLE letters AS SELECT i AS id, $letter AS body FROM generate_series(1, 5) i");
my $filter = "SELECT count(*) FROM letters WHERE minimax_m1.is_true('it is about a delivery', body)";
is($node->safe_psql('postgres', $filter), '5', 'a filter');
kill 'STOP', $pid;
for my $condition ('', 'NOT ')
{
	is($node->safe_psql('postgres', "SET minimax_m1.on_error = 'null'; SET minimax_m1.request_timeout = '20ms';
		SELECT count(*) FROM letters WHERE ${condition}minimax_m1.is_true('it is about a delivery', body)"), '0',
		"${condition}is_true: what has failed is neither");
}
kill 'CONT', $pid;

# rank() keeps the batch busy, and its requests end with it.
wait_for('the engine goes on', sub { $node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')") });
kill 'STOP', $pid;
my $q = start_query($node, "SELECT count(*) FROM minimax_m1.rank('it is about a delivery', array_fill($letter\::text, ARRAY[30]))");
wait_for('the window is full', sub {
		$node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE function = 'rank'") eq '6' });
$node->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM minimax_m1.activity LIMIT 1');
is(finish_query($q)->{state}, '57014', 'rank: a cancel');
ok(wait_for('nothing is left', sub { is_idle($node) }, 10), 'rank: ends all of its requests');
kill 'CONT', $pid;

# A backend goes on after each kind of end, within one transaction and in parallel plans.
is($node->safe_psql('postgres', qq{
	SET minimax_m1.on_error = 'null';
	SET minimax_m1.max_tokens = 300;
	CREATE DOMAIN impossible AS int NOT NULL CHECK (VALUE <> VALUE);
	CREATE TYPE broken AS (product text, amount impossible);
	BEGIN;
	INSERT INTO letters VALUES (6, 'kept');
	SELECT count(minimax_m1.extract(body, NULL::broken)), count(*) FROM letters;
	COMMIT;
	SELECT count(*) FROM letters}), "0|6\n6", 'rows that cannot be made leave their transaction alone');
is($node->safe_psql('postgres', q{
	SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
	SET minimax_m1.on_error = 'null'; SET minimax_m1.max_tokens = 300;
	SELECT count(minimax_m1.generate('')), count(minimax_m1.extract(body, NULL::broken)) FROM letters}), '0|0', 'parallel plans');

# The engine dies under them: an error to try again on, or NULL.
for my $on_error ('error', 'null')
{
	$pid = engine_pid($node);
	kill 'STOP', $pid;
	$q = start_query($node, "SET minimax_m1.on_error = '$on_error'; SELECT minimax_m1.classify($letter, NULL::topic) IS NULL");
	wait_for('the request is in the engine', sub {
			$node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity WHERE queue_position IS NULL') eq '1' });
	kill 'KILL', $pid;
	finish_query($q);
	is($on_error eq 'null' ? $q->{out} : $q->{state}, $on_error eq 'null' ? 't' : '57P03', "a killed engine with on_error = $on_error");
	wait_ready($node);
}

# From version 0.1: the new functions come, nobody but the owner may call them, and grants made by hand stay.
$node->safe_psql('postgres', 'CREATE DATABASE older');
is($node->safe_psql('older', q{
	CREATE EXTENSION minimax_m1 VERSION '0.1';
	SELECT count(*) FROM pg_proc WHERE pronamespace = 'minimax_m1'::regnamespace AND proname IN ('classify', 'generate_batch');
	CREATE ROLE someone;
	SELECT minimax_m1.grant_usage('someone');
	GRANT EXECUTE ON FUNCTION minimax_m1.count_tokens(text) TO PUBLIC;
	ALTER EXTENSION minimax_m1 UPDATE;
	SELECT extversion FROM pg_extension WHERE extname = 'minimax_m1'}), "0\n\n0.3", 'an update from 0.1');
is($node->safe_psql('older', "SELECT minimax_m1.classify($letter, ARRAY['hardware', 'delivery'])"), '{delivery}', 'brings the new functions');
is($node->safe_psql('older', q{SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	WHERE p.pronamespace = 'minimax_m1'::regnamespace AND a.grantee = 0}), '1', 'PUBLIC may call what it was told it may');
my $listed = q{SELECT string_agg(format('%s %s %s %s', p.provolatile, p.proparallel, p.procost >= 1000000, p.proname), E'\n' ORDER BY p.proname, p.pronargs)
	FROM pg_proc p WHERE p.pronamespace = 'minimax_m1'::regnamespace
	AND p.proname IN ('generate_batch', 'generate_json', 'classify', 'extract', 'is_true', 'score', 'rank')};
is($node->safe_psql('older', $listed), join("\n", 'v r t classify', 'v r t classify', 'v u t extract', 'v r t generate_batch',
		'v r t generate_json', 'v r t is_true', 'v r t rank', 'v r t score'), 'they are volatile, restricted and costly');
is((sqlstate($node, "SET ROLE someone; SELECT minimax_m1.classify($letter, ARRAY['a', 'b'])", connstr => $node->connstr('older')))[0], '42501',
	'a role that was told of the old ones is told of the new ones');
is($node->safe_psql('older', "SELECT minimax_m1.grant_usage('someone'); SET ROLE someone;
	SELECT minimax_m1.classify($letter, ARRAY['hardware', 'delivery']), minimax_m1.summarize_agg(NULL)"), "\n{delivery}|", 'by grant_usage');
is($node->safe_psql('postgres', $listed), $node->safe_psql('older', $listed), 'a new installation has the same');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked/, 'nothing bad in the log');
done_testing();
