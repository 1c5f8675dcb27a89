# A stream that is read slowly, or not at all, holds up nobody else, and loses nothing.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('slow_client', 'minimax_m1.max_requests = 3');
wait_ready($node);

# Several thousand tokens of nonsense, the same each time.
my $babble = q{'What can you do?', temperature => 100, top_p => 1, seed => 1};
my ($content, $total) = split /\|/, $node->safe_psql('postgres',
	"SELECT md5(content), completion_tokens FROM minimax_m1.complete($babble)");

# The other session's view: a right answer, and soon.
sub others_are_served
{
	my ($how) = @_;
	my $start = time();

	like($node->safe_psql('postgres', "SET statement_timeout = '30s'; SELECT minimax_m1.generate('Hello.', max_tokens => 30)"),
		qr/\AHello! How can I help you\?/, "$how: another session is answered");
	cmp_ok(time() - $start, '<', 15, "$how: soon");
}

# A client that stops reading its socket: the whole way back to the engine fills up, or the reply ends in the buffers.
my $out = PostgreSQL::Test::Utils::tempdir() . '/stream';
my $reader = IPC::Run::start(
	[ 'psql', '-XAtq', '-v', 'FETCH_COUNT=1', '-d', $node->connstr('postgres'), '-o', $out, '-c',
		"SELECT s.delta FROM (SELECT (minimax_m1.generate_stream($babble)).*) s WHERE s.channel = 'content'" ],
	'2>', \my $err, IPC::Run::timeout(120));
wait_for('the stream has begun', sub { -s $out });
$reader->signal('STOP');
others_are_served('a client that does not read');
$reader->signal('CONT');
ok($reader->finish, 'the client reads on');
is($err, '', 'without an error');

# Two sessions that hold a cursor until the keeper of a lock lets them go on, and then read all of it.
my $keeper = start_query($node, 'SELECT pg_advisory_lock(1); SELECT pg_sleep(120)');
wait_for('the lock is held', sub {
		$node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted") eq '1' });
my @slow = map { start_query($node, qq{
	CREATE TEMP TABLE got (seq int, channel text, delta text);
	DO \$\$
	DECLARE
		c CURSOR FOR SELECT s.* FROM (SELECT (minimax_m1.generate_stream($babble)).* OFFSET 0) s;
		r record;
	BEGIN
		OPEN c;
		FETCH c INTO r;
		INSERT INTO got VALUES (r.seq, r.channel, r.delta);
		PERFORM pg_advisory_lock_shared(1);
		LOOP
			FETCH c INTO r;
			EXIT WHEN NOT FOUND;
			INSERT INTO got VALUES (r.seq, r.channel, r.delta);
		END LOOP;
	END \$\$;
	SELECT md5(string_agg(delta, '' ORDER BY seq) FILTER (WHERE channel = 'content')), count(*) = max(seq), min(seq) FROM got}) } 1 .. 2;
wait_for('two streams wait for their readers', sub {
		$node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") eq '2' });
others_are_served('two cursors that are not read');
is($node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.activity WHERE function = 'generate_stream'"), '2',
	'both streams are still there');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted");
finish_query($keeper);
for my $q (@slow)
{
	finish_query($q);
	is($q->{out}, "$content|t|1", 'a stream read late is whole and in order') or diag($q->{err});
}
wait_for('all is quiet', sub { is_idle($node) });
pass('nothing is left');

# A client that is killed while it does not read.
$reader = IPC::Run::start(
	[ 'psql', '-XAtq', '-v', 'FETCH_COUNT=1', '-d', $node->connstr('postgres'), '-o', $out, '-c',
		"SELECT (minimax_m1.generate_stream($babble)).delta FROM generate_series(1, 100)" ],
	'2>', \$err, IPC::Run::timeout(120));
wait_for('the stream has begun', sub { !is_idle($node) });
$reader->signal('STOP');
others_are_served('a stopped client');
$reader->signal('KILL');
eval { $reader->finish };
wait_for('its request is gone', sub { is_idle($node) }, 20);
pass('a killed reader leaves nothing');
is($node->safe_psql('postgres', 'SELECT failed, rejected FROM minimax_m1.stats'), '0|0', 'no request failed');
$node->stop;

# A reply that is longer than all buffers: the engine pauses it until it is read.
my $endless = endless_model();
$node = new_server('pause', "minimax_m1.model = '$endless'", 'minimax_m1.max_requests = 3');
wait_ready($node);
$babble = q{'What can you do?', temperature => 1, top_p => 0.5, seed => 1, max_tokens => 20000};
my $whole = start_query($node,
	"SELECT md5(coalesce(reasoning, '') || content), completion_tokens, finish_reason FROM minimax_m1.complete($babble)");
my $paused = start_query($node, qq{
	CREATE TABLE got (seq int, channel text, delta text);
	DO \$\$
	DECLARE
		c CURSOR FOR SELECT s.* FROM (SELECT (minimax_m1.generate_stream($babble)).* OFFSET 0) s;
		r record;
	BEGIN
		OPEN c;
		FETCH c INTO r;
		WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'read on') LOOP
			PERFORM pg_sleep(0.1), pg_stat_clear_snapshot();
		END LOOP;
		LOOP
			INSERT INTO got VALUES (r.seq, r.channel, r.delta);
			FETCH c INTO r;
			EXIT WHEN NOT FOUND;
		END LOOP;
	END \$\$;
	SELECT count(*), count(DISTINCT seq), max(seq), md5(string_agg(delta, '' ORDER BY seq)) FROM got});
my $generated = 0;
wait_for('the stream has paused', sub {
		my $before = $generated;
		$node->safe_psql('postgres', 'SELECT pg_sleep(0.5)');
		$generated = $node->safe_psql('postgres',
			"SELECT max(generated) FROM minimax_m1.activity WHERE function = 'generate_stream'");
		return $generated > 0 && $generated eq $before }, 120);
is(finish_query($whole)->{out} =~ s/^\w+//r, '|20000|length', 'a reply of 20000 tokens') or diag($whole->{err});
cmp_ok($generated, '<', 20000, "the same reply as a stream that nobody reads pauses, after $generated tokens");
others_are_served('a paused stream');
my $signal = start_query($node, "SET application_name = 'read on'; SELECT pg_sleep(60)");
finish_query($paused);
my ($rows, $distinct, $last, $md5) = split /\|/, $paused->{out};
is("$rows $distinct", "$last $last", 'once it is read, it goes on') or diag($paused->{err});
is($md5, (split /\|/, $whole->{out})[0], 'and nothing of it is lost');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'read on'");
finish_query($signal);

# A session that ends while its stream is paused gives its place back.
my @leavers = map { start_query($node, qq{
	BEGIN; DECLARE c CURSOR FOR SELECT minimax_m1.generate_stream($babble); FETCH 1 FROM c; SELECT pg_sleep(120)}) } 1 .. 2;
wait_for('both have begun', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity WHERE generated > 0') eq '2' });
$_->{run}->signal('KILL') for @leavers;
eval { $_->{run}->finish } for @leavers;
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM minimax_m1.activity");
wait_for('their requests are gone', sub { is_idle($node) }, 20);
others_are_served('after streams that nobody read');
$node->stop;
done_testing();
