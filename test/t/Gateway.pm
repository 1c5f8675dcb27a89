# Gateway.pm - what the tests of minimax_m1_gateway share: the program with each of its faces, and plain clients of both.
package Gateway;

use strict;
use warnings;
use Exporter 'import';
use File::Basename qw(dirname);
use HTTP::Tiny;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP;
use M1Test;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time);

our @EXPORT = qw(gateway start_mcp stop_mcp send_message answer_to call text_of start_http start_gateway stop_http http post_json mcp_post raw
  make_role modern client_packages);

my $json = JSON::PP->new->canonical->allow_nonref->allow_bignum->utf8;

sub gateway { return dirname($ENV{M1_ENGINE}) . '/minimax_m1_gateway'; }

# A role that may use the model and has to show its password.
sub make_role
{
	my ($node, $role, $password) = @_;
	my $hba = $node->data_dir . '/pg_hba.conf';
	my $rules = slurp_file($hba);

	$node->safe_psql('postgres', qq{SET password_encryption = 'scram-sha-256';
		CREATE ROLE $role LOGIN PASSWORD '$password'; SELECT minimax_m1.grant_usage('$role')});
	open(my $f, '>', $hba) or die $!;
	print $f "local all $role scram-sha-256\n$rules";
	close $f;
	$node->reload;
	return;
}

# Fetches the packages of test/doors, once: the last that npm writes is a list of them. Returns '' or why they are not there.
sub client_packages
{
	return fetch_from_npm('cd "$1" || exit; test -e node_modules/.package-lock.json || '
		. '{ cp "$2"/package.json . && npm install --no-audit --no-fund --fetch-retries 0 --loglevel error; }',
		root() . '/build/npm', root() . '/test/doors');
}

# ---- MCP on stdio ----

sub start_mcp
{
	my ($node, @options) = @_;
	my $m = { in => '', out => '', err => '', id => 0, answers => {}, notes => [] };

	$m->{run} = IPC::Run::start([ gateway(), 'mcp', $node->connstr('postgres') . ' user=' . ($ENV{PGUSER} // getpwuid($<)), @options ],
		'<', \$m->{in}, '>', \$m->{out}, '2>', \$m->{err});
	return $m;
}

# Ends its input, and returns its status.
sub stop_mcp
{
	my ($m) = @_;

	$m->{run}->finish;
	sort_lines($m);
	return $m->{run}->full_result(0);
}

# Sends a message, or a line as it is.
sub send_message
{
	my ($m, $message) = @_;

	$m->{in} .= (ref $message ? $json->encode($message) : $message) . "\n";
	$m->{run}->pump_nb;
	return;
}

sub sort_lines
{
	my ($m) = @_;

	while ($m->{out} =~ s/^([^\n]*)\n//)
	{
		my $message = $json->decode($1);

		if (exists $message->{id}) { $m->{answers}{ $message->{id} // 'null' } = $message; }
		else { push @{ $m->{notes} }, $message; }
	}
	return;
}

# The answer with this id, when it has come.
sub answer_to
{
	my ($m, $id, $seconds) = @_;
	my $end = time() + ($seconds // 60);

	while (sort_lines($m), !exists $m->{answers}{$id})
	{
		die "no answer to $id: $m->{err}" if time() > $end || !$m->{run}->pumpable;
		$m->{run}->pump_nb;
		select(undef, undef, undef, 0.01);
	}
	return delete $m->{answers}{$id};
}

# A request, and its answer.
sub call
{
	my ($m, $method, $params) = @_;
	my $id = ++$m->{id};

	send_message($m, { jsonrpc => '2.0', id => $id, method => $method, $params ? (params => $params) : () });
	return answer_to($m, $id);
}

sub text_of { return $_[0]{result}{content}[0]{text}; }

# The _meta of a request of 2026-07-28.
sub modern
{
	return { 'io.modelcontextprotocol/protocolVersion' => '2026-07-28', 'io.modelcontextprotocol/clientCapabilities' => {}, @_ };
}

# ---- HTTP ----

# What a test that dies leaves running.
my @started;
END { $_->{run}->kill_kill for grep { $_->{run}->pumpable } @started }

sub start_http
{
	my ($node, @options) = @_;

	return start_gateway($node->connstr('postgres') . ' user=' . ($ENV{PGUSER} // getpwuid($<)), @options);
}

sub start_gateway
{
	my ($conninfo, @options) = @_;
	my $h = { out => '', err => '' };

	$h->{run} = IPC::Run::start([ gateway(), 'http', $conninfo, '--listen', '127.0.0.1:0', @options ], '<', \undef, '>', \$h->{out}, '2>', \$h->{err});
	wait_for('it listens', sub { $h->{run}->pump_nb; $h->{err} =~ /listening on port (\d+)/ || !$h->{run}->pumpable }, 10);
	push @started, $h;
	($h->{port}) = $h->{err} =~ /listening on port (\d+)/ or die "it does not: $h->{err}";
	return $h;
}

sub stop_http
{
	my ($h) = @_;

	$h->{run}->signal('TERM');
	$h->{run}->finish;
	return $h->{run}->full_result(0);
}

sub http
{
	my ($h, $method, $path, $headers, $body) = @_;

	return HTTP::Tiny->new(timeout => 60)->request($method, "http://127.0.0.1:$h->{port}$path",
		{ headers => $headers // {}, defined $body ? (content => $body) : () });
}

# Returns the status, and the body as data.
sub post_json
{
	my ($h, $path, $data, %headers) = @_;
	my $r = http($h, 'POST', $path, { 'Content-Type' => 'application/json', %headers }, ref $data ? $json->encode($data) : $data);

	return ($r->{status}, eval { $json->decode($r->{content}) } // $r->{content}, $r);
}

sub mcp_post
{
	my ($h, $message, %headers) = @_;

	return post_json($h, '/mcp', { jsonrpc => '2.0', id => 1, %$message }, %headers);
}

# Sends bytes, and returns what comes until the other end closes, or until the pattern matches.
sub raw
{
	my ($h, $bytes, $until, $seconds) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->{port}) or die $!;
	my $got = '';
	my $end = time() + ($seconds // 20);

	local $SIG{PIPE} = 'IGNORE';
	syswrite($s, $bytes);
	while (time() < $end && !($until && $got =~ $until))
	{
		my $bits = '';

		vec($bits, fileno($s), 1) = 1;
		next unless select($bits, undef, undef, 0.2);
		last unless sysread($s, $got, 65536, length $got);
	}
	return wantarray ? ($got, $s) : $got;
}

1;
