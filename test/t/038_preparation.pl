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
	sleep 1;
	my $before = engine_seconds();
	sleep 1;
	cmp_ok(engine_seconds() - $before, '<', 0.5, "and the engine does not go on with it");
}
is($session->query_safe(q{SELECT minimax_m1.generate('What is 47 + 35?')}), '82', 'the engine is as it was');
$session->quit;
done_testing();
