# M1Test.pm - what the TAP tests share: servers with the extension staged, and a look at the engine.
package M1Test;

use strict;
use warnings;
use Exporter 'import';
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(make_texts new_server wait_ready wait_for engine_pid kill_engine worker_pid job_pid process_exists sqlstate start_query
  finish_query greedy_cases root is_idle tiny quote long_query endless_model fake_engine set_fake_engine memory_kib memory_at_rest
  run_watched is_steady figure tell_memory fetch_from_npm keep_running teach_vouchers training_ended training_outcome training_bits);

sub root { return $ENV{M1_ROOT}; }

sub tiny { return root() . '/test/checkpoints/tiny-f32'; }

# A started server with the extension; settings are lines of postgresql.conf.
sub new_server
{
	my ($name, @settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init;
	$node->append_conf('postgresql.conf', join("\n",
			$ENV{M1_SETTINGS}, "minimax_m1.temperature = 0", "minimax_m1.threads = 1", @settings, ''));
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION minimax_m1') unless grep { /no_extension/ } @settings;
	return $node;
}

sub fake_engine { return root() . '/test/t/fake_engine.py'; }

# Has the server use test/t/fake_engine.py with this lie; '' for the real engine.
sub set_fake_engine
{
	my ($node, $lie) = @_;
	my $path = '';

	if ($lie ne '')
	{
		$path = PostgreSQL::Test::Utils::tempdir() . '/engine';
		append_to_file($path, "#!/bin/sh\nexec python3 '" . fake_engine() . "' '$lie' \"\$@\"\n");
		chmod 0755, $path;
	}
	$node->safe_psql('postgres', "ALTER SYSTEM SET minimax_m1.engine_path = '$path'");
	$node->reload;
}

# Polls until code returns true; dies after a while, so that nothing hangs.
sub wait_for
{
	my ($what, $code, $seconds) = @_;
	my $end = time() + ($seconds // 60);

	while (time() < $end)
	{
		my $result = $code->();
		return $result if $result;
		usleep(20_000);
	}
	die "timed out waiting until $what";
}

sub wait_ready
{
	my ($node) = @_;

	wait_for('the model is ready', sub {
			$node->safe_psql('postgres', 'SELECT state FROM minimax_m1.model') eq 'ready' });
}

sub engine_pid
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT engine_pid FROM minimax_m1.model');
}

# Returns when the worker knows that it is gone: what is asked from then on waits for the next one, if there will be one.
sub kill_engine
{
	my ($node) = @_;
	my $pid = engine_pid($node);

	return if $pid eq '';    # it knows already, as after another engine_path
	kill 'KILL', $pid;
	wait_for('the worker knows', sub { engine_pid($node) ne $pid });
}

# The worker is the engine's parent; it has no database, so pg_stat_activity does not know it.
sub worker_pid
{
	my ($node) = @_;
	my $engine = engine_pid($node);

	return slurp_file("/proc/$engine/stat") =~ /\) \S (\d+)/ ? $1 : die "no process $engine";
}

# Of 'launcher' or 'runner'; '' when there is none.
sub job_pid
{
	my ($node, $which) = @_;

	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job $which' LIMIT 1");
}

# ---- memory ----

# Of its own: neither shared nor of files.
sub memory_kib
{
	my ($pid) = @_;
	my $status = eval { slurp_file("/proc/$pid/status") } // return undef;

	return $status =~ /RssAnon:\s+(\d+)/ ? $1 : undef;
}

# Of those that stay, while nobody asks for anything.
sub memory_at_rest
{
	my ($node) = @_;

	return { engine => memory_kib(engine_pid($node)), worker => memory_kib(worker_pid($node)),
		launcher => memory_kib(job_pid($node, 'launcher')) };
}

# Runs a command, and meanwhile looks at the job runner now and then. Returns its success, its output, and a list of
# numbers for each runner that there was.
sub run_watched
{
	my ($node, @command) = @_;
	my ($out, %runners) = ('');
	my $run = IPC::Run::start(\@command, '>&', \$out);

	while ($run->pumpable)
	{
		my $pid = eval { job_pid($node, 'runner') } || '';
		my $kib = $pid ne '' ? memory_kib($pid) : undef;

		push @{ $runners{$pid} }, $kib if defined $kib;
		eval { $run->pump_nb };
		usleep(500_000);
	}
	return ($run->finish, $out, [ values %runners ]);
}

# A measure that the long forms show and keep.
sub figure { return diag("figure: $_[0]"); }

sub tell_memory
{
	my ($when, $kib) = @_;

	return figure("memory $when: " . join(', ', map { "$_ $kib->{$_} KiB" } sort keys %$kib));
}

# Whether memory at rest and that of runners has not grown since it was warm: from the second of several rounds on.
sub is_steady
{
	my ($rounds, $runners, $most) = @_;
	my ($warm, $last) = ($rounds->[ @$rounds > 2 ? 1 : 0 ], $rounds->[-1]);

	tell_memory("after round $_", $rounds->[ $_ - 1 ]) for 1 .. @$rounds;
	for my $process (sort keys %$warm)
	{
		cmp_ok($last->{$process} - $warm->{$process}, '<', $most->{$process}, "the $process does not grow");
	}
	# of each runner two numbers a second; the first quarter is its start
	for my $kib (@$runners)
	{
		my ($early, $late) = ($kib->[ @$kib / 4 ], $kib->[-1]);

		figure("a runner of " . @$kib / 2 . " s: $early KiB, in the end $late");
		cmp_ok($late - $early, '<', $most->{runner}, 'nor does a runner');
	}
	return;
}

# A zombie has ended.
sub process_exists
{
	my ($pid) = @_;

	open(my $f, '<', "/proc/$pid/stat") or return 0;
	my $stat = <$f>;
	return $stat !~ /\) [ZX] /;
}

# No request is waiting or running, and the engine's memory of the last one is gone with it.
sub is_idle
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT count(*) FROM minimax_m1.activity') eq '0';
}

# The SQLSTATE of a failing query, and its message.
sub sqlstate
{
	my ($node, $query, %options) = @_;
	my ($out, $err) = ('', '');

	$node->psql('postgres', "\\set VERBOSITY verbose\n$query",
		stdout => \$out, stderr => \$err, timeout => 60, on_error_stop => 0, %options);
	return ($err =~ /(?:ERROR|FATAL):\s+([0-9A-Z]{5}):/ ? $1 : 'none', $err, $out);
}

# A psql in the background; finish_query waits for its end.
sub start_query
{
	my ($node, $query, $database) = @_;
	my $q = { out => '', err => '' };

	$q->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($database // 'postgres'), '-c', $query ],
		'>', \$q->{out}, '2>', \$q->{err}, IPC::Run::timeout(300));
	return $q;
}

sub finish_query
{
	my ($q) = @_;

	$q->{run}->finish;
	chomp $q->{out};
	($q->{state}) = $q->{err} =~ /(?:ERROR|FATAL):\s+([0-9A-Z]{5}):/;
	return $q;
}

# Runs a command again and again, as long as the file is there: clients lose their connections.
sub keep_running
{
	my ($flag, @command) = @_;

	return IPC::Run::start([ 'sh', '-c', 'flag=$1; shift; while test -e "$flag"; do "$@"; sleep 0.2; done', 'sh', $flag, @command ],
		'>', '/dev/null', '2>', '/dev/null');
}

# ---- packages ----

# Runs a script of npm's, one at a time. Returns '' or why it could not: npm or its registry is not there. Whatever else is
# wrong is an error.
sub fetch_from_npm
{
	my ($script, @arguments) = @_;
	my $out = '';

	return 'npm is missing' if system('command -v npm > /dev/null') != 0;
	my @command = ('timeout', 400, 'flock', root() . '/build/npm/lock', 'sh', '-c', $script, 'sh', @arguments);
	return '' if IPC::Run::run(\@command, '<', \undef, '>&', \$out);
	return 'npm does not reach its registry'
	  if $? >> 8 == 124 || $out =~ /\b(?:ENOTFOUND|EAI_AGAIN|ECONN\w+|ETIMEDOUT|E\w+UNREACH|EPROTO|\w*CERT\w*|E40[13]|E5\d\d|network)\b/;
	die "npm: $out";
}

# ---- trainings ----

# Queues a training by answers under a constraint: of rows of test/t/mail.sql, but for 400 to 409, which are held out. A
# small one is as good where bits are compared.
sub teach_vouchers
{
	my ($node, $name, %options) = @_;
	my %all = (method => 'cispo', reward => 'voucher_ok', rows => 'id < 40', steps => 3, prompts_per_step => 6, group_size => 6,
		updates_per_step => 2, choices => '{yes,no}', thinking_budget => 0, max_tokens => 8, learning_rate => 0.0003,
		evaluate_every => 1, %options);
	my $rows = delete $all{rows};
	my $database = delete $all{database} // 'postgres';
	my $given = join ', ', map { "$_ => '$all{$_}'" } sort keys %all;
	my $prompt = q{E'Answer yes or no: the customer gets a voucher.\n\n' || body AS prompt, voucher};

	return $node->safe_psql($database, qq{
		SELECT minimax_m1.train('$name', examples => \$\$SELECT $prompt FROM mail WHERE $rows ORDER BY id\$\$,
			holdout => \$\$SELECT $prompt FROM mail WHERE id BETWEEN 400 AND 409 ORDER BY id\$\$, $given)});
}

# Waits until it has, and returns how: the server may be away meanwhile.
sub training_ended
{
	my ($node, $name) = @_;
	my $sql = "SELECT state FROM minimax_m1.training_run WHERE name = '$name'";

	return wait_for("training $name has ended", sub {
			my $state = '';

			$node->psql('postgres', $sql, stdout => \$state);
			return $state =~ /^(?:done|failed|cancelled)$/ ? $state : 0 }, 300);
}

# When it has ended: how, and with which SQLSTATE if it has failed.
sub training_outcome
{
	my ($node, $name) = @_;

	training_ended($node, $name);
	return $node->safe_psql('postgres', "SELECT concat_ws(' ', state, sqlstate) FROM minimax_m1.training WHERE name = '$name'");
}

# A digest of all that a training has led to, but for times.
sub training_bits
{
	my ($node, $name) = @_;

	return $node->safe_psql('postgres', qq{SELECT md5(string_agg(t, E'\\n' ORDER BY t)) FROM (
		SELECT format('%s %s %s %s %s %s', s.step, s.reward, s.heldout, s.loss, s.gradient_norm, s.tokens) AS t
		FROM minimax_m1.training_statistics s JOIN minimax_m1.training_run r ON r.id = s.training WHERE r.name = '$name'
		UNION ALL SELECT format('%s %s %s %s %s %s %s', a.step, a.part, a.item, a.sample, a.content, a.reward, a.advantage)
		FROM minimax_m1.training_answer a JOIN minimax_m1.training_run r ON r.id = a.training WHERE r.name = '$name'
		UNION ALL SELECT encode(sha256(t.data), 'hex') FROM minimax_m1.training_state t
		JOIN minimax_m1.training_run r ON r.id = t.training WHERE r.name = '$name'
		UNION ALL SELECT v.digest FROM minimax_m1.adapter_version v WHERE v.name = '$name') x});
}

# A table text_of of the first so many texts, numbered from 0, each with its topic as the model tells it.
my @texts = (
	'Hello, The coffee machine I bought leaks water. I would like a refund. Regards, Omar',
	'Hi there, My parcel never arrived. Could you send it again? Thanks, Leila',
	'Hello, My loyalty card works very well. Thank you. Omar',
	'To whom it may concern, My air fryer was delivered to the wrong address. I would like a refund. Keiko',
	'Hi there, The air fryer I ordered arrived in a torn box. I would like a refund. Priya');

sub make_texts
{
	my ($node, $n) = @_;
	my $values = join(', ', map { "($_, '$texts[$_]')" } 0 .. $n - 1);
	$node->safe_psql('postgres', qq{
		CREATE TABLE text_of (n int PRIMARY KEY, body text, topic text);
		INSERT INTO text_of (n, body) VALUES $values;
		UPDATE text_of SET topic = minimax_m1.generate(
			E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\\n\\n' || body)});
	return;
}

# Runs for a long time on the tiny checkpoint.
sub long_query { return 'SELECT minimax_m1.generate_ids(ARRAY[1, 2, 3], 2000000)'; }

# A copy of m1-nano that takes another token for the end of a turn, one that is never among the likeliest: replies end at
# max_tokens.
sub endless_model
{
	my $folder = PostgreSQL::Test::Utils::tempdir() . '/endless';
	my $config = slurp_file(root() . '/models/m1-nano/tokenizer_config.json');

	mkdir $folder or die $!;
	system_or_bail('cp', map({ root() . "/models/m1-nano/$_" } qw(config.json model.safetensors tokenizer.json)), $folder);
	$config =~ s/("eos_token":\s*)"<end_of_sentence>"/$1"<end_of_document>"/ or die 'no eos_token';
	append_to_file("$folder/tokenizer_config.json", $config);
	return $folder;
}

# The calls that are in their texts are taken out, as complete() does.
sub greedy_cases
{
	open(my $f, '<:raw', root() . '/models/m1-nano/greedy_cases.json') or die $!;
	local $/;
	my @cases = @{ decode_json(<$f>) };
	for my $case (@cases)
	{
		$case->{tool_calls} = [ map { decode_json($_) } split /\n/, $1 ]
		  if $case->{content} =~ s{<tool_calls>\n(.*)\n</tool_calls>$}{}s;
	}
	return @cases;
}

sub quote
{
	my ($text) = @_;

	$text =~ s/'/''/g;
	utf8::encode($text) if utf8::is_utf8($text);
	return "'$text'";
}

1;
