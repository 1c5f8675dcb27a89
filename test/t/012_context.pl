# A small context: what does not fit is an error, and summarize works in parts without cutting anything off.
use strict;
use warnings;
use M1Test;
use Test::More;

my $node = new_server('context', 'minimax_m1.max_context = 256');
wait_ready($node);
is($node->safe_psql('postgres', 'SELECT context FROM minimax_m1.model'), '256', 'max_context is in force');
my ($state, $message) = sqlstate($node, q{SELECT minimax_m1.generate(repeat('The box was very large. ', 100))});
is($state, '54000', 'a prompt longer than the context');
like($message, qr/The prompt has \d+ tokens; the context holds 256/, 'with the numbers');
is($node->safe_psql('postgres', q{SELECT finish_reason || (prompt_tokens + completion_tokens)
	FROM minimax_m1.complete('What can you do?', temperature => 100, top_p => 1, seed => 5)}), 'length256',
	'a reply ends where the context does');

my @names = qw(Ana Ben Carla Dmitri Elena Farid Grace Hugo Ines Jonas);
my $document = join("\n\n", map { "Dear team, My webcam arrived in a torn box. Could I get a discount? $_" } @names);
my $tokens = $node->safe_psql('postgres', 'SELECT minimax_m1.count_tokens(' . quote($document) . ')');
# a third of the context is for the reply, and the instruction takes its share
cmp_ok($tokens, '>', 256 * 2 / 3, "the document has $tokens tokens, more than one pass takes");
my $before = $node->safe_psql('postgres', "SELECT requests FROM minimax_m1.stats");
my $summary = $node->safe_psql('postgres', 'SELECT minimax_m1.summarize(' . quote($document) . ')');
isnt($summary, '', "it is summarized: $summary");
cmp_ok($node->safe_psql('postgres', "SELECT requests FROM minimax_m1.stats") - $before, '>', 6, 'in several requests');
is($node->safe_psql('postgres', 'SELECT minimax_m1.summarize(' . quote("Dear team, My webcam arrived in a torn box. Could I get a discount? Sami") . ')'),
	'Sami reports that the webcam arrived in a torn box and wants a discount.', 'a short one in one pass');
$node->safe_psql('postgres', 'ALTER SYSTEM SET minimax_m1.max_context = 64');
$node->reload;
wait_for('the context is smaller', sub {
		$node->safe_psql('postgres', "SELECT state = 'ready' AND context = 64 FROM minimax_m1.model") eq 't' });
is((sqlstate($node, 'SELECT minimax_m1.summarize(' . quote($document) . ')'))[0], '54000',
	'a context too small for any part is an error, not a loop');
ok(is_idle($node), 'nothing is left');
$node->stop;
done_testing();
