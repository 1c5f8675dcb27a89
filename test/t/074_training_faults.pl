# Trainings whose surroundings change, or that are too much: what each is told, and what it does not take with it.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('training_faults', 'minimax_m1.reward_timeout = 300');

wait_ready($node);
sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }

sql(q{
	CREATE ROLE teacher;
	CREATE ROLE colleague;
	CREATE SCHEMA team AUTHORIZATION teacher;
	SELECT minimax_m1.grant_usage('teacher'), minimax_m1.grant_training('teacher');
	SET ROLE teacher;
	GRANT USAGE, CREATE ON SCHEMA team TO colleague;
	CREATE TABLE team.lesson (id int, prompt text, answer text);
	INSERT INTO team.lesson SELECT i, 'Answer yes or no: the customer is happy.' || E'\n\nHello, My toaster broke in half. Thanks, Ana', 'yes' FROM generate_series(1, 4) i;
	CREATE FUNCTION team.by_length(a text, e jsonb, reasoning text) RETURNS float8 RETURN length(reasoning) + length(a) / 100.0;
	CREATE FUNCTION team.graded(a text, e jsonb) RETURNS float8 RETURN length(a) % 7});

# The call that queues a short training.
sub call
{
	my ($name, %options) = @_;
	my %all = (examples => 'SELECT * FROM team.lesson', reward => 'team.by_length', steps => 1, prompts_per_step => 2, group_size => 4,
		max_tokens => 20, temperature => 2, %options);

	return sprintf 'minimax_m1.train(%s%s)', quote($name),
	  join '', map { ", $_ => " . quote($all{$_}) } grep { defined $all{$_} } sort keys %all;
}

# A training by the teacher, or by another role, that begins once all of this has been done.
my $role = 'teacher';

sub queue
{
	my ($name, $options, $then) = @_;

	my $before = delete $options->{before} // '';

	sql(sprintf "BEGIN; SET LOCAL ROLE $role; $before; SELECT %s; %s; COMMIT", call($name, %$options), $then // '');
}

# How it ended: its state and, if it failed, why.
sub ended
{
	my ($name) = @_;

	training_ended($node, $name);
	return sql("SELECT concat_ws(' ', state, sqlstate, error, detail, hint) FROM minimax_m1.training WHERE name = " . quote($name));
}

# ---- a reward is one function, and no other of its name ----

queue('overloaded', { reward => 'team.graded' }, q{SET LOCAL ROLE colleague;
	CREATE FUNCTION team.graded(a text, e jsonb, reasoning text) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''it is another one''; END'});
is(ended('overloaded'), 'done', 'a function that others have given the name with another argument is not asked');
is(sql(q{SELECT reward, reward_function FROM minimax_m1.training_run WHERE name = 'overloaded'}), 'team.graded(text,jsonb)|',
	'the reward is told by its signature');
queue('overloaded by name', { reward => 'team.graded' });
like(ended('overloaded by name'), qr/^failed P0001 it is another one/, 'who names it afterwards has that with three arguments');
queue('by signature', { reward => 'team.graded(text, jsonb)' });
is(ended('by signature'), 'done', 'unless the arguments are named, too');
is((sqlstate($node, 'SELECT ' . call('x', reward => 'length(text)')))[0], '42883', 'which have to be those of a reward');
queue('dropped', { reward => 'team.graded(text, jsonb)' }, q{DROP FUNCTION team.graded(text, jsonb);
	SET LOCAL ROLE colleague; CREATE FUNCTION team.graded(a text, e jsonb) RETURNS float8 RETURN length(a) % 7});
like(ended('dropped'), qr/^failed 42883 .*the reward team.graded\(text,jsonb\) was dropped/, 'one that was made anew is not asked');
sql(q{SET ROLE teacher; SELECT minimax_m1.resume_training('dropped')});
is(ended('dropped'), 'done', 'until its owner lets the training go on');
sql(q{SET ROLE colleague; CREATE FUNCTION team.replaced(a text, e jsonb) RETURNS float8 RETURN 1});
queue('replaced', { reward => 'team.replaced' },
	q{SET LOCAL ROLE colleague; CREATE OR REPLACE FUNCTION team.replaced(a text, e jsonb) RETURNS float8 RETURN length(a) % 7});
is(ended('replaced'), 'done', 'CREATE OR REPLACE changes what it says');

# ---- a training that cannot be read ----

for my $option ('rank', 'reward_errors')
{
	queue("without $option", {}, "RESET ROLE; UPDATE minimax_m1.training_run SET options = options - '$option' WHERE name = 'without $option'");
	like(ended("without $option"), qr/^failed 55000 .*the training has no $option.*Drop the training/, "a training of a version without $option fails");
}
queue('next', {});
is(ended('next'), 'done', 'and is not in the way of the next one');

# ---- answers that fail, and rewards that do ----

queue('too long', { examples => q{SELECT repeat('word ', CASE id WHEN 2 THEN 40000 ELSE 1 END) AS prompt FROM team.lesson WHERE id < 3}, reward_errors => 'skip' });
is(ended('too long'), 'done', 'a row that is too long is not answered');
is(sql(q{SELECT count(*) FILTER (WHERE error IS NOT NULL), (SELECT concat_ws(' ', sum(reward_errors), sum(unanswered)) FROM minimax_m1.training_step WHERE training = 'too long')
	FROM minimax_m1.rollout WHERE training = 'too long'}), '4|0 4', 'which is no failure of the reward');
like(sql(q{SELECT verdict FROM minimax_m1.training WHERE name = 'too long'}), qr/; the model could not give 4 of 8 answers: see rollout\.error$/, 'and is told');

# ---- how long a transaction is open while rewards are asked ----

sql(q{SET ROLE teacher; CREATE FUNCTION team.begun_at(a text, e jsonb) RETURNS float8 LANGUAGE plpgsql
	AS 'BEGIN PERFORM pg_sleep(0.2); RETURN floor(extract(epoch FROM now())) + length(a) % 7 / 10.0; END'});
queue('slow', { reward => 'team.begun_at' });
is(ended('slow'), 'done', 'rewards that take their time');
cmp_ok(sql(q{SELECT count(DISTINCT floor(reward)) FROM minimax_m1.rollout WHERE training = 'slow'}), '>', 1, 'are asked in several transactions');

# ---- the session's time limits ----

sql(q{SET ROLE teacher; CREATE FUNCTION team.slow(a text, e jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.6); RETURN length(a) % 7; END'});
queue('patient', { reward => 'team.slow', before => q{SET LOCAL minimax_m1.reward_timeout = '5s'} });
is(ended('patient'), 'done', 'a reward may take as long as the session of train() lets it');
queue('impatient', { reward => 'team.slow' });
like(ended('impatient'), qr/^failed 57014 .*took longer than 300 ms.*raise minimax_m1.reward_timeout/s, 'and no longer');
sql(q{BEGIN; SET LOCAL minimax_m1.reward_timeout = '5s'; SELECT minimax_m1.resume_training('impatient'), minimax_m1.pause_training('impatient');
	SET LOCAL minimax_m1.reward_timeout = '100ms'; SELECT minimax_m1.resume_training('impatient'); COMMIT});
is(ended('impatient'), 'done', 'until who lets it go on raises it; a shorter one changes nothing');
queue('cut off', { method => 'sft', reward => undef, group_size => undef, max_tokens => undef, temperature => undef,
		examples => q{SELECT 'Hello.' AS prompt, repeat('word ', 3000) AS answer}, before => q{SET LOCAL minimax_m1.request_timeout = '500ms'} });
like(ended('cut off'), qr/^failed 57014 .*request timeout.*raise minimax_m1.request_timeout/s, 'so it is with a request, such as a lesson');
sql(q{SELECT minimax_m1.resume_training('cut off')});
is(ended('cut off'), 'done', 'which has no limit where the session has none');

# ---- what is too much at once ----

# Ten rows of 300 words to be learnt, each of which has a weight.
sub words { my ($rows, $weight) = @_; return "SELECT 'Say a word ' || i || ' times.' AS prompt, repeat('yes ', 300) AS answer, $weight AS weight FROM generate_series($rows) i"; }

sub shown
{
	my ($name, %options) = @_;

	queue($name, { method => 'sft', reward => undef, group_size => undef, max_tokens => undef, temperature => undef,
			examples => words('1, 10', 1), prompts_per_step => 1, %options });
}

shown('heavy', holdout => words('1, 10', 3));
shown('light', holdout => words('11, 20', 1));
shown('both', holdout => words('1, 10', 3) . ' UNION ALL ' . words('11, 20', 1));
is(ended('both'), 'done', 'held-out rows are asked in parts');
is(sql(q{SELECT count(*) FROM (SELECT step, abs(max(heldout_loss) FILTER (WHERE training = 'both')
		- (3 * max(heldout_loss) FILTER (WHERE training = 'heavy') + max(heldout_loss) FILTER (WHERE training = 'light')) / 4) AS off
	FROM minimax_m1.training_step WHERE training IN ('heavy', 'light', 'both') GROUP BY step) s WHERE off < 1e-5}), '2',
	'and their loss is the mean by weights of all of them');

is(sql(q{SELECT training_ms > 0 FROM minimax_m1.training_step WHERE training = 'heavy' AND step = 0}), 't', 'which takes its time');

# Its adapter tells what it has changed, also when the training is forgotten.
my $told = q{SELECT training, step, heldout_measure, heldout_before > heldout_after, heldout_before, heldout_after FROM minimax_m1.adapter WHERE name = 'both'};
my $change = sql($told);
is($change, 'both|1|loss|t|' . sql(q{SELECT heldout_loss_start || '|' || heldout_loss FROM minimax_m1.training WHERE name = 'both'}),
	'a version tells which loss held-out rows had before and after');
sql(q{SELECT minimax_m1.drop_training('both')});
is(sql($told), $change, 'also without its training');

# What a quota admits in an hour is more than any row, but less than all of them.
sql(q{CREATE ROLE pupil; GRANT USAGE ON SCHEMA team TO pupil;
	SELECT minimax_m1.grant_usage('pupil'), minimax_m1.grant_training('pupil'), minimax_m1.set_quota('pupil', 5000)});
$role = 'pupil';
shown('at once', examples => words('1, 20', 1), prompts_per_step => 20);
like(ended('at once'), qr/^failed 53400 .*It would never fit. Less is learnt at once with a higher updates_per_step, or a lower prompts_per_step\./s,
	'an update that a quota never admits tells how it becomes smaller');
shown('in parts', holdout => words('1, 20', 1));
wait_for('it waits', sub {
		sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 training' AND query LIKE '%training waits%'}) eq '1' });
sql(q{SELECT minimax_m1.set_quota('pupil', NULL)});
is(ended('in parts'), 'done', 'held-out rows wait for it');
$role = 'teacher';

sql(q{CREATE ROLE novice; GRANT USAGE ON SCHEMA team TO novice; SELECT minimax_m1.grant_usage('novice'), minimax_m1.grant_training('novice'), minimax_m1.set_quota('novice', 300)});
is((sqlstate($node, 'BEGIN; SET LOCAL ROLE novice; SELECT ' . call('read', method => 'sft', reward => undef, group_size => undef, max_tokens => undef,
	temperature => undef, examples => q{SELECT 'Hello.' AS prompt, 'Hello!' AS answer}) . '; ROLLBACK'))[0], 'none', 'rows that are only read may be within a quota that answers are not');

# ---- what is left of one that has failed ----

shown('spoilt', holdout => words('1, 2', 1), steps => 1000, evaluate_every => 1);
wait_for('a step was better', sub { sql(q{SELECT best_step > 0 FROM minimax_m1.training WHERE name = 'spoilt'}) eq 't' });
sql(q{SELECT minimax_m1.set_quota('teacher', 1)});
like(ended('spoilt'), qr/^failed 53400/, 'a training fails at a later step');
sql(q{SELECT minimax_m1.set_quota('teacher', NULL)});
is(sql(q{SELECT count(*) FROM minimax_m1.adapter WHERE name = 'spoilt'}), '0', 'and makes no version');
sql(q{BEGIN; SELECT minimax_m1.resume_training('spoilt'); SELECT minimax_m1.cancel_training('spoilt'); COMMIT});
is(sql(q{SELECT a.version, a.step = t.best_step FROM minimax_m1.adapter a JOIN minimax_m1.training t USING (name) WHERE name = 'spoilt'}), '1|t',
	'but for one that is let go on, and cancelled');

$node->stop;
done_testing();
