# Snapshots of prompts' beginnings through SQL: what they save and what they hold is told, answers are the same with and
# without them, roles and databases share them only when told to; and memory for keys and values is waited for.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('prefix_cache');
wait_ready($node);

sub ask
{
	my ($database, $before) = @_;

	return $node->safe_psql($database // 'postgres', ($before // '') .
		q{ SELECT cached_tokens FROM minimax_m1.complete('Hello.', system_prompt => repeat('You are a helpful assistant. ', 5))});
}

sub stats { return $node->safe_psql('postgres', "SELECT $_[0] FROM minimax_m1.stats"); }

# An installation of the version before is updated, and its users keep what they could see.
$node->safe_psql('postgres', q{
	DROP EXTENSION minimax_m1;
	CREATE EXTENSION minimax_m1 VERSION '0.1';
	CREATE ROLE reader;
	SELECT minimax_m1.grant_usage('reader');
	ALTER EXTENSION minimax_m1 UPDATE;
	CREATE ROLE one; CREATE ROLE two;
	SELECT minimax_m1.grant_usage(r) FROM unnest('{one,two}'::regrole[]) r});
is($node->safe_psql('postgres', 'SET ROLE reader; SELECT cache_hits, snapshots, snapshot_bytes FROM minimax_m1.stats'), '0|0|0',
	'the view of an updated extension');

# A role finds its own snapshots, and nobody else's.
is(ask(undef, 'SET ROLE one;'), '0', 'the first prompt prefills all');
my $cached = ask(undef, 'SET ROLE one;');
cmp_ok($cached, '>', 20, "the second starts after $cached tokens");
is(ask(undef, 'SET ROLE two;'), '0', 'another role does not');
is(ask(undef, 'SET ROLE two;'), $cached, 'but for its own');
is(stats('cache_hits, cached_tokens, snapshots'), '2|' . 2 * $cached . '|2', 'both are counted');
my $bytes = stats('snapshot_bytes');
cmp_ok($bytes, '>', 100_000, "two snapshots take $bytes bytes");
$node->safe_psql('postgres', 'SELECT minimax_m1.stats_reset()');
is(stats('cache_hits, snapshots, snapshot_bytes'), "0|2|$bytes", 'a reset sets counters to zero, not what is there');

# Wider circles are for superusers to allow.
my ($state) = sqlstate($node, "SET ROLE one; SET minimax_m1.prefix_cache_sharing = 'all'");
is($state, '42501', 'a role cannot widen its circle');
my $database = "SET minimax_m1.prefix_cache_sharing = 'database';";
is(ask(undef, "$database SET ROLE one;"), '0', 'a circle of its own');
is(ask(undef, "$database SET ROLE two;"), $cached, 'that all roles of the database share');
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', "CREATE EXTENSION minimax_m1; SELECT minimax_m1.grant_usage('one')");
is(ask('second', "$database SET ROLE one;"), '0', 'but not those of another');
is(ask('second', 'SET ROLE one;'), '0', 'where the same role has no snapshots either');
my $all = "SET minimax_m1.prefix_cache_sharing = 'all';";
is(ask('second', "$all SET ROLE one;"), '0', 'all databases');
is(ask('postgres', "$all SET ROLE two;"), $cached, 'share one circle');

# Instructions and templates are told apart from the rows: each of them is prefilled once.
$node->safe_psql('postgres', q{
	CREATE TABLE message (id int, body text, topic text);
	CREATE TRIGGER classify BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('topic',
		E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\n\n{body}');
	SELECT minimax_m1.stats_reset();
	INSERT INTO message SELECT i, 'My parcel number ' || i || ' never arrived. ' || i FROM generate_series(1, 20) i});
my ($hits, $tokens) = split /\|/, stats('cache_hits, cached_tokens');
is($hits, 19, 'every row of a template but the first has a hit');
cmp_ok($tokens / $hits, '>', 35, 'of ' . $tokens / $hits . ' tokens');
$node->safe_psql('postgres', q{SELECT minimax_m1.stats_reset();
	SELECT minimax_m1.summarize(body, 'Summarize this complaint of a customer in one sentence, and name the product if there is one.')
	FROM message WHERE id <= 3});
cmp_ok(stats('min(cached_tokens)'), '>', 3 * 35, 'an instruction is one as well');

# Answers do not depend on it. The same requests, with snapshots, again, and without.
my $answers = q{SELECT md5(string_agg(content || reasoning, '|' ORDER BY i)) FROM generate_series(1, 12) i,
	minimax_m1.complete('What is ' || i || ' + 35?', temperature => 1, seed => i)};
my $with = $node->safe_psql('postgres', $answers);
is($node->safe_psql('postgres', $answers), $with, 'from snapshots: the same answers');
my $pid = engine_pid($node);
$node->safe_psql('postgres', 'ALTER SYSTEM SET minimax_m1.prefix_cache_size = 0');
$node->reload;
wait_for('another engine', sub {
		$node->safe_psql('postgres', "SELECT state = 'ready' AND engine_pid <> $pid FROM minimax_m1.model") eq 't' });
is(stats('snapshots, snapshot_bytes'), '0|0', 'no snapshots are left');
is($node->safe_psql('postgres', $answers), $with, 'without: the same answers');
is(ask(), '0', 'nothing is kept') for 1 .. 2;

# A small budget for keys and values: more requests than it holds wait, and all are answered.
$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.prefix_cache_size = '1MB'");
$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.kv_cache_size = '1MB'");
$node->reload;
wait_for('a smaller engine', sub {
		$node->safe_psql('postgres', "SELECT state = 'ready' AND context < 32768 FROM minimax_m1.model") eq 't' });
my $context = $node->safe_psql('postgres', 'SELECT context FROM minimax_m1.model');
cmp_ok($context, '>', 500, "one request can have $context tokens");
my @queries = map { start_query($node, "SELECT minimax_m1.generate('Hello.'" . ($_ % 2 ? '' : ', max_tokens => 100') . ')') } 1 .. 20;
is(finish_query($_)->{out}, 'Hello! How can I help you?', 'an answer') or diag($_->{err}) for @queries;
my $message;
($state, $message) = sqlstate($node, "SELECT minimax_m1.generate(repeat('a box ', 20000))");
is($state, '54000', 'a prompt that no memory can be found for is refused');
like($message, qr/the context holds $context, .*HINT: .*minimax_m1\.kv_cache_size/s, 'with numbers, and what to do');
ok(is_idle($node), 'nothing is left');

# An engine that dies takes its snapshots with it.
kill_engine($node);
is(ask(), '0', 'a new engine begins with none');
cmp_ok(ask(), '>', 20, 'and keeps its own');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|makes no sense|malformed/, 'nothing bad in the log');
done_testing();
