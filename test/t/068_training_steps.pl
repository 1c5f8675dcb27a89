# What a step makes of answers and rewards, option by option; a training that is held, loses a right or its owner, or takes its
# process with it.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('training_steps');
wait_ready($node);
$node->safe_psql('postgres', slurp_file(root() . '/test/t/mail.sql'));

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }

# How many answers of a training there are of a kind, and how many whose advantage is not that of what their rewards count as.
sub advantages
{
	my ($name, $kind, $counts_as) = @_;

	return sql(qq{SELECT count(*) FILTER (WHERE $kind) > 0, count(*) FILTER (WHERE abs(advantage - coalesce((x - m) / nullif(d, 0), 0)) > 1e-5)
		FROM (SELECT r.*, x, avg(x) OVER g AS m, stddev_samp(x) OVER g AS d
		FROM minimax_m1.rollout r, LATERAL (SELECT $counts_as AS x) c WHERE training = '$name' AND part = 'train' WINDOW g AS (PARTITION BY step, item)) a});
}

my %short = (steps => 1, choices => '{yes,no,maybe}', temperature => 3, group_size => 12);

# ---- the last look, when nothing is left to learn ----

sql(q{CREATE FUNCTION until_step_1(answer text, example jsonb) RETURNS float8 LANGUAGE sql AS
	$$SELECT CASE WHEN EXISTS (SELECT FROM minimax_m1.training_step WHERE training = 'looks' AND step = 1) THEN 1 ELSE (answer = 'yes')::int END$$});
teach_vouchers($node, 'looks', %short, steps => 9, evaluate_every => 5, reward => 'public.until_step_1');
is(training_outcome($node, 'looks'), 'done', 'a training after whose first step all is right');
is(sql(q{SELECT s.heldout_n, count(*), s.tokens - sum(r.prompt_tokens + r.completion_tokens) FROM minimax_m1.training_step s JOIN minimax_m1.rollout r USING (training, step)
	WHERE s.training = 'looks' AND step = 1 AND part = 'holdout' GROUP BY s.heldout_n, s.tokens, s.training HAVING s.tokens >= (SELECT sum(prompt_tokens + completion_tokens)
		FROM minimax_m1.rollout WHERE training = 'looks' AND step = 1)}) =~ /^10\|10\|\d+$/, 1, 'what held-out rows are answered then is counted, and kept');

# ---- rewards that fail for some answers ----

sql(q{CREATE FUNCTION not_maybe(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN IF answer = 'maybe' THEN RAISE EXCEPTION 'perhaps'; END IF; RETURN (answer = 'yes')::int; END $$});
teach_vouchers($node, 'zeros', %short, reward => 'not_maybe', reward_errors => 'zero');
is(training_outcome($node, 'zeros'), 'done', 'a reward that fails for some answers');
is(advantages('zeros', q{content = 'maybe' AND reward = 0 AND error = 'perhaps'}, 'reward'), 't|0', 'gives them 0');
teach_vouchers($node, 'skips', %short, reward => 'not_maybe', reward_errors => 'skip');
is(training_outcome($node, 'skips'), 'done', 'or nothing');
is(advantages('skips', q{content = 'maybe' AND reward IS NULL AND advantage = 0 AND error = 'perhaps'}, 'reward'), 't|0',
	'and the others are what they are beside each other');
teach_vouchers($node, 'fails', %short, reward => 'not_maybe');
is(training_outcome($node, 'fails'), 'failed P0001', 'or the training fails');
like(sql(q{SELECT detail, hint FROM minimax_m1.training WHERE name = 'fails'}), qr/failed for row \d+.*reward_errors 'zero' or 'skip'/, 'which tells of the row');

# ---- the memory of rewards ----

# This function takes half a megabyte, which it leaves when it returns, and tells what its process has.
my $long = join ' + ', map { "0 * length(answer || '$_')" } 1 .. 500;
sql(qq{CREATE FUNCTION memory_of_process(answer text, example jsonb) RETURNS float8 LANGUAGE sql VOLATILE AS
	\$\$SELECT random() + $long + substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\\s+(\\d+)')::float8\$\$});
teach_vouchers($node, 'memory', %short, reward => 'memory_of_process', rows => 'id < 4', group_size => 60, updates_per_step => 1);
is(training_outcome($node, 'memory'), 'done', 'a reward that tells the memory of its process');
my $grown = sql(q{SELECT max(reward) - min(reward) FROM minimax_m1.rollout WHERE training = 'memory'});
cmp_ok($grown, '<', 30_000, "which does not grow with each answer: by $grown kB");

# ---- length_penalty ----

sql('CREATE FUNCTION always(answer text, example jsonb) RETURNS float8 RETURN 1');
teach_vouchers($node, 'brief', %short, choices => '{yes,no thank you very much indeed}', reward => 'always', max_tokens => 10, length_penalty => 8);
is(training_outcome($node, 'brief'), 'done', 'answers that are equally good differ by their lengths');
is(advantages('brief', 'reward = 1 AND advantage < 0', 'reward - greatest(0, least(1, (completion_tokens - 2) / 8.0))'), 't|0', 'beyond where length_penalty begins');

# ---- rows that are asked, and others in their place ----

sql(q{CREATE FUNCTION if_hard(answer text, example jsonb) RETURNS float8 RETURN CASE WHEN (example->>'hard')::boolean THEN (answer = 'yes')::int ELSE 1 END});
sub by_hardness
{
	my ($name, %options) = @_;
	my %all = (steps => 3, prompts_per_step => 12, group_size => 12, updates_per_step => 1, %options);
	my $given = join ', ', map { "$_ => $all{$_}" } sort keys %all;

	sql(qq{SELECT minimax_m1.train('$name', examples => 'SELECT body AS prompt, id % 4 = 0 AS hard FROM mail WHERE id < 12 ORDER BY id', reward => 'if_hard',
		choices => '{yes,no}', thinking_budget => 0, max_tokens => 4, temperature => 3, learning_rate => 1e-6, $given)});
	is(training_outcome($node, $name), 'done', "a training of rows of which few tell something: $name");
}

by_hardness('dropping', drop_solved => 1);
is(sql(q{SELECT count(DISTINCT item) FILTER (WHERE step = 1), count(*) FILTER (WHERE step > 1 AND NOT (example->>'hard')::boolean), count(*) FILTER (WHERE step > 1) > 0
	FROM minimax_m1.rollout WHERE training = 'dropping'}), '12|0|t', 'what was solved is not asked again');
by_hardness('asking on');
is(sql(q{SELECT count(DISTINCT item) FILTER (WHERE step = 3) FROM minimax_m1.rollout WHERE training = 'asking on'}), '12', 'unless nothing is dropped');
by_hardness('refilled', prompts_per_step => 4, steps => 4);
is(sql(q{SELECT max(groups) > 4, bool_and(useful_groups >= 2 OR groups = 12), bool_and(groups % 4 = 0), max(useful_groups) <= 3
	FROM minimax_m1.training_step WHERE training = 'refilled' AND step > 0}), 't|t|t|t', 'others are asked in the place of those that tell nothing');

# ---- held, and let go on ----

teach_vouchers($node, 'calm', steps => 4);
is(training_outcome($node, 'calm'), 'done', 'a training that is not held');
teach_vouchers($node, 'held', steps => 4);
wait_for('a step has ended', sub { sql(q{SELECT step > 0 FROM minimax_m1.training WHERE name = 'held'}) eq 't' });
my $before = sql(q{SELECT minimax_m1.pause_training('held'), step FROM minimax_m1.training WHERE name = 'held'});
wait_for('it is held', sub { sql(q{SELECT state FROM minimax_m1.training WHERE name = 'held'}) eq 'paused' });
my $step = sql(q{SELECT step FROM minimax_m1.training WHERE name = 'held'});
like($before, qr/^t\|(?:$step|${\($step - 1)})$/, 'a training is held after the step that it is at');
wait_for('its process has ended', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 training'}) eq '0' });
is(sql(q{SELECT minimax_m1.resume_training('held')}), 't', 'and let go on');
is(training_outcome($node, 'held'), 'done', 'to its end');
is(training_bits($node, 'held'), training_bits($node, 'calm'), 'with the result that it would have had');

# ---- no transaction is open while the model works ----

teach_vouchers($node, 'open', steps => 50);
wait_for('a step has ended', sub { sql(q{SELECT step > 0 FROM minimax_m1.training WHERE name = 'open'}) eq 't' });
my $engine = engine_pid($node);
my $waits = q{SELECT xact_start IS NULL AND backend_xmin IS NULL AND backend_xid IS NULL AND wait_event_type = 'Extension'
	FROM pg_stat_activity WHERE backend_type = 'minimax_m1 training'};
kill 'STOP', $engine;
wait_for('the trainer waits for the engine, and has no transaction', sub { sql($waits) eq 't' });
sleep 1;
is(sql($waits), 't', 'no transaction is open while the model works');
kill 'CONT', $engine;
sql(q{SELECT minimax_m1.cancel_training('open')});
is(training_outcome($node, 'open'), 'cancelled', 'and it goes on');

# ---- rights that are lost meanwhile ----

sql(q{CREATE ROLE teacher; CREATE ROLE pupil;
	SELECT minimax_m1.grant_usage(r), minimax_m1.grant_training(r) FROM unnest('{teacher,pupil}'::regrole[]) r;
	GRANT SELECT ON mail TO teacher, pupil;
	REVOKE EXECUTE ON FUNCTION voucher_ok FROM PUBLIC;
	GRANT EXECUTE ON FUNCTION voucher_ok TO teacher, pupil});

sub teach_as
{
	my ($role) = @_;

	sql(qq{SET ROLE $role; SELECT minimax_m1.train('of $role', examples => 'SELECT body AS prompt, voucher FROM mail WHERE id < 20', reward => 'voucher_ok',
		steps => 1000, prompts_per_step => 4, group_size => 6, choices => '{yes,no}', thinking_budget => 0, max_tokens => 4, temperature => 3)});
	wait_for("a step for $role has ended", sub { sql("SELECT step > 0 FROM minimax_m1.training WHERE name = 'of $role'") eq 't' });
}

teach_as('teacher');
sql('REVOKE EXECUTE ON FUNCTION voucher_ok FROM teacher');
is(training_outcome($node, 'of teacher'), 'failed 42501', 'a reward that its owner may not call any more');
teach_as('pupil');
sql('DROP OWNED BY pupil; DROP ROLE pupil');
is(training_outcome($node, 'of pupil'), 'failed 42704', 'an owner who was dropped');

# ---- what takes its process with it ----

# Functions of superusers may; the next trainer makes the step again, a few times.
sql(q{CREATE FUNCTION ends_process(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql AS $$
	BEGIN COPY (SELECT 1) TO PROGRAM 'kill -TERM $PPID'; PERFORM pg_sleep(1); RETURN 1; END $$});
teach_vouchers($node, 'ends', %short, reward => 'ends_process', rows => 'id < 4', group_size => 2);
is(training_outcome($node, 'ends'), 'failed 58000', 'a step that takes its process with it, again and again, is given up');
like(sql(q{SELECT error FROM minimax_m1.training WHERE name = 'ends'}), qr/begun 5 times/, 'which is told');

$node->stop;
done_testing();
