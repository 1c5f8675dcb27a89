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
done_testing();
