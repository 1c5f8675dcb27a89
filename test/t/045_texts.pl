# Texts that the model cannot be given, columns that a trigger cannot use, names that a template cannot hold: each is the
# matter of one request or one row.
use strict;
use warnings;
use M1Test;
use Test::More;

my $node = new_server('texts', 'minimax_m1.job_retry_delay = 100', 'minimax_m1.max_tokens = 20');
wait_ready($node);

sub in_db { my ($db, $sql) = @_; return $node->safe_psql($db, $sql, extra_params => [ '-v', 'ON_ERROR_STOP=1' ]); }

sub fails { my ($db, $sql) = @_; return (sqlstate($node, $sql, connstr => $node->connstr($db)))[0]; }

# ---- texts that are not UTF-8, and cannot be made that ----

# In SQL_ASCII anything may be stored; EUC_JP has places that no character has.
my %bad = (ascii => q{E'caf\xe9'}, japan => q{E'\xa9\xa1'});
in_db('postgres', q{CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0});
in_db('postgres', q{CREATE DATABASE japan ENCODING 'EUC_JP' LOCALE 'C' TEMPLATE template0});

for my $db (sort keys %bad)
{
	my $bad = $bad{$db};
	my @calls = (
		"minimax_m1.generate($bad)", "minimax_m1.generate('Hello.', system_prompt => $bad)",
		"minimax_m1.generate('Hello.', stop => ARRAY[$bad])", "minimax_m1.classify($bad, ARRAY['a', 'b'])",
		"minimax_m1.classify('Hello.', ARRAY['a', $bad])", "minimax_m1.summarize($bad)",
		"minimax_m1.summarize('Hello.', instruction => $bad)", "minimax_m1.is_true('It is.', $bad)", "minimax_m1.score($bad, 'long')",
		"minimax_m1.generate_json($bad, '{\"type\": \"boolean\"}')");

	in_db($db, 'CREATE EXTENSION minimax_m1');
	for my $call (@calls)
	{
		is(fails($db, "SELECT $call"), '22023', "$db: $call is refused");
		is(in_db($db, "SET minimax_m1.on_error = 'null'; SELECT $call IS NULL"), 't', "$db: $call is NULL");
	}
	# these are not NULL in any case
	for my $call ("minimax_m1.count_tokens($bad)", "minimax_m1.summarize_agg($bad)",
		"minimax_m1.complete(messages => jsonb_build_array(jsonb_build_object('role', 'user', 'content', CAST($bad AS text))))", "minimax_m1.rank('query', ARRAY['Hello.', $bad])")
	{
		is(fails($db, "SELECT $call"), '22023', "$db: $call is refused");
	}
	is(in_db($db, "SELECT string_agg((content IS NOT NULL) || '/' || (error IS NULL), ' ' ORDER BY i) FROM minimax_m1.generate_batch(ARRAY['Hello.', $bad, 'Hello.']) WITH ORDINALITY AS g(i, content, reasoning, error, n)"),
		'true/true false/false true/true', "$db: one text fails alone in a batch");

	# Jobs, and annotated rows.
	is(fails($db, "SELECT minimax_m1.submit('Hello.', system_prompt => $bad)"), 'none', "$db: it is queued");
	in_db($db, "SELECT minimax_m1.submit('Hello.')");
	in_db($db, q{CREATE TABLE t (id int PRIMARY KEY, body text, topic text);
		SELECT minimax_m1.create_annotator('t', 't', 'topic', '{body}')});
	in_db($db, "INSERT INTO t VALUES (1, 'Hello.'), (2, $bad), (3, 'Hello.')");
	wait_for('jobs have ended', sub { in_db($db, q{SELECT count(*) FROM minimax_m1.job WHERE state IN ('pending', 'running')}) eq '0' });
	is(in_db($db, q{SELECT string_agg(state || coalesce(sqlstate, ''), ' ' ORDER BY id) FROM minimax_m1.job}), 'failed22023 done failed22023',
		"$db: jobs fail one by one");
	is(in_db($db, 'SELECT string_agg(id::text, \' \' ORDER BY id) FROM t WHERE topic IS NOT NULL'), '1 3', "$db: and so do rows");
	in_db($db, q{CREATE TABLE u (id int PRIMARY KEY, body text, topic text);
		CREATE TRIGGER u BEFORE INSERT ON u FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('topic', '{body}')});
	is(fails($db, "INSERT INTO u VALUES (1, $bad)"), '22023', "$db: annotate");
}

# A long text is converted in pieces, which no character need fit: of two bytes here, behind one of one.
my $long = q{SELECT minimax_m1.count_tokens('x' || repeat(U&'\3042', 700000))};
is(in_db('japan', $long), in_db('postgres', $long), 'japan: a long text has the tokens that it has in UTF-8');

# ---- generated columns under annotate() ----

in_db('postgres', q{
	CREATE TABLE g (id int PRIMARY KEY, body text, topic text, big text GENERATED ALWAYS AS (upper(body)) STORED);
	CREATE TABLE parted (LIKE g INCLUDING ALL) PARTITION BY RANGE (id);
	CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10)});
for my $table ('g', 'parted')
{
	for my $arguments (q{'big', '{body}'}, q{'topic', '{big}'}, q{'topic', 'Say {body} and {big}'})
	{
		in_db('postgres', "CREATE TRIGGER t BEFORE INSERT OR UPDATE ON $table FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate($arguments)");
		is(fails('postgres', "INSERT INTO $table VALUES (1, 'Hello.', 'mine')"), '22023', "$table: annotate($arguments) is refused");
		in_db('postgres', "DROP TRIGGER t ON $table; DELETE FROM $table; INSERT INTO $table VALUES (1, 'Hello.', 'mine')");
		in_db('postgres', "CREATE TRIGGER t BEFORE INSERT OR UPDATE ON $table FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate($arguments)");
		is(fails('postgres', "UPDATE $table SET body = 'Hi.'"), '22023', 'and by an update');
		is(in_db('postgres', "SELECT topic || ' ' || big FROM $table"), 'mine HELLO.', 'which leaves what was there');
		in_db('postgres', "DROP TRIGGER t ON $table; DELETE FROM $table");
	}
}

# ---- columns that are renamed to whatever a name may be ----

in_db('postgres', q{CREATE TABLE r (id int PRIMARY KEY, a text, topic text);
	SELECT minimax_m1.create_annotator('r', 'r', 'topic', 'Say {{"{a}"}} once.')});
my $id = 0;
my $old = 'a';
for my $new ('text}', '{text', '{text}', '}', '{', '"text"', '"', '"}', '}}', '{{', ' ', '"a"}"b', 'a')
{
	(my $from = $old) =~ s/"/""/g;
	(my $to = $new) =~ s/"/""/g;
	in_db('postgres', qq{ALTER TABLE r RENAME "$from" TO "$to"});
	$id++;
	is(fails('postgres', qq{INSERT INTO r (id, "$to") VALUES ($id, 'Hello.')}), 'none', "a row is queued under the name $new");
	$old = $new;
}
is(in_db('postgres', 'SELECT template FROM minimax_m1.annotators'), 'Say {{"{a}"}} once.', 'the template is what it was');
wait_for('rows are done', sub { in_db('postgres', 'SELECT count(*) FROM r WHERE topic IS NULL') eq '0' });
is(in_db('postgres', q{SELECT count(*) FROM minimax_m1.job_errors}), '0', 'and all rows are annotated');
in_db('postgres', q~ALTER TABLE r RENAME a TO "x}y"~);
is(fails('postgres', q~SELECT minimax_m1.alter_annotator('r', template => 'Say {"x}y"} twice.')~), 'none', 'such a name can be written');

# ---- what the engine says, in other encodings ----

# Files are called so in UTF-8, as the engine's texts are.
my $modele = PostgreSQL::Test::Utils::tempdir() . "/mod\xc3\xa8le";
sub use_model
{
	my ($path, $state) = @_;
	in_db('postgres', "ALTER SYSTEM SET minimax_m1.model = '$path'");
	$node->reload;
	wait_for("the model is $state", sub { in_db('postgres', 'SELECT state FROM minimax_m1.model') eq $state });
}
my %modele = (postgres => q{'mod' || chr(232) || 'le'}, latin => q{'mod' || chr(232) || 'le'}, japan => q{E'mod\x8f\xab\xb2le'}, ascii => q{E'mod\xc3\xa8le'});
in_db('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});

# Tokens that are parts of characters, and those that were only likely, are told in any encoding.
in_db('latin', 'CREATE EXTENSION minimax_m1');
for my $case ([ 'japan', q{E'\xc6\xfc'}, '\u65e5' ], [ 'latin', q{E'\xe9'}, '\u00e9' ])
{
	my ($db, $character, $code) = @$case;

	is(in_db($db, qq{SELECT (c).content = $character AND (c).logprobs::text ~ '^[ -~]*\\\\ufffd[ -~]*\$' AND json_array_length((c).logprobs) > 2
		FROM (SELECT minimax_m1.complete('Hello.', regex => '$code', logprobs => true, top_logprobs => 20) AS c OFFSET 0) t}), 't',
		"$db: log probabilities of parts of characters");
}
PostgreSQL::Test::Utils::append_to_file("$modele.gguf", "no model at all");
use_model("$modele.gguf", 'failed');
for my $db (sort keys %modele)
{
	is(in_db($db, "SELECT position($modele{$db} in last_error) > 0 FROM minimax_m1.model"), 't', "$db: the last error");
}
symlink root() . '/models/m1-nano', $modele or die $!;
use_model($modele, 'ready');
for my $db (sort keys %modele)
{
	is(in_db($db, "SELECT name = $modele{$db} AND (minimax_m1.complete('Hello.')).model = name FROM minimax_m1.model"), 't', "$db: the model's name");
}
in_db('postgres', 'ALTER SYSTEM RESET minimax_m1.model');
$node->reload;

# ---- names of everything else ----

sub ident { return '"' . ($_[0] =~ s/"/""/gr) . '"'; }
sub literal { return "\$name\$$_[0]\$name\$"; }

for my $name (q{"; DROP TABLE r; --}, q{it's %s %1$I $$ {body}}, q{Ünï "x" \\}, q{select})
{
	my $it = ident($name);
	my ($topic, $state) = ("topic of $name", "state of $name");
	in_db('postgres', "CREATE ROLE $it; CREATE SCHEMA $it AUTHORIZATION $it; SELECT minimax_m1.grant_usage(quote_ident(" . literal($name) . ")::regrole);
		SET ROLE $it;
		CREATE TABLE $it.$it ($it text PRIMARY KEY, body text, " . ident($topic) . ' text, ' . ident($state) . " text);
		SELECT minimax_m1.create_annotator(" . join(', ', "'odd'", literal("$it.$it"), literal($topic)) . ", '{body}', status_column => " . literal($state) . ");
		INSERT INTO $it.$it VALUES (" . literal($name) . ", 'Hello.')");
	wait_for('the row is done', sub { in_db('postgres', q{SELECT count(*) FROM minimax_m1.job WHERE state IN ('pending', 'running')}) eq '0' });
	is(in_db('postgres', 'SELECT ' . ident($topic) . " ~ '^Hello' AND " . ident($state) . " = 'done' FROM $it.$it"), 't',
		"a role, a schema, a table and columns named $name");
	in_db('postgres', "SET ROLE $it; SELECT minimax_m1.drop_annotator('odd')");
}
done_testing();
