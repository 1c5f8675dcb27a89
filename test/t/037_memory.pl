# What a request takes of the processes that live on is given back when it ends, whichever way: the worker and a session
# that makes many in one statement keep their size.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('memory', 'minimax_m1.max_context = 4096');
wait_ready($node);
my $worker = worker_pid($node);

# Memory that is a process's own, in kB.
sub own
{
	my ($pid) = @_;
	return slurp_file("/proc/$pid/status") =~ /RssAnon:\s+(\d+)/ ? $1 : die "no process $pid";
}

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');

# A query that makes 6 requests, and what it may leave in 5 times that many, in kB.
my %queries = (
	'refused requests of 2 MB' => [ q{DO $$ BEGIN FOR i IN 1..6 LOOP BEGIN PERFORM minimax_m1.generate(repeat('hello ', 350000));
		EXCEPTION WHEN program_limit_exceeded THEN NULL; END; END LOOP; END $$}, 4000 ],
	'answered requests of 400 kB' => [ q{DO $$ BEGIN FOR i IN 1..6 LOOP PERFORM minimax_m1.tokenize(repeat('hello ', 70000)); END LOOP; END $$}, 4000 ],
	'a statement of 6 answers of 400 kB' => [ q{SELECT sum(array_length(minimax_m1.tokenize(repeat('hello ', 70000) || i), 1)) FROM generate_series(1, 6) i}, 4000 ],
	'streams that are not read to the end' => [ q{DO $$ BEGIN FOR i IN 1..6 LOOP PERFORM minimax_m1.generate_stream('Hello.') LIMIT 1; END LOOP; END $$}, 600 ],
);

# The least that worker and session have after any of some such queries: what the allocator keeps for the next goes up and
# down, and what is lost stays.
sub least
{
	my ($query) = @_;
	my @least;
	for (1 .. 5)
	{
		$session->query_safe($query);
		wait_for('no request runs', sub { is_idle($node) });
		my @now = (own($worker), own($pid));
		@least = map { !defined $least[$_] || $now[$_] < $least[$_] ? $now[$_] : $least[$_] } 0, 1;
	}
	return @least;
}

for my $what (sort keys %queries)
{
	my ($query, $most) = @{ $queries{$what} };
	my ($worker_before, $session_before) = least($query);
	my ($worker_after, $session_after) = least($query);
	cmp_ok($worker_after - $worker_before, '<', $most, "the worker keeps its size: $what");
	cmp_ok($session_after - $session_before, '<', $most, "and so does the session");
}

$session->quit;

# What a model has written as a query may give rows of any size: no more of them is taken than can be compared.
$node->safe_psql('postgres', 'CREATE ROLE reader');
$session = $node->background_psql('postgres', on_error_stop => 0);
$pid = $session->query_safe('SELECT pg_backend_pid()');
my $reward = $session->query_safe(q{SELECT minimax_m1.reward_sql($$SELECT repeat('x', 20000000) FROM generate_series(1, 60)$$,
	'{"answer": "SELECT 1", "role": "reader"}')});
is($reward, '0', 'a query with more than can be compared is wrong');
my ($peak) = slurp_file("/proc/$pid/status") =~ /VmHWM:\s+(\d+)/;
cmp_ok($peak, '<', 400_000, "and takes little memory: $peak kB");
$session->quit;
done_testing();
