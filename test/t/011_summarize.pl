# summarize() of a document that the context cannot hold: in parts, all of it, and within limits.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('summarize', 'minimax_m1.max_context = 512');
wait_ready($node);

my $small = 'Dear team, My webcam arrived in a torn box. Could I get a discount? Sami';
my @names = qw(Ana Ben Carla Dmitri Elena Farid Grace Hugo Ines Jonas Keiko Liam Maya Noah Olga Pavel Rosa Sami Tara Umar);
my $document = join("\n\n", map { "Dear team, My webcam arrived in a torn box. Could I get a discount? $_" } (@names) x 2);

# What one call cost: requests and prompt tokens.
sub summarize
{
	my ($arguments) = @_;

	$node->safe_psql('postgres', 'SELECT minimax_m1.stats_reset()');
	my $summary = $node->safe_psql('postgres', "SET statement_timeout = '60s'; SELECT coalesce(minimax_m1.summarize($arguments), 'NULL')");
	my ($requests, $tokens) = split /\|/, $node->safe_psql('postgres', 'SELECT requests, prompt_tokens FROM minimax_m1.stats');
	return ($summary, $requests, $tokens);
}

my ($summary, $requests, $tokens) = summarize(quote($small));
is($summary, 'Sami reports that the webcam arrived in a torn box and wants a discount.', 'a short text');
my $once = $requests;

# Forty letters are many parts, and every token of them is read by the model.
my $length = $node->safe_psql('postgres', 'SELECT minimax_m1.count_tokens(' . quote($document) . ')');
cmp_ok($length, '>', 512, "the document has $length tokens, more than the context holds");
($summary, $requests, $tokens) = summarize(quote($document));
# what the model makes of forty summaries is not what it was taught
isnt($summary, 'NULL', "a long text: $summary");
cmp_ok($requests, '>', $once + 3, "in $requests requests");
cmp_ok($tokens, '>', $length, "which read $tokens tokens: no less than the document has");
is((summarize(quote($document)))[0], $summary, 'greedy summaries are the same each time');

# Words without sense, and with one place in the engine.
$node->append_conf('postgresql.conf', 'minimax_m1.max_requests = 1');
$node->restart;
wait_ready($node);
my $words = join(' ', map { "word$_" } 1 .. 600);
my $q = start_query($node, "SET statement_timeout = '100s'; SELECT minimax_m1.summarize(" . quote($words) . ')');
finish_query($q);
# words without sense have no short summary: an answer, or the error that says so, never silence
if ($q->{err} eq '')
{
	isnt($q->{out}, '', 'words without sense are summarized');
}
else
{
	is($q->{state}, '54000', 'words without sense are too much');
	like($q->{err}, qr/HINT: .*minimax_m1\.max_context/, 'and the hint says what to do');
}

# A text without any place to cut, and one of characters of several bytes.
for ([ 'x' x 3000, 'one long word' ], [ "\x{4f60}\x{597d}" x 300, 'characters of several bytes' ])
{
	my ($text, $what) = @$_;
	my ($state, $message, $out) = sqlstate($node, "SET statement_timeout = '60s'; SELECT minimax_m1.summarize(" . quote($text) . ')');

	like($state, qr/^(?:none|54000)$/, "$what: summarized, or too much ($state)") or diag($message);
}

# An instruction of one's own, a limit of the reply, and no room at all.
($summary) = summarize(quote($small) . ", instruction => 'Summarize the following text.'");
is($summary, 'Sami reports that the webcam arrived in a torn box and wants a discount.', 'the instruction is the default one');
($summary) = summarize(quote($small) . ', max_tokens => 400');
is($summary, 'Sami reports that the webcam arrived in a torn box and wants a discount.', 'max_tokens is a limit, not a wish');
is((sqlstate($node, 'SELECT minimax_m1.summarize(' . quote($small) . ", instruction => repeat('word ', 500))"))[0], '54000',
	'an instruction that leaves no room');
is((sqlstate($node, "SET minimax_m1.system_prompt = '" . 'word ' x 500 . "'; SELECT minimax_m1.summarize(" . quote($small) . ')'))[0],
	'54000', 'a system prompt that leaves no room');

# It stops when it is told to, between its requests as in them.
my $long = join("\n\n", ($document) x 50);
is((sqlstate($node, "SET statement_timeout = '700ms'; SELECT minimax_m1.summarize(" . quote($long) . ')'))[0], '57014',
	'statement_timeout ends it');
wait_for('all is quiet', sub { is_idle($node) }, 10);
pass('nothing is left');
is($node->safe_psql('postgres', 'SELECT minimax_m1.summarize(' . quote($small) . ')'),
	'Sami reports that the webcam arrived in a torn box and wants a discount.', 'and the next one is answered');
$node->stop;
done_testing();
