# The gateway as an HTTP server: requests that are none, limits, slow clients, many at once, few files, and what it adds in
# time.
use strict;
use warnings;
use Gateway;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP;
use M1Test;
use PostgreSQL::Test::Utils;
use Socket qw(SOL_SOCKET SO_RCVBUF pack_sockaddr_in inet_aton);
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('gateway_http', 'max_connections = 100');
wait_ready($node);
my $h = start_http($node, '--auth', 'fixed', '--clients', 60, '--connections', 20);
my $host = "Host: localhost\r\n";

# ---- slow clients, whose ends are looked at below, since they take a while ----

my $patient = start_http($node, '--auth', 'fixed');
my $since = time();
my (undef, $slow_body) = raw($patient, "POST /mcp HTTP/1.1\r\n${host}Content-Length: 10\r\n\r\nabc", undef, 0);

# ---- heads ----

for ([ 'no request', "hello\r\n\r\n", 400 ],
	[ 'lines that end with LF only', "GET /health HTTP/1.1\nHost: localhost\n\n\r\n\r\n", 400 ],
	[ 'no host', "GET /health HTTP/1.1\r\n\r\n", 400 ],
	[ 'two hosts', "GET /health HTTP/1.1\r\n$host$host\r\n", 400 ],
	[ 'a space in front of the colon', "GET /health HTTP/1.1\r\n${host}A : b\r\n\r\n", 400 ],
	[ 'a folded line', "GET /health HTTP/1.1\r\n${host}A: b\r\n c\r\n\r\n", 400 ],
	[ 'a NUL', "GET /health HTTP/1.1\r\n${host}A: b\0c\r\n\r\n", 400 ],
	[ 'a control character', "GET /health HTTP/1.1\r\n${host}A: b\x01c\r\n\r\n", 400 ],
	[ 'a method that is none', "GE(T /health HTTP/1.1\r\n$host\r\n", 400 ],
	[ 'a path that is none', "GET health HTTP/1.1\r\n$host\r\n", 400 ],
	[ 'another version', "GET /health HTTP/2.0\r\n$host\r\n", 505 ],
	[ 'a length that is none', "POST /mcp HTTP/1.1\r\n${host}Content-Length: 1x\r\n\r\n", 400 ],
	[ 'a negative length', "POST /mcp HTTP/1.1\r\n${host}Content-Length: -1\r\n\r\n", 400 ],
	[ 'two lengths', "POST /mcp HTTP/1.1\r\n${host}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400 ],
	[ 'a length beside chunks', "POST /mcp HTTP/1.1\r\n${host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400 ],
	[ 'another coding', "POST /mcp HTTP/1.1\r\n${host}Transfer-Encoding: gzip\r\n\r\n", 501 ],
	[ 'a body that is compressed', "POST /mcp HTTP/1.1\r\n${host}Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 415 ],
	[ 'an expectation that is none', "POST /mcp HTTP/1.1\r\n${host}Expect: more\r\nContent-Length: 1\r\n\r\nx", 417 ],
	[ 'empty lines', "\r\n\r\nGET /health HTTP/1.1\r\n$host\r\n", 400 ],
	[ 'a chunk that is none', "POST /mcp HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\nx\r\n", 400 ],
	[ 'a chunk that goes on', "POST /mcp HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400 ],
	[ 'a chunk that is too long', "POST /mcp HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", 413 ],
	[ 'a body that is too long', "POST /mcp HTTP/1.1\r\n${host}Content-Length: 100000000\r\n\r\n", 413 ],
	[ 'a head that is too long', "GET /health HTTP/1.1\r\n${host}A: " . 'x' x 20000 . "\r\n\r\n", 431 ],
	[ 'too many fields', "GET /health HTTP/1.1\r\n$host" . "A: b\r\n" x 100 . "\r\n", 431 ])
{
	my ($what, $bytes, $status) = @$_;

	like(raw($h, $bytes), qr/^HTTP\/1.1 $status /, "$what: $status");
}

# ---- names that lead here ----

for my $name ('localhost', 'LOCALHOST:80', '127.0.0.1', '127.1.2.3:8087', '[::1]:80')
{
	like(raw($h, "GET /health HTTP/1.1\r\nHost: $name\r\nOrigin: http://$name\r\nConnection: close\r\n\r\n"), qr/^HTTP\/1.1 200 /, "$name is of this machine");
}
for my $name ('evil.example', '127.evil.example', '127.0.0.1.evil.example', '127.0.0.1.', '127.1', '128.0.0.1', 'localhost.evil.example', 'localhost:x@evil.example', '[::2]', '')
{
	like(raw($h, "GET /health HTTP/1.1\r\nHost: $name\r\nOrigin: http://$name\r\n\r\n", qr/\}\}/), qr/^HTTP\/1.1 403 .*host_not_allowed/s, "\"$name\" may be anybody's");
}

# ---- what is refused before its body is read ----

my $guarded = start_http($node);
for ([ 'no credentials', 401, '/mcp' ], [ 'another path', 404, '/none' ], [ 'another method', 405, '/health' ], [ 'a host that is not ours', 403, '/mcp', "Host: evil.example\r\n" ])
{
	my ($what, $status, $path, $named) = @$_;

	for my $body ("Content-Length: 67108864\r\n", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\nContent-Length: 5\r\n")
	{
		like(raw($guarded, "POST $path HTTP/1.1\r\n" . ($named // $host) . "$body\r\n", undef, 5), qr/^HTTP\/1.1 $status .*Connection: close/s, "$what, and a body to come: $status at once");
	}
}
like(raw($guarded, "POST /mcp HTTP/1.1\r\n${host}Content-Length: 0\r\n\r\n" . "GET /health HTTP/1.1\r\n${host}Connection: close\r\n\r\n"), qr/^HTTP\/1.1 401 .*HTTP\/1.1 200 /s,
	'with no body, the connection goes on');
stop_http($guarded);

# ---- bodies and connections ----

# room for bodies is theirs who send them
my @promised = map { (raw($h, "POST /mcp HTTP/1.1\r\n${host}Content-Length: 67108864\r\n\r\n", undef, 0))[1] } 1 .. 20;
is((post_json($h, '/mcp', { jsonrpc => '2.0', id => 1, method => 'ping', params => { x => 'y' x 1000000 } }))[0], 200, 'long bodies that do not come take no room');
close $_ for @promised;
my $large = 'x' x (64 << 20);
my @sent = map {
	my (undef, $s) = raw($h, "POST /mcp HTTP/1.1\r\n${host}Content-Length: 67108864\r\n\r\n", undef, 0);

	for (my $at = 0; $at < length($large) - 1;) { $at += syswrite($s, $large, length($large) - 1 - $at, $at); }
	$s
} 1 .. 8;
is((post_json($h, '/mcp', { jsonrpc => '2.0', id => 1, method => 'ping', params => { x => 'y' x 2000000 } }))[0], 503, 'bodies that have come take all there is');
is((post_json($h, '/mcp', { jsonrpc => '2.0', id => 1, method => 'ping', params => { x => 'y' x 60000 } }))[0], 200, 'but what is short has room');
close $_ for @sent;
undef $large;
wait_for('the room is there again', sub { (post_json($h, '/mcp', { jsonrpc => '2.0', id => 1, method => 'ping', params => { x => 'y' x 2000000 } }))[0] == 200 });
pass('when those have gone who had it, others get it');

my $ping = '{"jsonrpc":"2.0","id":1,"method":"ping"}';
my $chunked = join('', map { "1;x=y\r\n$_\r\n" } split //, $ping) . "0\r\nTrailer: x\r\n\r\n";
like(raw($h, "POST /mcp HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n$chunked", qr/\}\}/), qr/"result":\{\}/, 'a body in chunks');
like(raw($h, "POST /mcp HTTP/1.1\r\n${host}Expect: 100-continue\r\nContent-Length: " . length($ping) . "\r\n\r\n$ping", qr/\}\}/),
	qr/^HTTP\/1.1 100 .*HTTP\/1.1 200 .*"result":\{\}/s, 'a client that asks whether to go on');
my $one = "POST /mcp HTTP/1.1\r\n${host}Content-Length: " . length($ping) . "\r\n\r\n$ping";
my $many = raw($h, $one x 49 . $one =~ s/\r\n/\r\nConnection: close\r\n/r);
is(scalar(() = $many =~ /"result":\{\}/g), 50, 'requests one behind the other on a connection');
is(scalar(() = raw($h, "$one\r\n" . $one =~ s/\r\n/\r\nConnection: close\r\n/r) =~ /"result":\{\}/g), 2, 'an empty line behind a body is passed over');
like(raw($h, "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /health HTTP/1.0\r\n\r\n"),
	qr/^HTTP\/1.1 200 .*Connection: keep-alive.*HTTP\/1.1 200 .*Connection: close/s, 'one that keeps its connection');
like(raw($h, "GET /health HTTP/1.0\r\n\r\n"), qr/^HTTP\/1.1 200 .*Connection: close.*ok/s, 'a client of HTTP/1.0');

# byte by byte
my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->{port}) or die $!;
for my $byte (split //, $one) { syswrite($s, $byte); select(undef, undef, undef, 0.0005); }
sysread($s, my $got, 65536);
like($got, qr/"result":\{\}/, 'a request that comes byte by byte') or diag($got);
close $s;

# more connections than there may be
my @idle = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->{port}) } 1 .. 70;
sleep 1;
my $refused = grep { my $bits = ''; vec($bits, fileno($_), 1) = 1; select($bits, undef, undef, 0) && !sysread($_, my $x, 1) } @idle;
cmp_ok($refused, '>=', 10, 'clients beyond --clients are refused') or diag($refused);
close $_ for @idle;
wait_for('others get in again', sub { eval { http($h, 'GET', '/health')->{status} eq '200' } });
pass('and others get in when they have gone');

# a head that does not come to its end, beside others
my @slow = map { my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->{port}); syswrite($c, "GET / HT"); $c } 1 .. 20;
is(http($h, 'GET', '/health')->{status}, 200, 'slow clients hold up nobody');
my $began = time();
sysread($slow[0], $got, 65536);
like($got, qr/^HTTP\/1.1 408/, 'and are told that they were too slow');
cmp_ok(time() - $began, '<', 40, 'after a while');
close $_ for @slow;

# ---- more requests than connections to the database ----

my $body = encode_json({ messages => [ { role => 'user', content => 'What is 47 + 35?' } ], stream => JSON::PP::true });
my $request = "POST /v1/chat/completions HTTP/1.1\r\n${host}Content-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
my $n = $ENV{CLIENTS} // 50;
$h = do { stop_http($h); start_http($node, '--auth', 'fixed', '--clients', $n + 10, '--connections', 20) };
my @clients = map { my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->{port}) or die $!; syswrite($c, $request); $c } 1 .. $n;
my %answer = map { fileno($_) => '' } @clients;
my $end = time() + 120;
while (@clients && time() < $end)
{
	my $bits = '';

	vec($bits, fileno($_), 1) = 1 for @clients;
	select($bits, undef, undef, 1);
	@clients = grep { !vec($bits, fileno($_), 1) || sysread($_, $answer{ fileno($_) }, 65536, length $answer{ fileno($_) }) } @clients;
}
is(scalar(grep { /data: \[DONE\]/ && /"content":"8/ } values %answer), $n, "$n streams at once over 20 connections are all answered");
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'minimax_m1_gateway'}), '<=', 20, 'over no more of them');

# ---- open files ----

SKIP:
{
	skip 'prlimit is missing', 1 if system('command -v prlimit > /dev/null') != 0;
	my $conninfo = $node->connstr('postgres') . ' user=' . ($ENV{PGUSER} // getpwuid($<));
	my @begin = (gateway(), 'http', $conninfo, '--listen', '127.0.0.1:0', '--auth', 'fixed', '--clients', 500);
	my $said = '';

	IPC::Run::run([ 'prlimit', '--nofile=256:256', @begin ], '<', \undef, '>&', \$said, IPC::Run::timeout(20));
	is($? >> 8, 2, 'more clients than there may be open files are refused');
	like($said, qr/--clients 500 and --connections 64 take 628 open files, more than the limit of 256/, 'and it is said why');

	my $l = { out => '', err => '' };
	$l->{run} = IPC::Run::start([ 'prlimit', '--nofile=256:1024', @begin ], '<', \undef, '>', \$l->{out}, '2>', \$l->{err});
	wait_for('it listens', sub { $l->{run}->pump_nb; $l->{err} =~ /listening on port (\d+)/ });
	($l->{port}) = $l->{err} =~ /listening on port (\d+)/;
	my @all = map { (raw($l, "GET /health HTTP/1.1\r\n$host\r\n", undef, 0))[1] } 1 .. 400;
	my $status;
	is(scalar(grep { sysread($_, $status, 12) && $status eq 'HTTP/1.1 200' } @all), 400, 'where there may be as many, there are');
	close $_ for @all;

	# none is free any more
	my $pid = $l->{run}{KIDS}[0]{PID};
	sub ticks { my @field = split / /, slurp_file("/proc/$_[0]/stat"); return $field[13] + $field[14]; }
	is(http($l, 'GET', '/health')->{status}, 200, 'it goes on');
	system('prlimit', "--nofile=20:1024", '--pid', $pid);
	@all = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $l->{port}) } 1 .. 100;
	wait_for('it notices', sub { $l->{run}->pump_nb; $l->{err} =~ /cannot accept a client: Too many open files/ });
	my $worked = ticks($pid);
	sleep 3;
	$l->{run}->pump_nb;
	cmp_ok(ticks($pid) - $worked, '<', 30, 'a gateway that can open no file waits');
	is(scalar(() = $l->{err} =~ /\n/g), 2, 'and does not say so again and again');
	close $_ for @all;
	system('prlimit', '--nofile=1024:1024', '--pid', $pid);
	is(http($l, 'GET', '/health')->{status}, 200, 'and accepts clients when it can');
	is(stop_http($l), 0, 'it ends');
}

# ---- what it adds to a request ----

my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->{port}) or die $!;
my $tokenize = "POST /tokenize HTTP/1.1\r\n${host}Content-Length: 20\r\n\r\n{\"prompt\": \"Hello!\"}";
my @took;
for (1 .. 100)
{
	my $t = time();

	syswrite($client, $tokenize);
	sysread($client, $got, 65536);
	push @took, 1000 * (time() - $t);
}
close $client;
@took = sort { $a <=> $b } @took;
like($got, qr/"tokens"/, 'requests one after the other');
figure(sprintf('each in %.2f ms at best, %.2f ms in the middle', @took[ 0, 50 ]));
cmp_ok($took[0], '<', 20, 'the gateway waits for nothing in between');

is(stop_http($h), 0, 'it ends when it is told to');

# ---- the ends of slow clients ----

# a stream of which little is read, now and then, for ever
set_fake_engine($node, 'flood');
wait_for('it is the engine', sub { $node->safe_psql('postgres', 'SELECT name FROM minimax_m1.model') eq 'fake' });
my $reader = IO::Socket::INET->new(Proto => 'tcp') or die $!;
setsockopt($reader, SOL_SOCKET, SO_RCVBUF, pack('i', 4096));
connect($reader, pack_sockaddr_in($patient->{port}, inet_aton('127.0.0.1'))) or die $!;
syswrite($reader, $request);
$began = time();
my $seen = '';
while (time() - $began < 100 && http($patient, 'GET', '/metrics')->{content} !~ /chats_total\{end="cancelled"\} 1/)
{
	sysread($reader, $seen, 2000, length $seen);
	sleep 1;
}
like($seen, qr/^HTTP\/1.1 200/, 'a stream that is read too slowly begins');
cmp_ok(time() - $began, '<', 95, 'and is cancelled');
wait_for('nothing is left of it', sub { is_idle($node) });
close $reader;

$got = '';
1 while sysread($slow_body, $got, 65536, length $got);
like($got, qr/^HTTP\/1.1 408 /, 'a body that does not come to its end is told that it was too slow');
cmp_ok(time() - $since, '<', 200, 'after a while');
is(stop_http($patient), 0, 'it ends, too');
$node->stop;
done_testing();
