# An engine elsewhere, as SQL sees it: answers, streams, batches and jobs over a server in another process, which goes away
# and comes back.
use strict;
use warnings;
use M1Test;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $port = PostgreSQL::Test::Cluster::get_free_port();
my ($server, $said);

# A server that has the words of m1-nano and says "Hello there." to everybody; see test/proxy/serve.py.
sub start_server
{
	$said = '';
	$server = IPC::Run::start([ 'python3', root() . '/test/proxy/serve.py', $ENV{M1_ENGINE}, $port, @_ ], '>', \$said);
	wait_for('the server listens', sub { $server->pump_nb; $said =~ /ready/ });
}

sub stop_server { $server->kill_kill; return }

start_server();
my $node = new_server('elsewhere', "minimax_m1.engine_url = 'http://127.0.0.1:$port'", 'minimax_m1.max_requests = 64');
wait_ready($node);
like($node->safe_psql('postgres', 'SELECT device FROM minimax_m1.model'), qr{^http://127.0.0.1:$port \(vLLM 0.11.0\)$}, 'the view says which server it is');
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello there.', 'a function is answered by it');
is($node->safe_psql('postgres', "SELECT content, reasoning, finish_reason FROM minimax_m1.complete('Hello.')"), 'Hello there.|A greeting.|stop', 'with reasoning taken apart');
is($node->safe_psql('postgres', "SELECT minimax_m1.classify('The thing is broken.', ARRAY['yes', 'no'])"), '{no}', 'a choice has its form');
is($node->safe_psql('postgres', "SELECT count(*) FROM generate_series(1, 100) n, minimax_m1.generate('Hello ' || n) g WHERE g = 'Hello there.'"), '100', 'so are many rows');
is((sqlstate($node, 'SELECT minimax_m1.logits(ARRAY[1])'))[0], '0A000', 'what it cannot do is refused');
is($node->safe_psql('postgres', "SET minimax_m1.adapter = 'poet'; SELECT minimax_m1.generate('Hello.')"), 'Hello there.', 'an adapter that it serves is used by its name');
like((sqlstate($node, "SET minimax_m1.adapter = 'clerk'; SELECT minimax_m1.generate('Hello.')"))[1], qr/there is no adapter "clerk"/, 'another one is not there');
is((sqlstate($node, "SET ROLE pg_monitor; RESET ROLE; SELECT current_setting('minimax_m1.engine_api_key_file')"))[0], 'none', 'a superuser sees where the key is');
$node->safe_psql('postgres', 'CREATE ROLE nobody_much');
is((sqlstate($node, "SET ROLE nobody_much; SELECT current_setting('minimax_m1.engine_api_key_file')"))[0], '42501', 'and nobody else');

# Jobs live through the death of the server.
$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.job_retry_delay = '500ms'");
$node->reload;
$node->safe_psql('postgres', "SELECT minimax_m1.submit('Hello ' || n) FROM generate_series(1, 40) n");
stop_server();
wait_for('the view says that it is away', sub { $node->safe_psql('postgres', 'SELECT device FROM minimax_m1.model') eq "http://127.0.0.1:$port (down)" });
is((sqlstate($node, "SET statement_timeout = '30s'; SELECT minimax_m1.generate('Hello.')"))[0], '57P03', 'a request without a server fails retryably');
start_server();
wait_for('the jobs are done', sub { $node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.job WHERE state = 'done'") eq '40' });
is($node->safe_psql('postgres', "SELECT count(DISTINCT id), count(*) FILTER (WHERE content = 'Hello there.') FROM minimax_m1.job"), '40|40', 'jobs lose nothing and double nothing');

# And through one that refuses them, as what was started under another name does.
stop_server();
start_server('refusing');
$node->safe_psql('postgres', "SELECT minimax_m1.submit('Hello again ' || n) FROM generate_series(1, 10) n");
wait_for('the server refuses them', sub { slurp_file($node->logfile) =~ /is down: the server answers with HTTP status 404/ });
stop_server();
start_server();
wait_for('these jobs are done, too', sub { $node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.job WHERE state = 'done'") eq '50' });
is($node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.job WHERE state <> 'done' OR content <> 'Hello there.'"), '0', 'none of which is given up');

# Another model behind the url; then the engine on this machine again.
stop_server();
start_server('other');
$node->restart;
wait_for('it is refused', sub { $node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') eq 'failed' });
like((sqlstate($node, "SELECT minimax_m1.generate('Hello.')"))[1], qr/another tokenizer/, 'another model is refused');
$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.engine_url = ''");
$node->reload;
wait_ready($node);
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?', 'and back on this machine');
stop_server();
done_testing();
