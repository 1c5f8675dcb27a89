# A model that cannot be loaded: the server runs, functions say why, and a reload heals it.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('bad_model', "minimax_m1.model = '/nonexistent/model'");

sub set_model
{
	my ($setting, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.$setting = '$value'");
	$node->reload;
}

sub wait_failed
{
	wait_for('the failure is known', sub {
			$node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') eq 'failed' });
}

wait_failed();
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the server runs');
my ($state, $message) = sqlstate($node, "SELECT minimax_m1.generate('Hello.')");
is($state, '58P01', 'a missing model folder');
like($message, qr/could not open "config.json"/, 'names the file');
like($message, qr{/nonexistent/model}, 'names the folder');
like($message, qr/next try is in \d+ s/, 'tells when it tries again');
is($node->safe_psql('postgres', 'SELECT last_error IS NOT NULL AND next_try IS NOT NULL FROM minimax_m1.model'), 't',
	'the model view says so too');

# A checkpoint with a broken file.
my $broken = PostgreSQL::Test::Utils::tempdir();
system_or_bail('cp', '-r', glob(tiny() . '/*'), $broken);
truncate("$broken/model.safetensors", 1_000_000) or die $!;
set_model('model', $broken);
wait_for('the truncated file is noticed', sub {
		(sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[0] eq 'XX001' });
($state, $message) = sqlstate($node, "SELECT minimax_m1.generate('Hello.')");
is($state, 'XX001', 'a truncated checkpoint');
like($message, qr/model\.safetensors: tensor ".*" lies beyond the end of the file/, 'names file and tensor');

# A device that is not there fails loudly, and is never replaced by the CPU.
set_model('model', 'm1-nano');
wait_ready($node);
set_model('device', 'cuda');
wait_for('the missing device is noticed', sub {
		(sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[0] eq '58000' });
like((sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[1], qr/cuda/, 'device cuda without a GPU');

# An engine that cannot be run.
set_model('device', 'auto');
set_model('engine_path', '/nonexistent/engine');
wait_for('the missing engine is noticed', sub {
		(sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[1] =~ /engine executable/ });
is((sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[0], '57P03', 'a missing engine');

# An engine that ends at once, and one that talks nonsense.
set_model('engine_path', '/bin/true');
wait_for('the useless engine is noticed', sub {
		(sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[1] =~ /does not stay up/ });
pass('an engine that ends at once');
my $liar = PostgreSQL::Test::Utils::tempdir() . '/liar';
append_to_file($liar, "#!/bin/sh\nhead -c 100000 /dev/urandom >&3\nsleep 100\n");
chmod 0755, $liar;
set_model('engine_path', $liar);
wait_for('the nonsense is noticed', sub {
		(sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[1] =~ /same protocol/ });
pass('an engine that talks nonsense');

set_model('engine_path', '');
wait_ready($node);
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?',
	'a reload with good settings heals it');
$node->stop;
done_testing();
