# What goes wrong with trainings, and what then happens: a clear error, or a stated policy; and others go on.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('training_failures', 'minimax_m1.reward_timeout = 300');

wait_ready($node);
$node->safe_psql('postgres', q{
	CREATE ROLE teacher;
	CREATE SCHEMA lessons AUTHORIZATION teacher;
	ALTER ROLE teacher SET search_path = lessons, public;
	SELECT minimax_m1.grant_usage('teacher'), minimax_m1.grant_training('teacher');
	CREATE TABLE secret (a int);
	SET ROLE teacher;
	SET search_path = lessons, public;
	CREATE TABLE lesson (id int, prompt text, answer text);
	INSERT INTO lesson SELECT i, 'Answer yes or no: the customer is happy.' || E'\n\nHello, My toaster broke in half. Thanks, Ana', 'yes' FROM generate_series(1, 4) i;
	CREATE FUNCTION raises(a text, e jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''it is broken''; END';
	CREATE FUNCTION loops(a text, e jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN LOOP NULL; END LOOP; END';
	CREATE FUNCTION goes_on(a text, e jsonb) RETURNS float8 LANGUAGE plpgsql AS $$
		BEGIN LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END$$;
	CREATE FUNCTION is_nan(a text, e jsonb) RETURNS float8 RETURN 'NaN'::float8;
	CREATE FUNCTION says_nothing(a text, e jsonb) RETURNS float8 RETURN NULL::float8;
	CREATE FUNCTION is_huge(a text, e jsonb) RETURNS float8 RETURN 1e31;
	CREATE FUNCTION is_tiny(a text, e jsonb, reasoning text) RETURNS float8 RETURN 1e-200 * (length(reasoning) + length(a) / 100.0);
	CREATE FUNCTION is_infinite(a text, e jsonb) RETURNS float8 RETURN 'Infinity'::float8;
	CREATE FUNCTION writes(a text, e jsonb) RETURNS float8 LANGUAGE sql AS 'INSERT INTO lessons.lesson VALUES (9) RETURNING 1.0::float8';
	CREATE FUNCTION drops(a text, e jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN DROP TABLE lessons.lesson; RETURN 1; END';
	CREATE FUNCTION switches(a text, e jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN SET ROLE NONE; RETURN 1; END';
	CREATE FUNCTION reads_secret(a text, e jsonb) RETURNS float8 LANGUAGE sql AS 'SELECT count(*)::float8 FROM public.secret';
	CREATE FUNCTION is_one(a text, e jsonb) RETURNS float8 RETURN 1;
	CREATE FUNCTION by_length(a text, e jsonb, reasoning text) RETURNS float8 RETURN length(reasoning) + length(a) / 100.0});

# A training by the teacher, of one small step: its row when it has ended, and what train() said if it did not begin.
my $number = 0;

sub trained
{
	my ($reward, %options) = @_;
	my $name = 'training' . ++$number;
	my $examples = delete $options{examples} // 'SELECT * FROM lesson';
	my $shows = ($options{method} // '') =~ /sft/;
	my %answers = (reward => quote($reward // ''), max_tokens => 20, group_size => 4);

	$options{$_} //= $answers{$_} for $shows ? () : sort keys %answers;
	my $more = join '', map { ", $_ => $options{$_}" } sort keys %options;
	my ($state, $message) = sqlstate($node, qq{
		SET ROLE teacher; SET search_path = lessons, public;
		SELECT minimax_m1.train('$name', examples => \$\$$examples\$\$, steps => 1, prompts_per_step => 2$more)});

	return { name => $name, sqlstate => $state, error => $message, state => 'refused' } if $state ne 'none';
	$node->safe_psql('postgres', "CALL minimax_m1.wait_for_training('$name', '100 s')");
	my %row = (name => $name);
	@row{qw(state sqlstate error)} = split /\|/, $node->safe_psql('postgres',
		"SELECT state, sqlstate, concat_ws(' ', error, detail, hint) FROM minimax_m1.training WHERE name = '$name'"), 3;
	return \%row;
}

# ---- queries: before anything is queued ----

for my $case (
	[ 'a query that writes', 'DELETE FROM lesson RETURNING prompt', '42601' ],
	[ 'a query that writes behind a WITH', 'WITH w AS (DELETE FROM lesson RETURNING prompt) SELECT * FROM w', '42601' ],
	[ 'two queries', 'SELECT 1 AS prompt; SELECT 2', '42601' ],
	[ 'no column prompt', 'SELECT id FROM lesson', '42703' ],
	[ 'no rows', 'SELECT * FROM lesson WHERE false', 'P0002' ],
	[ 'a question and a conversation', q{SELECT 'x' AS prompt, '[]' AS messages}, '42702' ],
	[ 'two columns of one name', 'SELECT prompt, id AS a, id AS a FROM lesson', '42701' ])
{
	my ($what, $examples, $expected) = @$case;
	my $t = trained('is_one', examples => $examples);

	is("$t->{state} $t->{sqlstate}", "refused $expected", $what);
	like($t->{error}, qr/HINT:|DETAIL:|syntax error/, 'which says what to do');
}

my ($large, $limit) = sqlstate($node, q{SELECT minimax_m1.train('x', reward => 'lessons.is_one',
	examples => $$SELECT 'x' AS prompt, repeat('x', 210000000) AS rest FROM generate_series(1, 2)$$)}, timeout => 300);
is($large, '54000', 'rows of more than can be kept');
like($limit, qr/more than 400 MB.*Leave columns out/s, 'which says what to do');

# Two at the same time, of one name.
my $first = start_query($node, q{SET ROLE teacher; BEGIN; SELECT minimax_m1.train('twice', examples => 'SELECT * FROM lessons.lesson', reward => 'lessons.is_one');
	SELECT pg_sleep(3); COMMIT});
wait_for('the first is queued', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3)%' AND wait_event = 'PgSleep'}) eq '1' });
my ($second, $exists) = sqlstate($node, q{SET ROLE teacher; SELECT minimax_m1.train('twice', examples => 'SELECT * FROM lessons.lesson', reward => 'lessons.is_one')});
is($second, '42710', 'a name that somebody else is about to take');
like($exists, qr/training "twice" already exists.*Take another name/s, 'which is told');
finish_query($first);

# ---- what does not belong together ----

my $shown = 'SELECT id, prompt, answer, %s FROM lesson';
for my $case (
	[ 'rows without an answer', { method => q{'sft'}, examples => 'SELECT prompt FROM lesson' }, '42703', qr/no answer/ ],
	[ 'a weight of 0', { method => q{'sft'}, examples => sprintf($shown, 'id - 1 AS weight') }, '22023', qr/weight that is none.*It is 0/s ],
	[ 'a weight that is no number', { method => q{'sft'}, examples => sprintf($shown, 'prompt AS weight') }, '22023', qr/weight that is none/ ],
	[ 'reasoning where there is to be none',
		{ method => q{'sft'}, thinking_budget => 0, examples => sprintf($shown, q{'It is so.' AS reasoning}) }, '22023', qr/thinking_budget is 0/ ],
	[ 'kl_coef with another method than grpo', { kl_coef => 0.1 }, '22023', qr/cispo has no kl_coef/ ],
	[ 'is_cap with another one than cispo', { method => q{'dapo'}, is_cap => 5 }, '22023', qr/dapo has no is_cap/ ],
	(map { [ "$_ with cispo", { $_ => 0.2 }, '22023', qr/cispo has no $_/ ] } qw(clip_low clip_high)),
	(map { [ "$_ with sft", { method => q{'sft'}, $_ => 4 }, '22023', qr/sft has no $_/ ] } qw(group_size temperature length_penalty drop_solved)),
	[ 'evaluate_every without held-out rows', { evaluate_every => 2 }, '22023', qr/without held-out rows, evaluate_every would change nothing/ ],
	[ 'a reward of sft without them', { method => q{'sft'}, reward => q{'is_one'} }, '22023', qr/without held-out rows, the reward of sft would change nothing.*HINT:.*holdout/s ],
	[ 'a learning rate of 0', { learning_rate => 0 }, '22023', qr/learning_rate is out of range.*HINT:.*its default/s ],
	[ 'a rank beside an adapter', { adapter => q{'x'}, rank => 8 }, '22023', qr/adapter and rank exclude/ ])
{
	my ($what, $options, $expected, $like) = @$case;
	my $t = trained('is_one', %$options);

	is("$t->{state} $t->{sqlstate}", "refused $expected", $what);
	like($t->{error}, $like, 'which is told');
}

is((sqlstate($node, q{SELECT minimax_m1.train('x', method => 'sft', examples => 'SELECT * FROM lessons.lesson', choices => '{yes,no}')}))[0], '22023',
	'a form of answers where none are asked for');

# ---- what train() asks of the engine ----

my $asked = q{'Answer with one word. ' || repeat('It is said again, and again. ', 40)};
$node->safe_psql('postgres', qq{
	BEGIN;
	SET LOCAL ROLE teacher; SET LOCAL search_path = lessons, public;
	SELECT minimax_m1.train('asks', examples => \$\$SELECT $asked AS prompt\$\$, reward => 'by_length');
	ROLLBACK});
is($node->safe_psql('postgres', "SET minimax_m1.prefix_cache_sharing = 'all'; SELECT cached_tokens FROM minimax_m1.complete($asked, max_tokens => 1)"), '0',
	'what is asked when a training is queued is no one else\'s');
cmp_ok($node->safe_psql('postgres', "SET ROLE teacher; SELECT cached_tokens FROM minimax_m1.complete($asked, max_tokens => 1)"), '>', 0, 'but its owner\'s');

# ---- rewards ----

is(trained('nothing')->{state}, 'refused', 'a reward that does not exist');
is(trained('length')->{state}, 'refused', 'a function that is none');
my ($temporary, $gone) = sqlstate($node, q{SET ROLE teacher; CREATE FUNCTION pg_temp.passes(a text, e jsonb) RETURNS float8 RETURN 1;
	SELECT minimax_m1.train('x', examples => 'SELECT * FROM lessons.lesson', reward => 'pg_temp.passes')});
is($temporary, '22023', 'a reward that ends with its session');
like($gone, qr/in pg_temp/, 'which is told');
for my $case (
	[ 'raises', 'P0001', qr/it is broken/ ],
	[ 'loops', '57014', qr/./ ],
	[ 'goes_on', '57014', qr/"lessons.goes_on\(text,jsonb\)" could not be cancelled.*twice minimax_m1.reward_timeout, which is 300 ms/ ],
	[ 'is_nan', '22003', qr/./ ],
	[ 'is_infinite', '22003', qr/./ ],
	[ 'is_huge', '22003', qr/is 1e\+31.*between -1e\+30 and 1e\+30/ ],
	[ 'writes', '25006', qr/read-only/ ],
	[ 'drops', '25006', qr/read-only/ ],
	[ 'switches', '0A000|42501|25006', qr/./ ],
	[ 'reads_secret', '42501', qr/permission denied for table secret/ ])
{
	my ($reward, $expected, $like) = @$case;
	my $t = trained($reward);

	is($t->{state}, 'failed', "a training by a reward that $reward fails");
	like($t->{sqlstate}, qr/^(?:$expected)$/, "with the reward's SQLSTATE");
	like($t->{error}, $like, 'and what it said');
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM lessons.lesson'), '4', 'and nothing of that was done');
for my $policy ('zero', 'skip')
{
	my $t = trained('raises', reward_errors => "'$policy'");

	is($t->{sqlstate}, 'P0002', "a reward that always fails, with reward_errors $policy: nothing to learn from");
	like($t->{error}, qr/The reward failed for 16 answers, at first with: it is broken Mend the reward\.$/, 'which says why');
}

# ---- nothing to be learnt ----

my $t = trained('is_one');
is("$t->{state} $t->{sqlstate}", 'failed P0002', 'groups without variance');
like($t->{error}, qr/nothing to learn from.*all answers of 4 are right/s, 'which says so');
$t = trained('says_nothing');
is("$t->{state} $t->{sqlstate}", 'failed P0002', 'a reward without an opinion');
like($t->{error}, qr/none of 4 has a reward.*NULL means that it has no opinion/s, 'which says so');

# ---- rewards that differ by very little ----

$t = trained('is_tiny', temperature => 2);
is($t->{state}, 'done', 'rewards whose squares are no numbers are learnt from');
is($node->safe_psql('postgres', "SELECT count(*) FILTER (WHERE advantage <> 0) > 0, max(abs(advantage)) < 5 FROM minimax_m1.rollout WHERE training = '$t->{name}'"),
	't|t', 'by how they lie apart');

# ---- what does not fit ----

$t = trained(undef, method => q{'sft'}, examples => q{SELECT 'Hello.' AS prompt, repeat('word ', CASE i WHEN 2 THEN 40000 ELSE 1 END) AS answer FROM generate_series(1, 2) i});
is("$t->{state} $t->{sqlstate}", 'failed 54000', 'a right answer that is longer than the context');
like($t->{error}, qr/row 2 of the examples is too long to be learnt.*4\d{4}; the context has/s, 'whose row is named');
$t = trained(undef, method => q{'sft'}, examples => q{SELECT repeat('word ', 40000) AS prompt, 'x' AS answer});
is($t->{state}, 'refused', 'so is such a prompt, of the first row');
$t = trained(undef, method => q{'sft'}, examples => q{SELECT repeat('word ', CASE i WHEN 2 THEN 40000 ELSE 1 END) AS prompt, 'x' AS answer FROM generate_series(1, 2) i});
is("$t->{state} $t->{sqlstate}", 'failed 54000', 'or of another one');
like($t->{error}, qr/It is row 2 of the examples/, 'whose row is named, too');

# ---- what is not the training's fault ----

$node->safe_psql('postgres', q{
	CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
	CREATE TRIGGER disk_full BEFORE INSERT ON minimax_m1.training_statistics FOR EACH ROW EXECUTE FUNCTION disk_full()});
$t = trained('by_length', temperature => 2);
is("$t->{state} $t->{sqlstate}", 'failed 53100', 'a disk that is full');
is($node->safe_psql('postgres', "SELECT count(*) FROM minimax_m1.rollout WHERE training = '$t->{name}'"), '0', 'leaves no half of a step');
$node->safe_psql('postgres', 'DROP TRIGGER disk_full ON minimax_m1.training_statistics');
$node->safe_psql('postgres', "SELECT minimax_m1.resume_training('$t->{name}')");
$node->safe_psql('postgres', "CALL minimax_m1.wait_for_training('$t->{name}', '100 s')");
is($node->safe_psql('postgres', "SELECT state, step FROM minimax_m1.training WHERE name = '$t->{name}'"), 'done|1', 'and goes on when there is room');

# ---- an engine that has no memory for it ----

sub restart_engine
{
	my ($path) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.engine_path = '$path'");
	$node->reload;
	kill_engine($node);
	wait_ready($node);
}

# With room for requests, but not for the numbers of a large adapter and their moments.
restart_engine('');
$node->safe_psql('postgres', q{SELECT minimax_m1.generate('Hello.')});
my ($serving) = slurp_file('/proc/' . engine_pid($node) . '/status') =~ /VmSize:\s+(\d+)/;
my $wrapper = PostgreSQL::Test::Utils::tempdir() . '/engine';
append_to_file($wrapper, sprintf("#!/bin/sh\nulimit -v %d\nexec '%s' \"\$@\"\n", $serving + 64 * 1024, $ENV{M1_ENGINE}));
chmod 0755, $wrapper;
restart_engine($wrapper);
$large = trained('by_length', temperature => 2, rank => 1024);
is("$large->{state} $large->{sqlstate}", 'failed 53200', 'an engine without memory for a training');
is($node->safe_psql('postgres', q{SELECT minimax_m1.generate('What is 47 + 35?')}), '82', 'answers others as before');
is(trained('by_length', temperature => 2)->{state}, 'done', 'and trains what there is room for');
my $long_row = q{SELECT 'Hello.' AS prompt, repeat('word ', 12000) AS answer};
$t = trained(undef, method => q{'sft'}, examples => $long_row);
is("$t->{state} $t->{sqlstate}", 'failed 53200', 'but no lesson that is too long for it');
like($t->{error}, qr/out of memory for \d+ MB of activations/, 'which is told');
restart_engine('');

# ---- a lesson that takes too long ----

$node->append_conf('postgresql.conf', "minimax_m1.request_timeout = 1000\n");
$node->reload;
$t = trained(undef, method => q{'sft'}, examples => $long_row);
is("$t->{state} $t->{sqlstate}", 'failed 57014', 'a lesson that is cut off by request_timeout');
like($t->{error}, qr/request timeout/, 'which is told, too');
$node->append_conf('postgresql.conf', "minimax_m1.request_timeout = 0\n");
$node->reload;

# ---- a quota that is used up ----

sub waits
{
	return $node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 training' AND query LIKE '%training waits%'}) eq '1';
}

$node->safe_psql('postgres', q{
	BEGIN;
	SET LOCAL ROLE teacher; SET LOCAL search_path = lessons, public;
	SELECT minimax_m1.train('poor', examples => 'SELECT * FROM lesson', reward => 'by_length', steps => 1,
		prompts_per_step => 2, group_size => 4, max_tokens => 20, temperature => 2);
	RESET ROLE;
	SELECT minimax_m1.set_quota('teacher', 1000);
	COMMIT});
wait_for('it waits', \&waits);
$node->safe_psql('postgres', q{SELECT minimax_m1.set_quota('teacher', NULL); CALL minimax_m1.wait_for_training('poor', '100 s')});
is($node->safe_psql('postgres', q{SELECT state FROM minimax_m1.training WHERE name = 'poor'}), 'done', 'a training whose owner has used up its quota waits');

# ---- one that a step does not fit into ----

my $taught = q{examples => 'SELECT * FROM lesson', reward => 'by_length', steps => 1, prompts_per_step => 4, group_size => 8, max_tokens => 20,
	temperature => 2};

sub quota { $node->safe_psql('postgres', "SELECT minimax_m1.set_quota('teacher', $_[0])"); return $_[0]; }
sub used { return $node->safe_psql('postgres', q{SELECT used_last_hour FROM minimax_m1.quotas WHERE role = 'teacher'}); }
sub queue { $node->safe_psql('postgres', "SET ROLE teacher; SET search_path = lessons, public; SELECT minimax_m1.train('$_[0]', $taught)"); }

quota(1_000_000);
my $used = used();
queue('whole');
is(training_ended($node, 'whole'), 'done', 'a training within its quota');
my $whole = used() - $used;
my ($quota, $raised, $last) = (quota(used() + int($whole / 4)), 0, 0);
$used = used();
queue('bit by bit');
wait_for('it has ended', sub {
		sleep 1;
		return 1 if $node->safe_psql('postgres', q{SELECT state FROM minimax_m1.training WHERE name = 'bit by bit'}) !~ /queued|running/;
		$quota = quota($quota + int($whole / 4)), $raised++ if waits() && used() == $last;
		$last = used();
		return 0 }, 120);
is($node->safe_psql('postgres', q{SELECT state FROM minimax_m1.training WHERE name = 'bit by bit'}), 'done', 'one whose quota is raised again and again');
cmp_ok($raised, '>', 2, 'comes to its end');
cmp_ok(used() - $used, '<=', 1.05 * $whole, 'and asks for each answer once');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT a) FROM (SELECT string_agg(format('%s %s %s', item, sample, content), ', ' ORDER BY item, sample) AS a
	FROM minimax_m1.rollout WHERE training IN ('whole', 'bit by bit') GROUP BY training) x}), '1', 'which are the same');
quota(100);
my ($refused, $why) = sqlstate($node, "SET ROLE teacher; SET search_path = lessons, public; SELECT minimax_m1.train('never', $taught)");
is($refused, '53400', 'a quota that has never room for an answer');
like($why, qr/It would never fit/, 'is refused at once');
quota('NULL');
$node->safe_psql('postgres', "BEGIN; SET LOCAL ROLE teacher; SET LOCAL search_path = lessons, public; SELECT minimax_m1.train('never', $taught);
	RESET ROLE; SELECT minimax_m1.set_quota('teacher', 100); COMMIT");
is(training_ended($node, 'never'), 'failed', 'or fails the training');
is($node->safe_psql('postgres', q{SELECT sqlstate FROM minimax_m1.training WHERE name = 'never'}), '53400', 'with that error');
quota('NULL');

# ---- an adapter that is dropped while it is used ----

my $adapter = trained('by_length', temperature => 2)->{name};
is($node->safe_psql('postgres', "SELECT version FROM minimax_m1.adapter WHERE name = '$adapter'"), '1', 'there is an adapter');
my ($state, $message) = sqlstate($node, qq{
	SET minimax_m1.adapter = '$adapter';
	SELECT minimax_m1.generate('Hello.') IS NULL;
	SELECT minimax_m1.drop_adapter('$adapter');
	SELECT minimax_m1.generate('Hello.')});
is($state, '42704', 'a session whose adapter was dropped is told so');

# What an annotator and a job need is looked for when they run: without it, they fail, and are not tried again.
my $next = trained('by_length', temperature => 2)->{name};
$node->safe_psql('postgres', qq{
	CREATE TABLE note (id int PRIMARY KEY, body text, answer text, at_once text);
	SELECT minimax_m1.create_annotator('later', 'note', 'answer', '{body}', adapter => '$next'),
		minimax_m1.create_annotator('now', 'note', 'at_once', '{body}', adapter => '$next', mode => 'sync')});
my $job = $node->safe_psql('postgres', qq{
	BEGIN;
	SET LOCAL minimax_m1.adapter = '$next';
	SELECT minimax_m1.submit('Hello.');
	SELECT minimax_m1.drop_adapter('$next');
	INSERT INTO note VALUES (1, 'Hello.', NULL, 'is there');
	COMMIT}) =~ s/\D+//gr;
$node->safe_psql('postgres', "CALL minimax_m1.wait_for(ARRAY[$job], '60 s')");
is($node->safe_psql('postgres', "SELECT state, sqlstate, attempts FROM minimax_m1.poll($job)"), 'failed|42704|1', 'a job whose adapter was dropped fails');
wait_for('the row has failed', sub { $node->safe_psql('postgres', q{SELECT state, sqlstate FROM minimax_m1.job_errors WHERE annotator = 'later'}) eq 'failed|42704' });
is((sqlstate($node, q{INSERT INTO note VALUES (2, 'Hello.')}))[0], '42704', 'so does a statement that an annotator needs it for');
$node->safe_psql('postgres', q{SELECT minimax_m1.alter_annotator('later', adapter => 'base'), minimax_m1.alter_annotator('now', adapter => 'base'), minimax_m1.retry_failed('later')});
wait_for('the row is annotated', sub { $node->safe_psql('postgres', q{SELECT answer IS NOT NULL FROM note WHERE id = 1}) eq 't' });
ok(1, 'until the annotator has another, or none');

# ---- a name that was somebody else's when the training ended ----

$node->safe_psql('postgres', q{
	BEGIN;
	SET LOCAL ROLE teacher; SET LOCAL search_path = lessons, public;
	SELECT minimax_m1.train('taken', examples => 'SELECT * FROM lesson', reward => 'by_length', steps => 1,
		prompts_per_step => 2, group_size => 4, max_tokens => 20, temperature => 2);
	RESET ROLE;
	INSERT INTO minimax_m1.adapter_version (name, version, owner, digest, rank, bytes, config)
	VALUES ('taken', 1, 'postgres', '', 1, 0, '{}');
	COMMIT;
	CALL minimax_m1.wait_for_training('taken', '100 s')});
is($node->safe_psql('postgres', q{SELECT t.state, r.sqlstate, (SELECT count(*) FROM minimax_m1.adapter_version v WHERE v.name = 'taken')
	FROM minimax_m1.training t JOIN minimax_m1.training_run r USING (name) WHERE t.name = 'taken'}), 'failed|42710|1',
	'no version is made of another\'s adapter');
$node->safe_psql('postgres', q{INSERT INTO minimax_m1.adapter_version (name, version, owner, digest, rank, bytes, config) VALUES ('foreign', 1, 'postgres', '', 1, 0, '{}')});
my ($foreign, $whose) = sqlstate($node, q{SET ROLE teacher; SELECT minimax_m1.train('foreign', examples => 'SELECT * FROM lessons.lesson', reward => 'lessons.by_length')});
is($foreign, '42710', 'nor is a training queued that would make one');
like($whose, qr/"foreign" is taken by another role's adapter.*Take another name/s, 'which is told');

# ---- another model in the middle ----

$node->safe_psql('postgres', q{
	SET ROLE teacher; SET search_path = lessons, public;
	SELECT minimax_m1.train('long', examples => 'SELECT * FROM lesson', reward => 'by_length', steps => 1000,
		prompts_per_step => 2, group_size => 4, max_tokens => 20, temperature => 2)});
wait_for('a step has ended', sub { $node->safe_psql('postgres', q{SELECT step > 0 FROM minimax_m1.training WHERE name = 'long'}) eq 't' });
is($node->safe_psql('postgres', q{SELECT minimax_m1.generate('What is 47 + 35?')}), '82', 'requests of others are answered meanwhile');
$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.model = '" . tiny() . "'");
$node->reload;
$node->safe_psql('postgres', q{CALL minimax_m1.wait_for_training('long', '100 s')});
is($node->safe_psql('postgres', q{SELECT state FROM minimax_m1.training WHERE name = 'long'}), 'failed', 'a training does not go on over another model');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET minimax_m1.model');
$node->reload;
wait_for('the model is back', sub { $node->safe_psql('postgres', 'SELECT name, state FROM minimax_m1.model') eq 'm1-nano|ready' });
$node->safe_psql('postgres', q{SELECT minimax_m1.resume_training('long')});
my $step = $node->safe_psql('postgres', q{SELECT step FROM minimax_m1.training WHERE name = 'long'});
wait_for('it goes on', sub { $node->safe_psql('postgres', q{SELECT step FROM minimax_m1.training WHERE name = 'long'}) > $step });
ok(1, 'but does over the one that it began with');
$node->safe_psql('postgres', q{SELECT minimax_m1.cancel_training('long'); CALL minimax_m1.wait_for_training('long', '100 s')});
is($node->safe_psql('postgres', q{SELECT state FROM minimax_m1.training WHERE name = 'long'}), 'cancelled', 'until it is cancelled');

# ---- trainers that are ended, and what they leave in the engine ----

# It has room for 16 trainings; each of these is two, with what it began from. Whoever cancels one is heeded by another trainer.
for my $i (1 .. 9)
{
	$node->safe_psql('postgres', qq{
		SET ROLE teacher; SET search_path = lessons, public;
		SELECT minimax_m1.train('ended $i', method => 'grpo', kl_coef => 0.1, examples => 'SELECT * FROM lesson', reward => 'by_length',
			steps => 1000, prompts_per_step => 2, group_size => 4, max_tokens => 20, temperature => 2)});
	wait_for('it has begun', sub { $node->safe_psql('postgres', "SELECT count(*) > 0 FROM minimax_m1.training_step WHERE training = 'ended $i'") eq 't' });
	$node->safe_psql('postgres', qq{SELECT minimax_m1.cancel_training('ended $i');
		SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 training'});
	die 'not cancelled' if training_ended($node, "ended $i") ne 'cancelled';
}
is(trained('by_length', temperature => 2)->{state}, 'done', 'nothing of trainings that were cancelled is in another one\'s way');

# ---- what a database has set for its sessions ----

$node->safe_psql('postgres', q{
	ALTER DATABASE postgres SET lock_timeout = '1ms';
	SET ROLE teacher; SET search_path = lessons, public;
	SELECT minimax_m1.train('locked', examples => 'SELECT * FROM lesson', reward => 'by_length',
			steps => 3, prompts_per_step => 2, group_size => 4, max_tokens => 20, temperature => 2)});
wait_for('it has begun', sub { $node->safe_psql('postgres', q{SELECT state FROM minimax_m1.training WHERE name = 'locked'}) eq 'running' });
$node->safe_psql('postgres', q{SET lock_timeout = 0; BEGIN; SELECT FROM minimax_m1.training_run WHERE name = 'locked' FOR UPDATE; SELECT pg_sleep(3); COMMIT});
is(training_ended($node, 'locked'), 'done', 'a lock_timeout is for sessions');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET lock_timeout');

# ---- turns ----

my $fails = q{examples => 'SELECT * FROM lessons.lesson', reward => 'lessons.raises', steps => 1, prompts_per_step => 2, group_size => 4, max_tokens => 20};
$node->safe_psql('postgres', qq{
	CREATE ROLE other;
	SELECT minimax_m1.grant_usage('other'), minimax_m1.grant_training('other');
	GRANT USAGE ON SCHEMA lessons TO other;
	GRANT SELECT ON lessons.lesson TO other;
	BEGIN;
	SET LOCAL ROLE teacher;
	SELECT minimax_m1.train(name, $fails) FROM unnest('{turn 1,turn 2,turn 3}'::text[]) name;
	SET LOCAL ROLE other;
	SELECT minimax_m1.train('turn of another', $fails);
	COMMIT});
wait_for('they have ended', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM minimax_m1.training WHERE name LIKE 'turn%' AND state = 'failed'}) eq '4' }, 180);
is($node->safe_psql('postgres', q{SELECT string_agg(name, ', ' ORDER BY started_at) FROM minimax_m1.training WHERE name LIKE 'turn%'}),
	'turn of another, turn 1, turn 2, turn 3', 'the next training is of the role whose last one began longest ago');

$node->stop;
done_testing();
