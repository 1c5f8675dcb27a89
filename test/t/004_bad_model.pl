# A model that cannot be loaded: the server runs, functions say why, and a reload heals it.
use strict;
use warnings;
use JSON::PP;
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
# between two tries: while there is one, there is no next
wait_for('the model view says so too', sub {
		$node->safe_psql('postgres', 'SELECT last_error IS NOT NULL AND next_try IS NOT NULL FROM minimax_m1.model') eq 't' });
pass('the model view says so too');

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

# Has the server use a copy of m1-nano with these bits, of 16, instead of the first weights in a row of a matrix.
sub set_weights
{
	my ($tensor, $row, @bits) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir();

	system_or_bail('cp', '-r', glob(root() . '/models/m1-nano/*'), $folder);
	open(my $f, '+<:raw', "$folder/model.safetensors") or die $!;
	read $f, my $length, 8;
	read $f, my $header, unpack('Q<', $length);
	my $t = decode_json($header)->{$tensor};
	seek $f, 8 + length($header) + $t->{data_offsets}[0] + 2 * $row * $t->{shape}[-1], 0;
	print $f pack('S<*', @bits);
	close $f;
	return set_model('model', $folder);
}

# One weight of the last norm is not a number: the model loads, and every way to ask says what is wrong.
set_weights('model.norm.weight', 0, 0x7fc0);
for my $call ("generate('Hello.')", 'generate_ids(ARRAY[1, 2], 5)', 'logits(ARRAY[1, 2])', "score('it is so', 'It is.')",
	"generate('Hello.', temperature => 1)")
{
	wait_for('the model is there', sub { (sqlstate($node, 'SELECT minimax_m1.tokenize($$a$$)'))[0] eq 'none' });
	($state, $message) = sqlstate($node, "SELECT minimax_m1.$call");
	like("$state $message", qr/^XX001 .*not finite numbers/s, "weights that are no numbers: $call");
}

# Trainings: what they are asked for is refused, or the training fails by its name; the engine goes on.
my $not_finite = qr/XX001 .*not finite numbers/s;

sub train_call
{
	my ($name, %options) = @_;
	my %all = (examples => q{SELECT 'Say it.' AS prompt, 'yes' AS answer, i > 2 AS held_out FROM generate_series(1, 4) i}, steps => 2,
		prompts_per_step => 2, seed => 1, %options);

	return "SELECT minimax_m1.train('$name', " . join(', ', map { "$_ => " . quote($all{$_}) } sort keys %all) . ')';
}

sub trained
{
	my ($name, %options) = @_;

	$node->safe_psql('postgres', train_call($name, %options));
	training_ended($node, $name);
	return $node->safe_psql('postgres', "SELECT concat_ws(' ', state, sqlstate, error, detail, hint) FROM minimax_m1.training WHERE name = '$name'");
}

my %by_reward = (method => 'cispo', reward => 'minimax_m1.reward_exact', group_size => 4, max_tokens => 8);
for my $method ({ method => 'sft' }, \%by_reward)
{
	($state, $message) = sqlstate($node, train_call('x', %$method));
	like("$state $message", $not_finite, "a training by $method->{method} is not begun");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.training'), '0', 'nothing is queued');

# The word that is to be learnt has such a weight: what does not read it is answered.
my $yes = '';
set_model('model', 'm1-nano');
wait_for('the model is there', sub {
		$yes = (sqlstate($node, q{SELECT (minimax_m1.tokenize('yes'))[1]}))[2] =~ /(\d+)/ ? $1 : '' });
for my $bits (0x7fc0, 0x7f80)
{
	my $what = $bits == 0x7fc0 ? 'no number' : 'infinite';

	set_weights('model.embed_tokens.weight', $yes, ($bits) x 8);
	wait_for('the model answers', sub { (sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[0] eq 'none' });
	my $engine = engine_pid($node);
	like(trained("held out $what", method => 'sft'), qr/^failed $not_finite/, "the loss of held-out rows is $what");
	like(trained("shown $what", method => 'sft', examples => q{SELECT 'Say it.' AS prompt, 'yes' AS answer}),
		qr/^failed 22003 .*nothing was learnt in 2 steps in a row.*no numbers.*lower learning_rate/, "all that is learnt is $what");
	like(trained("shown for long $what", method => 'sft', steps => 10, examples => q{SELECT 'Say it.' AS prompt, 'yes' AS answer}),
		qr/^failed 22003 .*in 3 steps in a row/, 'which is not tried again and again');
	($state, $message) = sqlstate($node, train_call('x', %by_reward, examples => q{SELECT 'yes' AS prompt, 'yes' AS answer}));
	like("$state $message", $not_finite, "what is asked is $what");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.adapter'), '0', 'no version is made');
	is(engine_pid($node), $engine, 'the engine goes on');
	is((sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[0], 'none', 'and answers others');
}

# What is no file is not waited for.
for my $name ('config.json', 'model.safetensors', 'tokenizer.json', 'merges.txt')
{
	my $pipe = PostgreSQL::Test::Utils::tempdir();

	system_or_bail('cp', '-r', glob(root() . '/models/m1-nano/*'), $pipe);
	unlink "$pipe/$name";
	unlink "$pipe/tokenizer.json" if $name eq 'merges.txt';
	system_or_bail('mkfifo', "$pipe/$name");
	set_model('model', $pipe);
	wait_for("the pipe $name is noticed", sub {
			(sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[1] =~ /"\Q$name\E" is not a file/ });
	pass("a pipe instead of $name");
}

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
