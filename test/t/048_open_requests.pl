# A session or a role may have so many requests open, and what is complete takes nothing that others need.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

# With so few backends, the server has 64 + 5 * 23 segments of dynamic shared memory at most.
my @few = ('max_connections = 14', 'max_wal_senders = 0', 'autovacuum_max_workers = 1', 'max_worker_processes = 6');
my $node = new_server('open', @few, 'minimax_m1.max_requests = 2');
wait_ready($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub open_requests { return sql(q{SELECT count(*) FROM minimax_m1.activity}); }

# Opens cursors over streams from number $from to $to, in a transaction that is begun already; the first row of each is read.
sub open_cursors
{
	my ($from, $to, $call) = @_;

	return qq{DO \$do\$ DECLARE c refcursor; r record; BEGIN
		FOR i IN $from .. $to LOOP
			c := 'c' || i;
			OPEN c FOR SELECT s.* FROM (SELECT (minimax_m1.$call).* OFFSET 0) s;
			FETCH c INTO r;
		END LOOP; END \$do\$};
}

my $hello = q{generate_stream('Hello.')};
my $rows = q{(SELECT (minimax_m1.generate_stream('Hello.')).* OFFSET 0) s};
my $whole = sql("SELECT string_agg(delta, '' ORDER BY seq) FILTER (WHERE seq > 1), count(*) - 1 FROM $rows");

# More cursors than there are segments, one after the other, with replies that nobody reads.
my $greedy = $node->background_psql('postgres', on_error_stop => 0);
$greedy->query_safe('BEGIN');
$greedy->query_safe(open_cursors(1, 250, $hello));
wait_for('no request is open', sub { open_requests() eq '0' });
pass('complete replies take no slot, read or not');
is($greedy->query_safe(q{SELECT count(*) FROM pg_cursors WHERE name LIKE 'c%'}), '250', 'though their cursors are open');
like(sql(q{SELECT minimax_m1.generate('Hello.')}), qr/Hello/, 'others find segments');
# PostgreSQL 16 gave the setting another name
is(sql(q{SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
	CREATE TEMP TABLE plan (line text);
	DO $do$ DECLARE l text; BEGIN
		PERFORM set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
		FOR l IN EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*) FROM pg_class LOOP
		INSERT INTO plan VALUES (l); END LOOP; END $do$;
	SELECT count(*) FROM plan WHERE line ~ 'Workers Launched: [1-9]'}), '1', 'and so do parallel queries');
is($greedy->query_safe(q{CREATE FUNCTION rest(name text, OUT text text, OUT n int) LANGUAGE plpgsql AS $do$
	DECLARE c refcursor := name; r record;
	BEGIN
		text := ''; n := 0;
		LOOP FETCH c INTO r; EXIT WHEN NOT FOUND; text := text || r.delta; n := n + 1; END LOOP;
	END $do$;
	SELECT count(*), string_agg(DISTINCT text || '|' || n, ' ') FROM generate_series(1, 250) i CROSS JOIN LATERAL rest('c' || i)}),
	"250|$whole", 'each reply is there when it is read at last, whole and in order');
$greedy->query_safe('ROLLBACK');

# A session has a bound; it is the session's alone, and other things go on within it.
my $engine = engine_pid($node);
my $long = q{generate_stream('What can you do?', temperature => 100, top_p => 1, seed => 1)};
$node->append_conf('postgresql.conf', 'minimax_m1.max_requests_per_session = 2');
$node->reload;
kill 'STOP', $engine;
my $batch = start_query($node, q{SELECT count(*) FROM minimax_m1.generate_batch(ARRAY(SELECT 'Hello.' FROM generate_series(1, 8)))});
wait_for('a batch has what a session may have', sub { open_requests() > 0 });
sql('SELECT pg_sleep(0.3)');
is(open_requests(), '2', 'a batch lives within what a session may have');
kill 'CONT', $engine;
is(finish_query($batch)->{out}, '8', 'and is done') or diag($batch->{err});
$greedy->query_safe('BEGIN');
$greedy->query_safe(open_cursors(1, 2, $long));
is(open_requests(), '2', 'two streams that are not read');
$greedy->query(q{SELECT minimax_m1.generate('Hello.')});
like($greedy->{stderr}, qr/this session has as many requests as it may have.*HINT: .*close them/s, 'a third request of the session is refused');
like(sql(q{SET statement_timeout = '30s'; SELECT minimax_m1.generate('Hello.')}), qr/Hello/, 'other sessions go on');
$greedy->query('ROLLBACK');
wait_for('they are gone', sub { open_requests() eq '0' });
$greedy->quit;
$node->append_conf('postgresql.conf', 'minimax_m1.max_requests_per_session = 0');

# A role has a bound, too: set, or such that there is always some room for others.
sql(q{CREATE ROLE flood; CREATE ROLE victim; SELECT minimax_m1.grant_usage(r) FROM unnest('{flood,victim}'::regrole[]) r});
$node->append_conf('postgresql.conf', 'minimax_m1.max_requests_per_role = 3');
$node->reload;
kill 'STOP', $engine;
my @q = map { start_query($node, q{SET ROLE flood; SELECT minimax_m1.generate('Hello.')}) } 1 .. 3;
wait_for('three are open', sub { open_requests() eq '3' });
my ($state, $message) = sqlstate($node, q{SET ROLE flood; SELECT minimax_m1.generate('Hello.')});
is($state, '53400', 'a fourth request of the role is refused');
like($message, qr/role "flood" has as many requests.*HINT: .*minimax_m1.max_requests_per_role/s, 'and told why');
my $job = sql(q{SET ROLE flood; SELECT minimax_m1.submit('What is 47 + 35?')});
push @q, start_query($node, q{SET ROLE victim; SELECT minimax_m1.generate('Hello.')});
wait_for('another role has one, too', sub { open_requests() eq '4' });
kill 'CONT', $engine;
is(join('', map { finish_query($_)->{err} } @q), '', 'all of them are answered');
sql("CALL minimax_m1.wait_for(ARRAY[$job], '60 s')");
is(sql("SELECT content, attempts FROM minimax_m1.poll($job)"), '82|0', 'a job waits for room, without an attempt');
$node->append_conf('postgresql.conf', "minimax_m1.max_requests_per_role = 0\nminimax_m1.max_queue = 6\nmax_connections = 30");
$node->restart;
wait_ready($node);
$engine = engine_pid($node);
kill 'STOP', $engine;
@q = map { start_query($node, q{SET ROLE flood; SELECT minimax_m1.generate('Hello.')}) } 1 .. 12;
wait_for('some are refused', sub { sql('SELECT rejected FROM minimax_m1.stats') >= 5 });
sql('SELECT pg_sleep(0.3)');
is(open_requests(), '6', 'one role has at most three quarters of all slots');
push @q, start_query($node, q{SET ROLE victim; SELECT minimax_m1.generate('Hello.')});
wait_for('another one finds some', sub { open_requests() eq '7' });
kill 'CONT', $engine;
finish_query($_) for @q;
is(scalar(grep { ($_->{state} // '') eq '53400' } @q), 6, 'the rest was told to try again');
wait_for('all is quiet', sub { is_idle($node) });
$node->stop;
done_testing();
