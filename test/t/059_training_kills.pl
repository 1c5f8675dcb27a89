# Processes of all kinds are killed while trainings run, one after the other, and a client asks beside them: each step is
# there once, and what a training leads to has the bits of one that nothing has disturbed. KILLS is how many are killed
# (make check-trainings); by default each kind once.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $kills = $ENV{KILLS} || 6;
my $steps = $ENV{KILLS} ? 8 : 5;
srand(11);
my $node = new_server('training_kills', 'restart_after_crash = on', 'log_statement = none');
wait_ready($node);
$node->safe_psql('postgres', slurp_file(root() . '/test/t/mail.sql'));

# While the server is away, there is no answer.
sub try { my $out = ''; return $node->psql('postgres', $_[0], stdout => \$out) == 0 ? $out : ''; }

# ---- undisturbed ----

my $began = time();
teach_vouchers($node, 'calm', steps => $steps);
is(training_ended($node, 'calm'), 'done', 'a training that nothing disturbs comes to its end');
my $step_seconds = (time() - $began) / $steps;
my $bits = training_bits($node, 'calm');
my $adapters = $node->safe_psql('postgres', q{SELECT count(*) FROM minimax_m1.adapter WHERE name = 'calm'});

# ---- killed ----

my $flag = $node->basedir . '/go_on';
append_to_file($flag, '');
my $file = $node->basedir . '/ask.sql';
append_to_file($file, "SELECT minimax_m1.generate('Hello.');\n");
my $client = keep_running($flag, 'env', 'PGAPPNAME=client', 'pgbench', '-n', '-c', 2, '-T', 5, '-f', $file, $node->connstr('postgres'));

sub of_type { return try("SELECT pid FROM pg_stat_activity WHERE backend_type = 'minimax_m1 $_[0]' LIMIT 1"); }

my %process = (
	engine => sub { return try('SELECT engine_pid FROM minimax_m1.model') },
	trainer => sub { return of_type('training') },
	worker => sub { return eval { worker_pid($node) } // '' },
	launcher => sub { return of_type('job launcher') },
	backend => sub { return try(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'client' LIMIT 1}) },
	postmaster => sub { return $node->{_pid} });
my @kinds = sort keys %process;

# Its children notice by themselves; until the last has ended, there can be no other.
sub start_again
{
	wait_for('the server starts again', sub { $node->{_pid} = undef; return $node->start(fail_ok => 1) });
}

# A step that takes the server with it again and again is given up; so is one under which engines die. That is not what is
# asked here.
my %in_step = (step => -1, n => 0);

sub may_kill
{
	my ($name) = @_;
	my ($state, $step) = split /\|/, try("SELECT state, step FROM minimax_m1.training_run WHERE name = '$name'");

	return undef if !defined $step;
	return 'ended' if $state !~ /queued|running/;
	%in_step = (step => $step, n => 0) if $step != $in_step{step};
	return $in_step{n} < 4;
}

sub check
{
	my ($name) = @_;

	is(training_ended($node, $name), 'done', "$name comes to its end")
	  or diag($node->safe_psql('postgres', "SELECT step, error, detail FROM minimax_m1.training_run WHERE name = '$name'"));
	is($node->safe_psql('postgres', qq{SELECT string_agg(step::text, ' ' ORDER BY step) FROM minimax_m1.training_step WHERE training = '$name'}),
		join(' ', 0 .. $steps), 'by each step once');
	is(training_bits($node, $name), $bits, 'and to the same bits');
	is($node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.adapter WHERE name = '$name'"), $adapters, 'and versions');
}

my ($sent, $number, $name, %sent) = (0, 0);
while ($sent < $kills)
{
	if (!defined $name)
	{
		$name = 'killed' . ++$number;
		teach_vouchers($node, $name, steps => $steps);
		%in_step = (step => -1, n => 0);
	}
	my $may = wait_for('a step has ended, or a training', sub { may_kill($name) }, 300);
	if ($may eq 'ended')
	{
		check($name);
		undef $name;
		next;
	}
	usleep(rand(1.2 * $step_seconds) * 1e6);
	my $what = $kinds[ $sent % @kinds ];
	my $pid = $process{$what}->();
	next if $pid !~ /^[1-9]\d*$/ || !kill 'KILL', $pid;
	$sent++;
	$sent{$what}++;
	$in_step{n}++;
	start_again() if $what eq 'postmaster';
	wait_for('the server answers', sub { try('SELECT 1') eq '1' });
}
check($name) if defined $name;
unlink $flag;
$client->finish;
figure(sprintf('%d trainings, %s', $number, join(', ', map { "$_: $sent{$_}" } sort keys %sent)));
is(join(' ', sort keys %sent), join(' ', @kinds), 'processes of all kinds were killed');

# ---- what is left ----

wait_ready($node);
wait_for('no request is left', sub { is_idle($node) });
is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.training_state'), '0', 'nothing is kept that only a runner needs');
wait_for('the trainer has left', sub { of_type('training') eq '' });
my @engines = slurp_file($node->logfile) =~ /started engine with process ID (\d+)/g;
is_deeply([ grep { process_exists($_) } @engines ], [ engine_pid($node) ], 'of all engines one is left');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'nothing bad in the log');
done_testing();
