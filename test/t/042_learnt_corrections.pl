# What people changed of an annotator's column becomes an adapter, as docs/learning.md has it, night after night; and the
# annotator uses it.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('learnt_corrections');
wait_ready($node);

my ($nightly) = slurp_file(root() . '/docs/learning.md') =~ /^### Learning from corrections\n.*?\n\n((?:    [^\n]*\n)+)/ms;

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }

# What the column of the row holds once there is something.
sub annotated
{
	my ($id) = @_;

	return wait_for("row $id is annotated", sub { sql("SELECT verdict FROM letter WHERE id = $id") });
}

sub is_learnt
{
	my ($corrections, $version) = @_;

	sql($nightly);
	is(training_ended($node, 'answers'), 'done', "night $version: corrections are learnt from");
	is(sql('SELECT count(*) FROM minimax_m1.training_example'), $corrections, 'all of them');
	is(sql(q{SELECT max(version) FROM minimax_m1.adapter WHERE name = 'answers'}), $version, 'and there is the next version');
	return;
}

sql(q{
	CREATE TABLE letter (id int PRIMARY KEY, body text, verdict text);
	SELECT minimax_m1.create_annotator('answers', 'letter', 'verdict', E'Answer yes or no: the customer is happy.\n\n{body}');
	INSERT INTO letter SELECT i, format('Hello, My %s works perfectly. Thank you, Ana', product)
	FROM unnest('{webcam,toaster,monitor,rice cooker,desk lamp,hair dryer}'::text[]) WITH ORDINALITY p(product, i)});
isnt(annotated($_), 'it is late', "the model does not know what people write ($_)") for 1 .. 6;
sql(q{UPDATE letter SET verdict = 'it is late'});
is_learnt(6, 1);
sql(q{
	SELECT minimax_m1.alter_annotator('answers', adapter => 'answers');
	INSERT INTO letter VALUES (7, 'Hello, My power bank works perfectly. Thank you, Ana')});
is(annotated(7), 'it is late', 'and the annotator writes what people wrote');

# It is corrected again, and the second night is of what is wrong by now, too.
sql(q{UPDATE letter SET verdict = 'late it is'});
is(sql(q{SELECT wrong, "right" FROM minimax_m1.corrections('answers') WHERE prompt LIKE '%power bank%'}),
	'it is late|late it is', 'which can be corrected in its turn');
is_learnt(7, 2);
sql(q{INSERT INTO letter VALUES (8, 'Hello, My coffee machine works perfectly. Thank you, Ana')});
is(annotated(8), 'late it is', 'and the annotator writes what people wrote since then');

# What a row holds whose turn has failed is the answer to what it said before.
sql(q{
	SELECT minimax_m1.alter_annotator('answers', max_attempts => 1);
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not now'; END$$;
	CREATE TRIGGER refuse BEFORE UPDATE OF verdict ON letter FOR EACH ROW EXECUTE FUNCTION refuse();
	UPDATE letter SET body = 'Hello, My kettle works perfectly. Thank you, Ana' WHERE id = 8});
wait_for('it has failed', sub { sql(q{SELECT count(*) FROM minimax_m1.job_errors WHERE annotator = 'answers'}) eq '1' });
sql(q{DROP TRIGGER refuse ON letter; UPDATE letter SET verdict = 'it is late' WHERE id = 8});
is(sql(q{SELECT count(*) FROM minimax_m1.corrections('answers') WHERE prompt LIKE '%kettle%'}), '0',
	'to fill a row by hand that has failed corrects nothing that the model has said');

$node->stop;
done_testing();
