# Many clients that write annotated rows and queue jobs, all at once: in the end every row is right, no slot, segment or
# job is left, and no process has grown. CLIENTS clients do TRANSACTIONS each, twice, or work for SOAK_SECONDS
# (make check-clients); by default a few.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $clients = $ENV{CLIENTS} || 8;
my $transactions = $ENV{TRANSACTIONS} || 10;
my $seconds = $ENV{SOAK_SECONDS} || 0;
my $rounds = $seconds ? 6 : 2;
my $node = new_server('clients', 'max_connections = ' . ($clients + 20), 'minimax_m1.max_requests = 8',
	'minimax_m1.job_retry_delay = 50', 'dynamic_shared_memory_type = mmap', 'log_statement = none');
wait_ready($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

make_texts($node, 3);
sql(q{
	CREATE TABLE message (id serial PRIMARY KEY, body text, topic text, status text);
	SELECT minimax_m1.create_annotator('topic', 'message', 'topic',
		E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\n\n{body}', status_column => 'status')});

my %script = (
	ask => q{SELECT minimax_m1.generate('Hello.');},
	count => q{SELECT minimax_m1.count_tokens('Hello, world!');},
	insert => q{INSERT INTO message (body) SELECT body FROM text_of WHERE n = (SELECT (random() * 2)::int);},
	update => q{UPDATE message SET body = (SELECT body FROM text_of WHERE n = (SELECT (random() * 2)::int)) WHERE id = (SELECT (random() * max(id))::int FROM message);},
	delete => q{DELETE FROM message WHERE id = (SELECT (random() * max(id))::int FROM message);},
	submit => q{SELECT minimax_m1.submit('What is 47 + 35?', priority => (random() * 3)::int);},
	wait => "SELECT minimax_m1.submit('Hello.') AS job \\gset\nCALL minimax_m1.wait_for(ARRAY[:job]);",
	cancel => q{SELECT minimax_m1.cancel_job(id) FROM minimax_m1.jobs WHERE state IN ('pending', 'running') AND annotator IS NULL ORDER BY random() LIMIT 1;},
	give_up => q{DO $$ BEGIN SET LOCAL statement_timeout = '20ms'; PERFORM minimax_m1.generate('What can you do?', temperature => 100, top_p => 1); EXCEPTION WHEN query_canceled THEN END $$;},
	rollback => "BEGIN;\nINSERT INTO message (body) SELECT body FROM text_of WHERE n = 0;\nSELECT minimax_m1.submit('Hello.');\nROLLBACK;",
	look => q{SELECT count(*) FROM minimax_m1.annotators; SELECT count(*) FROM minimax_m1.jobs; SELECT count(*) FROM minimax_m1.activity;});
my @files;
for my $name (sort keys %script)
{
	my $file = $node->basedir . "/$name.sql";
	append_to_file($file, "$script{$name}\n");
	push @files, '-f', $file;
}

# Segments are files here.
sub segments { return sql(q{SELECT count(*) FROM pg_ls_dir('pg_dynshmem')}); }

sub settle
{
	wait_for('the queue is empty', sub {
			sql(q{SELECT count(*) FROM minimax_m1.job WHERE state IN ('pending', 'held', 'running')}) eq '0' }, 180 + $seconds);
	wait_for('the runner has left', sub {
			sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job runner'}) eq '0' });
	wait_for('no request is left', sub { is_idle($node) });
}

my $before = segments();
tell_memory('at the start', memory_at_rest($node));
my (@memory, @runners);
my @length = $seconds ? ('-T', $seconds / $rounds) : ('-t', $transactions);
for my $round (1 .. $rounds)
{
	my ($done, $out, $watched) = run_watched($node, 'pgbench', '-n', '-c', $clients, '-j', 2, @length, @files, $node->connstr('postgres'));
	ok($done, "round $round: $clients clients") or diag($out);
	figure("round $round: " . ($out =~ /(transactions actually processed: \d+)/)[0]);
	settle();
	push @memory, memory_at_rest($node);
	push @runners, @$watched;
}
is(sql(q{SELECT count(*) FROM message m WHERE topic IS DISTINCT FROM (SELECT topic FROM text_of t WHERE t.body = m.body) OR status <> 'done'}),
	'0', 'every row is right');
cmp_ok(sql('SELECT count(*) FROM message'), '>', 0, 'and there are some');
is(sql(q{SELECT count(*) FROM minimax_m1.jobs WHERE state NOT IN ('done', 'cancelled')}), '0', 'no job is left');
is(sql(q{SELECT count(*) FROM minimax_m1.jobs WHERE state = 'done' AND content NOT IN ('82', 'Hello! How can I help you?')}), '0', 'no answer is wrong');
is(segments(), $before, 'no segment is left');
is(sql('SELECT count(*) FROM minimax_m1.activity'), '0', 'no slot is taken');
is_steady(\@memory, \@runners, { engine => 65536, worker => 8192, launcher => 2048, runner => 8192 });
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked|was terminated by signal|deadlock/, 'nothing bad in the log');
done_testing();
