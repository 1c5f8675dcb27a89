# summarize_agg() and reduce_agg(): a tree over more rows than the context holds, and what may come between.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('aggregates', 'minimax_m1.max_context = 256');
wait_ready($node);
$node->safe_psql('postgres', q{CREATE TABLE letters AS
	SELECT i AS id, 'Dear team, My webcam arrived in a torn box. Could I get a discount? '
		|| (ARRAY['Ana', 'Ben', 'Carla', 'Sami', 'Tara', 'Umar'])[i % 6 + 1] AS body
	FROM generate_series(1, 120) i});

# The answer of one query, its requests and the prompt tokens that the model read for it.
sub ask
{
	my ($query) = @_;

	$node->safe_psql('postgres', 'SELECT minimax_m1.stats_reset()');
	my $answer = $node->safe_psql('postgres', "SET statement_timeout = '90s'; $query");
	return ($answer, split /\|/, $node->safe_psql('postgres', 'SELECT requests, prompt_tokens FROM minimax_m1.stats'));
}

my $tokens = $node->safe_psql('postgres', 'SELECT sum(minimax_m1.count_tokens(body)) FROM letters');
cmp_ok($tokens, '>', 8 * 256, "the rows have $tokens tokens, many times what the context holds");
my ($answer, $requests, $read) = ask('SELECT minimax_m1.summarize_agg(body ORDER BY id) FROM letters');
isnt($answer, '', "a summary: $answer");
cmp_ok($read, '>', $tokens, "the model read $read tokens in $requests requests: no less than the rows have");
is((ask("SELECT minimax_m1.reduce_agg(body, 'Summarize the following text.' ORDER BY id) FROM letters"))[0], $answer,
	'reduce_agg with the same instruction gives the same');
is((ask("SELECT minimax_m1.summarize_agg(body ORDER BY id) FROM (SELECT id, body FROM letters
	UNION ALL SELECT id, NULL FROM letters UNION ALL SELECT id, '' FROM letters) l"))[0], $answer, 'NULL and empty texts add nothing');

# Few rows are one pass, like a document of them.
($answer, $requests) = ask('SELECT minimax_m1.summarize_agg(body ORDER BY id) FROM letters WHERE id <= 2');
is($answer, (ask(q{SELECT minimax_m1.summarize(string_agg(body, E'\n\n' ORDER BY id)) FROM letters WHERE id <= 2}))[0],
	'two rows are summarized together');

# Groups do not mix; one row's summary is its own.
is((ask('SELECT minimax_m1.summarize_agg(body) FROM letters WHERE id <= 3 GROUP BY id ORDER BY id'))[0],
	join("\n", map { "$_ reports that the webcam arrived in a torn box and wants a discount." } qw(Ben Carla Sami)), 'groups');

# A row that is itself longer than the context, between short ones.
($answer, $requests, $read) = ask(q{SELECT minimax_m1.summarize_agg(body ORDER BY id) FROM (
	SELECT id, body FROM letters WHERE id IN (1, 3) UNION ALL SELECT 2, string_agg(body, E'\n\n') FROM letters WHERE id <= 30) l});
isnt($answer, '', 'a long row between short ones');
cmp_ok($read, '>', 600, "is read too: $read tokens");

is((ask('SELECT minimax_m1.summarize_agg(body) IS NULL FROM letters WHERE false'))[0], 't', 'no rows, no summary');
is((ask("SELECT minimax_m1.reduce_agg(NULL, 'x') IS NULL FROM letters"))[0], 't', 'nothing but NULL, no summary');
is((sqlstate($node, 'SELECT minimax_m1.reduce_agg(body, body) FROM letters'))[0], '22023', 'an instruction that changes');
is((sqlstate($node, 'SELECT minimax_m1.summarize_agg(body) OVER () FROM letters'))[0], '0A000', 'not a window function');
is((sqlstate($node, "SELECT minimax_m1.reduce_agg(body, repeat('word ', 200)) FROM letters"))[0], '54000',
	'an instruction that leaves no room');
is((sqlstate($node, "SET statement_timeout = '300ms'; SET minimax_m1.on_error = 'null';
	SELECT minimax_m1.summarize_agg(l.body) FROM letters l, letters m"))[0], '57014', 'statement_timeout ends it');
ok(wait_for('nothing is left', sub { is_idle($node) }, 10), 'nothing is left');

# on_error and summarize(): the parts of a row fail together.
my $long = quote('word ' x 200);
is((sqlstate($node, "SELECT minimax_m1.summarize('Hello.', instruction => $long)"))[0], '54000', 'summarize() fails');
is($node->safe_psql('postgres', "SET minimax_m1.on_error = 'null'; SELECT minimax_m1.summarize('Hello.', instruction => $long) IS NULL,
	minimax_m1.summarize('') IS NULL, minimax_m1.generate('') IS NULL, minimax_m1.generate(repeat('word ', 1000)) IS NULL"), 't|t|t|t',
	'or gives NULL');
is((sqlstate($node, "SET minimax_m1.on_error = 'null'; SELECT minimax_m1.generate('Hello.', temperature => -1)"))[0], '22023',
	'arguments are checked in any case');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked/, 'nothing bad in the log');
done_testing();
