# What is changed under a training, queued or running: its adapter, its reward, the model's weights, the room on the disk, the
# quota of its owner; and what train() refuses of roles without rights.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('training_interruptions');
wait_ready($node);
$node->safe_psql('postgres', slurp_file(root() . '/test/t/mail.sql'));

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }

sub error_of { my ($name) = @_; return sql("SELECT concat_ws(' ', error, detail, hint) FROM minimax_m1.training WHERE name = '$name'"); }

# Its arguments, to be queued with something else in one transaction: short steps that never come to an end of what there is to learn.
sub lesson
{
	my ($name, %options) = @_;
	my %all = (reward => 'voucher_ok', steps => 1000, prompts_per_step => 4, group_size => 6, choices => '{yes,no}', thinking_budget => 0, max_tokens => 4,
		temperature => 3, learning_rate => 1e-5, %options);
	my $given = join ', ', map { "$_ => '$all{$_}'" } sort keys %all;

	return qq{SELECT minimax_m1.train('$name', examples => 'SELECT body AS prompt, voucher FROM mail WHERE id < 20 ORDER BY id', $given)};
}

sub has_stepped
{
	my ($name, $after) = @_;

	wait_for("$name has made a step", sub { sql("SELECT step > $after FROM minimax_m1.training WHERE name = '$name'") eq 't' });
	return sql("SELECT step FROM minimax_m1.training WHERE name = '$name'");
}

sub cancelled
{
	my ($name) = @_;

	sql("SELECT minimax_m1.cancel_training('$name')");
	return training_outcome($node, $name);
}

# ---- rights, and names, when it is queued ----

sql(q{CREATE ROLE teacher; SELECT minimax_m1.grant_usage('teacher'), minimax_m1.grant_training('teacher')});
my ($state, $message) = sqlstate($node, 'SET ROLE teacher; ' . lesson('unread'));
is($state, '42501', 'a query of rows that one may not read');
like($message, qr/permission denied for table mail/, 'which is told');
is((sqlstate($node, lesson('unrewarded', reward => 'nothing')))[0], '42883', 'a reward that does not exist');
is((sqlstate($node, lesson('unadapted', adapter => 'nothing')))[0], '42704', 'an adapter that does not exist');
is(sql('SELECT count(*) FROM minimax_m1.training'), '0', 'queue nothing');

# ---- the adapter that it is to begin from ----

for my $seed (1, 2)
{
	sql(lesson("first $seed", steps => 1, seed => $seed, learning_rate => 0.001));
	is(training_outcome($node, "first $seed"), 'done', 'an adapter is made');
}
my %from = (steps => 1, adapter => 'first 1');
sql(lesson('by the old one', %from));
is(training_outcome($node, 'by the old one'), 'done', 'another training begins from it');
my $pieces = q{SELECT a.id, p.piece, p.data FROM minimax_m1.adapter_version a, minimax_m1.adapter_piece p
	JOIN minimax_m1.adapter_version s ON s.id = p.adapter_id WHERE (a.name, a.version, s.name) = ('first 1', 2, 'first 2')};
sql('BEGIN; ' . lesson('by the same', %from) . qq{;
	INSERT INTO minimax_m1.adapter_version (name, version, owner, base_digest, digest, rank, bytes, config, created_at)
	SELECT 'first 1', 2, owner, base_digest, digest, rank, bytes, config, '-infinity' FROM minimax_m1.adapter_version WHERE name = 'first 2';
	INSERT INTO minimax_m1.adapter_piece $pieces;
	COMMIT});
is(training_outcome($node, 'by the same'), 'done', 'one that has a newer version by the time that a training begins, whatever the clock said then');
is(training_bits($node, 'by the same'), training_bits($node, 'by the old one'), 'is what it was when that was queued');
sql(lesson('by the new one', %from));
is(training_outcome($node, 'by the new one'), 'done', 'one that is queued afterwards');
isnt(training_bits($node, 'by the new one'), training_bits($node, 'by the old one'), 'begins from the newer one');
sql('BEGIN; ' . lesson('by none', adapter => 'first 2') . q{; SELECT minimax_m1.drop_adapter('first 2'); COMMIT});
is(training_outcome($node, 'by none'), 'failed 42704', 'one that is dropped before a training begins');
like(error_of('by none'), qr/adapter "first 2" does not exist/, 'which is told');

# ---- a reward that is another one, or none, in the middle ----

sub reward
{
	my ($answer) = @_;

	sql("CREATE OR REPLACE FUNCTION changing(answer text, example jsonb) RETURNS float8 RETURN (answer = '$answer')::int");
}

sub graded
{
	my ($after) = @_;

	return sql("SELECT DISTINCT content, reward FROM minimax_m1.rollout WHERE training = 'changed' AND part = 'train' AND step > $after ORDER BY content");
}

reward('yes');
sql(lesson('changed', reward => 'changing'));
has_stepped('changed', 0);
is(graded(0), "no|0\nyes|1", 'answers are graded');
reward('no');
my $step = has_stepped('changed', sql(q{SELECT step FROM minimax_m1.training WHERE name = 'changed'}) + 1);
is(graded($step - 1), "no|1\nyes|0", 'by the reward as it is by now');
sql('DROP FUNCTION changing');
is(training_outcome($node, 'changed'), 'failed 42883', 'one that was dropped fails the training');
like(error_of('changed'), qr/the reward public\.changing.* was dropped/, 'which is told');
reward('yes');
$step = sql(q{SELECT minimax_m1.resume_training('changed'), step FROM minimax_m1.training WHERE name = 'changed'}) =~ s/^t\|//r;
has_stepped('changed', $step);
is(cancelled('changed'), 'cancelled', 'until there is one again');

# ---- other weights of the same shape ----

my $other = PostgreSQL::Test::Utils::tempdir() . '/other';
mkdir $other or die $!;
system_or_bail('cp', glob(root() . '/models/m1-nano/*'), $other);
turn_weights("$other/model.safetensors");
sql(lesson('over another'));
has_stepped('over another', 0);
sql("ALTER SYSTEM SET minimax_m1.model = '$other'");
$node->reload;
is(training_outcome($node, 'over another'), 'failed 22023', 'a training does not go on over other weights');
like(error_of('over another'), qr/was made for another model/, 'which is told');
sql('ALTER SYSTEM RESET minimax_m1.model');
$node->reload;
wait_for('the model is back', sub { sql('SELECT name, state FROM minimax_m1.model') eq 'm1-nano|ready' });
$step = sql(q{SELECT minimax_m1.resume_training('over another'), step FROM minimax_m1.training WHERE name = 'over another'}) =~ s/^t\|//r;
has_stepped('over another', $step);
is(cancelled('over another'), 'cancelled', 'but does over those that it began with');

# The numbers of the last norm in the order from behind.
sub turn_weights
{
	my ($file) = @_;
	my ($length, $header, $numbers);

	open(my $f, '+<:raw', $file) or die $!;
	read($f, $length, 8);
	$length = unpack 'Q<', $length;
	read($f, $header, $length);
	my ($from, $to) = $header =~ /"model\.norm\.weight":\s*\{[^}]*"data_offsets":\s*\[(\d+),\s*(\d+)\]/ or die 'no norm';
	seek($f, 8 + $length + $from, 0);
	read($f, $numbers, $to - $from);
	seek($f, 8 + $length + $from, 0);
	print $f pack 'S*', reverse unpack 'S*', $numbers;
	close $f;
}

# ---- a disk that is full ----

sql(q{CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$});

# While the disk has no room for what happens to a table.
sub without_room
{
	my ($when, $code) = @_;
	my ($table) = $when =~ / ON (\S+)/;

	sql("CREATE TRIGGER disk_full BEFORE $when EXECUTE FUNCTION disk_full()");
	$code->();
	sql("DROP TRIGGER disk_full ON $table");
}

without_room('INSERT ON minimax_m1.training_example FOR EACH ROW', sub {
		is((sqlstate($node, lesson('no rows')))[0], '53100', 'no room for the rows of a training') });
is(sql(q{SELECT count(*) FROM minimax_m1.training WHERE name = 'no rows'}), '0', 'which is not queued then');
without_room('INSERT ON minimax_m1.adapter_piece FOR EACH ROW', sub {
		sql(lesson('no adapter', steps => 2));
		is(training_outcome($node, 'no adapter'), 'failed 53100', 'no room for an adapter') });
is(sql(q{SELECT count(*) FROM minimax_m1.adapter_version WHERE name = 'no adapter'}), '0', 'of which there is no half then');
is(sql(q{SELECT minimax_m1.resume_training('no adapter')}), 't', 'when there is room');
is(training_outcome($node, 'no adapter'), 'done', 'the training ends');
is(sql(q{SELECT a.version, t.step FROM minimax_m1.adapter a JOIN minimax_m1.training t USING (name) WHERE name = 'no adapter'}), '1|2', 'with its adapter, and no other step');
sql(q{CREATE FUNCTION raises(answer text, example jsonb) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''it is broken''; END'});
without_room(q{UPDATE ON minimax_m1.training_run FOR EACH ROW WHEN (NEW.state = 'failed')}, sub {
		sql(lesson('no word', reward => 'raises'));
		wait_for('it was begun twice', sub { sql(q{SELECT attempts > 1 FROM minimax_m1.training_run WHERE name = 'no word'}) eq 't' });
		is(sql(q{SELECT minimax_m1.generate('What is 47 + 35?')}), '82', 'no room for an error: others go on') });
like(training_outcome($node, 'no word'), qr/^failed (?:P0001|58000)$/, 'and the training fails when there is some');

# ---- a lesson that no quota has room for ----

# Its prompts are, each by itself; what is to be learnt of them at once is not.
sql(q{BEGIN;
	SET LOCAL minimax_m1.max_tokens = 10;
	SET LOCAL ROLE teacher;
	SELECT minimax_m1.train('too much', 'sft', $$SELECT 'Hello.' AS prompt, repeat('word ', 400) AS answer FROM generate_series(1, 2)$$);
	RESET ROLE;
	SELECT minimax_m1.set_quota('teacher', 500);
	COMMIT});
is(training_outcome($node, 'too much'), 'failed 53400', 'a lesson of more tokens than the owner has in an hour');
like(error_of('too much'), qr/would never fit/i, 'which is told');

# ---- a step that takes longer than anything, and a wish that is taken back ----

sql(lesson('long'));
has_stepped('long', 0);
is(sql(q{BEGIN; UPDATE minimax_m1.training_run SET leased_until = now() - interval '1 hour' WHERE name = 'long';
	SELECT minimax_m1.pause_training('long'); SELECT state, wanted FROM minimax_m1.training_run WHERE name = 'long'; ROLLBACK}), "t\nrunning|pause",
	'as long as its process is there, a step is waited for');

# The trainer sees that it is to pause; before it does, somebody takes that back.
my $pauses = start_query($node, q{BEGIN; SELECT minimax_m1.pause_training('long'); SELECT pg_sleep(4); COMMIT});
wait_for('the trainer waits', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 training' AND wait_event_type = 'Lock'}) eq '1' });
my $resumes = start_query($node, q{SELECT minimax_m1.resume_training('long')});
finish_query($pauses);
is(finish_query($resumes)->{out}, 't', 'a pause that is taken back');
$step = sql(q{SELECT step FROM minimax_m1.training WHERE name = 'long'});
has_stepped('long', $step + 1);
is(cancelled('long'), 'cancelled', 'is none');

# ---- the extension, which is dropped in the middle ----

$node->safe_psql('postgres', 'CREATE DATABASE dropped');
$node->safe_psql('dropped', 'CREATE EXTENSION minimax_m1; ' . slurp_file(root() . '/test/t/mail.sql') . ';' . lesson('dropped'));
wait_for('a step was made there', sub { $node->safe_psql('dropped', 'SELECT bool_and(step > 0) FROM minimax_m1.training') eq 't' });
$node->safe_psql('dropped', 'DROP EXTENSION minimax_m1');
wait_for('nobody trains there any more', sub {
		sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'minimax_m1 training' AND datname = 'dropped'}) eq '0' });
unlike(slurp_file($node->logfile), qr/permission denied for schema minimax_m1/,
	'a training whose extension is dropped ends with it, without a word');

$node->stop;
done_testing();
