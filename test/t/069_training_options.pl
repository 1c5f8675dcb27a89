# What a training makes of its options, by numbers that are known beforehand: losses of advantages and of weights, updates, rates,
# ranks and seeds; what it says where there is something to learn; and how one ends that has learnt it.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('training_options');
wait_ready($node);
$node->safe_psql('postgres', slurp_file(root() . '/test/t/mail.sql'));

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }

my $prompt = q{E'Answer yes or no: the customer gets a voucher.\n\n' || body AS prompt};

# Of a training that has ended.
sub steps_of
{
	my ($name, $columns) = @_;

	return sql("SELECT $columns FROM minimax_m1.training_step WHERE training = '$name' AND step > 0");
}

sub is_done
{
	my ($name, $what) = @_;

	is(training_ended($node, $name), 'done', $what) or diag(sql("SELECT error, detail FROM minimax_m1.training WHERE name = '$name'"));
}

sub trained
{
	my ($name, %options) = @_;

	teach_vouchers($node, $name, %options);
	is_done($name, "training $name has ended");
}

# ---- what is given, and what is not ----

my $options = q{o->>'group_size', o->>'prompts_per_step', o->>'updates_per_step', o->>'is_cap', o->>'clip_low', o->>'clip_high', o->>'kl_coef',
	o->>'learning_rate', o->>'rank', o->>'drop_solved', o->>'temperature', o->>'evaluate_every', o->>'seed'};
for my $case ([ 'cispo', '8|48|8|5|0.2|0.2|0|0.001|16|0|1|1|1' ], [ 'dapo', '8|48|8|5|0.2|0.28|0|0.001|16|0|1|1|1' ], [ 'sft', '8|48|1|5|0.2|0.2|0|0.001|16|0|1|1|1' ])
{
	my ($method, $expected) = @$case;
	my $reward = $method eq 'sft' ? '' : q{, reward => 'voucher_ok'};

	like(sql(qq{BEGIN;
		SELECT minimax_m1.train('plain', '$method', \$\$SELECT $prompt, voucher, voucher AS answer FROM mail\$\$$reward);
		SELECT $options FROM (SELECT options AS o FROM minimax_m1.training_run WHERE name = 'plain') r;
		ROLLBACK}), qr/\Q$expected\E$/, "defaults of $method");
}

is(sql(qq{BEGIN;
	SELECT minimax_m1.train('plain', 'sft', \$\$SELECT $prompt, voucher AS answer FROM mail\$\$, adapter => 'base', rank => 4);
	SELECT options ? 'adapter', options->'rank' FROM minimax_m1.training_run WHERE name = 'plain';
	ROLLBACK}) =~ s/^\s+//r, 'f|4', 'base is no adapter to begin from');

# ---- what a loss is made of ----

# One update, whose ratios are all 1: a loss is a mean of advantages, with its sign. How the mean is taken is the method's. The
# answers are of different lengths; those of rows that tell nothing are not among them, nor those that the reward has no
# opinion of.
sql(q{CREATE FUNCTION by_length(answer text, example jsonb, reasoning text) RETURNS float8
	RETURN CASE WHEN length(reasoning) % 4 > 0 THEN length(reasoning) + length(answer) / 100.0 END});

sub loss_is
{
	my ($method, $loss) = @_;

	sql(qq{SELECT minimax_m1.train('by $method', '$method', \$\$SELECT $prompt FROM mail WHERE id < 6 ORDER BY id\$\$, reward => 'by_length', steps => 1,
		prompts_per_step => 6, group_size => 6, updates_per_step => 1, max_tokens => 40, temperature => 2)});
	is_done("by $method", "answers are learnt from by $method");
	my ($difference, $weighted, $silent) = split /\|/, sql(qq{SELECT abs(s.loss - ($loss)), abs(sum_na / sum_n), n_silent
		FROM (SELECT sum(n) AS sum_n, sum(a) AS sum_a, sum(n * a) AS sum_na, count(n) AS n_answers, count(*) - count(n) AS n_silent
			FROM (SELECT CASE WHEN reward IS NOT NULL THEN completion_tokens END AS n, advantage AS a, bool_or(advantage <> 0) OVER (PARTITION BY item) AS useful
				FROM minimax_m1.rollout WHERE training = 'by $method' AND part = 'train') r WHERE useful) r,
			minimax_m1.training_step s WHERE s.training = 'by $method' AND s.step = 1});
	cmp_ok($difference, '<', 1e-5, "with the loss of $method");
	cmp_ok($weighted, '>', 1e-3, 'where it matters how long answers are');
	cmp_ok($silent, '>', 0, 'and which of them have a reward');
}

loss_is('dapo', '-sum_na / sum_n');
loss_is('grpo', '-sum_a / n_answers');
loss_is('dr_grpo', '-sum_na / (n_answers * 40)');

# ---- what gets more becomes likelier ----

sql(q{CREATE FUNCTION says(answer text, example jsonb) RETURNS float8 RETURN (answer = example->>'wanted')::int});
for my $wanted ('yes', 'no')
{
	sql(qq{SELECT minimax_m1.train('to $wanted', examples => \$\$SELECT $prompt, '$wanted' AS wanted FROM mail WHERE id < 40\$\$, reward => 'says', steps => 5,
		prompts_per_step => 8, group_size => 8, updates_per_step => 4, learning_rate => 0.002, choices => '{yes,no}', thinking_budget => 0, max_tokens => 4)});
	is_done("to $wanted", "$wanted is what is wanted");
	cmp_ok(sql(qq{SELECT avg(reward) FROM minimax_m1.evaluate(\$\$SELECT $prompt, '$wanted' AS wanted FROM mail WHERE id BETWEEN 40 AND 49\$\$, 'says',
		ARRAY['to $wanted'], samples => 4, temperature => 1, choices => '{yes,no}', thinking_budget => 0)}), '>', 0.9, 'and is what is said');
}

# ---- rows that weigh more ----

# The loss is a mean over tokens, each of which counts as its row weighs: of held-out rows, and of those that are learnt.
sub shown
{
	my ($name, $rows) = @_;

	sql(qq{SELECT minimax_m1.train('$name', 'sft', \$\$$rows\$\$, \$\$$rows\$\$, steps => 1)});
	is_done($name, "right answers are shown: $name");
	return split /\|/, sql(qq{SELECT max(heldout_loss) FILTER (WHERE step = 0), max(loss) FILTER (WHERE step = 1) FROM minimax_m1.training_step
		WHERE training = '$name'});
}

my @answers = ('no', 'It is about a purple elephant.');
my @rows = map { "SELECT 'What is 47 + 35?' AS prompt, '$_' AS answer" } @answers;
my @tokens = map { sql("SELECT cardinality(minimax_m1.tokenize('$_')) + 1") } @answers;
my ($short) = shown('a short one', $rows[0]);
my ($long) = shown('a long one', $rows[1]);
my $mean = sub { my ($weight) = @_; return ($weight * $tokens[0] * $short + $tokens[1] * $long) / ($weight * $tokens[0] + $tokens[1]) };
for my $loss (shown('a heavy one', "SELECT 3 AS weight, * FROM ($rows[0]) r UNION ALL SELECT 1, * FROM ($rows[1]) r"))
{
	cmp_ok(abs($loss - $mean->(3)), '<', 1e-3, 'a row that weighs three counts three times');
}
cmp_ok(abs($mean->(3) - $mean->(1)), '>', 0.05, 'which makes a difference');

# ---- how often, how far, how large ----

for my $updates (3, 12)
{
	trained("in $updates", steps => 1, updates_per_step => $updates, temperature => 3);
	is(steps_of("in $updates", "updates > 1, updates = least($updates, ceil(useful_groups / greatest(floor(6.0 / $updates), 1)))"), 't|t',
		"a step's rows are shared out among $updates updates");
}
cmp_ok(steps_of('in 3', 'mismatch'), '<', 1e-3, 'what was drawn at a temperature is learnt from at the same');
trained('still', method => 'grpo', kl_coef => 1e-9, learning_rate => 1e-9, steps => 2);
cmp_ok(steps_of('still', 'max(kl)'), '<', 1e-9, 'with next to no learning_rate, a training stays where it is');
trained('moving', method => 'grpo', kl_coef => 1e-9, learning_rate => 0.001, steps => 2);
cmp_ok(steps_of('moving', 'max(kl)'), '>', 1e-7, 'with another one it does not');
trained('unseeded', steps => 1);
trained('seed 1', steps => 1, seed => 1);
trained('seed 2', steps => 1, seed => 2);
is(training_bits($node, 'seed 1'), training_bits($node, 'unseeded'), 'the seed is 1');
is(sql(q{SELECT count(DISTINCT rows) FROM (SELECT string_agg(DISTINCT item::text, ' ') AS rows FROM minimax_m1.rollout
	WHERE training LIKE 'seed %' AND part = 'train' GROUP BY training) r}), '2', 'with another one, others are asked');

# ---- nothing is left to learn ----

# The model answers both with yes; by the time that it never does, no look at held-out rows was due.
my $two = sql(qq{SELECT string_agg((item - 1)::text, ', ') FROM (SELECT item FROM minimax_m1.evaluate(\$\$SELECT $prompt, 'yes' AS wanted FROM mail WHERE id < 60 ORDER BY id\$\$,
	'says', choices => '{yes,no}', thinking_budget => 0) WHERE reward = 1 ORDER BY item LIMIT 2) i});
my $both = "SELECT $prompt, 'no' AS wanted FROM mail WHERE id IN ($two)";

sub solve
{
	my ($name, $more) = @_;

	sql(qq{SELECT minimax_m1.train('$name', examples => \$\$$both\$\$, reward => 'says', steps => 200, prompts_per_step => 2,
		group_size => 16, updates_per_step => 1, choices => '{yes,no}', thinking_budget => 0, max_tokens => 4, learning_rate => 0.003, $more)});
	is_done($name, 'a training that has learnt all');
	return sql("SELECT step FROM minimax_m1.training WHERE name = '$name'");
}

my $last = solve('solves', "evaluate_every => 100, holdout => \$\$$both\$\$");
cmp_ok($last, '<', 100, 'ends before its last step');
is(sql(q{SELECT verdict FROM minimax_m1.training WHERE name = 'solves'}), "held-out reward went from 0.000 to 1.000 at step $last, "
	  . qq{which is version 1 of adapter "solves"; after step $last there was nothing left to learn from}, 'and says so');
is(sql(q{SELECT heldout, best_step FROM minimax_m1.training WHERE name = 'solves'}), "1|$last", 'after a look at held-out rows');
is(sql(q{SELECT string_agg(step || ': ' || heldout, ', ' ORDER BY step) FROM minimax_m1.training_step WHERE training = 'solves'}), "0: 0, $last: 1",
	'which is of its last step');
is(sql(qq{SELECT adapter, avg(reward) FROM minimax_m1.evaluate(\$\$$both\$\$, 'says', ARRAY['base', 'solves'], choices => '{yes,no}', thinking_budget => 0)
	GROUP BY adapter ORDER BY adapter}), "base|0\nsolves|1", 'its adapter answers what the model did not');
$last = solve('unlooked', 'rank => 4');
is(sql(q{SELECT verdict FROM minimax_m1.training WHERE name = 'unlooked'}), 'there are no held-out rows to tell what was learnt; '
	  . qq{version 1 of adapter "unlooked" is what step $last left; after step $last there was nothing left to learn from}, 'without held-out rows, the last is kept');
is(sql(q{SELECT string_agg(rank::text, ' ' ORDER BY name), max(bytes) > min(bytes) FROM minimax_m1.adapter WHERE name IN ('solves', 'unlooked')}), '16 4|t',
	'of the rank that was asked for');

# ---- what there is to be said beforehand ----

sql(q{CREATE FUNCTION if_odd(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql VOLATILE AS $$
	BEGIN RETURN CASE example->>'kind' WHEN 'odd' THEN random() WHEN 'broken' THEN 1 / (length(answer) * 0) ELSE 1 END; END $$});

sub advice
{
	my ($kind) = @_;

	return sql(qq{SELECT answers, errors, advice FROM minimax_m1.training_check(\$\$SELECT $prompt, $kind AS kind FROM mail WHERE id < 20 ORDER BY id\$\$, 'if_odd',
		group_size => 3, choices => '{yes,no}', thinking_budget => 0)});
}

is(advice(q{'odd'}), '60|0|answers differ in 20 of 20 rows: there is something to learn from', 'answers that differ');
is(advice(q{CASE id WHEN 7 THEN 'odd' END}), '60|0|little to learn from: answers differ in 1 of 20 rows. Leave out rows that are always right or always wrong, or raise group_size',
	'those that hardly ever do');
is(advice(q{CASE id WHEN 7 THEN 'broken' ELSE 'odd' END}), '60|3|3 of 60 answers failed, the first with: division by zero', 'and some that fail');

$node->stop;
done_testing();
