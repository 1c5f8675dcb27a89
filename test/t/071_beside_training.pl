# Beside a training: its answers have all places of the batch while nobody else wants any, and otherwise those that others
# leave, its owner's other requests included; it goes on all the same.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('beside_training', 'minimax_m1.model_path = ' . quote(endless_model()), 'minimax_m1.max_requests = 4',
	'minimax_m1.reserved_requests = 1', 'max_connections = 60');
wait_ready($node);
$node->safe_psql('postgres', slurp_file(root() . '/test/t/mail.sql'));

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Who has places: a function, and how many.
sub running
{
	return sql(q{SELECT string_agg(format('%s %s', function, n), ', ' ORDER BY function) FROM (
		SELECT function, count(*) AS n FROM minimax_m1.activity WHERE queue_position IS NULL GROUP BY 1) r});
}

sub positions
{
	return sql(qq{SELECT string_agg(queue_position::text, ' ' ORDER BY queue_position) FROM minimax_m1.activity
		WHERE function = '$_[0]' AND queue_position IS NOT NULL});
}

sub cancel { return sql("SELECT minimax_m1.cancel(request) FROM minimax_m1.activity WHERE function = '$_[0]' AND queue_position IS NULL"); }

# One request after the other, until one is cancelled.
my $call = q{SELECT count(minimax_m1.generate_ids('{1,2,3}', 16000)) FROM generate_series(1, 1000)};

sub end_calls
{
	my (@q) = @_;

	wait_for('they are cancelled', sub { cancel('generate_ids'); sql(q{SELECT count(*) FROM minimax_m1.activity WHERE function = 'generate_ids'}) == 0 });
	finish_query($_) for @q;
	return;
}

# Answers that take a moment each, and from which there is always something to learn.
sql('CREATE FUNCTION long_words(answer text, example jsonb) RETURNS float8 IMMUTABLE RETURN length(answer)');
sql(q{SELECT minimax_m1.train('long', examples => $$SELECT body AS prompt, voucher FROM mail WHERE id < 20$$, reward => 'long_words',
	steps => 1000, max_tokens => 300, thinking_budget => 0)});
wait_for('the training draws answers', sub { running() eq 'train 4' });
pass('a training has all places while nobody else is there');

my $engine = engine_pid($node);
wait_for('it is stopped while the training has them', sub {
		kill 'STOP', $engine;
		sleep 0.2;    # what it has said is heard
		return 1 if running() eq 'train 4';
		kill 'CONT', $engine;
		return 0;
	});
my @q = map { start_query($node, $call) } 1 .. 4;
wait_for('others want some', sub { sql(q{SELECT count(*) FROM minimax_m1.activity WHERE function = 'generate_ids'}) == 4 });
wait_for('its owner gets the reserved one for something else', sub { running() eq 'generate_ids 1, train 4' });
is(positions('generate_ids'), '1 2 3', 'others are next');
like(positions('train'), qr/^4 5( |$)/, 'and the training is behind them');
kill 'CONT', $engine;

wait_for('others have the places', sub { running() eq 'generate_ids 3, train 1' });
pass('places that the training leaves are for others, but for one, so that it goes on');

# A single one: half of the places.
end_calls(@q);
@q = (start_query($node, $call));
wait_for('the training takes what it may', sub { running() eq 'generate_ids 1, train 2' });
pass('beside a single request it has half of the places');
end_calls(@q);
wait_for('the training has all places again', sub { running() eq 'train 4' });
pass('and all of them, when that is gone');

sql("SELECT minimax_m1.cancel_training('long')");
$node->stop('immediate');
done_testing();
