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

my $engine = engine_pid($node);
kill 'KILL', $engine;
wait_for('another engine serves', sub { my $now = engine_pid($node); $now ne '' && $now != $engine });
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

$node->stop;
done_testing();
