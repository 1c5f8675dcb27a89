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

# The call that is expected is right, and that of another tool or place is not all of it.
is($node->safe_psql('postgres', q{
	SELECT count(*), min(minimax_m1.reward_json(q.answer::text, to_jsonb(q))),
		max(minimax_m1.reward_json(replace(q.answer::text, 'get_weather', 'get_price'), to_jsonb(q))) FILTER (WHERE q.answer::text LIKE '%get_weather%') < 1,
		max(minimax_m1.reward_json(jsonb_set(q.answer, '{0,arguments}', '{"city": "Rome", "order_id": "E-1"}')::text, to_jsonb(q))) < 1
	FROM question q WHERE q.kind = 'tool calls'}), '50|1|t|t', 'so is the call that is expected, and no other');
is($told{'tool calls'}{mean}, '1.000', 'as the model makes it');

# What follows an instruction, and what does not.
is($node->safe_psql('postgres', q{
	WITH told(rule, follows, ignores) AS (VALUES
		('Answer with exactly three words.', 'Wide, blue, cold.', 'It is wide and blue.'), ('Write capital letters only.', 'IT IS WIDE.', 'It is WIDE.'),
		('Answer with one word.', 'Wide.', 'Wide, blue.'), ('End with the word END.', 'It is wide. END', 'The END is near.'),
		('Begin with the word Well.', 'Well, it is wide.', 'Wellington is near it.'), ('Do not use the letter e.', 'It is what boats sail on.', 'The boats sail on it.'),
		('Write a list of three lines that begin with a dash.', E'- wide\n- blue\n- cold', E'- wide\n- blue'), ('Answer with a number.', '1,000', 'a thousand'))
	SELECT count(*), count(DISTINCT rule), min(minimax_m1.reward_format(follows, to_jsonb(q))), max(minimax_m1.reward_format(ignores, to_jsonb(q)))
	FROM question q LEFT JOIN told ON q.messages #>> '{0,content}' LIKE '%' || rule WHERE q.kind = 'instructions'}), '40|8|1|0', 'an instruction is followed, or not');

$node->stop;
done_testing();
