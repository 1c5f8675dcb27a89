# A rule that no model knows is learnt from a reward alone, by answers under a constraint, or from right answers; what the
# methods differ in; the best version of the adapter is kept, and has the same bits on another server.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('training');
wait_ready($node);
$node->safe_psql('postgres', slurp_file(root() . '/test/t/mail.sql'));

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }

# Of the steps of one training.
sub steps_of
{
	my ($name, $columns) = @_;

	return sql("SELECT $columns FROM minimax_m1.training_step WHERE training = '$name' AND step > 0");
}

sub ended
{
	my ($name) = @_;
	my $state = training_ended($node, $name);

	diag(sql("SELECT error, detail FROM minimax_m1.training WHERE name = '$name'")) if $state ne 'done';
	return $state;
}

# ---- undisturbed, twice ----

teach_vouchers($node, 'calm');
is(ended('calm'), 'done', 'a training comes to its end');
is(sql(q{SELECT step, base_digest IS NOT NULL, verdict IS NOT NULL, leased_by IS NULL FROM minimax_m1.training_run}),
	'3|t|t|t', 'says where it stands');
is(sql(q{SELECT count(*) FROM minimax_m1.training_state}), '0', 'and keeps nothing that only its runner needs');
my $mismatch = sql(q{SELECT max(mismatch) FROM minimax_m1.training_statistics});
cmp_ok($mismatch, '<', 1e-3, "sampling and training agree: $mismatch");
is(sql(q{SELECT count(*) FILTER (WHERE content NOT IN ('yes', 'no')), count(*) FILTER (WHERE error IS NOT NULL)
	FROM minimax_m1.training_answer}), '0|0', 'each answer is one of the choices');

# Advantages are those of the method: how many deviations a reward is above the mean of its group.
is(sql(q{SELECT count(*), count(*) FILTER (WHERE abs(advantage - coalesce((reward - m) / nullif(d, 0), 0)) > 1e-5)
	FROM (SELECT advantage, reward, avg(reward) OVER g AS m, stddev_samp(reward) OVER g AS d
	FROM minimax_m1.training_answer WHERE part = 'train' WINDOW g AS (PARTITION BY step, item)) a}) =~ s/^[1-9]\d*\|/some|/r,
	'some|0', 'advantages are rewards beside those of their group');

# No row of one query is in the other's part.
is(sql(q{SELECT min(item), max(item), count(DISTINCT item) FROM minimax_m1.training_answer WHERE part = 'holdout'}), '1|10|10',
	'all held-out rows are asked, and no others');
teach_vouchers($node, 'again');
is(ended('again'), 'done', 'the same once more');
is(training_bits($node, 'again'), training_bits($node, 'calm'), 'leads to the same bits');

# ---- what the methods differ in ----

sub trained
{
	my ($name, %options) = @_;

	teach_vouchers($node, $name, %options);
	is(ended($name), 'done', "training $name has ended");
}

trained('capped', steps => 1, is_cap => 0);
is(steps_of('capped', 'clipped, gradient_norm'), '1|0', 'a cap that is 0 leaves nothing of any token');
trained('uncapped', steps => 1, is_cap => 1000000);
is(steps_of('uncapped', 'max(clipped), max(gradient_norm) > 0'), '0|t', 'and one above all ratios all of it');
trained('narrow', steps => 1, method => 'dapo', clip_low => 0, clip_high => 0);
cmp_ok(steps_of('narrow', 'max(clipped)'), '>', 0, 'tokens beyond the trust region are dropped');
trained('wide', steps => 1, method => 'dapo', clip_low => 1, clip_high => 1000000);
is(steps_of('wide', 'max(clipped)'), '0', 'none are within a wide one');
trained('undivided', steps => 1, method => 'dr_grpo');
is(sql(q{SELECT count(*) FILTER (WHERE abs(advantage - (reward - m)) > 1e-5), count(*) FILTER (WHERE advantage <> 0) > 0
	FROM (SELECT advantage, reward, avg(reward) OVER (PARTITION BY item) AS m
	FROM minimax_m1.rollout WHERE training = 'undivided' AND part = 'train') a}), '0|t', 'dr_grpo does not divide by the deviation');

# How far it has gone is measured by grpo with kl_coef, from where it began.
trained('free', method => 'grpo', kl_coef => 1e-9);
trained('held', method => 'grpo', kl_coef => 30);
is(steps_of('free', 'min(kl) FILTER (WHERE step = 1) < 1e-9, max(kl) > 1e-7'), 't|t', 'a training leaves where it began');
cmp_ok(steps_of('held', 'max(kl)'), '<', steps_of('free', 'max(kl)'), 'and is held back by kl_coef');
is(steps_of('calm', 'count(kl)'), '0', 'other methods do not ask');

# ---- which version is kept ----

# Held-out rows get at each look what they say, or nothing; the others get more than any of them, and what is said matters.
sql(q{CREATE FUNCTION by_look(answer text, example jsonb) RETURNS float8 LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN example ? 'looks'
		THEN (example->'looks'->>(SELECT count(*)::int FROM minimax_m1.training_step WHERE training = example->>'name'))::float8
		ELSE 10 + length(answer) END $$});

sub look_at
{
	my ($name, @looks) = @_;
	my $steps = $#looks;

	local $" = ', ';
	sql(qq{SELECT minimax_m1.train('$name', examples => \$\$SELECT 'Is it late?' || id AS prompt FROM generate_series(1, 20) id\$\$,
		holdout => \$\$SELECT 'Is it early?' AS prompt, '$name' AS name, '[@looks]'::jsonb AS looks\$\$, reward => 'by_look', steps => $steps, evaluate_every => 1,
		prompts_per_step => 4, group_size => 6, updates_per_step => 1, choices => '{yes,no}', thinking_budget => 0, max_tokens => 8, learning_rate => 0.00001)});
}

sub looked_at
{
	my ($name, @looks) = @_;

	look_at($name, @looks);
	is(ended($name), 'done', "a training whose held-out rows get @looks");
	return sql("SELECT best_step, verdict FROM minimax_m1.training WHERE name = '$name'");
}

is(looked_at('falls', 0.2, 0.9, 0.5, 0.9),
	'1|held-out reward went from 0.200 to 0.900 at step 1, which is version 1 of adapter "falls"', 'the best is kept, and not the last');
looked_at('begins', 0.2, 0.9);
is(sql(q{SELECT count(DISTINCT digest), count(*) FROM minimax_m1.adapter WHERE name IN ('falls', 'begins')}), '1|2',
	'which is what the step has left that it is of');
is(looked_at('never', 0.9, 0.9, 0.1),
	'|held-out reward was never better than the 0.900 before the first step: no version was made', 'nothing is, if none was better');
is(looked_at('mute', 'null', 0.5, 'null'),
	'1|held-out reward went from none to 0.500 at step 1, which is version 1 of adapter "mute"', 'a reward that says nothing at first');
is(looked_at('silent', 'null', 'null'), '|held-out rows had no reward: no version was made', 'or at all');
is(sql(q{SELECT min(reward) FILTER (WHERE part = 'train') > 10, max(reward) FILTER (WHERE part = 'holdout') < 1
	FROM minimax_m1.rollout WHERE training = 'falls'}), 't|t', 'no row is learnt from that is held out');

look_at('cut', 0.2, 0.9, (0.5) x 500);
wait_for('the third step', sub { sql(q{SELECT step > 2 FROM minimax_m1.training WHERE name = 'cut'}) eq 't' });
sql(q{SELECT minimax_m1.cancel_training('cut')});
is(training_ended($node, 'cut'), 'cancelled', 'one that is cancelled');
like(sql(q{SELECT verdict FROM minimax_m1.training WHERE name = 'cut'}),
	qr/^held-out reward went from 0.200 to 0.900 at step 1, which is version 1 of adapter "cut"; it was cancelled after step \d+$/, 'ends with the best version so far');
is(sql(q{SELECT count(DISTINCT digest), count(*) FROM minimax_m1.adapter WHERE name IN ('cut', 'begins')}), '1|2', 'which is what that step has left');

# ---- from right answers ----

my $shown = q{E'Answer yes or no: the customer gets a voucher.\n\n' || body AS prompt, voucher AS answer};
sql(qq{SELECT minimax_m1.train('shown', method => 'sft', examples => \$\$SELECT $shown FROM mail WHERE id < 200\$\$,
	holdout => \$\$SELECT $shown FROM mail WHERE id >= 460\$\$, steps => 6, prompts_per_step => 16, thinking_budget => 0,
	learning_rate => 0.002, evaluate_every => 2)});
is(ended('shown'), 'done', 'right answers are learnt from');
is(sql(q{SELECT (SELECT heldout_loss FROM minimax_m1.training_statistics s WHERE s.training = r.id AND s.step = r.best_step) <
	0.5 * (SELECT heldout_loss FROM minimax_m1.training_statistics s WHERE s.training = r.id AND s.step = 0)
	FROM minimax_m1.training_run r WHERE name = 'shown'}), 't', 'held-out ones become twice as likely and more')
  or diag(steps_of('shown', 'step, loss, heldout_loss'));
like(sql(q{SELECT verdict FROM minimax_m1.training_run WHERE name = 'shown'}), qr/version 1 of adapter "shown"/, 'and the best is kept');

# What is learnt from is read, and costs what it has of tokens: beside its prompts, which are read once more.
my $costs = q{SELECT coalesce(sum(prompt_tokens), 0) FROM minimax_m1.usage WHERE function = 'train'};
my $before = sql($costs);

# Reasoning is written as the model writes it, and where it is empty there is none; what weighs nothing is not learnt.
sql(q{SELECT minimax_m1.train('told', method => 'sft', examples => $$
	SELECT 'What is 47 + 35?' AS prompt, 'The customer is happy.' AS reasoning, 'yes' AS answer, 1.5 AS weight
	UNION ALL SELECT 'What is 47 + 35?', NULL, 'no', 1e-6
	UNION ALL SELECT 'What is 36 + 28?', '', 'no', NULL$$, steps => 60, prompts_per_step => 3)});
is(ended('told'), 'done', 'reasoning is learnt from');
cmp_ok(sql($costs) - $before, '>', 1.3 * steps_of('told', 'sum(tokens)'), 'at the cost of its tokens');
is(sql(q{SELECT content, reasoning FROM minimax_m1.evaluate(
	$$SELECT 'What is 47 + 35?' AS prompt, 'yes' AS answer UNION ALL SELECT 'What is 36 + 28?', 'no'$$,
	'reward_exact', ARRAY['told']) ORDER BY item}), "yes|The customer is happy.\nno|", 'and told again');

# Where there is a reward, it alone says what is better.
sql(q{CREATE FUNCTION says_nothing(answer text, example jsonb) RETURNS float8 RETURN NULL::float8});
sql(q{SELECT minimax_m1.train('unsaid', method => 'sft', examples => $$SELECT 'What is 47 + 35?' AS prompt, 'no' AS answer$$,
	holdout => $$SELECT 'What is 47 + 35?' AS prompt, 'no' AS answer$$, reward => 'says_nothing', steps => 2)});
is(ended('unsaid'), 'done', 'right answers with a reward that says nothing');
is(sql(q{SELECT best_step, verdict FROM minimax_m1.training WHERE name = 'unsaid'}), '|held-out rows had no reward: no version was made', 'are no better for a smaller loss');

# ---- conversations and tools ----

# In the words of the query, whatever the types of its columns: as evaluate() asks them.
my $asked = q{SELECT '[{"role": "user", "content": "' || question || '"}]' AS messages, timestamp '2026-01-02 03:04' AS system_prompt,
	'[{"type": "function", "function": {"name": "tell", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}, "at": {"type": "string"}}}}}]'::json AS tools
	FROM unnest(ARRAY['What is 47 + 35?', 'What is 36 + 28?', 'Hello.']) question};
sql(q{CREATE FUNCTION by_length(answer text, example jsonb, reasoning text) RETURNS float8 RETURN length(answer) + length(reasoning) / 100.0});
sql(qq{SELECT minimax_m1.train('asked', examples => \$\$$asked\$\$, holdout => \$\$$asked\$\$, reward => 'by_length', steps => 1, prompts_per_step => 3,
	group_size => 4, max_tokens => 20, temperature => 2)});
is(ended('asked'), 'done', 'a training by messages, that may be text, and tools');
is(sql(q{SELECT string_agg(format('%s %s %s', item, prompt_tokens, content), '|' ORDER BY item) FROM minimax_m1.rollout
	WHERE training = 'asked' AND part = 'holdout' AND step = 0}),
	sql(qq{SELECT string_agg(format('%s %s %s', item, prompt_tokens, content), '|' ORDER BY item)
		FROM minimax_m1.evaluate(\$\$$asked\$\$, 'by_length', max_tokens => 20)}), 'asks what evaluate() asks');
is(sql(q{SELECT DISTINCT asked->>'system_prompt', asked->>'tools' LIKE '%zone%at%', asked ? 'messages' FROM minimax_m1.training_example e
	JOIN minimax_m1.training_run r ON r.id = e.training WHERE name = 'asked'}), '2026-01-02 03:04:00|t|f', 'and keeps its words where the JSON has others');

# ---- elsewhere ----

# Other rows than those of trainings so far; each server samples and learns.
sub goes_on
{
	my ($server) = @_;

	teach_vouchers($server, 'more', adapter => 'falls', steps => 1, rows => 'id BETWEEN 100 AND 140');
	is(training_ended($server, 'more'), 'done', 'a training goes on from an adapter');
	return training_bits($server, 'more');
}

my $dump = $node->basedir . '/dump.sql';
my $elsewhere = new_server('elsewhere', '# no_extension');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'adapters are dumped');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $elsewhere->connstr('postgres'), '-f', $dump ], 'and restored on another server');
my $all = q{SELECT string_agg(format('%s %s %s', name, version, minimax_m1._adapter_digest(id)), ' ' ORDER BY name, version)
	FROM minimax_m1.adapter_version};
wait_ready($elsewhere);
is($elsewhere->safe_psql('postgres', $all), sql($all), 'with the same bits');
is(goes_on($elsewhere), goes_on($node), 'which lead to the same bits');
$elsewhere->stop;

$node->stop;
done_testing();
