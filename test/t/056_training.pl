# A rule that no model knows is learnt from a reward alone, by answers under a constraint; the best version of the adapter
# is served; and whoever is killed meanwhile, the result has the bits that it would have had.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A small one is as good where bits are compared.
my $few = q{steps => 3, prompts_per_step => 6, group_size => 6, updates_per_step => 2, choices => '{yes,no}',
	thinking_budget => 0, max_tokens => 8, learning_rate => 0.0003, evaluate_every => 1};
my $prompt = q{E'Answer yes or no: the customer gets a voucher.\n\n' || body AS prompt, voucher};
my $node = new_server('training', 'restart_after_crash = on');
wait_ready($node);
$node->safe_psql('postgres', slurp_file(root() . '/test/t/mail.sql'));

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }

sub train
{
	my ($name, $options, $train, $holdout) = @_;

	sql(qq{SELECT minimax_m1.train('$name', examples => \$\$SELECT $prompt FROM mail WHERE $train ORDER BY id\$\$,
		holdout => \$\$SELECT $prompt FROM mail WHERE $holdout ORDER BY id\$\$, reward => 'voucher_ok', $options)});
}

sub state_of { my ($name) = @_; return sql("SELECT state FROM minimax_m1.training_run WHERE name = '$name'"); }

sub ended
{
	my ($name) = @_;

	wait_for("training $name has ended", sub { (eval { state_of($name) } // '') =~ /done|failed|cancelled/ }, 300);
	return state_of($name);
}

# All that a training has led to, but for times.
sub led_to
{
	my ($name) = @_;

	return sql(qq{SELECT md5(string_agg(t, E'\\n' ORDER BY t)) FROM (
		SELECT format('%s %s %s %s %s %s', s.step, s.reward, s.heldout, s.loss, s.gradient_norm, s.tokens) AS t
		FROM minimax_m1.training_statistics s JOIN minimax_m1.training_run r ON r.id = s.training WHERE r.name = '$name'
		UNION ALL SELECT format('%s %s %s %s %s %s %s', a.step, a.part, a.item, a.sample, a.content, a.reward, a.advantage)
		FROM minimax_m1.training_answer a JOIN minimax_m1.training_run r ON r.id = a.training WHERE r.name = '$name'
		UNION ALL SELECT encode(sha256(t.data), 'hex') FROM minimax_m1.training_state t
		JOIN minimax_m1.training_run r ON r.id = t.training WHERE r.name = '$name'
		UNION ALL SELECT v.digest FROM minimax_m1.adapter_version v WHERE v.name = '$name') x});
}

sub trainer { return sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'minimax_m1 training'}); }

sub at_step
{
	my ($name, $step) = @_;

	wait_for("step $step of $name", sub { sql("SELECT count(*) FROM minimax_m1.training_statistics s
		JOIN minimax_m1.training_run r ON r.id = s.training WHERE r.name = '$name'") > $step }, 120);
}

# ---- undisturbed, twice ----

train('calm', $few, 'id < 40', 'id BETWEEN 400 AND 409');
is(ended('calm'), 'done', 'a training comes to its end') or diag(sql('SELECT error, detail FROM minimax_m1.training_run'));
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
train('again', $few, 'id < 40', 'id BETWEEN 400 AND 409');
is(ended('again'), 'done', 'the same once more');
my $undisturbed = led_to('calm');
is(led_to('again'), $undisturbed, 'leads to the same bits');

# ---- killed ----

sub killed
{
	my ($name, $what, $kill) = @_;

	train($name, $few, 'id < 40', 'id BETWEEN 400 AND 409');
	at_step($name, 1);
	$kill->();
	is(ended($name), 'done', "$what is killed: the training goes on")
	  or diag(sql("SELECT error, detail FROM minimax_m1.training_run WHERE name = '$name'"));
	is(led_to($name), $undisturbed, 'to the same bits') or diag(sql(qq{SELECT r.name, s.step, s.reward, s.heldout, s.loss,
		s.gradient_norm, s.tokens, s.groups, s.updates, r.best_step, r.adapter_id FROM minimax_m1.training_statistics s
		JOIN minimax_m1.training_run r ON r.id = s.training WHERE r.name IN ('calm', '$name') ORDER BY s.step, r.name}));
}

killed('engine', 'the engine', sub { kill 'KILL', engine_pid($node) });
killed('runner', 'the runner', sub { kill 'KILL', trainer(); wait_for('the server is back', sub { eval { sql('SELECT 1') } }) });
killed('postmaster', 'the postmaster', sub {
		$node->stop('immediate');
		$node->start;
		wait_ready($node) });

# ---- from right answers ----

my $shown = q{E'Answer yes or no: the customer gets a voucher.\n\n' || body AS prompt, voucher AS answer};
sql(qq{SELECT minimax_m1.train('shown', method => 'sft', examples => \$\$SELECT $shown FROM mail WHERE id < 200\$\$,
	holdout => \$\$SELECT $shown FROM mail WHERE id >= 460\$\$, steps => 6, prompts_per_step => 16, thinking_budget => 0,
	learning_rate => 0.002, evaluate_every => 2)});
is(ended('shown'), 'done', 'right answers are learnt from') or diag(sql('SELECT error, detail FROM minimax_m1.training_run'));
is(sql(q{SELECT (SELECT heldout_loss FROM minimax_m1.training_statistics s WHERE s.training = r.id AND s.step = r.best_step) <
	0.5 * (SELECT heldout_loss FROM minimax_m1.training_statistics s WHERE s.training = r.id AND s.step = 0)
	FROM minimax_m1.training_run r WHERE name = 'shown'}), 't', 'held-out ones become twice as likely and more')
  or diag(sql(q{SELECT step, loss, heldout_loss FROM minimax_m1.training_statistics JOIN minimax_m1.training_run r
	ON r.id = training WHERE name = 'shown' ORDER BY step}));
like(sql(q{SELECT verdict FROM minimax_m1.training_run WHERE name = 'shown'}), qr/version 1 of adapter "shown"/, 'and the best is kept');

$node->stop;
done_testing();
