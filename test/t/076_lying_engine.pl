# An engine that trains, but says what cannot be about it: the training fails with an error that says so, or another engine
# makes the same of it; nothing of the lie is kept.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('lying');
my $folder = PostgreSQL::Test::Utils::tempdir();
my $liar = root() . '/test/t/lying_engine.py';
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $number = 0;
my ($lies) = run_command([ 'python3', $liar, '--list' ]);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }

my $engine;

# Has the server use the liar, around its own engine. Of a name that it did not have before, it is started at once, whatever
# became of the last one.
sub listen_to_liar
{
	my $before = engine_pid($node);
	my $program = "$folder/liar$number";

	$engine //= readlink "/proc/$before/exe" or die $!;
	append_to_file($program, "#!/bin/sh\nexec python3 '$liar' '$folder' '$engine' \"\$@\"\n");
	chmod 0755, $program;
	sql("ALTER SYSTEM SET minimax_m1.engine_path = '$program'");
	$node->reload;
	wait_for('it is the engine', sub { my $now = engine_pid($node); return $now ne '' && $now ne $before });
	return wait_ready($node);
}

# Queues a training while this lie is to be told: by a reward, or by answers that are `shown`, of which all that is learnt
# becomes an adapter. Returns its name.
sub told
{
	my ($lie, $shown) = @_;
	my $name = 'lesson' . ++$number;

	listen_to_liar();
	unlink "$folder/told";
	append_to_file("$folder/lie", $lie) if $lie ne '';
	if ($shown)
	{
		sql(qq{SELECT minimax_m1.train('$name', method => 'sft', rank => 1, seed => 1, steps => 1, prompts_per_step => 2,
			examples => 'SELECT body AS prompt, voucher AS answer FROM mail WHERE id < 3 ORDER BY id')});
	}
	else
	{
		teach_vouchers($node, $name, rows => 'id < 3', steps => 1, prompts_per_step => 3, group_size => 4, updates_per_step => 1, rank => 1,
			seed => 1);
	}
	return $name;
}

sub outcome
{
	my ($name) = @_;
	my $outcome = training_outcome($node, $name);

	unlink "$folder/lie";
	return $outcome;
}

wait_ready($node);
$node->psql('postgres', slurp_file(root() . '/test/t/mail.sql'));
my @bits;
for my $shown (0, 1)
{
	my $honest = told('', $shown);

	is(outcome($honest), 'done', 'with the truth, it trains');
	$bits[$shown] = training_bits($node, $honest);
}
is(sql('SELECT count(*) FROM minimax_m1.adapter_version'), '1', 'and makes a version');

for (split /\n/, $lies)
{
	my ($who, $question, $lie) = split /\|/;
	my $shown = $question eq 'files';
	my $from = -s $node->logfile;
	my $name = told($lie, $shown);
	my $outcome = outcome($name);

	ok(-e "$folder/told", "told: $lie");
	if ($who eq 'worker')
	{
		is($outcome, 'done', 'another engine goes on with the training');
		like(slurp_file($node->logfile, $from), qr/the engine is gone: It /, 'after that one was ended');
	}
	else
	{
		is($outcome, 'failed XX001', 'it fails the training');
		like(sql("SELECT error || ' ' || detail || ' ' || hint FROM minimax_m1.training WHERE name = '$name'"),
			qr/the engine's answers about a training cannot be true (?:It|Its|The|Behind|There|Of) .*resume_training/, 'which says so');
		is(sql("SELECT count(*) FROM minimax_m1.adapter_version WHERE name = '$name'"), '0', 'and makes no version');
		sql("SELECT minimax_m1.resume_training('$name')");
		is(outcome($name), 'done', 'it goes on when the engine is honest');
	}
	is(training_bits($node, $name), $bits[$shown], 'to the same bits');
}
# most of them, as a busy machine has one wait now and then
is(sql(q{SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY started_at - created_at) < '4 s' FROM minimax_m1.training_run}), 't',
	'no training waits for the process of one that has failed');

# One that never stops lying.
my $hopeless = told('always a piece too short');
is(outcome($hopeless), 'failed 57P03', 'an engine that lies again and again fails the training');
like(sql("SELECT error || ' ' || detail || ' ' || hint FROM minimax_m1.training WHERE name = '$hopeless'"),
	qr/the engine went away It sent a piece that does not fit into the whole.*safe to try again/, 'which says how');
is(sql(q{SELECT count(*) FROM minimax_m1.training_step s WHERE 'Infinity' IN (reward, loss, entropy, kl, clipped, gradient_norm, router_load, mismatch)
	OR least(loss, entropy, gradient_norm, router_load, mismatch, tokens) < -1e-3 OR clipped NOT BETWEEN 0 AND 1}), '0',
	'nothing absurd is kept of steps');
is(sql(q{SELECT count(*) FROM minimax_m1.usage WHERE least(prompt_tokens, cached_tokens, reasoning_tokens, completion_tokens) < 0
	OR greatest(prompt_tokens, completion_tokens) > 1000000}), '0', 'nor in usage');
is(sql('SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');
unlike(slurp_file($node->logfile), qr/was terminated by signal (?!9)/, 'no process crashed');
$node->stop;
done_testing();
