# What takes long before the model begins holds up nobody else, and ends when its session gives it up: texts of many
# megabytes, in one word or in many, of prompts, messages and tokenizers.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('preparation');
wait_ready($node);
my $session = $node->background_psql('postgres');

# Milliseconds of the slowest of some short requests.
sub slowest
{
	my $most = 0;
	for (1 .. 12)
	{
		my $start = time();
		$session->query_safe(q{SELECT minimax_m1.generate('Hello.'), minimax_m1.count_tokens('Hello.')});
		my $ms = 1000 * (time() - $start);
		$most = $ms if $ms > $most;
	}
	return $most;
}

# Processor time of the engine in seconds.
sub engine_seconds
{
	my $stat = slurp_file('/proc/' . engine_pid($node) . '/stat');
	my @fields = split ' ', $stat =~ s/.*\) //r;
	return ($fields[11] + $fields[12]) / 100;
}

$session->query_safe(q{
	CREATE FUNCTION timed_out(query text, OUT state text, OUT ms float8) LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz := clock_timestamp();
	BEGIN
		EXECUTE query;
	EXCEPTION WHEN query_canceled THEN
		state := SQLSTATE;
		ms := extract(epoch FROM clock_timestamp() - began) * 1000;
	END $$;
});

my %hostile = (
	'one word of 40 MB' => q{minimax_m1.generate(repeat('a', 40000000))},
	'a prompt of 30 MB' => q{minimax_m1.generate(repeat('hello world ', 2500000))},
	'a tokenizer over 30 MB' => q{minimax_m1.count_tokens(repeat('hello world ', 2500000))},
	'a message of 30 MB' => q{minimax_m1.complete(messages => jsonb_build_array(jsonb_build_object('role', 'user', 'content', repeat('hello world ', 2500000))))},
);

slowest();
my $idle = slowest();
for my $what (sort keys %hostile)
{
	my $query = start_query($node, "SELECT length(($hostile{$what})::text)");
	wait_for('it is on its way', sub { $session->query_safe('SELECT count(*) FROM minimax_m1.activity') > 0 });
	sleep 0.3;
	my $beside = slowest();
	# it would take seconds more
	$session->query_safe('SELECT pg_cancel_backend(pid) FROM minimax_m1.activity');
	finish_query($query);
	is($query->{state}, '57014', "$what is given up");
	# before, others waited for all of it: 5 to 60 seconds
	cmp_ok($beside, '<', 10 * $idle + 1500, "$what holds up nobody");
	wait_for('no request runs', sub { is_idle($node) });
	# without a cancel it would take as long as it takes; the texts alone are made within the timeout
	$session->query_safe('SET statement_timeout = 400');
	my ($state, $ms) = split /\|/, $session->query_safe("SELECT * FROM timed_out(\$q\$SELECT length(($hostile{$what})::text)\$q\$)");
	$session->query_safe('RESET statement_timeout');
	is($state, '57014', "$what ends by statement_timeout");
	cmp_ok($ms, '<', 400 + 1500, 'soon after it');
	wait_for('no request runs', sub { is_idle($node) });
	# of the processor, so that a busy machine makes no difference; what is left is to free its memory
	my $before = engine_seconds();
	sleep 2;
	my $after = engine_seconds() - $before;
	cmp_ok($after, '<', 0.5, "and the engine does not go on with it");
	note("$what: $after s of the processor after its end");
}

# A long text that may be counted is, and right: others go on meanwhile.
my %count = map { $_ => $session->query_safe("SELECT minimax_m1.count_tokens(repeat('hello world ', $_))") } 1000, 2000;
my $n = 700_000;
my $counted = start_query($node, "SELECT minimax_m1.count_tokens(repeat('hello world ', $n))");
wait_for('it is on its way', sub { $session->query_safe('SELECT count(*) FROM minimax_m1.activity') > 0 });
my $beside = slowest();
is(finish_query($counted)->{out}, $count{1000} + ($n / 1000 - 1) * ($count{2000} - $count{1000}), 'the tokens of 8 MB are counted');
cmp_ok($beside, '<', 10 * $idle + 1500, 'which holds up nobody');
# The longest texts have more tokens than an answer could carry with all that may be told of them.
is($session->query_safe(q{SELECT minimax_m1.count_tokens(repeat('a b ', 5000000))}), 10_000_001, 'millions of tokens are counted');
is($session->query_safe(q{SELECT array_length(minimax_m1.tokenize(repeat('a b ', 5000000)), 1)}), 10_000_001, 'or told');
is($session->query_safe(q{SELECT minimax_m1.generate('What is 47 + 35?')}), '82', 'the engine is as it was');
$session->quit;
done_testing();
