# A pooler that gives a connection to another client after each transaction, as docs/clients.md has it: what works, and what
# the next client finds. It is Debian's pgbouncer, or PGBOUNCER.
use strict;
use warnings;
use M1Test;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($pgbouncer) = grep { -x } $ENV{PGBOUNCER} // (), map { "$_/pgbouncer" } '/usr/sbin', split /:/, $ENV{PATH};
plan skip_all => 'pgbouncer is not installed' unless defined $pgbouncer;

my $node = new_server('pooler');
wait_ready($node);
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $me = $ENV{PGUSER} // getpwuid($<);
append_to_file("$dir/users", "\"$me\" \"\"\n");
append_to_file("$dir/pgbouncer.ini", join("\n", '[databases]', 'shop = host=' . $node->host . ' port=' . $node->port . ' dbname=postgres',
		'[pgbouncer]', 'listen_addr =', "unix_socket_dir = $dir", "listen_port = $port", 'auth_type = trust', "auth_file = $dir/users",
		'pool_mode = transaction', 'default_pool_size = 1', ''));
my $said = '';
my $pooler = IPC::Run::start([ $pgbouncer, "$dir/pgbouncer.ini" ], '<', \undef, '>&', \$said);
END { $pooler->kill_kill if $pooler; }

# Each call is another client, with the only connection there is.
sub client
{
	my ($sql) = @_;
	my ($out, $err) = run_command([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-h', $dir, '-p', $port, '-U', $me, '-c', $sql, 'shop' ]);

	return $err eq '' ? $out : $err;
}

my $backend = wait_for('the pooler answers', sub { $pooler->pump_nb; my $pid = client('SELECT pg_backend_pid()'); $pid =~ /^\d+$/ ? $pid : 0 }, 20);
is(client('SELECT pg_backend_pid()'), $backend, 'two clients have the same connection') or diag($said);
is(client(q{SELECT minimax_m1.generate('What is 47 + 35?')}), '82', 'an answer');
is(client('SELECT function, calls FROM minimax_m1.last_statement'), 'generate|1', 'the next client sees what it took');
is(client(q{SELECT string_agg(r.delta, '' ORDER BY r.seq) FROM (SELECT (minimax_m1.generate_stream('What is 47 + 35?')).* OFFSET 0) r WHERE r.seq > 0}) =~ /82/,
	1, 'a stream within a statement');
is(client(q{BEGIN; DECLARE c CURSOR FOR SELECT minimax_m1.generate_stream('Hello.'); MOVE ALL FROM c; COMMIT; SELECT 'read'}), 'read', 'a cursor in its transaction');
my $job = client(q{SELECT minimax_m1.submit('What is 47 + 35?')});
wait_for('the job is done', sub { client("SELECT state FROM minimax_m1.poll($job)") eq 'done' });
is(client("SELECT content FROM minimax_m1.poll($job)"), '82', 'a job, whoever asks for it');

# Settings: what is set stays with the connection, what is local or given does not.
is(client(q{BEGIN; SET LOCAL minimax_m1.max_tokens = 7; SELECT current_setting('minimax_m1.max_tokens'); COMMIT}), '7', 'SET LOCAL holds in its transaction');
isnt(client('SHOW minimax_m1.max_tokens'), '7', 'and not for the next client');
client('SET minimax_m1.max_tokens = 9');
is(client('SHOW minimax_m1.max_tokens'), '9', 'SET does');
client('RESET minimax_m1.max_tokens');

# A client that goes takes its request along, and the connection is the next one's.
my $engine = engine_pid($node);
kill 'STOP', $engine;
my $gone = IPC::Run::start([ 'psql', '-XAtq', '-h', $dir, '-p', $port, '-U', $me, '-c', q{SELECT minimax_m1.generate('Hello.')}, 'shop' ],
	'<', \undef, '>', '/dev/null', '2>', '/dev/null');
wait_for('it runs', sub { !is_idle($node) });
$gone->kill_kill;
wait_for('it is gone', sub { is_idle($node) });
kill 'CONT', $engine;
is(client(q{SELECT minimax_m1.generate('What is 47 + 35?')}), '82', 'a client that goes has cancelled');
$pooler->signal('INT');
$pooler->finish;
$node->stop;
done_testing();
