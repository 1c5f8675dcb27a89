# The questions of `make eval`, one of each kind: what the table says, and what the rewards make of right answers and wrong ones.
use strict;
use warnings;
use M1Test;
use Test::More;

# Needles are no longer than what fits.
my $node = new_server('evaluation', 'minimax_m1.max_context = 4096', 'minimax_m1.max_tokens = 200');
wait_ready($node);

sub run_file
{
	my ($file, @variables) = @_;
	my $out = '';

	IPC::Run::run([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', @variables, '-d', $node->connstr('postgres'), '-f', root() . "/test/eval/$file" ],
		'>', \$out) or die "$file failed";
	return $out;
}

run_file('questions.sql');
my ($model, @rows) = split /\n/, run_file('table.sql', '-v', 'items=1');
my %told = map { my ($kind, $n, $mean, undef, undef, undef, $errors) = split /\|/; ($kind => { n => $n, mean => $mean, errors => $errors }) } @rows;
like($model, qr/^m1-nano\|/, 'the model is named');
is(join(',', sort keys %told), $node->safe_psql('postgres', q{SELECT string_agg(kind, ',' ORDER BY kind COLLATE "C") FROM kind}), 'each kind has a row');
ok((!grep { $told{$_}{n} != 1 || $told{$_}{errors} != 0 || $told{$_}{mean} !~ /^[01]\.\d{3}$/ } keys %told), 'with the mean of its one question')
  or diag(join "\n", @rows);

# Each question has what its reward looks for: what is right by that gets all, and nonsense nothing.
is($node->safe_psql('postgres', q{
	SELECT count(*) > 100, bool_and(minimax_m1.reward_number('\boxed{' || (q.answer #>> '{}') || '}', to_jsonb(q)) = 1
		AND minimax_m1.reward_number('\boxed{-1}', to_jsonb(q)) = 0)
	FROM (SELECT q.* FROM question q JOIN kind k USING (kind) WHERE k.reward = 'reward_number' OFFSET 0) q}), 't|t', 'a boxed number is right, another is wrong');

$node->stop;
done_testing();
