# Many clients at once, each of whom does a little of everything, also what fails: in the end no slot, no reservation,
# no segment and no memory is left behind, and every request has been counted once. CLIENTS (16) is their number and
# TRANSACTIONS (12) what each does, twice; or they work for SOAK_SECONDS. `make check-clients` is the long form.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $clients = $ENV{CLIENTS} || 16;
my $transactions = $ENV{TRANSACTIONS} || 12;
my $seconds = $ENV{SOAK_SECONDS} || 0;
my $rounds = $seconds ? 6 : 2;
my $node = new_server('clients', 'max_connections = ' . ($clients + 20), "minimax_m1.request_timeout = '300s'");
wait_ready($node);
$node->safe_psql('postgres', q{
	CREATE TABLE note (id serial, body text, answer text);
	CREATE TRIGGER ask BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('answer', '{body}');
	CREATE TABLE outcome (kind text, state text);
	CREATE ROLE poor;
	SELECT minimax_m1.grant_usage('poor'), minimax_m1.set_quota('poor', 3000, 3);
	GRANT INSERT ON outcome TO poor;
	GRANT CREATE ON SCHEMA public TO poor;
	-- a request that ends in one of the ways it may; any other is an error
	CREATE FUNCTION attempt(kind text, query text, allowed text[]) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		state text := 'done';
	BEGIN
		BEGIN
			EXECUTE query;
		EXCEPTION WHEN OTHERS OR query_canceled THEN
			state := SQLSTATE;
			IF state <> ALL (allowed) THEN
				RAISE;
			END IF;
		END;
		INSERT INTO outcome VALUES (kind, state);
	END $$;
});

# One file for each kind of work; pgbench draws among them.
my %work = (
	generate => q{SELECT attempt('generate', $$DO 'BEGIN ASSERT minimax_m1.generate(''Hello.'') = ''Hello! How can I help you?''; END'$$, '{}')},
	complete => q{SELECT attempt('complete', $$SELECT * FROM minimax_m1.complete('What is 47 + 35?')$$, '{}')},
	stream => q{SELECT attempt('stream', $$SELECT * FROM minimax_m1.generate_stream('Who are you?')$$, '{}')},
	half_a_stream => q{SELECT attempt('half_a_stream', $$DO 'DECLARE r record; BEGIN
		FOR r IN SELECT minimax_m1.generate_stream(''What can you do?'', temperature => 100, top_p => 1) LIMIT 2 LOOP END LOOP; END'$$, '{}')},
	tokens => q{SELECT attempt('tokens', $$SELECT minimax_m1.detokenize(minimax_m1.tokenize(repeat('Hello, world! ', 100)))$$, '{}')},
	logits => q{SELECT attempt('logits', $$SELECT minimax_m1.logits('{1,2,3}')$$, '{}')},
	summarize => q{SELECT attempt('summarize', $$SELECT minimax_m1.summarize('To whom it may concern, My air fryer was lost. Keiko')$$, '{}')},
	trigger => q{INSERT INTO note (body) VALUES ('Hello.')},
	rollback => q{BEGIN; INSERT INTO note (body) VALUES ('Hello.'); ROLLBACK},
	late => q{SET minimax_m1.request_timeout = '30ms';
		SELECT attempt('late', $$SELECT minimax_m1.generate_ids('{1,2,3}', 30000)$$, '{57014}');
		RESET minimax_m1.request_timeout},
	bad => q{SELECT attempt('bad', $$SELECT minimax_m1.generate_ids('{1,100000}', 5)$$, '{22023}')},
	cancel => q{SELECT attempt('cancel', $$SELECT minimax_m1.cancel(max(request)) FROM minimax_m1.activity WHERE pid = pg_backend_pid()$$, '{}')},
	poor => q{SET ROLE poor; SELECT attempt('poor', $$SELECT minimax_m1.generate('Hello.', max_tokens => 50)$$, '{53400}'); RESET ROLE},
	capped => q{SET minimax_m1.max_calls_per_statement = 2;
		SELECT attempt('capped', $$SELECT minimax_m1.generate_ids('{1,2}', 3) FROM generate_series(1, 3)$$, '{53400}');
		RESET minimax_m1.max_calls_per_statement});
my $folder = PostgreSQL::Test::Utils::tempdir();
append_to_file("$folder/$_.sql", "$work{$_};\n") for keys %work;

sub run_clients
{
	my ($round) = @_;
	my @length = $seconds ? ('-T', $seconds / $rounds) : ('-t', $transactions);
	my $all = $seconds ? '\d+' : $clients * $transactions . '\/' . $clients * $transactions;
	my ($out, $err) = run_command([ 'pgbench', '--no-vacuum', '-c', $clients, '-j', 2, @length, "--random-seed=$round",
			map({ ('-f', "$folder/$_.sql") } sort keys %work), $node->connstr('postgres') ]);

	like($out, qr/number of transactions actually processed: $all$/m, "round $round: all transactions are done") or diag($err);
	unlike($err, qr/aborted/, 'by all clients');
	figure("round $round: " . ($out =~ /(transactions actually processed: \d+)/)[0]);
	wait_for('all is quiet', sub { is_idle($node) });
}

# Of worker and engine: open files, and shared memory segments that are mapped.
sub holdings
{
	return join(', ', map {
		my @files = glob("/proc/$_/fd/*");
		my @segments = slurp_file("/proc/$_/maps") =~ m{/dev/shm/PostgreSQL}g;
		@files . ' files, ' . @segments . ' segments';
	} (worker_pid($node), engine_pid($node)));
}

my (@holdings, @memory);
tell_memory('at the start', memory_at_rest($node));
for my $round (1 .. $rounds)
{
	run_clients($round);
	push @holdings, holdings();
	push @memory, memory_at_rest($node);
}
is($holdings[-1], $holdings[0], 'nothing stays open or mapped by worker and engine');
is_steady(\@memory, [], { engine => 16384, worker => 8192, launcher => 2048 });
is($node->safe_psql('postgres', 'SELECT reserved, requests FROM minimax_m1.quotas'), '0|0', 'nothing is reserved');
is($node->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE state <> 'done' AND kind NOT IN ('late', 'bad', 'poor', 'capped')) FROM outcome}),
	'0', 'nothing failed that should not');
is($node->safe_psql('postgres', q{SELECT bool_and(state <> 'done') FROM outcome WHERE kind IN ('late', 'bad', 'capped')}), 't', 'and what should has');
cmp_ok($node->safe_psql('postgres', q{SELECT used_last_hour FROM minimax_m1.quotas}), '<=', 3000, 'the quota held');
is($node->safe_psql('postgres', q{SELECT string_agg(function, ' ') FROM minimax_m1.stats_by_function
	WHERE requests <> completed + failed + cancelled + timed_out}), '', 'each request was counted once');
is($node->safe_psql('postgres', q{
	SELECT string_agg(function, ' ') FROM (SELECT function, sum(requests) AS requests, sum(completed) AS completed, sum(failed) AS failed,
		sum(cancelled) AS cancelled, sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion FROM minimax_m1.usage GROUP BY 1) u
	FULL JOIN minimax_m1.stats_by_function s USING (function)
	WHERE s.prompt_tokens + s.completion_tokens > 0
	  AND (s.failed, s.cancelled + s.timed_out, s.prompt_tokens, s.completion_tokens) IS DISTINCT FROM (u.failed, u.cancelled, u.prompt, u.completion)}),
	'', 'usage and statistics agree');
is($node->safe_psql('postgres', q{SELECT count(*) = count(answer) AND bool_and(answer = 'Hello! How can I help you?') FROM note}), 't', 'all answers are right');
is($node->safe_psql('postgres', 'SELECT engine_restarts FROM minimax_m1.model'), '0', 'the engine did not have to be restarted');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked|was terminated by signal/, 'nothing bad in the log');
done_testing();
