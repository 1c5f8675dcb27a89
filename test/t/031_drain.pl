# A table is annotated while engine, worker, runner and server are killed: in the end every row is right, and was
# written exactly once. ROWS rows (make check-drain); by default a few hundred.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $rows = $ENV{ROWS} || 300;
my $node = new_server('drain', 'minimax_m1.max_requests = 8', 'minimax_m1.job_retry_delay = 200', 'log_statement = none',
	'restart_after_crash = on');
wait_ready($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Rows of a few texts whose answers are known; the audit is part of the transaction that writes a row.
make_texts($node, 5);
sql(q{
	CREATE TABLE message (id int PRIMARY KEY, body text, topic text) WITH (fillfactor = 70);
	CREATE TABLE written (id int);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.written VALUES (new.id); RETURN new; END';
	SELECT minimax_m1.create_annotator('topic', 'message', 'topic',
		E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\n\n{body}')});
sql('CREATE TRIGGER note AFTER UPDATE ON message FOR EACH ROW EXECUTE FUNCTION note()');

my $start = time();
is(sql(qq{
	BEGIN;
	INSERT INTO message (id, body) SELECT i, body FROM generate_series(1, $rows) i JOIN text_of ON n = i % 5;
	SELECT count(*) FROM minimax_m1.job;
	COMMIT}), $rows, "$rows rows are queued");
figure(sprintf('%d rows were queued in %.1f s', $rows, time() - $start));

sub done { return sql('SELECT count(*) FROM written'); }

# Waits until a share of the rows is done.
sub wait_share
{
	my ($share) = @_;
	wait_for("$share of the rows are done", sub { done() >= $share * $rows }, 120 + $rows / 5);
}

sub parent_of
{
	my ($child) = @_;
	return slurp_file("/proc/$child/stat") =~ /\) \S (\d+)/ ? $1 : die "no process $child";
}

# Signals a process and waits for its end.
sub end_process
{
	my ($what, $signal, $pid) = @_;
	kill $signal, $pid;
	wait_for("the $what has ended", sub { !process_exists($pid) });
	pass(sprintf('the %s was killed after %d of %d rows', $what, done(), $rows)) if $what ne 'postmaster';
}

sub runner_pid
{
	return wait_for('there is a runner', sub {
			sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job runner'}) });
}

$start = time();
for my $share (0.1, 0.2, 0.3)
{
	wait_share($share);
	wait_ready($node);
	end_process('engine', 'KILL', engine_pid($node));
}
wait_share(0.4);
wait_ready($node);
end_process('worker', 'TERM', parent_of(engine_pid($node)));
wait_share(0.5);
end_process('job runner', 'TERM', runner_pid());

# kill -9 of a process that is attached to shared memory restarts the cluster.
wait_share(0.6);
{
	my $runner = runner_pid();
	kill 'KILL', $runner;
	wait_for('the server has recovered', sub { $node->psql('postgres', 'SELECT 1') == 0 && !process_exists($runner) });
	pass('a runner was killed with kill -9, and the server restarted by itself');
}
wait_share(0.7);
{
	wait_ready($node);
	my $worker = parent_of(engine_pid($node));
	kill 'KILL', $worker;
	wait_for('the server has recovered', sub { !process_exists($worker) && $node->psql('postgres', 'SELECT 1') == 0 });
	pass('the worker was killed with kill -9, and the server restarted by itself');
}
wait_share(0.8);
my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
$node->kill9;
wait_for('the postmaster is gone', sub { !kill(0, $postmaster) });
wait_for('the server has started again', sub { $node->start(fail_ok => 1) });
pass('the postmaster was killed with kill -9, and started again');
wait_share(0.9);
$node->stop('immediate');
$node->start;
wait_share(1);
figure(sprintf('%d rows were drained in %.1f s', $rows, time() - $start));

wait_for('the queue is empty', sub { sql('SELECT count(*) FROM minimax_m1.job') eq '0' });
is(sql('SELECT count(*) FROM message m JOIN text_of t ON t.n = m.id % 5 AND t.topic = m.topic'), $rows, 'every row is right');
is(sql('SELECT count(*) FROM written'), $rows, 'as many were written');
is(sql('SELECT count(*) FROM (SELECT id FROM written GROUP BY id HAVING count(*) > 1) w'), '0', 'each of them once');
is(sql('SELECT pending, running, failed FROM minimax_m1.annotators'), '0|0|0', 'nothing is left to do');
is(sql('SELECT coverage FROM minimax_m1.annotators'), '1', 'all is covered');
ok(is_idle($node), 'no request is left');
wait_for('the runner has left', sub {
		sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job runner'}) eq '0' });
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked/, 'nothing bad in the log');
done_testing();
