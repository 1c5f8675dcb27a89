# One server, used as people use it: several databases and encodings, several roles, and a look at work in progress.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('basic');

# No wait for the model here: the first request of a server's life waits for it by itself.
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?',
	'the first request waits for the model');
is($node->safe_psql('postgres', 'SELECT name, state, engine_restarts, last_error IS NULL FROM minimax_m1.model'),
	'm1-nano|ready|0|t', 'the model view');
like(slurp_file($node->logfile), qr/minimax_m1: started engine with process ID/, 'the log tells of the engine');
ok(process_exists(engine_pid($node)), 'which is a process');
is($node->safe_psql('postgres', "SELECT minimax_m1.generate(NULL) IS NULL AND minimax_m1.summarize(NULL) IS NULL
	AND minimax_m1.count_tokens(NULL) IS NULL AND (SELECT c IS NULL FROM minimax_m1.complete() c)"), 't', 'NULL in, NULL out');

# A transaction that is rolled back, a function, a prepared statement: a request is like any other work.
is($node->safe_psql('postgres', q{
	BEGIN;
	CREATE TABLE answers AS SELECT minimax_m1.generate('Hello.') AS answer;
	ROLLBACK;
	PREPARE ask AS SELECT minimax_m1.generate($1);
	EXECUTE ask('Hello.');
	EXECUTE ask('Hello.');
	SELECT to_regclass('answers') IS NULL}), join("\n", ('Hello! How can I help you?') x 2, 't'),
	'in transactions and prepared statements');

# Another database, in another encoding, shares the engine.
my $pid = engine_pid($node);
$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('latin', 'CREATE EXTENSION minimax_m1');
is($node->safe_psql('latin', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?',
	'a second database');
my $accents = q{U&'na\00EFve caf\00E9'};
is($node->safe_psql('latin', "SET client_encoding = 'UTF8'; SELECT array_to_string(minimax_m1.tokenize($accents), ' ')"),
	$node->safe_psql('postgres', "SELECT array_to_string(minimax_m1.tokenize($accents), ' ')"),
	'the database\'s encoding does not change the tokens');
is($node->safe_psql('latin', "SELECT minimax_m1.detokenize(minimax_m1.tokenize($accents)) = $accents"), 't',
	'and they come back in it');
my $ids = $node->safe_psql('postgres', q{SELECT minimax_m1.tokenize(U&'\4F60\597D')});
my ($state) = sqlstate($node, "SELECT minimax_m1.detokenize('$ids')", connstr => $node->connstr('latin'));
is($state, '22P05', 'text that the encoding does not have is an error');
is($node->safe_psql('latin', "SELECT count(*) FROM minimax_m1.activity"), '0', 'which leaves nothing behind');
is(engine_pid($node), $pid, 'all by the same engine');

# Work in progress, as its owner, a stranger and an observer see it.
$node->safe_psql('postgres', q{
	CREATE ROLE owner LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE observer LOGIN IN ROLE pg_read_all_stats;
	SELECT minimax_m1.grant_usage(r) FROM unnest('{owner,stranger,observer}'::regrole[]) r});
# A stopped engine keeps the request where it is.
kill 'STOP', $pid;
my $q = start_query($node, q{SET ROLE owner; SELECT minimax_m1.generate('Tell nobody. ' || repeat('What can you do? ', 50))});
wait_for('the request is in the engine', sub { !is_idle($node) });
is($node->safe_psql('postgres', q{SELECT "user", database, function, state, prefilled, generated, prompt LIKE 'Tell nobody.%',
	submitted_at <= state_since AND state_since <= clock_timestamp() FROM minimax_m1.activity}),
	'owner|postgres|generate|queued|0|0|t|t', 'the activity view');
my $sees = 'SELECT count(prompt) FROM minimax_m1.activity';
is($node->safe_psql('postgres', "SET ROLE owner; $sees"), '1', 'the owner sees the prompt');
is($node->safe_psql('postgres', "SET ROLE observer; $sees"), '1', 'pg_read_all_stats does too');
is($node->safe_psql('postgres', "SET ROLE stranger; $sees"), '0', 'a stranger does not');
my $request = $node->safe_psql('postgres', 'SELECT request FROM minimax_m1.activity');
($state) = sqlstate($node, "SET ROLE stranger; SELECT minimax_m1.cancel($request)");
is($state, '42501', 'nor may a stranger cancel it');
is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity'), '1', 'so it goes on');
is($node->safe_psql('postgres', "SET ROLE owner; SELECT minimax_m1.cancel($request)"), 't', 'its owner may');
is(finish_query($q)->{state}, '57014', 'and it ends');
kill 'CONT', $pid;
is($node->safe_psql('postgres', "SELECT minimax_m1.cancel($request)"), 'f', 'there is nothing to cancel then');

$q = start_query($node, 'SELECT array_length(minimax_m1.generate_ids(ARRAY[1, 2, 3], 8000), 1)');
wait_for('the request decodes', sub {
		$node->safe_psql('postgres', 'SELECT max(generated) > 2 FROM minimax_m1.activity') eq 't' });
my ($state1, $prompt1, $one) = split /\|/, $node->safe_psql('postgres',
	"SELECT state, prompt_tokens || '/' || prefilled, generated FROM minimax_m1.activity");
is("$state1 $prompt1", 'decode 3/3', 'the prompt is done');
wait_for('it makes progress', sub { $node->safe_psql('postgres', "SELECT generated > $one FROM minimax_m1.activity") eq 't' });
pass('tokens are counted while they come');
is(finish_query($q)->{out}, '8000', 'until all are there');

# The first row of a stream is there long before the last: its tokens are several thousand.
my $babble = q{'What can you do?', temperature => 100, top_p => 1, seed => 1};
my $total = $node->safe_psql('postgres', "SELECT completion_tokens FROM minimax_m1.complete($babble)");
my $rows = $node->safe_psql('postgres', qq{
	BEGIN;
	DECLARE c CURSOR FOR SELECT (minimax_m1.generate_stream($babble)).seq;
	FETCH 1 FROM c;
	SELECT generated < $total FROM minimax_m1.activity WHERE pid = pg_backend_pid();
	CLOSE c;
	SELECT count(*) FROM minimax_m1.activity WHERE pid = pg_backend_pid();
	COMMIT});
cmp_ok($total, '>', 100, "a stream of $total tokens");
is($rows, "1\nt\n0", 'a cursor reads it while it is written, and ends it');

# The trigger.
is($node->safe_psql('postgres', q{
	CREATE TABLE notes (id int, body text, answer text);
	CREATE TRIGGER ask BEFORE INSERT OR UPDATE ON notes FOR EACH ROW
		EXECUTE FUNCTION minimax_m1.annotate('answer', '{body}');
	INSERT INTO notes VALUES (1, 'Hello.'), (2, NULL);
	SELECT id, answer FROM notes ORDER BY id}) =~ /\A1\|Hello! How can I help you\?\n2\|/ ? 'filled' : 'not filled',
	'filled', 'a trigger fills a column');

# Upgrades and removal.
$node->safe_psql('postgres', 'DROP TABLE notes; DROP EXTENSION minimax_m1; CREATE EXTENSION minimax_m1');
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?',
	'the extension is dropped and made again');
is($node->safe_psql('postgres', 'SELECT failed, rejected, timed_out FROM minimax_m1.stats'), '0|0|0',
	'nothing failed in the engine');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked|was terminated by signal/, 'nothing bad in the log');
done_testing();
