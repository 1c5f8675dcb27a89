# Streams that nobody reads do not keep their places in the batch from others: they run to their end while there is
# memory for what they produce, and beyond that they end with an error that says why.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $endless = endless_model();
my $node = new_server('unread', "minimax_m1.model = '$endless'", 'minimax_m1.max_requests = 2', 'minimax_m1.reserved_requests = 0');
wait_ready($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{CREATE ROLE flood; CREATE ROLE victim; SELECT minimax_m1.grant_usage(r) FROM unnest('{flood,victim}'::regrole[]) r});

# Longer than all buffers on the way.
my $rows = q{(SELECT (minimax_m1.generate_stream('What can you do?', temperature => 1, top_p => 0.5, seed => 1, max_tokens => 8000)).* OFFSET 0) s};
my $whole = sql("SELECT md5(string_agg(delta, '' ORDER BY seq) FILTER (WHERE seq > 1)), count(*) - 1 FROM $rows");
sql(q{CREATE FUNCTION rest(name text, OUT digest text, OUT n int) LANGUAGE plpgsql AS $do$
	DECLARE c refcursor := name; r record; all_of_it text := '';
	BEGIN
		n := 0;
		LOOP FETCH c INTO r; EXIT WHEN NOT FOUND; all_of_it := all_of_it || r.delta; n := n + 1; END LOOP;
		digest := md5(all_of_it);
	END $do$});

# A session with cursors on so many streams, of which it has read the first row.
sub open_streams
{
	my ($n) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_safe('SET ROLE flood; BEGIN');
	$session->query_safe("DECLARE c$_ CURSOR FOR SELECT s.* FROM $rows; FETCH c$_")
	  for 1 .. $n;
	return $session;
}

# They are the only ones who want the model, and stand still.
sub wait_paused
{
	my $was = '';

	wait_for('the streams stand still', sub {
			my $now = sql(q{SELECT string_agg(generated::text, ' ' ORDER BY request) FROM minimax_m1.activity});
			my $same = $now eq $was && $now !~ /\b0\b/;

			$was = $now;
			sql('SELECT pg_sleep(0.5)') unless $same;
			return $same }, 120);
	return $was;
}

my $session = open_streams(2);
my $paused = wait_paused();
unlike($paused, qr/\b8000\b/, 'without others, streams that are not read pause');
is(sql(q{SET ROLE victim; SET statement_timeout = '60s'; SELECT cardinality(minimax_m1.generate_ids('{1,2,3}', 20))}), '20',
	'another role gets a place, though two streams that nobody reads have both');
is($session->query_safe(q{SELECT * FROM rest('c1') UNION ALL SELECT * FROM rest('c2')}), "$whole\n$whole",
	'and both are whole when they are read at last');
$session->query_safe('COMMIT');
$session->quit;

# No memory for them: they are ended.
$node->append_conf('postgresql.conf', "minimax_m1.unread_memory = 0\nminimax_m1.unread_timeout = '1s'");
$node->reload;
$session = open_streams(2);
wait_paused();
is(sql(q{SET ROLE victim; SET statement_timeout = '60s'; SELECT cardinality(minimax_m1.generate_ids('{1,2,3}', 20))}), '20',
	'when there is no memory for them, another role gets a place, too');
$session->query(q{SELECT * FROM rest('c1')});
$session->query(q{SELECT * FROM rest('c2')}) if $session->{stderr} !~ /not read/;
like($session->{stderr}, qr/the reply was not read, while others waited for its place.*unread_timeout/s, 'which a stream has lost');
$session->query('ROLLBACK');
$session->quit;
wait_for('all is quiet', sub { is_idle($node) });
$node->stop;
done_testing();
