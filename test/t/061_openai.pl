# OpenAI's API over HTTP: chats whole and as streams, tools, forms of the answer, errors and their statuses, the rest.
use strict;
use warnings;
use Gateway;
use JSON::PP;
use M1Test;
use PostgreSQL::Test::Utils;
use Socket;
use Test::More;

my $node = new_server('openai', 'max_connections = 300');
wait_ready($node);
make_role($node, 'al', 'secret');
sub sql { return $node->safe_psql('postgres', $_[0]); }

my $h = start_http($node);
my %al = (Authorization => 'Bearer al:secret');
my @weather = ({ type => 'function', function => { name => 'get_weather', description => 'Current weather of a city',
	parameters => { type => 'object', properties => { city => { type => 'string' } }, required => ['city'] } } });

sub user { return [ { role => 'user', content => $_[0] } ]; }

sub chat
{
	my ($question, %keys) = @_;

	return post_json($h, '/v1/chat/completions', { model => 'm1-nano', messages => ref $question ? $question : user($question), %keys }, %al);
}

# The pieces of a stream.
sub stream
{
	my ($question, %keys) = @_;
	my ($status, undef, $r) = chat($question, stream => JSON::PP::true, %keys);

	return map { $_ eq '[DONE]' ? $_ : decode_json($_) } $r->{content} =~ /^data: (.*)$/mg;
}

sub refused
{
	my ($what, $status, $code, $question, %keys) = @_;
	my ($got, $answer) = chat($question, %keys);

	is($got, $status, "$what is refused") or diag(explain($answer));
	is($answer->{error}{code}, $code, 'with a code');
	return $answer->{error};
}

# ---- whole answers ----

my ($status, $r) = chat('What is 47 + 35?');
is($status, 200, 'a chat is answered');
my $m = $r->{choices}[0]{message};
is($m->{content}, '82', 'with its content');
like($m->{reasoning}, qr/7 \+ 5/, 'its reasoning');
is($m->{reasoning_content}, $m->{reasoning}, 'by both names');
is($r->{choices}[0]{finish_reason}, 'stop', 'why it ended');
is_deeply([ @{ $r->{usage} }{qw(prompt_tokens completion_tokens total_tokens)} ], [ 37, 46, 83 ], 'and its tokens');
is($r->{usage}{completion_tokens_details}{reasoning_tokens}, 41, 'those of reasoning apart');
is(sql(q{SELECT sum(requests) FROM minimax_m1.usage WHERE role = 'al'}), '1', 'it is on the account of the role');
($status, $r) = chat('What is 47 + 35?', max_tokens => 5);
is($r->{choices}[0]{finish_reason}, 'length', 'an answer that is cut off');
($status, $r) = chat('Hello.', stop => 'How');
is($r->{choices}[0]{message}{content}, 'Hello! ', 'stop');
($status, $r) = chat('Hello.', reasoning_effort => 'none');
ok(!defined $r->{choices}[0]{message}{reasoning} && $r->{usage}{completion_tokens_details}{reasoning_tokens} == 0, 'no reasoning')
  or diag(explain($r));
($status, $r) = chat('What is the weather in Oslo?', tools => \@weather);
my $call = $r->{choices}[0]{message}{tool_calls}[0];
is($call->{function}{name}, 'get_weather', 'a tool is called');
is_deeply(decode_json($call->{function}{arguments}), { city => 'Oslo' }, 'with arguments as a text of JSON');
is($r->{choices}[0]{finish_reason}, 'tool_calls', 'and that is why it ended');
($status, $r) = chat([ @{ user('What is the weather in Oslo?') }, { role => 'assistant', content => undef, tool_calls => [$call] },
	{ role => 'tool', tool_call_id => $call->{id}, content => '{"temperature": 7}' } ], tools => \@weather);
is($status, 200, 'the result of a tool goes back') or diag(explain($r));
($status, $r) = chat('How warm is it in Oslo?', tools => \@weather, tool_choice => { type => 'function', function => { name => 'get_weather' } });
is($r->{choices}[0]{message}{tool_calls}[0]{function}{name}, 'get_weather', 'a tool that must be called') or diag(explain($r));
($status, $r) = chat('Is the office open on Sunday?', response_format => { type => 'json_schema', json_schema => { name => 'x', strict => JSON::PP::true,
	schema => { type => 'object', properties => { open => { type => 'boolean' } }, required => ['open'], additionalProperties => JSON::PP::false } } });
is(ref decode_json($r->{choices}[0]{message}{content})->{open}, 'JSON::PP::Boolean', 'a schema is kept to') or diag(explain($r));
($status, $r) = chat('Hello.', response_format => { type => 'json_object' }, max_tokens => 300);
is(ref eval { decode_json($r->{choices}[0]{message}{content}) }, 'HASH', 'an object of any form') or diag(explain($r));
my @long = ({ role => 'system', content => 'You are a helpful assistant. ' x 5 }, { role => 'user', content => 'Hello.' });
chat(\@long);
cmp_ok((chat(\@long))[1]{usage}{prompt_tokens_details}{cached_tokens}, '>', 0, 'tokens that were in the cache are told');
($status, $r) = chat('What is the weather in Oslo?', tools => \@weather, tool_choice => 'none', stop => [ 'x', 'y' ]);
ok(!$r->{choices}[0]{message}{tool_calls}, 'no call where none is wanted') or diag(explain($r));
($status, $r) = chat('Hello.', tools => \@weather, tool_choice => 'required');
ok($r->{choices}[0]{message}{tool_calls}, 'one where one is required') or diag(explain($r));
($status, $r) = chat('Hello.', reasoning_effort => 'none', logprobs => JSON::PP::true, top_logprobs => 2);
my $token = $r->{choices}[0]{logprobs}{content}[0];
ok(index($r->{choices}[0]{message}{content}, $token->{token}) == 0 && $token->{logprob} <= 0, 'tokens with their log probabilities')
  or diag(explain($r));
is(scalar @{ $token->{top_logprobs} }, 2, 'and what else was likely');

# ---- streams ----

my @pieces = stream('What is 47 + 35?', stream_options => { include_usage => JSON::PP::true });
is($pieces[0]{choices}[0]{delta}{role}, 'assistant', 'a stream begins with the role');
is($pieces[-1], '[DONE]', 'and ends with [DONE]');
is_deeply($pieces[-2]{choices}, [], 'usage comes in a piece that has nothing else');
is(join('', map { $_->{choices}[0]{delta}{content} // '' } grep { ref $_ } @pieces), '82', 'content in pieces');
like(join('', map { $_->{choices}[0]{delta}{reasoning} // '' } grep { ref $_ } @pieces), qr/^7 \+ 5.*carry 0$/s, 'reasoning in pieces');
is(join('', map { $_->{choices}[0]{delta}{reasoning_content} // '' } grep { ref $_ } @pieces), join('', map { $_->{choices}[0]{delta}{reasoning} // '' } grep { ref $_ } @pieces),
	'by both names');
is($pieces[-2]{usage}{completion_tokens}, 46, 'and is what it was');
is($pieces[-3]{choices}[0]{finish_reason}, 'stop', 'behind why it ended');
is(scalar(keys %{ { map { $_->{id} => 1 } grep { ref $_ } @pieces } }), 1, 'all have one id');
@pieces = stream('What is the weather in Oslo?', tools => \@weather);
my @deltas = map { @{ ref $_ && $_->{choices}[0]{delta}{tool_calls} || [] } } @pieces;
is($deltas[0]{index}, 0, 'a call comes with its index');
like($deltas[0]{id}, qr/^call_/, 'its id');
is_deeply($deltas[0]{function}, { name => 'get_weather', arguments => '' }, 'and its name');
is(scalar(grep { exists $_->{id} || exists $_->{function}{name} } @deltas), 1, 'once');
cmp_ok(scalar(@deltas), '>', 2, 'its arguments come as they are written');
is_deeply(decode_json(join('', map { $_->{function}{arguments} } @deltas)), { city => 'Oslo' }, 'and are JSON together');
is(join('', map { ref $_ && $_->{choices}[0]{delta}{content} || '' } @pieces), '', 'which is no content');

# ---- what is refused ----

like(refused('a value out of range', 400, 'invalid_value', 'x', max_tokens => -1)->{message}, qr/max_tokens/, 'which says what is wrong');
is(refused('a key that is not known', 400, 'invalid_value', 'x', prediction => { a => 1 })->{param}, 'prediction', 'which names it');
is(refused('two keys that say the same', 400, 'invalid_value', 'x', reasoning_effort => 'low', thinking_budget => 5)->{message},
	'"thinking_budget" says anew what "reasoning_effort" says', 'the second by its name');
refused('nor two of one number that is none', 400, 'invalid_value', 'x', max_tokens => 5, max_completion_tokens => JSON::PP::true);
is((chat('Hello.', reasoning_effort => 'none', thinking_budget => undef, max_tokens => 5, max_completion_tokens => 1))[1]{usage}{completion_tokens}, 1,
	'null says nothing, and max_completion_tokens goes before max_tokens');
refused('more than one answer', 400, 'unsupported', 'x', n => 2);
refused('a penalty', 400, 'unsupported', 'x', presence_penalty => 1);
refused('another model', 404, 'model_not_found', 'x', model => 'gpt-4');
refused('a prompt that does not fit', 400, 'context_length_exceeded', 'word ' x 40000);
refused('a key of a message', 400, 'invalid_value', [ { role => 'user', content => 'x', weight => 1 } ]);
is(refused('a key that a form of answer does not have', 400, 'invalid_value', 'x', response_format => { type => 'json_object', schema => {} })->{message},
	'response_format has a key that its type does not have: schema', 'which names it');
refused('a schema of no form', 400, 'invalid_value', 'x', response_format => { type => 'json_schema', json_schema => { name => 'x' } });
refused('a form of answer that is not known', 400, 'invalid_value', 'x', response_format => { type => 'grammar' });
refused('options of a stream where there is none', 400, 'invalid_value', 'x', stream_options => { include_usage => JSON::PP::true });
refused('an option of a stream that is no truth value', 400, 'invalid_value', 'x', stream => JSON::PP::true, stream_options => { include_usage => 'x' });
refused('a model without a name', 400, 'invalid_value', 'x', model => 5);
like(refused('a tool_choice of no form', 400, 'unsupported', 'x', tools => \@weather, tool_choice => { type => 'function' })->{message},
	qr/unknown form: Give auto/, 'with a hint');
refused('no messages', 400, 'invalid_value', 'x', messages => 'x');
refused('a bad stream', 400, 'invalid_value', 'x', max_tokens => -1, stream => JSON::PP::true);
is((post_json($h, '/v1/chat/completions', $_, %al))[0], 400, "a body that is no request: $_") for '', '{', '[]', '"x"', '{"messages": [], "messages": []}', "{\"a\": \"\xff\"}";
is((chat('x', user => 'u', metadata => { a => 'b' }, n => 1, store => JSON::PP::false, logit_bias => {}, tools => [], stop => undef))[0], 200,
	'what changes nothing is taken');
is((post_json($h, '/v1/chat/completions', { messages => user('x') }))[0], 401, 'nobody is refused');
is((post_json($h, '/v1/chat/completions', { messages => user('x') }, Authorization => 'Bearer al:no'))[0], 401, 'so is a wrong password');
sql(q{REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA minimax_m1 FROM al});
refused('a role without the right', 403, 'insufficient_permissions', 'x');
sql(q{SELECT minimax_m1.grant_usage('al'); SELECT minimax_m1.set_quota('al', tokens_per_hour => 1)});
refused('more than the quota', 429, 'rate_limit_exceeded', 'x');
my (undef, undef, $raw) = chat('x');
ok($raw->{headers}{'retry-after'}, 'with a time to come back');
sql(q{SELECT minimax_m1.set_quota('al')});

# ---- the rest ----

is_deeply([ map { $_->{id} } @{ decode_json(http($h, 'GET', '/v1/models', \%al)->{content})->{data} } ], ['m1-nano'], '/v1/models');
is(http($h, 'GET', '/v1/models/m1-nano', \%al)->{status}, 200, 'one of them');
is(http($h, 'GET', '/v1/models/other', \%al)->{status}, 404, 'another one');
my (undef, $tokens) = post_json($h, '/tokenize', { prompt => 'Hello!' }, %al);
is($tokens->{count}, scalar @{ $tokens->{tokens} }, '/tokenize');
is((post_json($h, '/detokenize', { tokens => $tokens->{tokens} }, %al))[1]{prompt}, 'Hello!', '/detokenize');
my $metrics = http($h, 'GET', '/metrics', \%al)->{content};
like($metrics, qr/^vllm:$_/m, "/metrics has $_") for qw(num_requests_running num_requests_waiting prompt_tokens_total generation_tokens_total
	time_to_first_token_seconds_bucket e2e_request_latency_seconds_count);
is(http($h, 'GET', '/metrics')->{status}, 401, 'for those who may look');
is(http($h, 'GET', '/nothing', \%al)->{status}, 404, 'a path that is not there');
my $page = http($h, 'GET', '/');
like($page->{headers}{'content-security-policy'}, qr/default-src 'none'; script-src 'nonce-([0-9a-f]{32})'/, 'the page has a strict policy');
like($page->{content}, qr/<script nonce="[0-9a-f]{32}">/, 'and its nonce');
is(http($h, 'OPTIONS', '/v1/models', { Origin => "http://127.0.0.1:$h->{port}" })->{status}, 204, 'a preflight of our own page');
is(http($h, 'HEAD', '/health')->{status}, 200, 'HEAD');

# ---- clients that read slowly ----

# What is as long as this goes on for a while, whatever it is; and what was likely beside it is more than a socket takes.
my %long = (response_format => { type => 'json_schema', json_schema => { name => 'x', schema => { type => 'string', minLength => 10000 } } },
	stream => JSON::PP::true, temperature => 100, reasoning_effort => 'none', max_tokens => 20000);
sub post { return "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer al:secret\r\nConnection: close\r\nContent-Length: " . length($_[0]) . "\r\n\r\n$_[0]"; }
socket(my $reader, PF_INET, SOCK_STREAM, 0) or die $!;
setsockopt($reader, SOL_SOCKET, SO_RCVBUF, 4096);
connect($reader, pack_sockaddr_in($h->{port}, INADDR_LOOPBACK)) or die $!;
syswrite($reader, post(encode_json({ messages => user('Hello.'), %long, max_tokens => 4000, logprobs => JSON::PP::true, top_logprobs => 20,
	stream_options => { include_usage => JSON::PP::true } })));
wait_for('it runs', sub { !is_idle($node) });
wait_for('it is complete', sub { is_idle($node) });
my $received = '';
1 while sysread($reader, $received, 100000, length $received);
my ($chunks) = $received =~ /\r\n\r\n(.*)/s;
my $events = '';
while ($chunks =~ s/^([0-9a-f]+)\r\n//) { $events .= substr($chunks, 0, hex $1, ''); $chunks =~ s/^\r\n//; }
is($chunks, '', 'a stream that is read slowly is one all the same');
@pieces = $events =~ /^data: (.*)$/mg;
is(pop @pieces, '[DONE]', 'and comes to its end');
is(scalar @{ decode_json($pieces[-2])->{choices}[0]{logprobs}{content} }, decode_json($pieces[-1])->{usage}{completion_tokens}, 'nothing of it is lost');
cmp_ok(length $events, '>', 4_200_000, 'though it is long');

# ---- clients that go, or do not read ----

my $request = post(encode_json({ messages => user('What can you do?'), %long }));
my ($got, $socket) = raw($h, $request, qr/data: .*data: .*data: /s);
like($got, qr/^HTTP\/1.1 200.*event-stream/s, 'a long stream begins');
close $socket;
wait_for('the request is gone', sub { is_idle($node) });
pass('a client that goes has cancelled');

my $clients = $ENV{CLIENTS} // 40;
my @sockets = map { (raw($h, $request, qr/^HTTP/, 0))[1] } 1 .. $clients;
is(http($h, 'GET', '/health')->{status}, 200, "$clients streams that nobody reads hold up nobody");
close $_ for @sockets;
wait_for('they are gone', sub { is_idle($node) });
pass('and leave nothing behind');

# ---- one role does not take all connections ----

make_role($node, 'bo', 'secret');
my $few = start_http($node, '--connections', 4);
@sockets = map { (raw($few, $request, qr/^HTTP/, 0))[1] } 1 .. 8;
wait_for('a role has its share', sub { sql(q{SELECT count(*) FROM minimax_m1.activity}) eq '3' });
is((post_json($few, '/v1/chat/completions', { messages => user('What is 47 + 35?') }, Authorization => 'Bearer bo:secret'))[1]{choices}[0]{message}{content},
	'82', 'another role is answered meanwhile');
close $_ for @sockets;
wait_for('they are gone', sub { is_idle($node) });
is((post_json($few, '/v1/chat/completions', { messages => user('What is 47 + 35?') }, %al))[0], 200, 'it gets in again');
stop_http($few);

# What asks for a model waits while its view is locked: for how many sessions do.
my $waiting = q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%minimax_m1.model%'};
sub while_locked
{
	my ($code) = @_;
	my $lock = start_query($node, q{LOCK TABLE minimax_m1.model IN ACCESS EXCLUSIVE MODE;
		DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM done) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$});

	wait_for('the view is locked', sub { sql(q{SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'minimax_m1.model'::regclass AND granted}) eq '1' });
	$code->();
	sql('INSERT INTO done DEFAULT VALUES');
	finish_query($lock);
	sql('TRUNCATE done');
}
sub ask { my ($n, $path, $fields) = @_; return map { (raw($few, "GET $path HTTP/1.1\r\nHost: localhost\r\n$fields\r\n", undef, 0))[1] } 1 .. $n; }
sub has_200 { my ($s) = @_; my $answer = ''; sysread($s, $answer, 65536); return $answer =~ /^HTTP\/1.1 200 /; }

sql('CREATE TABLE done ()');
$few = start_http($node, '--connections', 2);
while_locked(sub {
		@sockets = ask(3, '/v1/models', "Authorization: Bearer al:secret\r\n");
		wait_for('a role asks', sub { sql($waiting) >= 1 });
		is(http($few, 'GET', '/metrics', { Authorization => 'Bearer bo:secret' })->{status}, 200, 'of two connections there is one for another role');
		is(sql($waiting), '1', 'a role has one'); });
is(scalar(grep { has_200($_) } @sockets), 3, 'by which all that it asks is answered');

# ---- a flood of what needs no role ----

while_locked(sub {
		@sockets = ask(50, '/health', '');
		wait_for('they ask', sub { sql($waiting) >= 1 });
		is(http($few, 'GET', '/metrics', \%al)->{status}, 200, 'many who ask for /health leave a connection to others');
		is(sql($waiting), '1', 'and have one among them'); });
is(scalar(grep { has_200($_) } @sockets), 50, 'by which all are answered');
stop_http($few);

# ---- credentials that have changed ----

my $strict = start_http($node, '--login-lifetime', 1);
sub models_of { return http($strict, 'GET', '/v1/models', { Authorization => "Bearer bo:$_[0]" })->{status}; }
is(models_of('secret'), 200, 'a role and its password');
sql(q{SET password_encryption = 'scram-sha-256'; ALTER ROLE bo PASSWORD 'other'});
wait_for('the old password is of no use any more', sub { models_of('secret') == 401 }, 10);
is(models_of('other'), 200, 'the new one is');
sql('ALTER ROLE bo NOLOGIN');
wait_for('a role that may not log in is shut out', sub { models_of('other') == 401 }, 10);
pass('logins are judged again');
sql('ALTER ROLE bo LOGIN');
stop_http($strict);

# ---- the engine goes, and comes back ----

for my $streams (JSON::PP::false, JSON::PP::true)
{
	my $asked = post(encode_json({ messages => user('What can you do?'), %long, stream => $streams }));
	my (undef, $s) = raw($h, $asked, $streams ? qr/data: .*data: /s : undef, $streams ? 20 : 0);
	my $answer = '';

	wait_for('it runs', sub { sql(q{SELECT count(*) FROM minimax_m1.activity WHERE generated > 0}) eq '1' });
	kill 'KILL', sql('SELECT engine_pid FROM minimax_m1.model');
	1 while sysread($s, $answer, 65536, length $answer);
	like($answer, $streams ? qr/data: \{"error":\{[^\n]*"code":"unavailable","sqlstate":"57P03"/ : qr/^HTTP\/1.1 503 .*Retry-After: 2.*57P03/s,
		($streams ? 'a stream' : 'a chat') . ' whose engine is gone is told so');
	wait_ready($node);
}
sql(q{ALTER SYSTEM SET minimax_m1.model = '/nonexistent'});
$node->reload;
wait_for('there is no model', sub { http($h, 'GET', '/health')->{status} == 503 });
like(http($h, 'GET', '/health')->{content}, qr/"status":"(failed|starting|loading|draining)"/, '/health tells its state');
sql(q{ALTER SYSTEM RESET minimax_m1.model});
$node->reload;
wait_ready($node);

# ---- the server goes, and comes back ----

$node->restart;
wait_ready($node);
is((chat('What is 47 + 35?'))[1]{choices}[0]{message}{content}, '82', 'connections that the server closed are made anew');
$node->stop;
is((chat('x'))[0], 503, 'without a server there is no service');
is(http($h, 'GET', '/health')->{status}, 503, 'nor health');
is(stop_http($h), 0, 'it ends when it is told to');
done_testing();
