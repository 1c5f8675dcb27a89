# Bad input: each its own error, at once, and nothing is left behind.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('bad_input', 'minimax_m1.max_context = 64');
wait_ready($node);
my $engine = engine_pid($node);

sub refused
{
	my ($state, $pattern, $call) = @_;
	my ($got, $message) = sqlstate($node, $call =~ /^[A-Z]/ ? $call : "SELECT * FROM minimax_m1.$call");

	subtest $call => sub {
		is($got, $state, 'SQLSTATE');
		like($message, $pattern, 'message');
	};
}

my $user = '{"role": "user", "content": "Hello."}';

refused(@$_) for (
	[ '22023', qr/prompt is empty/, "generate('')" ],
	[ '22023', qr/prompt is empty/, "complete('')" ],
	[ '22023', qr/prompt is empty/, "generate_stream('')" ],
	[ '22023', qr/temperature is out of range.*It is -1;/s, "generate('x', temperature => -1)" ],
	[ '22023', qr/temperature is out of range/, "generate('x', temperature => 'NaN')" ],
	[ '22023', qr/temperature is out of range/, "generate('x', temperature => 'Infinity')" ],
	[ '22023', qr/temperature is out of range/, "complete('x', temperature => 100.5)" ],
	[ '22023', qr/top_p is out of range.*It is 0;/s, "generate('x', top_p => 0)" ],
	[ '22023', qr/top_p is out of range/, "generate('x', top_p => -0.5)" ],
	[ '22023', qr/top_p is out of range/, "generate('x', top_p => 1.01)" ],
	[ '22023', qr/top_p is out of range/, "generate('x', top_p => 1e-300)" ],
	[ '22023', qr/top_p is out of range/, "generate_stream('x', top_p => 'NaN')" ],
	[ '22023', qr/max_tokens is out of range.*It is 0;/s, "generate('x', max_tokens => 0)" ],
	[ '22023', qr/max_tokens is out of range.*It is -5;/s, "generate('x', max_tokens => -5)" ],
	[ '22023', qr/max_tokens is out of range/, "complete('x', max_tokens => -2147483648)" ],
	[ '22023', qr/max_tokens is out of range/, "summarize('x', max_tokens => 0)" ],
	[ '22023', qr/max_tokens is out of range/, 'generate_ids(ARRAY[1], -5)' ],
	[ '22023', qr/thinking_budget is out of range.*It is -2;/s, "generate('x', thinking_budget => -2)" ],
	[ '22023', qr/too many stop strings.*There are 17; at most 16/s, "generate('x', stop => array_fill('s'::text, ARRAY[17]))" ],
	[ '22023', qr/stop string is empty.*It is number 2/s, "generate('x', stop => ARRAY['a', ''])" ],
	[ '22023', qr/stop string is NULL/, "generate('x', stop => ARRAY['a', NULL])" ],
	[ '22023', qr/document is empty/, "summarize('')" ],
	# messages
	[ '22023', qr/both prompt and messages/, "complete('x', messages => '[$user]')" ],
	[ '22023', qr/messages is not a JSON array/, "complete(messages => '$user')" ],
	[ '22023', qr/messages is not a JSON array/, "complete(messages => 'null')" ],
	[ '22023', qr/messages is not a JSON array/, "complete(messages => '3')" ],
	[ '22023', qr/messages is not a JSON array/, "complete(messages => '\"x\"')" ],
	[ '22023', qr/messages is empty/, "complete(messages => '[]')" ],
	[ '22023', qr/messages\[0\]/, "complete(messages => '[null]')" ],
	[ '22023', qr/messages\[0\]/, "complete(messages => '[[$user]]')" ],
	[ '22023', qr/messages\[1\]/, "complete(messages => '[$user, 7]')" ],
	[ '22023', qr/messages\[1\] has a role/, "complete(messages => '[$user, {\"role\": \"wizard\", \"content\": \"x\"}]')" ],
	[ '22023', qr/messages\[0\] has a role/, "complete(messages => '[{\"role\": 1, \"content\": \"x\"}]')" ],
	[ '22023', qr/messages\[0\] has a role/, "complete(messages => '[{\"content\": \"x\"}]')" ],
	[ '22023', qr/messages\[0\] has no content/, "complete(messages => '[{\"role\": \"user\"}]')" ],
	[ '22023', qr/messages\[0\]/, "complete(messages => '[{\"role\": \"user\", \"content\": null}]')" ],
	[ '22023', qr/messages\[0\]/, "complete(messages => '[{\"role\": \"user\", \"content\": {}}]')" ],
	[ '22023', qr/messages\[0\] has content that is not text/, "complete(messages => '[{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]')" ],
	[ '22023', qr/no message from a user/, "complete(messages => '[{\"role\": \"system\", \"content\": \"x\"}]')" ],
	[ '22023', qr/tool result without a name/, "complete(messages => '[{\"role\": \"tool\", \"content\": \"x\"}]')" ],
	[ '22P02', qr/invalid input syntax for type json/, "complete(messages => '[{')" ],
	# deeper than any conversation, and than the engine's parser may care to go
	[ '0A000', qr/messages/, "complete(messages => (repeat('[', 5000) || repeat(']', 5000))::jsonb)" ],
	# tools
	[ '22023', qr/tools is not a JSON array/, "complete('x', tools => '{}')" ],
	[ '22023', qr/tools is not a JSON array/, "complete('x', tools => '\"x\"')" ],
	[ '22023', qr/tools\[0\] has no name/, "complete('x', tools => '[{}]')" ],
	[ '22023', qr/tools\[0\]/, "complete('x', tools => '[1]')" ],
	[ '22023', qr/tools\[0\]/, "complete('x', tools => '[{\"name\": 1}]')" ],
	[ '22023', qr/tools\[0\]/, "complete('x', tools => '[null]')" ],
	# the context holds 64
	[ '54000', qr/prompt is longer than the context.*context holds 64/s, "generate(repeat('word ', 64))" ],
	[ '54000', qr/prompt is longer than the context/, "complete(messages => jsonb_build_array(jsonb_build_object('role', 'user', 'content', repeat('word ', 64))))" ],
	[ '54000', qr/prompt is longer than the context/, "generate_stream(repeat('word ', 64))" ],
	[ '54000', qr/prompt is longer than the context/, "generate('x', system_prompt => repeat('word ', 64))" ],
	[ '54000', qr/context/, "generate_ids(array_fill(1, ARRAY[64]), 1)" ],
	[ '54000', qr/context/, "logits(array_fill(1, ARRAY[65]))" ],
	[ '54000', qr/context is too small/, "summarize(repeat('word ', 64))" ],
	# ids
	[ '22023', qr/array of token ids is empty/, "generate_ids('{}', 1)" ],
	[ '22004', qr/token id is NULL/, 'generate_ids(ARRAY[1, NULL], 1)' ],
	[ '2202E', qr/more than one dimension/, 'generate_ids(ARRAY[[1], [2]], 1)' ],
	[ '22023', qr/-1/, 'generate_ids(ARRAY[-1], 1)' ],
	[ '22023', qr/1600/, 'logits(ARRAY[1, 1600])' ],
	[ '22023', qr/2147483647/, 'detokenize(ARRAY[2147483647])' ],
	# settings
	[ '22023', qr/minimax_m1.top_p/, 'SET minimax_m1.top_p = 0' ],
	[ '22023', qr/outside the valid range/, 'SET minimax_m1.temperature = -1' ],
	[ '22023', qr/outside the valid range/, 'SET minimax_m1.max_tokens = 0' ],
	[ '22023', qr/outside the valid range/, 'SET minimax_m1.default_thinking_budget = -2' ],
	[ '22023', qr/outside the valid range/, 'SET minimax_m1.request_timeout = -1' ],
	[ '42704', qr/does not exist/, "SELECT minimax_m1.grant_usage('nobody')" ],
);

# The trigger says at once what is wrong with it.
$node->safe_psql('postgres', 'CREATE TABLE notes (id int, body text, answer text, number int)');
for (
	[ "", 'no arguments' ],
	[ "'answer'", 'one argument' ],
	[ "'nothing', '{body}'", 'a column that is not there' ],
	[ "'answer', '{nothing}'", 'a placeholder that is no column' ],
	[ "'number', '{body}'", 'a column that is not text' ])
{
	my ($arguments, $what) = @$_;
	my ($state, $message) = sqlstate($node, qq{
		BEGIN;
		CREATE TRIGGER ask BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate($arguments);
		INSERT INTO notes VALUES (1, 'Hello.');
		ROLLBACK});

	like($state, qr/^(?!XX)[0-9A-Z]{5}$/, "annotate with $what: $state") or diag($message);
}
is((sqlstate($node, 'SELECT minimax_m1.annotate()'))[0], '39P01', 'annotate outside a trigger');

# What looks bad and is not.
is($node->safe_psql('postgres', 'SELECT minimax_m1.generate(NULL) IS NULL'), 't', 'a NULL prompt');
is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.generate_stream(NULL)'), '0', 'a NULL prompt streamed');
is($node->safe_psql('postgres', q{SELECT minimax_m1.generate('Hello.', system_prompt => NULL, max_tokens => NULL, thinking_budget => NULL,
	temperature => NULL, top_p => NULL, seed => NULL, stop => NULL)}), 'Hello! How can I help you?', 'NULL for every option');
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.', stop => '{}')"), 'Hello! How can I help you?', 'no stops');
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.', max_tokens => 2147483647)"), 'Hello! How can I help you?',
	'max_tokens beyond every context');
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.', stop => array_fill('zzz'::text, ARRAY[16]))"),
	'Hello! How can I help you?', '16 stops');
is($node->safe_psql('postgres', "SELECT content, seed FROM minimax_m1.complete('Hello.', seed => -9223372036854775808)"),
	'Hello! How can I help you?|-9223372036854775808', 'the lowest seed');
is($node->safe_psql('postgres', "SELECT content FROM minimax_m1.complete('Hello.', tools => '[]')"),
	'Hello! How can I help you?', 'no tools');
is($node->safe_psql('postgres', "SELECT array_length(minimax_m1.generate_ids(array_fill(1, ARRAY[63]), 5), 1)"), '1',
	'a prompt with room for one token');

is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity'), '0', 'nothing is left');
is(engine_pid($node), $engine, 'the engine has lived through it all');

# A GPU that is not there is an error, loudly, for every function; never an answer from the CPU.
SKIP:
{
	skip 'there is a GPU here', 4 if -e '/dev/nvidiactl';
	$node->append_conf('postgresql.conf', "minimax_m1.device = 'cuda'");
	$node->restart;
	for my $call ("generate('Hello.')", "count_tokens('Hello.')", 'logits(ARRAY[1])')
	{
		my ($state, $message) = sqlstate($node, "SELECT minimax_m1.$call");
		subtest "device = cuda: $call" => sub {
			is($state, '58000', 'SQLSTATE');
			like($message, qr/cuda/i, 'message');
		};
	}
	is($node->safe_psql('postgres', "SELECT state FROM minimax_m1.model"), 'failed', 'the model view says so');
}
$node->stop;
done_testing();
