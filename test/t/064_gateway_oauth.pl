# The gateway with OAuth's tokens: what clients are told, which tokens are taken, and that there is none without libpq 18.
# A newer libpq than there may be here is test/doors/newer_libpq.c, for which a token is the password of its role.
use strict;
use warnings;
use Gateway;
use IPC::Run ();
use JSON::PP;
use M1Test;
use MIME::Base64 qw(encode_base64url encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

my $issuer = 'https://login.example.com/realms/shop';
my @oauth = ('--auth', 'oauth', '--issuer', $issuer);
my $out;

# ---- what is refused when it begins ----

sub refused
{
	my ($what, $like, @options) = @_;

	IPC::Run::run([ gateway(), 'http', 'dbname=none', @options ], '<', \undef, '>&', \$out, IPC::Run::timeout(20));
	is($? >> 8, 2, "$what is refused");
	like($out, $like, 'and it is said why');
	return;
}

my ($version) = `pg_config --version` =~ /(\d+)/;
refused('a libpq without OAuth', qr/needs libpq 18 or later.*version 1[0-7]\./s, @oauth, '--listen', '127.0.0.1:0') if $version < 18;
refused('no issuer', qr/--issuer come together/, '--auth', 'oauth');
refused('an issuer of passwords', qr/--issuer come together/, '--issuer', $issuer);
refused('an issuer that is no address', qr/--issuer is an address/, '--auth', 'oauth', '--issuer', 'login.example.com');
refused('an address that would end a field', qr/has a character/, @oauth, '--resource', "https://a\"b");
refused('a scope that would', qr/has a character/, @oauth, '--scope', 'a"b');

# ---- with a newer libpq ----

my $library = PostgreSQL::Test::Utils::tempdir_short() . '/newer_libpq.so';
my $include = `pg_config --includedir`;
chomp $include;
my ($cc) = grep { system("command -v $_ > /dev/null") == 0 } qw(cc gcc clang);
if (!$cc)
{
	SKIP: { skip 'no C compiler', 1; }
	done_testing();
	exit 0;
}
system_or_bail($cc, '-shared', '-fPIC', "-I$include", '-o', $library, root() . '/test/doors/newer_libpq.c', '-ldl');

my $node = new_server('gateway_oauth');
wait_ready($node);
sub token { my (%claims) = @_; return join('.', map { encode_base64url($_) } '{"alg":"RS256"}', JSON::PP->new->canonical->utf8->encode(\%claims), "\xff\xfe signature"); }
my $later = time() + 3600;
my $al = token(sub => 'al', name => "\x{e4}\x{f6}\x{fc}?>~", exp => $later);
make_role($node, 'al', $al);
my $gone = token(sub => 'ex', exp => time() - 1);
make_role($node, 'ex', $gone);
make_role($node, 'op', 'no JWT');
make_role($node, 'bo', token(sub => 'x', exp => $later, role => 'bo'));

sub start
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{ISSUER} = $issuer;
	local $ENV{SCOPE} = 'openid minimax';

	return start_http($node, @oauth, '--scope', 'openid minimax', @_);
}

my $h = start();
my $url = "http://127.0.0.1:$h->{port}";

sub models { my ($authorization) = @_; return http($h, 'GET', '/v1/models', $authorization ? { Authorization => $authorization } : {}); }

sub unauthorized
{
	my ($what, $authorization, $like) = @_;
	my $r = models($authorization);

	is($r->{status}, 401, "$what is refused");
	like($r->{headers}{'www-authenticate'}, qr{^Bearer .*resource_metadata="$url/.well-known/oauth-protected-resource".*scope="openid minimax"},
		'with where to get a token');
	like($r->{content}, $like, 'and why') if $like;
	return $r->{headers}{'www-authenticate'};
}

my $metadata = http($h, 'GET', '/.well-known/oauth-protected-resource');
is($metadata->{status}, 200, 'the metadata are open');
my $told = decode_json($metadata->{content});
is($told->{resource}, $url, 'they name what is protected');
is_deeply($told->{authorization_servers}, [$issuer], 'who gives tokens');
is_deeply($told->{scopes_supported}, [ 'openid', 'minimax' ], 'for what');
is_deeply($told->{bearer_methods_supported}, ['header'], 'and how they are given');

unlike(unauthorized('no token', undef), qr/error=/, 'there was none');
like(unauthorized('a token of another one', 'Bearer ' . token(sub => 'al', exp => $later)), qr/error="invalid_token"/, 'and that it is not valid');
unauthorized('a token that has expired', 'Bearer ' . token(sub => 'al', exp => time() - 1), qr/expired/);
unauthorized('a token without a role', 'Bearer ' . token(exp => $later), qr/claim \\"sub\\"/);
unauthorized('a role that is none', 'Bearer ' . token(sub => { a => 1 }), qr/claim \\"sub\\"/);
unauthorized('a text that is no token', 'Bearer x', qr/no JWT/);
unauthorized('nor one with points', "Bearer $_", qr/no JWT/) for 'a.b', '..', 'a.!!.b', 'a.' . encode_base64url('[1]') . '.b', 'a.' . encode_base64url('{"sub":"al\\u0000"}') . '.b';
unauthorized('a role that the server asks for something else', 'Bearer ' . token(sub => 'cy', exp => $later), qr/requested SCRAM/);
unauthorized('a role and a password', 'Bearer al:secret', qr/no JWT/);

is(models("Bearer $al")->{status}, 200, 'a token is taken');
is(models("Bearer $al")->{status}, 200, 'again, over the same connection');
is(models('Basic ' . encode_base64("al:$al", ''))->{status}, 200, 'a role and its token, as the page has them');
unauthorized('a role and a token that has expired', 'Basic ' . encode_base64("ex:$gone", ''), qr/expired/);
is(models('Basic ' . encode_base64('op:no JWT', ''))->{status}, 200, 'of one that is no JWT the server knows whether it has');
is(models('Basic ' . encode_base64("bo:$al", ''))->{status}, 401, 'a token of another role is judged by the server');
is((post_json($h, '/v1/chat/completions', { messages => [ { role => 'user', content => 'What is 47 + 35?' } ] }, Authorization => "Bearer $al"))[1]
	{choices}[0]{message}{content}, '82', 'a chat');
is($node->safe_psql('postgres', q{SELECT role FROM minimax_m1.usage}), 'al', 'is on the account of the role');
is(http($h, 'GET', '/health')->{status}, 200, '/health needs none');
is(stop_http($h), 0, 'it ends when it is told to');

$h = start('--role-claim', 'role', '--resource', 'https://m1.example.com');
is(models('Bearer ' . token(sub => 'x', exp => $later, role => 'bo'))->{status}, 200, 'another claim names the role');
like(models()->{headers}{'www-authenticate'}, qr{resource_metadata="https://m1.example.com/}, 'another address of the gateway');
stop_http($h);
$h = start_http($node);
is(http($h, 'GET', '/.well-known/oauth-protected-resource')->{status}, 404, 'with passwords, there are no metadata');
stop_http($h);
$node->stop;
done_testing();
