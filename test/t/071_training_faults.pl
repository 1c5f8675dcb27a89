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

# A training by the teacher that begins once all of this has been done.
sub queue
{
	my ($name, $options, $then) = @_;

	sql(sprintf 'BEGIN; SET LOCAL ROLE teacher; SELECT %s; %s; COMMIT', call($name, %$options), $then // '');
}

# How it ended: its state and, if it failed, why.
sub ended
{
	my ($name) = @_;

	training_ended($node, $name);
	return sql("SELECT concat_ws(' ', state, sqlstate, error, detail, hint) FROM minimax_m1.training WHERE name = " . quote($name));
}

# ---- a training that cannot be read ----

for my $option ('rank', 'reward_errors')
{
	queue("without $option", {}, "RESET ROLE; UPDATE minimax_m1.training_run SET options = options - '$option' WHERE name = 'without $option'");
	like(ended("without $option"), qr/^failed 55000 .*the training has no $option.*Drop the training/, "a training of a version without $option fails");
}
queue('next', {});
is(ended('next'), 'done', 'and is not in the way of the next one');

$node->stop;
done_testing();
