# What the code of one annotated table does to the jobs of others: nothing of it holds them up for long.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $limit = 1000;
my $node = new_server('slow_rows', 'minimax_m1.job_retry_delay = 200', 'minimax_m1.max_requests = 2',
	"minimax_m1.job_write_timeout = $limit", 'restart_after_crash = on');
wait_ready($node);

my $leak = 'Hello, The coffee machine I bought leaks water. I would like a refund. Regards, Omar';
my $template = q{E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\n\n{body}'};

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub annotated_table
{
	my ($name, @options) = @_;
	sql("CREATE TABLE $name (id int PRIMARY KEY, body text, topic text);" .
		join(', ', "SELECT minimax_m1.create_annotator('$name', '$name', 'topic', $template", @options) . ')');
}

sub insert { my ($table, $n) = @_; sql("INSERT INTO $table SELECT i, '$leak' FROM generate_series(1, $n) i"); }

sub wait_attempts
{
	my ($name, $n) = @_;
	wait_for("attempts at $name", sub { sql("SELECT coalesce(max(attempts), 0) >= $n FROM minimax_m1.jobs WHERE annotator = '$name'") eq 't' });
}

# How many answers the model has given.
sub answers { return sql('SELECT coalesce(sum(requests), 0) FROM minimax_m1.usage'); }

# Submits a job while rows of the table are at their worst, and tells how long it took.
sub victim
{
	my $start = time();
	my $job = sql(q{SELECT minimax_m1.submit('Hello.')});
	sql("CALL minimax_m1.wait_for(ARRAY[$job], '1 min')");
	return time() - $start;
}

# ---- code that takes its time, of many kinds ----

my %kinds = (
	sleeps => 'PERFORM pg_sleep(100)',
	loops => 'LOOP NULL; END LOOP',
	waits => q{CALL minimax_m1.wait_for(ARRAY[1])},
	asks => q{LOOP EXIT WHEN NOT EXISTS (SELECT FROM minimax_m1.jobs WHERE annotator = 'asks'); END LOOP},
	locks => 'PERFORM pg_advisory_lock(4711)',
	tries => q{LOOP BEGIN PERFORM 1 FROM held FOR UPDATE; EXIT; EXCEPTION WHEN lock_not_available THEN NULL; END; END LOOP});

sql('CREATE TABLE held AS SELECT 1 AS a');
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; SELECT pg_advisory_lock(4711); SELECT * FROM held FOR UPDATE');
for my $kind (sort keys %kinds)
{
	annotated_table($kind, 'max_attempts => 2');
	sql(qq{
		CREATE FUNCTION $kind() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS \$\$
		BEGIN $kinds{$kind}; RETURN new; END \$\$;
		CREATE TRIGGER slow BEFORE UPDATE ON $kind FOR EACH ROW EXECUTE FUNCTION $kind()});
	insert($kind, 5);
}
annotated_table('quick');
insert('quick', 5);
my @took = ();
for (1 .. 10)
{
	push @took, victim();
}
figure("jobs beside them took @took s");
@took = sort { $a <=> $b } @took;
# each kind is met once, one after the other
cmp_ok($took[-1], '<', (2 + keys %kinds) * $limit / 1000, 'jobs beside them are done');
cmp_ok($took[5], "<", 3 * $limit / 1000, 'and most of them soon');
wait_for('quick rows are written', sub { sql('SELECT count(*) FROM quick WHERE topic IS NOT NULL') eq '5' });
pass('and quick rows');
wait_for('each kind has failed', sub {
		sql(q{SELECT count(DISTINCT annotator) FROM minimax_m1.job_errors}) eq scalar(keys %kinds) }, 300);
is(sql(q{SELECT DISTINCT sqlstate FROM minimax_m1.job_errors WHERE annotator NOT IN ('locks', 'waits')}), '57014', 'what takes too long has failed');
is(sql(q{SELECT DISTINCT sqlstate FROM minimax_m1.job_errors WHERE annotator = 'locks'}), '55P03', 'or what waits for a lock');
like(sql(q{SELECT DISTINCT sqlstate || ' ' || error FROM minimax_m1.job_errors WHERE annotator = 'waits'}),
	qr/^55000 .*the job runner cannot wait/, 'waiting for jobs is refused');

# The end of such an annotator does not wait for its rows.
my $start = time();
sql(qq{SELECT minimax_m1.drop_annotator('$_')}) for sort keys %kinds;
cmp_ok(time() - $start, '<', 5 * $limit / 1000, 'drop_annotator does not wait long');
$holder->quit;

# ---- many annotators of one role, each of which is slow for its first time ----

sub written_by { return sql(qq{SELECT coalesce(sum(done), 0) FROM minimax_m1.annotators WHERE name LIKE '$_[0]%'}); }

my $many = 8;
sql(q{CREATE ROLE many; SELECT minimax_m1.grant_usage('many'); CREATE SCHEMA many AUTHORIZATION many; SET ROLE many;
	CREATE FUNCTION many.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.8); RETURN new; END'});
for my $i (1 .. $many)
{
	sql(qq{
		SET ROLE many;
		CREATE TABLE many.t$i (id int PRIMARY KEY, body text, topic text);
		SELECT minimax_m1.create_annotator('many$i', 'many.t$i', 'topic', $template);
		CREATE TRIGGER slow BEFORE UPDATE ON many.t$i FOR EACH ROW EXECUTE FUNCTION many.slow()});
}
sql(join(';', 'BEGIN; SET ROLE many', map({ "INSERT INTO many.t$_ VALUES (1, '$leak')" } 1 .. $many), 'COMMIT'));
wait_for('one of their rows is written', sub { written_by('many') > 0 });
@took = map { victim() } 1 .. 3;
figure("jobs beside them took @took s");
cmp_ok((sort { $a <=> $b } @took)[-1], '<', 3 * $limit / 1000, 'others wait no longer for all of them than for one');
my $so_far = written_by('many');
wait_for('another row is written', sub { written_by('many') > $so_far }) if $so_far < $many;
pass('they go on');
sql(qq{SELECT minimax_m1.drop_annotator('many$_')}) for 1 .. $many;

# ---- an answer that was too slow to be written is not asked for again ----

annotated_table('dozing');
sql(q{
	CREATE TABLE nap AS SELECT 100::float8 AS seconds;
	CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep((SELECT seconds FROM public.nap)); RETURN new; END';
	CREATE TRIGGER slow BEFORE UPDATE ON dozing FOR EACH ROW EXECUTE FUNCTION doze()});
my $asked = answers();
insert('dozing', 1);
wait_attempts('dozing', 1);
sql('UPDATE nap SET seconds = 0');
wait_for('the row is written', sub { sql(q{SELECT topic FROM dozing}) eq 'hardware' });
is(answers() - $asked, 1, 'the model was asked once');

# ---- code that is deaf to a cancel ----

annotated_table('deaf', 'max_attempts => 1');
sql(q{
	CREATE FUNCTION deaf() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		LOOP BEGIN PERFORM pg_sleep(1000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;
	END $$;
	CREATE TRIGGER slow BEFORE UPDATE ON deaf FOR EACH ROW EXECUTE FUNCTION deaf()});
insert('deaf', 1);
wait_attempts('deaf', 1);
is(sql(q{SELECT state || ' ' || sqlstate FROM minimax_m1.job_errors WHERE annotator = 'deaf'}), 'failed 57014', 'is ended, and has failed');
cmp_ok(victim(), '<', 6 * $limit / 1000, 'others go on');
is(sql('SELECT max(losses) FROM minimax_m1.job'), '0', 'and nobody else is to blame');

# ---- code that ends the process ----

sub set_limit
{
	$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.job_write_timeout = $_[0]");
	$node->reload;
}

sub ends { my @ends = slurp_file($node->logfile) =~ /FATAL: .*terminating background worker "minimax_m1 job runner"/g; return scalar @ends; }

sub error_of { return sql("SELECT concat_ws(' ', state, sqlstate, attempts, detail) FROM minimax_m1.job_errors WHERE annotator = '$_[0]' ORDER BY id LIMIT 1"); }

sub ending_table
{
	my ($name, $when, $code, @options) = @_;
	annotated_table($name, @options);
	sql(qq{
		CREATE FUNCTION $name() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS \$\$
		BEGIN IF $when THEN $code; PERFORM pg_sleep(10); END IF; RETURN new; END \$\$;
		CREATE TRIGGER ending BEFORE UPDATE ON $name FOR EACH ROW EXECUTE FUNCTION $name()});
}

set_limit(500);
my $end = 'PERFORM pg_terminate_backend(pg_backend_pid())';
my $can_time_out = sql(q{SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'});
ending_table('written', 'true', $end);
insert('written', 1);
wait_for('a row that ends the runner has failed', sub { error_of('written') =~ /^failed/ });
is(error_of('written'), 'failed 57P01 3 The last that it said: terminating background worker "minimax_m1 job runner" due to administrator command',
	'after three attempts, with what ended it');
sql(q{SELECT minimax_m1.drop_annotator('written')});
SKIP:
{
	skip 'this PostgreSQL has no transaction_timeout', 1 if !$can_time_out;
	ending_table('timed', 'true', q{PERFORM set_config('transaction_timeout', '10ms', true)});
	insert('timed', 1);
	wait_for('a row that times out the runner has failed', sub { error_of('timed') =~ /^failed/ });
	like(error_of('timed'), qr/^failed 25P04 3 The last that it said: terminating connection due to transaction timeout/, 'so has one that sets a timeout');
	sql(q{SELECT minimax_m1.drop_annotator('timed')});
}
# where there is nothing to ask, and where it is only told that there will be no annotation
ending_table('emptied', 'new.topic IS NULL', $end);
insert('emptied', 1);
wait_for('the row is written', sub { sql(q{SELECT topic FROM emptied}) eq 'hardware' });
sql('UPDATE emptied SET body = NULL');
wait_for('a row that ends the runner when it is emptied has failed', sub { error_of('emptied') =~ /^failed/ });
like(error_of('emptied'), qr/^failed 57P01 3 /, 'so has one whose annotation is taken away');
sql('CREATE TABLE told (id int PRIMARY KEY, body text, topic text CHECK (topic IS NULL), status text)');
sql(qq{SELECT minimax_m1.create_annotator('told', 'told', 'topic', $template, status_column => 'status', max_attempts => 1);
	CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN IF new.status = ''failed'' THEN $end; PERFORM pg_sleep(10); END IF; RETURN new; END';
	CREATE TRIGGER ending BEFORE UPDATE ON told FOR EACH ROW EXECUTE FUNCTION told();
	INSERT INTO told VALUES (1, '$leak')});
wait_for('a row that ends the runner when it is told of a failure has failed', sub { error_of('told') =~ /^failed/ });
like(error_of('told'), qr/^failed 57P01 1 /, 'so has one that fails');
sql("SELECT minimax_m1.drop_annotator('$_')") for 'emptied', 'told';

# As many rows as one likes end it a few times, each time later.
ending_table('throng', 'true', $end, 'max_attempts => 100');
my $ends = ends();
insert('throng', 50);
wait_for('one of them ends the runner', sub { ends() > $ends });
@took = map { victim() } 1 .. 20;
figure("jobs beside them took @took s");
insert('quick', 5) if sql('TRUNCATE quick') eq '';
wait_for('quick rows of the same owner are written', sub { sql('SELECT count(*) FROM quick WHERE topic IS NOT NULL') eq '5' });
sleep 8;
$ends = ends() - $ends;
figure("50 rows ended the runner $ends times in 8 s");
cmp_ok($ends, '<=', 4, 'many rows that would end the runner end it few times');
cmp_ok((sort { $a <=> $b } @took)[-1], '<', 6, 'and others go on');
is(sql('SELECT max(losses) FROM minimax_m1.job'), '0', 'who are not to blame');
sql(q{SELECT minimax_m1.drop_annotator('throng')});

# ---- code that takes the server with it ----

set_limit(60000);
annotated_table('crashing');
sql(q{
	CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN new; END';
	CREATE TRIGGER slow BEFORE UPDATE ON crashing FOR EACH ROW EXECUTE FUNCTION crash()});
insert('crashing', 1);
for my $i (1 .. 5)
{
	my $pid;
	wait_for('the row is being written', sub {
			$pid = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job runner' AND wait_event = 'PgSleep'}) });
	kill 'KILL', $pid;
	wait_for('the server is back', sub { !kill(0, $pid) && $node->psql('postgres', 'SELECT 1') == 0 });
}
wait_for('the row has failed', sub { error_of('crashing') =~ /^failed/ });
is(sql(q{SELECT concat_ws(' ', sqlstate, attempts, losses) FROM minimax_m1.job WHERE state = 'failed' AND annotator_id IN
	(SELECT id FROM minimax_m1.annotator WHERE name = 'crashing')}), '57P03 2 5', 'a row under which the server crashes is given up after five times');
is(sql(q{SELECT max(losses) FROM minimax_m1.job WHERE state <> 'failed'}) || 0, '0', 'and nobody else is suspected');
sql(q{SELECT minimax_m1.drop_annotator('crashing')});
set_limit($limit);

# What errors say is cut.
ending_table('wordy', 'true', q{RAISE EXCEPTION '%', repeat('word ', 20000) USING DETAIL = repeat('ü', 20000), HINT = repeat('hint ', 20000)});
insert('wordy', 1);
wait_attempts('wordy', 1);
is(sql(q{SELECT octet_length(error) || ' ' || octet_length(detail) || ' ' || octet_length(hint) FROM minimax_m1.job WHERE error ~ '^word'}), '8000 8000 8000',
	'an error of any length is told in brief');
sql(q{SELECT minimax_m1.drop_annotator('wordy')});

# ---- rows that are locked ----

annotated_table('locked');
my $locker = $node->background_psql('postgres');
$node->safe_psql('postgres', q{SELECT minimax_m1.alter_annotator('locked', enabled => false)});
insert('locked', 20);
$locker->query_safe('BEGIN; SELECT count(*) FROM (SELECT FROM locked FOR UPDATE) l');
$asked = answers();
sql(q{SELECT minimax_m1.alter_annotator('locked', enabled => true)});
cmp_ok(victim(), '<', 10, 'locked rows leave room for others');
wait_attempts('locked', 2);
like(sql(q{SELECT DISTINCT state || ' ' || sqlstate FROM minimax_m1.job_errors WHERE annotator = 'locked'}), qr/^pending 55P03/m, 'attempts are counted');
cmp_ok(sql(q{SELECT max(run_at - failed_at) > '300 ms' FROM minimax_m1.job WHERE attempts > 1}), 'eq', 't', 'with growing pauses');
$locker->query_safe('ROLLBACK');
wait_for('the rows are written', sub { sql(q{SELECT count(*) FROM locked WHERE topic = 'hardware'}) eq '20' });
is(answers() - $asked, 21, 'each answer was asked for once');
$locker->quit;

done_testing();
