# Trainings for classify() and extract(), to their end: answers are drawn under the grammar of the task, what is learnt is the
# masked distribution, and classify() and extract() use what was learnt.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('training_tasks');
wait_ready($node);
$node->safe_psql('postgres', slurp_file(root() . '/test/t/mail.sql'));
$node->safe_psql('postgres', q{
	CREATE TYPE hue AS ENUM ('orange', 'violet');
	CREATE TYPE gist AS (hue hue, hurry boolean);
	CREATE VIEW asked AS SELECT body AS input, CASE voucher WHEN 'yes' THEN 'orange' ELSE 'violet' END AS category,
		body AS document, ROW(CASE voucher WHEN 'yes' THEN 'orange' ELSE 'violet' END, voucher = 'yes')::gist AS answer FROM mail WHERE id < 60});

my $few = q{"prompts_per_step": 6, "group_size": 6, "updates_per_step": 2, "thinking_budget": 0};

# Its columns, once it has ended.
sub trained
{
	my ($name, $call) = @_;
	my $state;

	$node->safe_psql('postgres', "SELECT minimax_m1.$call");
	$state = training_ended($node, $name);
	diag($node->safe_psql('postgres', "SELECT error, detail FROM minimax_m1.training WHERE name = '$name'")) if $state ne 'done';
	is($state, 'done', "$name comes to its end");
}

# By reward, answers are what is learnt from.
sub sampled
{
	my ($name) = @_;

	is($node->safe_psql('postgres', qq{SELECT max(step), max(mismatch) < 1e-3, max(heldout_n) FROM minimax_m1.training_step WHERE training = '$name'}),
		'2|t|12', 'what was sampled is what is learnt from, and a fifth is held out');
	is($node->safe_psql('postgres', qq{SELECT count(*) FILTER (WHERE error IS NOT NULL), count(*) > 0 FROM minimax_m1.rollout WHERE training = '$name'}),
		'0|t', 'no answer has failed');
}

# ---- labels that no model knows ----

trained('colour', qq{train_classify('colour', 'SELECT input, category FROM asked', ARRAY['orange', 'violet'], steps => 2,
	options => '{$few, "max_tokens": 20}')});
sampled('colour');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT content, ' ' ORDER BY content) FROM minimax_m1.rollout WHERE training = 'colour'}),
	'orange violet', 'each answer is one of the labels, and both are tried');
is($node->safe_psql('postgres', q{SELECT count(*) FROM minimax_m1.rollout WHERE training = 'colour' AND
	reward <> (content = example->>'category')::int}), '0', 'and right or wrong');

# From right answers, until nearly all are: then classify() gives them.
trained('shown', qq{train_classify('shown', 'SELECT input, ''violet'' AS category FROM asked', ARRAY['orange', 'violet'], method => 'sft',
	steps => 2, options => '{"prompts_per_step": 24, "learning_rate": 0.01, "thinking_budget": 0}')});
is($node->safe_psql('postgres', q{SET minimax_m1.adapter = 'shown'; SET minimax_m1.default_thinking_budget = 0;
	SELECT DISTINCT minimax_m1.classify(input, ARRAY['orange', 'violet']) FROM asked}), '{violet}', 'classify() uses what was learnt');

# ---- every row once before any again ----

# Rows of lengths that add up to what all of them have in no other way.
sub read_in
{
	my ($name, $steps, $prompts) = @_;

	$node->safe_psql('postgres', qq{SELECT minimax_m1.train('$name', method => 'sft', steps => $steps, prompts_per_step => $prompts, thinking_budget => 0,
		examples => \$\$SELECT 'Repeat: a' AS prompt, repeat('a ', 1 << i) AS answer FROM generate_series(0, 6) i\$\$)});
	is(training_ended($node, $name), 'done', "$name has ended");
	return $node->safe_psql('postgres', "SELECT sum(tokens) FROM minimax_m1.training_step WHERE training = '$name'");
}

my $all = read_in('at once', 1, 7);
is(read_in('one by one', 14, 1), 2 * $all, 'right answers are read one after the other, and all of them as often');
is(read_in('in steps', 7, 3), 3 * $all, 'in steps of any size');

# ---- rows of a type ----

trained('gist', qq{train_extract('gist', 'SELECT document, answer FROM asked', NULL::gist, steps => 2, options => '{$few, "max_tokens": 60}')});
sampled('gist');
is($node->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE (SELECT string_agg(k, ' ') FROM json_object_keys(content::json) k) <> 'hue hurry'),
	count(DISTINCT reward) > 1 FROM minimax_m1.rollout WHERE training = 'gist' AND finish_reason = 'stop'}), '0|t', 'each answer is a row of the type, and gets the share that is right');

$node->stop;
done_testing();
