# Usage and quotas over restarts, crashes and bad files; a race for the last tokens; updates and dumps.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_server('limits', 'max_connections = 60', 'restart_after_crash = on');
wait_ready($node);
$node->safe_psql('postgres', q{CREATE ROLE dora; SELECT minimax_m1.grant_usage('dora'), minimax_m1.set_quota('dora', 5000)});

my $usage = q{SELECT string_agg(concat_ws(' ', role, function, requests, completed, failed, cancelled, prompt_tokens, completion_tokens),
	', ' ORDER BY role, function) FROM minimax_m1.usage};
my $used = q{SELECT used_last_hour, reserved, requests FROM minimax_m1.quotas};
my $file = $node->data_dir . '/pg_stat/minimax_m1.usage';

# Waits until the worker has nothing more to write: twice the same.
sub settle
{
	my $was = '';

	wait_for('the usage is written', sub {
			my $now = -e "$file.recent" ? slurp_file("$file.recent") : '';
			my $same = $now ne '' && $now eq $was;

			$was = $now;
			usleep(1_500_000) unless $same;
			return $same });
}

# A fast stop writes what there is.
$node->safe_psql('postgres', q{SET ROLE dora; SELECT minimax_m1.generate_ids('{1,2,3}', 40), minimax_m1.logits('{1,2}')});
is($node->safe_psql('postgres', $usage), 'dora generate_ids 1 1 0 0 3 40, dora logits 1 1 0 0 2 0', 'usage is counted');
is($node->safe_psql('postgres', $used), '45|0|0', 'so are the tokens of the hour');
$node->restart;
is($node->safe_psql('postgres', $usage), 'dora generate_ids 1 1 0 0 3 40, dora logits 1 1 0 0 2 0', 'usage outlives a restart');
is($node->safe_psql('postgres', $used), '45|0|0', 'and so does the hour');

# A crash costs no more than the last second.
wait_ready($node);
unlink "$file.recent";
$node->safe_psql('postgres', q{SET ROLE dora; SELECT minimax_m1.generate_ids('{1,2,3}', 10)});
settle();
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', $usage), 'dora generate_ids 2 2 0 0 6 50, dora logits 1 1 0 0 2 0', 'usage outlives a crash');
is($node->safe_psql('postgres', $used), '58|0|0', 'and so does the hour');
wait_ready($node);
is($node->safe_psql('postgres', q{SET ROLE dora; SELECT cardinality(minimax_m1.generate_ids('{1}', 1))}), '1', 'and it goes on');

# A worker that is killed takes the cluster down and up again, with the usage.
$node->safe_psql('postgres', 'SELECT minimax_m1.usage_reset()');
$node->safe_psql('postgres', q{SET ROLE dora; SELECT minimax_m1.generate_ids('{1,2,3}', 10)});
settle();
kill 'KILL', worker_pid($node);
wait_for('the server is there again', sub { ($node->psql('postgres', 'SELECT 1'))[0] == 0 && eval { wait_ready($node); 1 } });
is($node->safe_psql('postgres', $usage), 'dora generate_ids 1 1 0 0 3 10', 'usage outlives a killed worker');

# What is not whole is not used, and kept aside.
sub rewrite
{
	my ($path, $change) = @_;
	open(my $in, '<:raw', $path) or die "$path: $!";
	my $bytes = do { local $/; <$in> };
	close $in;
	$change->($bytes);
	open(my $out, '>:raw', $path) or die "$path: $!";
	print $out $bytes;
	close $out;
}
my %damage = (
	'a byte changed' => sub { substr($_[0], 200, 1) = chr(ord(substr($_[0], 200, 1)) ^ 1) },
	'cut off' => sub { $_[0] = substr($_[0], 0, length($_[0]) - 5) },
	'rows promised that are not there' => sub { substr($_[0], 28, 4) = pack('l', 100_000_000) },
	'something else' => sub { $_[0] = 'x' x 10_000 },
	'empty' => sub { $_[0] = '' });
for my $what (sort keys %damage)
{
	$node->safe_psql('postgres', q{SET ROLE dora; SELECT minimax_m1.generate_ids('{1,2,3}', 10)});
	$node->stop;
	unlink "$file.recent", "$file.bad";
	my $offset = -s $node->logfile;
	rewrite($file, $damage{$what});
	$node->start;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.usage'), '0', "$what: the server starts without");
	ok(-e "$file.bad", "$what: the file is kept");
	like(slurp_file($node->logfile, $offset), qr/LOG:  minimax_m1: file "pg_stat\/minimax_m1.usage" cannot be used/, "$what: the log tells");
	wait_ready($node);
}
# of two files the newer counts, and a bad one does not spoil the other
$node->safe_psql('postgres', q{SET ROLE dora; SELECT minimax_m1.generate_ids('{1,2,3}', 10)});
settle();
$node->stop;
rewrite($file, $damage{'cut off'});
$node->start;
is($node->safe_psql('postgres', $usage), 'dora generate_ids 1 1 0 0 3 10', 'one good file is enough');
wait_ready($node);

# A disk that cannot be written to: the usage stays in memory, and the log tells once.
$node->safe_psql('postgres', q{SELECT minimax_m1.usage_reset()});
mkdir "$file.recent.tmp" or unlink("$file.recent.tmp") && mkdir "$file.recent.tmp";
my $before = -s $node->logfile;
$node->safe_psql('postgres', q{SET ROLE dora; SELECT minimax_m1.generate_ids('{1,2,3}', 10)});
wait_for('the log tells', sub { slurp_file($node->logfile, $before) =~ /could not write file "pg_stat\/minimax_m1.usage.recent"/ });
is($node->safe_psql('postgres', $usage), 'dora generate_ids 1 1 0 0 3 10', 'the usage is still there');
rmdir "$file.recent.tmp";
wait_for('it is written after all', sub { -e "$file.recent" });

# Sixteen sessions race for tokens that are enough for 20 requests.
$node->safe_psql('postgres', q{SELECT minimax_m1.usage_reset(); CREATE ROLE race; SELECT minimax_m1.grant_usage('race'),
	minimax_m1.set_quota('race', 20 * 13)});
my @racers = map { start_query($node, q{SET ROLE race; DO $do$
	DECLARE
		hint text;
		done int := 0;
	BEGIN
		LOOP
			BEGIN
				PERFORM minimax_m1.generate_ids('{1,2,3}', 10);
				done := done + 1;
			EXCEPTION WHEN configuration_limit_exceeded THEN
				GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
				EXIT WHEN hint LIKE '%minute%';
				PERFORM pg_sleep(0.01);
			END;
		END LOOP;
		PERFORM set_config('test.done', done::text, false);
	END $do$; SELECT current_setting('test.done')}) } 1 .. 16;
my @done = map { finish_query($_)->{out} } @racers;
is(eval(join('+', @done)), 20, 'exactly what the quota allows got through: ' . join(' ', @done));
is($node->safe_psql('postgres', "$used WHERE role = 'race'"), '260|0|0', 'and nothing stays reserved');

# The same quota in another database, in another encoding.
$node->safe_psql('postgres', q{CREATE DATABASE other TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'});
$node->safe_psql('other', q{CREATE EXTENSION minimax_m1; SELECT minimax_m1.grant_usage('race')});
my ($state, $message) = sqlstate($node, q{SET ROLE race; SELECT minimax_m1.generate_ids('{1,2,3}', 10)}, connstr => $node->connstr('other'));
is($state, '53400', 'a quota holds in all databases');
like($message, qr/HINT: .*Try again in 6[01] minutes/, 'the hint says when to try again');

# However a request ends, what it had reserved is free, and what it took is counted.
$node->safe_psql('postgres', q{SELECT minimax_m1.set_quota('race', 1000000), minimax_m1.usage_reset(), minimax_m1.stats_reset()});
for my $end (['pg_terminate_backend(pid)', '57P01'], ['pg_cancel_backend(pid)', '57014'], ['minimax_m1.cancel(request)', '57014'])
{
	my ($call, $wanted) = @$end;
	my $q = start_query($node, q{SET ROLE race; SELECT minimax_m1.generate_ids('{1,2,3}', 30000)});
	wait_for('it decodes', sub { $node->safe_psql('postgres', 'SELECT max(generated) > 20 FROM minimax_m1.activity') eq 't' });
	cmp_ok($node->safe_psql('postgres', "SELECT reserved FROM minimax_m1.quotas WHERE role = 'race'"), '>', 10000, "$call: tokens are reserved");
	$node->safe_psql('postgres', "SELECT $call FROM minimax_m1.activity");
	is(finish_query($q)->{state}, $wanted, "$call: it ends");
	wait_for('it is gone', sub { is_idle($node) });
}
my $q = start_query($node, q{SET ROLE race; SELECT minimax_m1.generate_ids('{1,2,3}', 30000)});
wait_for('it decodes', sub { $node->safe_psql('postgres', 'SELECT max(generated) > 20 FROM minimax_m1.activity') eq 't' });
kill 'KILL', engine_pid($node);
is(finish_query($q)->{state}, '57P03', 'an engine that is killed fails its request');
$q = start_query($node, q{SET ROLE race; SELECT minimax_m1.generate_ids('{1,2,3}', 30000)});
wait_for('it decodes', sub { $node->safe_psql('postgres', 'SELECT max(generated) > 20 FROM minimax_m1.activity') eq 't' });
kill 'TERM', worker_pid($node);
is(finish_query($q)->{state}, '57P03', 'so does a worker that ends');
wait_for('all is quiet', sub { is_idle($node) });
is($node->safe_psql('postgres', q{SELECT reserved, requests, used_last_hour > 260 + 5 * 20 FROM minimax_m1.quotas WHERE role = 'race'}), '0|0|t', 'nothing stays reserved');
is($node->safe_psql('postgres', q{SELECT requests, completed, failed, cancelled, prompt_tokens, completion_tokens > 60 FROM minimax_m1.usage}),
	'5|0|2|3|9|t', 'the usage has those that were cancelled, and what failed for nothing');
is($node->safe_psql('postgres', q{SELECT requests, completed, failed, cancelled FROM minimax_m1.stats}), '5|0|2|3', 'the statistics have all');

# A table of usage that is full: the last row takes the rest, and the sums stay right.
$node->append_conf('postgresql.conf', 'minimax_m1.max_usage_rows = 10');
$node->restart;
wait_ready($node);
$node->safe_psql('postgres', q{SELECT minimax_m1.usage_reset()});
$node->safe_psql('postgres', join ';', map { "CREATE ROLE r$_; SELECT minimax_m1.grant_usage('r$_')" } 1 .. 14);
$node->safe_psql('postgres', join ';', map { "SET ROLE r$_; SELECT minimax_m1.generate_ids('{1,2}', 3); RESET ROLE" } 1 .. 14);
is($node->safe_psql('postgres', q{SELECT count(*), sum(requests), sum(prompt_tokens), sum(completion_tokens) FROM minimax_m1.usage}), '10|14|28|42', 'no token is lost');
is($node->safe_psql('postgres', q{SELECT function, requests FROM minimax_m1.usage WHERE role IS NULL}), '(others)|5', 'the rest is in one row');

# Quotas go with the roles and prices with the database.
$node->safe_psql('postgres', q{SELECT minimax_m1.set_price(0.4, 2.2), minimax_m1.set_quota('race', 77, 7)});
my ($dump) = run_command([ 'pg_dump', '-d', $node->connstr('postgres') ]);
like($dump, qr/COPY minimax_m1.prices .*\n.*\t0\t0.4\t2.2\t\\N\n/, 'pg_dump carries the prices');
my ($roles) = run_command([ 'pg_dumpall', '--roles-only', '-d', $node->connstr('postgres') ]);
like($roles, qr/ALTER ROLE race SET "minimax_m1.quota_tokens_per_hour" TO '77'/, 'pg_dumpall carries the quotas');
$node->safe_psql('postgres', 'DROP OWNED BY race; DROP EXTENSION minimax_m1 CASCADE; CREATE EXTENSION minimax_m1');
is($node->safe_psql('postgres', q{SELECT role, tokens_per_hour, max_concurrent FROM minimax_m1.quotas WHERE role = 'race'}), 'race|77|7', 'quotas outlive the extension');

# An installation of 0.1 becomes what a new one is.
$node->safe_psql('postgres', q{CREATE DATABASE old});
$node->safe_psql('old', q{CREATE EXTENSION minimax_m1 VERSION '0.1'; SELECT minimax_m1.grant_usage('dora'); ALTER EXTENSION minimax_m1 UPDATE});
my $objects = q{
	SELECT pg_get_functiondef(p.oid) || p.proacl::text FROM pg_proc p WHERE pronamespace = 'minimax_m1'::regnamespace AND prokind <> 'a'
	UNION ALL SELECT c.relname || c.relkind::text || coalesce(pg_get_viewdef(c.oid), '') || coalesce(c.relacl::text, '')
	FROM pg_class c WHERE relnamespace = 'minimax_m1'::regnamespace AND relkind <> 't'
	UNION ALL SELECT extversion || extconfig::regclass[]::text FROM pg_extension WHERE extname = 'minimax_m1'
	ORDER BY 1};
my ($new, $old) = map { my $x = $node->safe_psql($_, $objects); $x =~ s/dora=[a-zA-Z*]+\/\w+,?|,(?=\})//g; $x =~ s/,(?=\})//g; $x } 'postgres', 'old';
is($old, $new, 'an updated installation is like a new one');
is($node->safe_psql('old', q{SET ROLE dora; SELECT minimax_m1.generate('Hello.', max_tokens => 100)}), 'Hello! How can I help you?', 'and its users go on');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|leaked/, 'nothing bad in the log');
done_testing();
