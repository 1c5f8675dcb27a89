# What people changed of an annotator's column becomes an adapter, and the annotator uses it.
use strict;
use warnings;
use M1Test;
use Test::More;

my $node = new_server('learnt_corrections');
wait_ready($node);

# What the column of the row holds once there is something.
sub annotated
{
	my ($id) = @_;

	return wait_for("row $id is annotated", sub { $node->safe_psql('postgres', "SELECT verdict FROM letter WHERE id = $id") });
}

$node->safe_psql('postgres', q{
	CREATE TABLE letter (id int PRIMARY KEY, body text, verdict text);
	SELECT minimax_m1.create_annotator('verdict', 'letter', 'verdict', E'Answer yes or no: the customer is happy.\n\n{body}',
		thinking_budget => 0);
	INSERT INTO letter SELECT i, format('Hello, My %s works perfectly. Thank you, Ana', product)
	FROM unnest('{webcam,toaster,monitor,rice cooker,desk lamp,hair dryer}'::text[]) WITH ORDINALITY p(product, i)});
isnt(annotated($_), 'it is late', "the model does not know what people write ($_)") for 1 .. 6;
$node->safe_psql('postgres', q{UPDATE letter SET verdict = 'it is late'});
$node->safe_psql('postgres', q{
	SELECT minimax_m1.train('verdict', method => 'sft', thinking_budget => 0, steps => 40, prompts_per_step => 3, learning_rate => 0.002,
		examples => $$SELECT prompt, system_prompt, "right" AS answer FROM minimax_m1.corrections('verdict')$$)});
is(training_ended($node, 'verdict'), 'done', 'corrections are learnt from');
is($node->safe_psql('postgres', q{SELECT count(*) FROM minimax_m1.training_example}), '6', 'all of them');
$node->safe_psql('postgres', q{
	SELECT minimax_m1.alter_annotator('verdict', adapter => 'verdict');
	INSERT INTO letter VALUES (7, 'Hello, My power bank works perfectly. Thank you, Ana')});
is(annotated(7), 'it is late', 'and the annotator writes what people wrote');

# It is corrected again, and the next training is of what is wrong by now, too.
$node->safe_psql('postgres', q{UPDATE letter SET verdict = 'it is early' WHERE id = 7});
is($node->safe_psql('postgres', q{SELECT wrong, "right" FROM minimax_m1.corrections('verdict') WHERE prompt LIKE '%power bank%'}),
	'it is late|it is early', 'which can be corrected in its turn');

$node->stop;
done_testing();
