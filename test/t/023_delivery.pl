# Rows reach the client while the next one is still being written, without a cursor, and in all ways to ask.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('delivery');
wait_ready($node);

# Rows, and in how many pieces they arrived.
sub arrivals
{
	my ($query) = @_;
	my ($out, $err) = run_command([ 'python3', root() . '/test/t/single_rows.py', $node->connstr('postgres'), $query ]);
	die $err unless $out =~ /^(\d+) (\d+)$/;
	return ($1, $2);
}

# The pieces of a reply come 0.3 s apart.
set_fake_engine($node, 'slow');
wait_for('it is the engine', sub { $node->safe_psql('postgres', 'SELECT name FROM minimax_m1.model') eq 'fake' });
my ($rows, $arrivals) = arrivals("SELECT (minimax_m1.generate_stream('Hello.')).delta");
is($rows, 5, 'a reply of five rows');
is($arrivals, 5, 'is streamed row by row');
($rows, $arrivals) = arrivals("SELECT minimax_m1.generate_stream('Hello.') FROM generate_series(1, 2)");
is($arrivals, 10, 'so are several');

# What others see of a backend that waits.
$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.model = '" . tiny() . "'");
set_fake_engine($node, '');
wait_for('the other model is ready', sub {
		$node->safe_psql('postgres', 'SELECT name, state FROM minimax_m1.model') eq 'tiny-f32|ready' });
my $long = start_query($node, long_query());
wait_for('it runs', sub {
		$node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE state = 'decode'") eq '1' });
# Before version 17 an extension has no events of its own, only the one for all of them.
my $event = $node->safe_psql('postgres', 'SHOW server_version_num') < 170000 ? 'Extension' : 'MiniMaxM1Model';
is($node->safe_psql('postgres', q{SELECT wait_event_type || ' ' || wait_event FROM pg_stat_activity
	WHERE query LIKE '%generate_ids%' AND pid <> pg_backend_pid()}), "Extension $event", 'it waits for the model');
$node->safe_psql('postgres', 'SELECT minimax_m1.cancel(request) FROM minimax_m1.activity');
finish_query($long);
$node->stop;
done_testing();
