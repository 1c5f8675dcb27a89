# Golden numbers of every checkpoint, and the greedy cases of m1-nano, through SQL.
use strict;
use warnings;
use M1Test;
use JSON::PP;
use Test::More;

# The tensors of a safetensors file: name => [numbers].
sub load
{
	my ($path) = @_;
	my %tensors;

	open(my $f, '<:raw', $path) or die "$path: $!";
	local $/;
	my $bytes = <$f>;
	my $length = unpack('Q<', $bytes);
	my $header = decode_json(substr($bytes, 8, $length));
	for my $name (keys %$header)
	{
		my $t = $header->{$name};
		my ($begin, $end) = @{ $t->{data_offsets} };
		my $data = substr($bytes, 8 + $length + $begin, $end - $begin);
		$tensors{$name} = [ unpack($t->{dtype} eq 'I64' ? 'q<*' : 'f<*', $data) ];
	}
	return \%tensors;
}

sub check_checkpoint
{
	my ($node, $folder, $name) = @_;
	my $golden = load("$folder/golden.safetensors");
	my @ids = @{ $golden->{input_ids} };
	my @positions = @{ $golden->{positions} };
	my $vocab = @{ $golden->{logits} } / @positions;
	my $worst = 0;

	$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.model = '$folder'");
	$node->reload;
	wait_for("$name is loaded", sub {
			$node->safe_psql('postgres', "SELECT state = 'ready' AND name = '$name' FROM minimax_m1.model") eq 't' });
	my $continuation = $node->safe_psql('postgres',
		"SELECT array_to_string(minimax_m1.generate_ids(ARRAY[" . join(',', @ids) . "], 32), ' ')");
	is($continuation, join(' ', @{ $golden->{greedy_ids} }), "$name: greedy ids");
	for my $i (0 .. $#positions)
	{
		my @got = split / /, $node->safe_psql('postgres',
			"SELECT array_to_string(minimax_m1.logits(ARRAY[" . join(',', @ids[ 0 .. $positions[$i] ]) . "]), ' ')");
		$worst = 1e9 if @got != $vocab;
		for my $j (0 .. $vocab - 1)
		{
			my $want = $golden->{logits}[ $i * $vocab + $j ];
			my $excess = abs($got[$j] - $want) / (2e-4 + 1e-4 * abs($want));
			$worst = $excess if !($excess <= $worst);
		}
	}
	ok($worst <= 1, "$name: logits at @{[ scalar @positions ]} positions, $worst of the tolerance");
}

my $node = new_server('golden');
my $number = 0;

for my $case (greedy_cases())
{
	my $tools = $case->{tools} ? quote(JSON::PP->new->canonical->encode($case->{tools})) . '::jsonb' : 'NULL';
	my $row = decode_json($node->safe_psql('postgres',
			'SELECT row_to_json(c) FROM minimax_m1.complete(' . quote($case->{user}) . ', system_prompt => '
			  . quote($case->{system}) . ", tools => $tools) c"));
	my @wrong = grep { ($row->{$_} // '') ne ($case->{$_} // '') } qw(content reasoning prompt_tokens completion_tokens);
	is("@wrong", '', "greedy case $number ($case->{task})");
	is_deeply($row->{tool_calls}, $case->{tool_calls}, 'the tools that it calls') if $case->{tools};
	$number++;
}
check_checkpoint($node, root() . '/models/m1-nano', 'm1-nano');
check_checkpoint($node, root() . "/test/checkpoints/$_", $_) for qw(tiny-f32 tiny-bf16-sharded tiny-odd);
$node->stop;
done_testing();
