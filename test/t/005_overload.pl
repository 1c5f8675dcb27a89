# More work than the engine can take, and an engine that is killed under it: what is refused is told so and may try
# again, what is accepted is answered rightly, and in the end nothing is lost.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my @cases = greedy_cases();

# A client that asks for one greedy case once, or until the table `enough` has a row, and asks again when it is told to.
sub persistent_client
{
	my ($node, $number, $until_enough) = @_;
	my $more = $until_enough ? "NOT EXISTS (SELECT FROM enough)" : 'false';
	my $case = $cases[ $number % @cases ];
	my $tools = $case->{tools} ? quote(JSON::PP->new->encode($case->{tools})) . '::jsonb' : 'NULL';
	my $q = start_query($node, q{SET statement_timeout = '90s'; DO $do$
		DECLARE
			answers text[];
			tries int := 0;
		BEGIN
			WHILE answers IS NULL OR } . $more . q{ LOOP
				BEGIN
					tries := tries + 1;
					SELECT answers || content INTO STRICT answers FROM minimax_m1.complete(} . quote($case->{user}) . ', tools => ' . $tools . q{);
				EXCEPTION WHEN configuration_limit_exceeded OR cannot_connect_now THEN
					PERFORM pg_sleep(0.05 + 0.2 * random());
				END;
			END LOOP;
			ASSERT answers[1] = ALL (answers), 'answers differ';
			PERFORM set_config('test.answer', answers[1], false), set_config('test.tries', tries::text, false);
		END $do$; SELECT current_setting('test.tries') || ' ' || current_setting('test.answer')});

	return { %$q, q => $q, case => $case };
}

# How many clients got a wrong answer or an error, and how many tried more than once.
sub finish_clients
{
	my ($what, @clients) = @_;
	my ($wrong, $again) = (0, 0);

	for my $c (@clients)
	{
		my $q = finish_query($c->{q});
		my ($tries, $answer) = $q->{out} =~ /(\d+) (.*)\z/s;

		$again++ if ($tries // 1) > 1;
		next if defined $answer && $answer eq $c->{case}{content} && $q->{err} eq '';
		diag("wanted: $c->{case}{content}\ngot: $q->{out}\n$q->{err}") if $wrong++ < 3;
	}
	is($wrong, 0, "$what: all get their right answers");
	return $again;
}

# A short queue: most are refused at first, with the SQLSTATE to try again on.
my $node = new_server('short_queue', 'minimax_m1.max_requests = 1', 'minimax_m1.max_queue = 1');
wait_ready($node);
my @long = map { start_query($node, 'SELECT minimax_m1.generate_ids(ARRAY[1, 2, 3], 32000)') } 1 .. 2;
wait_for('running and queued', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity') eq '2' });
for my $call ("generate('Hello.')", "generate_stream('Hello.')", "summarize('Hello.')", "count_tokens('Hello.')", 'logits(ARRAY[1])')
{
	my ($state, $message) = sqlstate($node, "SELECT minimax_m1.$call");

	is($state, '53400', "$call: a third request is refused");
	like($message, qr/HINT: .*minimax_m1\.max_queue/, "$call: with a hint");
}
is($node->safe_psql('postgres', "SELECT string_agg(state || coalesce(queue_position::text, ''), ' ' ORDER BY state) FROM minimax_m1.activity"),
	'decode queued1', 'the others go on: one runs, one waits');
is($node->safe_psql('postgres', 'SELECT rejected FROM minimax_m1.stats'), '5', 'the refusals are counted');
$node->safe_psql('postgres', 'SELECT minimax_m1.cancel(request) FROM minimax_m1.activity');
finish_query($_) for @long;
wait_for('all is quiet', sub { is_idle($node) });
my @clients = map { persistent_client($node, $_) } 0 .. 15;
finish_clients('16 clients and two slots', @clients);
ok(is_idle($node), 'nothing is left');
is((split /\|/, $node->safe_psql('postgres', 'SELECT completed, failed FROM minimax_m1.stats'))[1], '0', 'a refusal is no failure');
$node->stop;

# 64 clients with the default settings, among others who change their mind.
$node = new_server('crowd', 'max_connections = 150');
wait_ready($node);
my @fickle = map { start_query($node, "SET statement_timeout = '" . (50 + 10 * $_) . "ms';
	SELECT minimax_m1.generate_ids(ARRAY[1, 2, $_], 32000)") } 1 .. 16;
@clients = map { persistent_client($node, $_) } 0 .. 63;
finish_clients('64 clients at once', @clients);
is(join(' ', map { finish_query($_)->{state} // 'none' } @fickle), join(' ', ('57014') x 16), 'those who gave up were let go');
wait_for('all is quiet', sub { is_idle($node) });
is($node->safe_psql('postgres', 'SELECT completed, failed, rejected, cancelled FROM minimax_m1.stats'), '64|0|0|16', 'all are counted');

# The engine is killed again and again while 64 clients wait for it.
$node->safe_psql('postgres', 'CREATE TABLE enough ()');
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
@clients = map { persistent_client($node, $_, 1) } 0 .. 63;
for (1 .. 3)
{
	wait_for('clients are busy', sub {
			$node->safe_psql('postgres', "SELECT count(*) > 20 FROM minimax_m1.activity") eq 't' });
	wait_ready($node);
	kill_engine($node);
	wait_ready($node);
}
$node->safe_psql('postgres', 'INSERT INTO enough DEFAULT VALUES');
cmp_ok(finish_clients('64 clients of an engine that is killed', @clients), '>', 0, 'some had to try again');
is($node->safe_psql('postgres', 'SELECT engine_restarts FROM minimax_m1.model'), '3', 'each time another one took over');
ok(is_idle($node), 'nothing is left');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');
unlike(slurp_file($node->logfile), qr/terminating any other active server processes|PANIC/, 'nor the cluster');
$node->stop;
done_testing();
