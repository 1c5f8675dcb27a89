# Weights quantized while they are loaded, and models that are GGUF files.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('weight_format', "minimax_m1.weight_format = 'q8_0'");
my $engine = $ENV{M1_ENGINE};

sub set
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.$name = '$value'");
	$node->reload;
}

# The model view's answer once the engine is another one than before.
sub after_restart
{
	my ($pid, $columns) = @_;

	wait_for('the new engine is ready', sub {
			$node->safe_psql('postgres', "SELECT state = 'ready' AND engine_pid <> $pid FROM minimax_m1.model") eq 't' });
	return $node->safe_psql('postgres', "SELECT $columns FROM minimax_m1.model");
}

my $sum = "SELECT minimax_m1.generate('What is 47 + 35?')";

wait_ready($node);
my $eight = $node->safe_psql('postgres', 'SELECT bytes FROM minimax_m1.model');
is($node->safe_psql('postgres', $sum), '82', 'with 8 bits');
my $pid = engine_pid($node);
set('weight_format', 'q4');
my $four = after_restart($pid, 'bytes');
is($node->safe_psql('postgres', $sum), '82', 'with 4 bits');
$pid = engine_pid($node);
set('weight_format', 'fp8');
my $fp8 = after_restart($pid, 'bytes');
is($node->safe_psql('postgres', $sum), '82', 'with fp8');
$pid = engine_pid($node);
set('weight_format', 'stored');
my $stored = after_restart($pid, 'bytes');
is($node->safe_psql('postgres', $sum), '82', 'as stored');
cmp_ok($eight, '<', 0.65 * $stored, '8 bits are smaller than 16');
cmp_ok($fp8, '<', $eight, 'fp8 has fewer scales');
cmp_ok($four, '<', 0.65 * $eight, '4 bits are smaller than 8');
my ($state) = sqlstate($node, "ALTER SYSTEM SET minimax_m1.weight_format = 'q5'");
is($state, '22023', 'no other format is known');

# A converted model.
my $folder = PostgreSQL::Test::Utils::tempdir();
my $file = "$folder/small.gguf";
command_ok([ $engine, 'quantize', root() . '/models/m1-nano', $file, '--weight-format', 'q8_0' ], 'quantize');
command_fails_like([ $engine, 'quantize', root() . '/models/m1-nano', "$folder/other.gguf", '--weight-format', 'fp8' ],
	qr/a GGUF file cannot hold fp8 weights.*q8_0/s, 'fp8 has no file format');
command_fails_like([ $engine, 'quantize', root() . '/models/m1-nano', $file ], qr/exists already.*--force/s,
	'nothing is replaced unless asked for');
$pid = engine_pid($node);
set('model', $file);
is(after_restart($pid, 'name, architecture, parameters, bytes'), "small|minimax-01|4189184|$eight", 'a GGUF file is a model');
is($node->safe_psql('postgres', $sum), '82', 'that answers');
$pid = engine_pid($node);
set('model', $folder);
after_restart($pid, 'name');
is($node->safe_psql('postgres', $sum), '82', 'and so is the folder that it is in');

# One that was cut short.
truncate($file, 1_000_000) or die $!;
set('model', $file);
wait_for('the truncated file is noticed', sub { (sqlstate($node, $sum))[0] eq 'XX001' });
my $message = (sqlstate($node, $sum))[1];
like($message, qr/small\.gguf: tensor ".*" lies beyond the end of the file/, 'names file and tensor');
set('model', 'm1-nano');
wait_for('it is healed', sub {
		$node->safe_psql('postgres', "SELECT state = 'ready' AND name = 'm1-nano' FROM minimax_m1.model") eq 't' });
is($node->safe_psql('postgres', $sum), '82', 'a reload heals it');
$node->stop;
done_testing();
