# Adapters are rows: imported, granted, dumped and exported with the same bits, and refused when they are none.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('adapters');
my $temporary = PostgreSQL::Test::Utils::tempdir();

# A folder as PEFT makes it. The numbers only have to be many, so that there are pieces.
sub make_adapter
{
	my ($name, %given) = @_;
	my $folder = "$temporary/$name";
	my $numbers = pack('f*', map { sin($_ * ($given{factor} // 1)) } 1 .. ($given{numbers} // 700_000));
	my $header = $given{header} // sprintf('{"__metadata__":{"base_digest":"0123abcd"},"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}',
		length($numbers) / 4, length($numbers));

	mkdir $folder;
	append_to_file("$folder/adapter_config.json", $given{config} // '{"peft_type": "LORA",  "r": 8, "lora_alpha": 1.50}');
	append_to_file("$folder/adapter_model.safetensors", ($given{length} // pack('Q<', length $header)) . $header . $numbers);
	chmod 0777, $folder;
	return $folder;
}

sub import_of
{
	my ($folder, $name) = @_;

	return sqlstate($node, sprintf("SELECT minimax_m1.import_adapter('%s', '%s')", $name // 'poet', $folder));
}

sub files_of
{
	my ($folder) = @_;

	return join '|', map { slurp_file("$folder/$_") } 'adapter_config.json', 'adapter_model.safetensors';
}

# ---- versions and the view ----

my $first = make_adapter('first');
my $second = make_adapter('second', factor => 2, config => '{"peft_type": "LORA", "r": 16}');

is($node->safe_psql('postgres', "SELECT minimax_m1.import_adapter('poet', '$first')"), '1', 'the first version');
is($node->safe_psql('postgres', "SELECT minimax_m1.import_adapter('poet', '$second')"), '2', 'and the second');
is($node->safe_psql('postgres', "SELECT minimax_m1.import_adapter('same', '$first')"), '1', 'the same under another name');
is($node->safe_psql('postgres', 'SELECT name, version, owner, base_digest, rank, bytes > 2800000, latest FROM minimax_m1.adapter ORDER BY name, version'),
	"poet|1|postgres|0123abcd|8|t|f\npoet|2|postgres|0123abcd|16|t|t\nsame|1|postgres|0123abcd|8|t|t", 'the view tells of each version');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT digest) FROM minimax_m1.adapter'), '3|2', 'equal adapters have equal digests');
is($node->safe_psql('postgres', 'SELECT max(length(data)), count(*) FROM minimax_m1.adapter_piece WHERE adapter_id = 1'), '1048576|3', 'in pieces');

# ---- out again, from here and from a dump ----

mkdir "$temporary/out";
chmod 0777, "$temporary/out";
$node->safe_psql('postgres', "SELECT minimax_m1.export_adapter('poet', '$temporary/out')");
ok(files_of("$temporary/out") eq files_of($second), 'what is exported is the latest version, to the bit');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_largeobject_metadata'), '0', 'and leaves no large object');

$node->safe_psql('postgres', q{CREATE ROLE reader; SELECT minimax_m1.grant_usage('reader'); SELECT minimax_m1.grant_adapter('poet', 'reader')});
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$temporary/dump", $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), "$temporary/dump" ], 'pg_restore');
mkdir "$temporary/again";
chmod 0777, "$temporary/again";
$node->safe_psql('restored', "SELECT minimax_m1.export_adapter('poet', '$temporary/again')");
ok(files_of("$temporary/again") eq files_of($second), 'and so it is from a dump');
is($node->safe_psql('restored', "SELECT minimax_m1.import_adapter('poet', '$first')"), '3', 'whose versions go on');

# ---- whose they are ----

sub as_reader
{
	my ($sql) = @_;

	return sqlstate($node, "SET ROLE reader; $sql");
}

is($node->safe_psql('postgres', 'SET ROLE reader; SELECT DISTINCT name FROM minimax_m1.adapter'), 'poet', 'a role sees what it was granted');
is((as_reader("SELECT minimax_m1.grant_adapter('poet', 'reader')"))[0], '42704', 'and may not pass it on');
is((as_reader("SELECT minimax_m1.drop_adapter('poet')"))[0], '42704', 'nor drop it');
is((as_reader("SELECT minimax_m1.drop_adapter('same')"))[0], '42704', 'what is not its own is not there for it');
is((as_reader("SELECT minimax_m1.import_adapter('mine', '$first')"))[0], '42501', 'nor read files');
is((as_reader("SELECT minimax_m1.export_adapter('poet', '$temporary/out')"))[0], '42501', 'nor write them');
is((as_reader('SELECT * FROM minimax_m1.adapter_piece'))[0], '42501', 'nor see the numbers');
$node->safe_psql('postgres', q{SELECT minimax_m1.revoke_adapter('poet', 'reader')});
is($node->safe_psql('postgres', 'SET ROLE reader; SELECT count(*) FROM minimax_m1.adapter'), '0', 'until it is taken back');

is((sqlstate($node, q{SELECT minimax_m1.grant_adapter('poet', 1::regrole)}))[0], '42704', 'a role that is not there is granted nothing');

# What a member of a role makes belongs to that role: whoever leaves it has nothing left.
$node->safe_psql('postgres', q{
	CREATE ROLE press; CREATE ROLE author IN ROLE press;
	SELECT minimax_m1._add_adapter('press'::regrole, 'verse', NULL, 1, '{"r": 8}'), minimax_m1._add_adapter('author'::regrole, 'verse', NULL, 1, '{"r": 8}')});
is($node->safe_psql('postgres', q{SELECT string_agg(format('%s %s', version, owner), ', ' ORDER BY version) FROM minimax_m1.adapter WHERE name = 'verse'}),
	'1 press, 2 press', 'a version belongs to whom the adapter belongs to');
is((sqlstate($node, q{SELECT minimax_m1._adapter_owned('author'::regrole, 'verse')}))[0], 'none', 'of whom a member may do what the owner may');
$node->safe_psql('postgres', 'REVOKE press FROM author');
is((sqlstate($node, q{SELECT minimax_m1._adapter_owned('author'::regrole, 'verse')}))[0], '42704', 'but not who was one');
$node->safe_psql('postgres', q{SELECT minimax_m1.drop_adapter('verse')});

# ---- what is none ----

my @broken = (
	[ 'no folder', "$temporary/nothing", '58P01' ],
	[ 'a config that is no JSON', make_adapter('c1', config => 'rank 8'), 'XX001' ],
	[ 'a config of something else', make_adapter('c2', config => '{"peft_type": "IA3"}'), 'XX001' ],
	[ 'a config without a rank', make_adapter('c3', config => '{"peft_type": "LORA", "r": "many"}'), 'XX001' ],
	[ 'an array', make_adapter('c4', config => '[1]'), 'XX001' ],
	[ 'a header that is longer than the file', make_adapter('h1', length => pack('Q<', 99_000_000)), 'XX001' ],
	[ 'a length of all ones', make_adapter('h2', length => "\xff" x 8), 'XX001' ],
	[ 'a header that is no JSON', make_adapter('h3', header => 'not JSON', numbers => 10), 'XX001' ],
	[ 'an empty file', make_adapter('h4', header => '', length => '', numbers => 0), 'XX001' ]);
for my $case (@broken)
{
	my ($what, $folder, $state) = @$case;

	is((import_of($folder))[0], $state, $what);
}
is((import_of($first, 'base'))[0], '22023', 'base is no name for an adapter');
is((import_of($first, ''))[0], '22023', 'nor is nothing');
is((sqlstate($node, "SELECT minimax_m1.export_adapter('nothing', '$temporary/out')"))[0], '42704', 'what is not there is not exported');
$node->safe_psql('postgres', q{UPDATE minimax_m1.adapter_piece SET data = '\x00' || substr(data, 2) WHERE adapter_id = 2 AND piece = 2});
is((sqlstate($node, "SELECT minimax_m1.export_adapter('poet', '$temporary/out')"))[0], 'XX001', 'nor what has changed since');

$node->safe_psql('postgres', q{SELECT minimax_m1.drop_adapter('poet')});
is($node->safe_psql('postgres', 'SELECT count(*), (SELECT count(*) FROM minimax_m1.adapter_piece) FROM minimax_m1.adapter'), '1|3', 'dropped in all versions');

# ---- used ----

my $model = root() . '/models/m1-nano';

# An adapter that is trained a little, so that it answers otherwise.
sub train_adapter
{
	my ($name, $base, $answer) = @_;
	my $data = "$temporary/$name.jsonl";

	append_to_file($data, join '', map { qq({"prompt": "Hello.", "reasoning": "A greeting.", "answer": "$answer"}\n) } 1 .. 20);
	IPC::Run::run([ $ENV{M1_ENGINE}, 'train', '--model', $base, '--rank', '2', '--data', $data, '--out', "$temporary/$name",
			'--steps', '20', '--lr', '5e-3', '--batch-tokens', '200' ], '>', "$temporary/$name.log", '2>&1') or die slurp_file("$temporary/$name.log");
	chmod 0755, "$temporary/$name";
	return "$temporary/$name";
}

# As the engine answers from the folder.
sub answer_of
{
	my ($folder) = @_;
	my $out = '';

	IPC::Run::run([ $ENV{M1_ENGINE}, 'generate', '--model', $model, '--adapter', $folder, '--prompt', 'Hello.', '--temperature', '0' ],
		'>', \$out, '2>', "$temporary/generate.log") or die slurp_file("$temporary/generate.log");
	chomp $out;
	return $out;
}

sub answer_with
{
	my ($adapter, $role) = @_;

	return $node->safe_psql('postgres', "SET ROLE ${\($role // 'postgres')}; SET minimax_m1.adapter = '$adapter'; SELECT minimax_m1.generate('Hello.')");
}

my $plain = answer_with('');
my $moin = train_adapter('moin', $model, 'Moin!');
my $ahoy = train_adapter('ahoy', $model, 'Ahoy!');

$node->safe_psql('postgres', "SELECT minimax_m1.import_adapter('greeting', '$moin')");
my $told = answer_with('greeting');
isnt($told, $plain, 'an adapter of rows changes the answer');
like(answer_of($moin), qr/\Q$told\E/, 'to what it is with the folder');
is(answer_with('greeting'), $told, 'in the next session, too');
is(answer_with(''), $plain, 'and others are answered as before');
is($node->safe_psql('postgres', q{SET minimax_m1.adapter = 'greeting'; SELECT content FROM minimax_m1.evaluate($$SELECT 'Hello.' AS prompt, 'x' AS answer$$, 'reward_exact', ARRAY['base'])}),
	$plain, 'base is the model without one, whatever the setting says');
is((as_reader("SET minimax_m1.adapter = 'greeting'; SELECT minimax_m1.generate('Hello.')"))[0], '42704', 'whom it was not granted to, may not use it');
$node->safe_psql('postgres', q{SELECT minimax_m1.grant_adapter('greeting', 'reader')});
is(answer_with('greeting', 'reader'), $told, 'and may then');

$node->safe_psql('postgres', q{
	CREATE TABLE greeted (id int PRIMARY KEY, body text, answer text);
	SELECT minimax_m1.create_annotator('greeted', 'greeted', 'answer', '{body}', mode => 'sync');
	SET minimax_m1.adapter = 'greeting';
	INSERT INTO greeted VALUES (1, 'Hello.')});
is($node->safe_psql('postgres', 'SELECT answer FROM greeted'), $plain, 'an annotator does not depend on the session');

# ---- named ----

is($node->safe_psql('postgres', q{SELECT model, content FROM minimax_m1.complete('Hello.')}), "m1-nano|$plain", 'the model is named');
is($node->safe_psql('postgres', q{SET minimax_m1.adapter = 'base'; SELECT model, content FROM minimax_m1.complete('Hello.')}), "m1-nano|$plain", 'base is none');
is($node->safe_psql('postgres', q{SET minimax_m1.adapter = 'greeting'; SELECT model, content FROM minimax_m1.complete('Hello.')}),
	"m1-nano/greeting/1|$told", 'with the version of its adapter');

# A reply goes on with the version that it began with, and says so; others have the next.
my $stream = $node->safe_psql('postgres', qq{
	BEGIN;
	SET LOCAL minimax_m1.adapter = 'greeting';
	DECLARE reply CURSOR FOR SELECT (s).channel, (s).delta, (s).model FROM (SELECT minimax_m1.complete_stream('Hello.') AS s OFFSET 0) t;
	FETCH 1 FROM reply;
	SELECT minimax_m1.import_adapter('greeting', '$ahoy');
	SELECT 'others', model, content = \$\$$told\$\$ FROM minimax_m1.complete('Hello.');
	SET LOCAL minimax_m1.adapter = '';
	FETCH ALL FROM reply;
	ROLLBACK});
like($stream, qr{^others\|m1-nano/greeting/2\|f$}m, 'a new version is used from then on');
is(join('', $stream =~ /^content\|(.*?)\|$/mg), $told, 'but not in the middle of a reply');
like($stream, qr{\|\|m1-nano/greeting/1\z}, 'which tells which one it had');

# Of 14 rows, 9 ask for what the adapter answers, 2 for what the model without it does, and 3 for neither: by hand, p is
# 2 (1 + 11 + 55) / 2048, and 2 of 14 are between 0.0401 and 0.3994 (Wilson).
$node->safe_psql('postgres', "CREATE TABLE pairs AS SELECT 'Hello.' AS prompt, CASE WHEN i <= 9 THEN ${\(quote($told))} WHEN i <= 11 THEN ${\(quote($plain))} END AS wanted FROM generate_series(1, 14) i;
	CREATE FUNCTION is_wanted(answer text, example jsonb) RETURNS float8 RETURN coalesce((answer = example->>'wanted')::int, 0)");
my $compared = q{SELECT adapter, n, round(mean::numeric, 4), round(low::numeric, 4), round(high::numeric, 4), wins, ties, losses, p
	FROM minimax_m1.compare('SELECT * FROM pairs', 'is_wanted', ARRAY['%s', '%s'])};
is($node->safe_psql('postgres', sprintf($compared, 'base', 'greeting')),
	"base|14|0.1429|0.0401|0.3994||||\ngreeting|14|0.6429|0.3876|0.8366|9|3|2|0.0654296875", 'pairs are won, tied and lost, and p is exact');
like($node->safe_psql('postgres', sprintf($compared, 'greeting', 'base')), qr/^base\|14\|.*\|2\|3\|9\|0\.0654296875$/m, 'beside the first, whichever that is');

# ---- by annotators and jobs ----

# A job has the adapter of the session that submits it, in the version that is the latest when it runs.
my $submit = q{SET minimax_m1.adapter = '%s'; SELECT minimax_m1.submit('Hello.'%s)};
sub answer_of_job
{
	my ($job) = @_;

	$node->safe_psql('postgres', "CALL minimax_m1.wait_for(ARRAY[$job], '60 s')");
	return $node->safe_psql('postgres', "SELECT content FROM minimax_m1.poll($job)");
}

is(answer_of_job($node->safe_psql('postgres', sprintf($submit, 'greeting', ''))), $told, 'a job has the adapter of its session');
is(answer_of_job($node->safe_psql('postgres', sprintf($submit, '', ''))), $plain, 'or none');
my ($first_job, $second_job) = map { $node->safe_psql('postgres', $_) } (sprintf($submit, 'greeting', q{, dedupe_key => 'k'})) x 2;
is($second_job, $first_job, 'the same request again is the same job');
is((sqlstate($node, sprintf($submit, '', q{, dedupe_key => 'k'})))[0], '23505', 'one with another adapter is not');
is($node->safe_psql('postgres', "SELECT adapter FROM minimax_m1.jobs WHERE id = $first_job"), 'greeting', 'the view tells of it');
is((as_reader(sprintf($submit, 'same', '')))[0], '42704', 'one that the role may not use is refused when it is submitted');

sub annotated
{
	my ($id, $annotator) = @_;

	$node->safe_psql('postgres', "INSERT INTO ${annotator} VALUES ($id, 'Hello.')");
	wait_for("row $id is annotated", sub { $node->safe_psql('postgres', "SELECT answer IS NOT NULL FROM $annotator WHERE id = $id") eq 't' });
	return $node->safe_psql('postgres', "SELECT answer FROM $annotator WHERE id = $id");
}

$node->safe_psql('postgres', q{
	CREATE TABLE later (id int PRIMARY KEY, body text, answer text);
	SELECT minimax_m1.create_annotator('later', 'later', 'answer', '{body}', adapter => 'greeting')});
is(annotated(1, 'later'), $told, 'an annotator has one of its own');
$node->safe_psql('postgres', q{SELECT minimax_m1.alter_annotator('later', adapter => 'base'), minimax_m1.alter_annotator('greeted', adapter => 'greeting')});
is(annotated(2, 'later'), $plain, 'until it has none');
is(annotated(2, 'greeted'), $told, 'and so has one that fills rows at once');
is($node->safe_psql('postgres', q{SELECT string_agg(concat(name, ' ', adapter), ', ' ORDER BY name) FROM minimax_m1.annotators}), 'greeted greeting, later ',
	'which the view shows');
is((sqlstate($node, q{SELECT minimax_m1.alter_annotator('later', adapter => 'nothing')}))[0], '42704', 'one that is not there is refused');

# The right is that of the annotator's owner, not of whoever writes the row.
$node->safe_psql('postgres', q{
	CREATE ROLE writer;
	SELECT minimax_m1.grant_usage('writer');
	GRANT INSERT, SELECT ON greeted TO writer;
	SET ROLE writer;
	INSERT INTO greeted VALUES (3, 'Hello.')});
is($node->safe_psql('postgres', 'SELECT answer FROM greeted WHERE id = 3'), $told, 'whoever writes a row needs no right to the adapter');
$node->safe_psql('postgres', q{
	CREATE TABLE readers (id int PRIMARY KEY, body text, answer text);
	ALTER TABLE readers OWNER TO reader;
	GRANT CREATE, USAGE ON SCHEMA public TO reader;
	SET ROLE reader;
	SELECT minimax_m1.create_annotator('readers', 'readers', 'answer', '{body}', adapter => 'greeting', max_attempts => 5)});
is(annotated(1, 'readers'), $told, 'a role that was granted it annotates with it');
$node->safe_psql('postgres', q{SELECT minimax_m1.revoke_adapter('greeting', 'reader'); INSERT INTO readers VALUES (2, 'Hello.')});
wait_for('the row has failed', sub { $node->safe_psql('postgres', q{SELECT state FROM minimax_m1.job_errors WHERE annotator = 'readers'}) eq 'failed' });
is($node->safe_psql('postgres', q{SELECT sqlstate, error, attempts FROM minimax_m1.job_errors WHERE annotator = 'readers'}),
	'42704|minimax_m1: adapter "greeting" does not exist|1', 'until it is taken back: then its rows fail, and are not tried again');
$node->safe_psql('postgres', q{SELECT minimax_m1.grant_adapter('greeting', 'reader'), minimax_m1.retry_failed('readers')});
wait_for('the row is annotated', sub { $node->safe_psql('postgres', q{SELECT answer FROM readers WHERE id = 2}) eq $told });
ok(1, 'but when they are told to');

kill_engine($node);
wait_ready($node);
is(answer_with('greeting'), $told, 'an engine that is new is given it again');

my %refused;
$refused{ (sqlstate($node, q{SET minimax_m1.adapter = 'same'; SELECT minimax_m1.generate('Hello.')}))[0] }++ for 1 .. 20;
ok(!$refused{none}, 'what is no adapter of this model is refused when it is used') or diag(join ' ', %refused);
is(answer_with(''), $plain, 'and harms no other');

$node->safe_psql('postgres', "SELECT minimax_m1.import_adapter('greeting', '$ahoy')");
my @at_once = map { start_query($node, q{SET minimax_m1.adapter = 'greeting'; SELECT minimax_m1.generate('Hello.')}) } 1 .. 8;
my %answers = map { finish_query($_); ("$_->{out}$_->{err}" => 1) } @at_once;
is(join('|', keys %answers), answer_with('greeting'), 'a new version is the same for sessions that begin with it at once');
isnt(answer_with('greeting'), $told, 'and is used from then on');
isnt(annotated(3, 'later') . annotated(4, 'greeted'), $plain . $told, 'by annotators, too');

# ---- more than there is room for ----

# The same numbers with other configs are other adapters.
my $bytes = $node->safe_psql('postgres', q{SELECT max(bytes) FROM minimax_m1.adapter WHERE name = 'greeting'});
my $room = 1 + int($bytes / 1048576);
my @names = map { "copy $_" } 1 .. 2 + int($room * 1048576 / $bytes);
for my $name (@names)
{
	mkdir "$temporary/$name";
	append_to_file("$temporary/$name/adapter_config.json", slurp_file("$moin/adapter_config.json") . ' ' x length($name) . "\n" x substr($name, 5));
	IPC::Run::run([ 'cp', "$moin/adapter_model.safetensors", "$temporary/$name" ]) or die;
	chmod 0755, "$temporary/$name";
	$node->safe_psql('postgres', "SELECT minimax_m1.import_adapter('$name', '$temporary/$name')");
}
$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.adapter_memory = $room");
my $roomy = engine_pid($node);
$node->reload;
wait_for('an engine with that setting', sub { my $now = engine_pid($node); $now ne '' && $now != $roomy });
wait_ready($node);
is(join(',', map { answer_with($_) eq $told ? 1 : 0 } @names, @names), join(',', (1) x (2 * @names)), 'adapters that nobody uses make room for others');
my $turns = join ' UNION ALL ', map { "SELECT '$_'" } @names, @names;
is($node->safe_psql('postgres', qq{
	SELECT count(*) FILTER (WHERE a.content = ${\(quote($told))}), count(*) FROM ($turns) n(name),
		LATERAL (SELECT set_config('minimax_m1.adapter', n.name, false) AS s OFFSET 0) c,
		LATERAL minimax_m1.complete('Hello.' || left(c.s, 0)) a}), 2 * @names . '|' . 2 * @names, 'also within one statement');
for my $call (q{SELECT (s).delta FROM (SELECT minimax_m1.generate_stream('Hello.') AS s OFFSET 0) t WHERE (s).channel = 'content'},
	q{SELECT content FROM minimax_m1.generate_batch(ARRAY['Hello.'])},
	q{SELECT minimax_m1.submit('Hello.') AS job \gset
CALL minimax_m1.wait_for(ARRAY[:job]);
SELECT content FROM minimax_m1.poll(:job)})
{
	answer_with($_) for @names;
	is(join('', split /\n/, $node->safe_psql('postgres', "SET minimax_m1.adapter = '$names[0]';\n$call")), $told, 'and by ' . $call =~ s/.*minimax_m1\.(\w+).*/$1/sr);
}
$node->stop;
done_testing();
