# What one role asks does not stop another's requests: beside each of a list of hostile requests, somebody else's
# generate('Hello.') takes no more than twice as long as without, and 100 ms; and what is hostile ends as soon as it is
# cancelled. HOSTILE_SECONDS is how long each of them is watched; make check-hostile has all of the list, and prints a
# table. By default some are, for a moment and with limits for a machine that has other things to do.
use strict;
use warnings;
use Gateway;
use IPC::Run ();
use JSON::PP;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $full = defined $ENV{HOSTILE_SECONDS};
my $seconds = $ENV{HOSTILE_SECONDS} || 1;
my $only = $ENV{HOSTILE_ONLY} || '';
# Beyond twice the idle time, in ms; and from a cancel to the end.
my ($more, $at_once) = $full ? (100, 100) : (2000, 3000);

# ---- the list ----

# Each: what it asks again and again, with $1 another number each time; what it is answered, if that comes soon; what it
# takes from the table of texts, and what is done before and after. `short`: also by default. `end`: how many ms more it
# may go on after a cancel, because PostgreSQL itself makes a large value of it, and does not look up, or because many end at
# once; docs/cost.md names these. `door`: clients of the gateway post it there, with another number each time for SHOT.
sub schema { return qq~minimax_m1.generate_json('x', ('{"description": "' || \$1 || '", ' || (SELECT body FROM ammo WHERE name = '$_[0]'))::json)~; }

sub text { return "(SELECT body FROM ammo WHERE name = '$_[0]')"; }

sub cursors
{
	my ($n, $stream) = @_;
	return qq{DO \$do\$ DECLARE c refcursor; r record; BEGIN
		FOR i IN 1 .. $n LOOP
			c := 'c' || i;
			OPEN c FOR SELECT s.* FROM (SELECT (minimax_m1.$stream).* OFFSET 0) s;
			FETCH c INTO r;
		END LOOP;
		PERFORM pg_sleep(3600); END \$do\$};
}

my @attacks = (
	{ name => 'oneOf 256 x 400', short => 1, answer => qr/may overlap/, shot => 'SELECT ' . schema('one of'),
		ammo => { 'one of' => q~'"oneOf": [' || (SELECT string_agg('{"enum": [' || (SELECT string_agg((a * 400 + n)::text, ',')
			FROM generate_series(1, 400) n) || ']}', ',') FROM generate_series(1, 256) a) || ']}'~ } },
	{ name => '^.*e.{300}$', short => 1, answer => qr/too complex|cut off|ok/, shot => 'SELECT ' . schema('far e'),
		ammo => { 'far e' => q~'"type": "string", "pattern": "^.*e.{300}$"}'~ } },
	{ name => 'twelve .{0,200}a.{0,200}', short => 1, answer => qr/too complex|too large|cut off|ok/, shot => 'SELECT ' . schema('twelve'),
		ammo => { twelve => q~'"type": "string", "pattern": "^(' || (SELECT string_agg('.{0,200}' || chr(96 + i) || '.{0,200}', '|')
			FROM generate_series(1, 12) i) || ')$"}'~ } },
	{ name => 'regex => .*e.{300}', short => 1, answer => qr/too complex|cut off|ok/,
		shot => q{SELECT content FROM minimax_m1.complete('x', regex => '.*e.{300}' || $1, max_tokens => 400)} },
	{ name => 'loops in loops', answer => qr/too|cut off|ok/, shot => 'SELECT ' . schema('loops'),
		ammo => { loops => q~'"type": "string", "pattern": "^((([a-z]{1,40} ){1,40}[0-9]){1,40}x){1,40}$"}'~ } },
	{ name => '30,000 names required', short => 1, answer => qr/too|limit|more than|ok/, shot => 'SELECT ' . schema('required'),
		ammo => { required => q~'"type": "object", "required": [' || (SELECT string_agg('"name' || i || '"', ',') FROM generate_series(1, 30000) i) || ']}'~ } },
	{ name => 'a chain of 12,000 $ref', answer => qr/./, shot => 'SELECT ' . schema('refs'),
		ammo => { refs => q~'"$ref": "#/$defs/d1", "$defs": {' || (SELECT string_agg('"d' || i || '": {"$ref": "#/$defs/d' || i + 1 || '"}', ',')
			FROM generate_series(1, 12000) i) || ', "d12001": {"type": "string"}}}'~ } },
	{ name => '10,000 schemas in each other', answer => qr/nested too deep/, shot => 'SELECT ' . schema('nested'),
		ammo => { nested => q~'"type": "array", "items": ' || repeat('{"type": "array", "items": ', 5000) || '{}' || repeat('}', 5000) || '}'~ } },
	{ name => 'an enum of 90,000', end => 100, answer => qr/./, shot => 'SELECT ' . schema('enum'),
		ammo => { enum => q~'"enum": [' || (SELECT string_agg('"v' || i || '"', ',') FROM generate_series(1, 90000) i) || ']}'~ } },
	{ name => 'small schemas, all different', answer => qr/ok/,
		shot => q~SELECT minimax_m1.generate_json('x', ('{"type": "string", "maxLength": ' || $1 || '}')::json, max_tokens => 60)~ },
	{ name => 'count_tokens of 20 MB', short => 1, answer => qr/ok/, shot => 'SELECT minimax_m1.count_tokens(' . text('20 MB') . ')',
		ammo => { '20 MB' => q~repeat('hello world ', 1700000)~ } },
	{ name => 'a prompt of 60 MB', short => 1, answer => qr/context/, shot => 'SELECT minimax_m1.generate(' . text('60 MB') . ')',
		ammo => { '60 MB' => q~repeat('hello world ', 5000000)~ } },
	{ name => 'one word of 60 MB', end => 500, answer => qr/context/, shot => 'SELECT minimax_m1.generate(' . text('a word') . ')',
		ammo => { 'a word' => q~repeat('a', 60000000)~ } },
	{ name => 'a prompt beyond all bounds', end => 1000, answer => qr/too/, shot => 'SELECT minimax_m1.generate(' . text('300 MB') . ')',
		ammo => { '300 MB' => q~repeat('hello world ', 25000000)~ } },
	{ name => 'summarize of 20 MB', answer => qr/./, shot => 'SELECT minimax_m1.summarize(' . text('20 MB') . ')',
		ammo => { '20 MB' => q~repeat('hello world ', 1700000)~ } },
	{ name => 'a million messages', short => 1, end => 1000, answer => qr/./, shot => 'SELECT * FROM minimax_m1.complete(messages => ' . text('messages') . '::json)',
		ammo => { messages => q~'[' || repeat('{"role": "user", "content": "a"}, ', 999999) || '{"role": "user", "content": "a"}]'~ } },
	{ name => 'messages [{},{},...]', end => 1000, answer => qr/./, shot => 'SELECT * FROM minimax_m1.complete(messages => ' . text('nothing') . '::json)',
		ammo => { nothing => q~'[' || repeat('{}, ', 2999999) || '{}]'~ } },
	{ name => '100,000 tools', end => 200, answer => qr/./, shot => q{SELECT * FROM minimax_m1.complete('x', tools => } . text('tools') . '::json)',
		ammo => { tools => q~'[' || (SELECT string_agg('{"name": "f' || i || '", "description": "x", "parameters": {"type": "object"}}', ', ')
			FROM generate_series(1, 100000) i) || ']'~ } },
	{ name => '60,000 tools of a name each', short => 1, answer => qr/too large/, shot => q{SELECT * FROM minimax_m1.complete('x', tools => } . text('names') . '::json)',
		ammo => { names => q~'[' || (SELECT string_agg('{"name":"' || to_hex(4096 + i) || '"}', ',') FROM generate_series(1, 60000) i) || ']'~ } },
	{ name => 'one of 8,000 tools, required', answer => qr/./,
		shot => q{SELECT tool_calls FROM minimax_m1.complete('x ' || $1, tool_choice => 'required', tools => } . text('many tools') . '::json)',
		ammo => { 'many tools' => q~'[' || (SELECT string_agg('{"name": "f' || i || '", "parameters": {"type": "object", "properties": {"a": {"type": "string",
			"maxLength": ' || i || '}}}}', ', ') FROM generate_series(1, 8000) i) || ']'~ } },
	{ name => 'an agent with 1,000 functions', answer => qr/./,
		shot => q{SELECT count(*) FROM minimax_m1.agent('x ' || $1, ARRAY(SELECT oid::regprocedure FROM pg_proc WHERE proname LIKE 'tool\_%'))},
		before => q{DO $do$ BEGIN FOR i IN 1 .. 1000 LOOP
			EXECUTE format('CREATE FUNCTION tool_%s(a text, b int[]) RETURNS text LANGUAGE sql STABLE AS $$ SELECT a $$', i); END LOOP; END $do$},
		after => q{DO $do$ BEGIN FOR i IN 1 .. 1000 LOOP EXECUTE format('DROP FUNCTION tool_%s', i); END LOOP; END $do$} },
	{ name => '70,000 categories', short => 1, answer => qr/more than/,
		shot => q{SELECT minimax_m1.classify('x', ARRAY(SELECT 'category ' || i FROM generate_series(1, 70000) i))} },
	{ name => '70,000 categories, several', answer => qr/./,
		shot => q{SELECT minimax_m1.classify('x', ARRAY(SELECT 'category ' || i FROM generate_series(1, 70000) i), true)} },
	{ name => '10,000 categories', answer => qr/./,
		shot => q{SELECT minimax_m1.classify('x', ARRAY(SELECT 'category ' || $1 || i FROM generate_series(1, 10000) i))} },
	{ name => '3,000,000 choices', end => 900, answer => qr/./,
		shot => q{SELECT * FROM minimax_m1.complete('x', choices => ARRAY(SELECT 'choice ' || i FROM generate_series(1, 3000000) i))} },
	{ name => 'rows of rows of rows', answer => qr/too many columns/, shot => q{SELECT minimax_m1.extract('x', NULL::wide3)},
		before => q{DO $do$ BEGIN FOR level IN 1 .. 3 LOOP
			EXECUTE format('CREATE TYPE wide%s AS (%s)', level, (SELECT string_agg(format('c%s %s', i, CASE level WHEN 1 THEN 'int' ELSE 'wide' || level - 1 END), ', ')
				FROM generate_series(1, 300) i)); END LOOP; END $do$},
		after => 'DROP TYPE wide1, wide2, wide3' },
	{ name => 'a rank of 3,000,000 empty texts', end => 300, answer => qr/./, shot => q{SELECT count(*) FROM minimax_m1.rank('x', array_fill(''::text, '{3000000}'))} },
	{ name => 'a batch of 3,000,000 NULLs', answer => qr/./, shot => q{SELECT count(*) FROM minimax_m1.generate_batch(array_fill(NULL::text, '{3000000}'))} },
	{ name => 'a batch of 10,000', answer => qr/ok|many|room/, shot => q{SELECT count(*) FROM minimax_m1.generate_batch(array_fill('Hello.'::text, '{10000}'), max_tokens => 8)} },
	{ name => '10 million tokens into text', end => 500, answer => qr/ok|too/, shot => q{SELECT length(minimax_m1.detokenize(array_fill(300, '{10000000}')))} },
	{ name => 'logits of 10 million tokens', end => 500, answer => qr/context/, shot => q{SELECT cardinality(minimax_m1.logits(array_fill(300, '{10000000}')))} },
	{ name => 'stop strings of 16 MB', end => 400, answer => qr/./, shot => q{SELECT minimax_m1.generate('Hello.', stop => array_fill(} . text('1 MB') . q{, '{16}'))},
		ammo => { '1 MB' => q~repeat('stop here ', 100000)~ } },
	{ name => 'looking on all the time', answer => qr/ok/, shot => q{SELECT (SELECT count(*) FROM minimax_m1.activity), (SELECT count(*) FROM minimax_m1.usage)} },
	{ name => 'giving up all the time', answer => qr/ok|cancel/,
		shot => q{DO $do$ BEGIN PERFORM set_config('minimax_m1.request_timeout', '5ms', true); PERFORM minimax_m1.generate('What can you do?');
			EXCEPTION WHEN query_canceled THEN IF SQLERRM !~ 'request timeout' THEN RAISE; END IF; END $do$} },
	{ name => '648 cursors', short => 1, end => 100, sessions => 3, answer => qr/./, shot => cursors(216, q{generate_stream('Hello.')}) },
	{ name => 'long replies in all places', end => 100, sessions => 12, answer => qr/./, shot => q{SELECT cardinality(minimax_m1.generate_ids('{1,2,3}', 30000))} },
	{ name => 'top_logprobs over long replies', answer => qr/ok/, shot => q{SELECT json_array_length(logprobs) FROM minimax_m1.complete(
		'What can you do? ' || $1, logprobs => true, top_logprobs => 20, temperature => 2, top_p => 0.95, max_tokens => 6000)} },
	{ name => '8 streams that nobody reads', sessions => 1, answer => qr/./,
		shot => cursors(8, q{generate_stream('What can you do?', temperature => 2, top_p => 0.95, seed => 1, max_tokens => 30000)}) },
	{ name => '3,000 jobs of highest priority', sessions => 1, answer => qr/./, shot => 'SELECT pg_sleep(3600)',
		before => q{SELECT count(minimax_m1.submit('What can you do?', priority => 1000)) FROM generate_series(1, 3000)},
		after => q{SELECT count(minimax_m1.cancel_job(id)) FROM minimax_m1.jobs WHERE state IN ('pending', 'running')} },
	{ name => 'triggers that sleep', sessions => 1, answer => qr/./, shot => 'SELECT pg_sleep(3600)',
		before => q{CREATE TABLE slow (id int PRIMARY KEY, body text, topic text);
			SELECT minimax_m1.create_annotator('slow', 'slow', 'topic', '{body}');
			CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); RETURN new; END';
			CREATE TRIGGER slow BEFORE UPDATE ON slow FOR EACH ROW EXECUTE FUNCTION sleep();
			INSERT INTO slow SELECT i, 'Hello.' FROM generate_series(1, 100) i},
		after => q{SELECT minimax_m1.drop_annotator('slow'); DROP TABLE slow; DROP FUNCTION sleep()} },
	{ name => 'the gateway: ^.*e.{300}$', short => 1, answer => qr/./, door => { max_tokens => 400, messages => [ { role => 'user', content => 'x' } ],
		response_format => { type => 'json_schema', json_schema => { name => 'far', schema => { type => 'string', pattern => '^.*e.{300}SHOT$' } } } } },
	{ name => 'the gateway: a prompt of 20 MB', end => 500, answer => qr/./, door => { messages => [ { role => 'user', content => 'SHOT' . 'hello world ' x 1_700_000 } ] } },
);

# ---- victim and attackers ----

my $node = new_server('hostile', 'max_connections = 40', 'log_statement = none', 'log_min_messages = log', 'log_min_error_statement = panic');
wait_ready($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{
	CREATE ROLE attacker LOGIN; CREATE ROLE victim;
	SELECT minimax_m1.grant_usage(r) FROM unnest('{attacker,victim}'::regrole[]) r;
	GRANT CREATE ON SCHEMA public TO attacker;
	CREATE SEQUENCE shot;
	GRANT USAGE ON shot TO attacker;
	CREATE UNLOGGED TABLE ammo (name text PRIMARY KEY, body text);
	-- a text of megabytes is unpacked in one piece, which nothing cancels
	ALTER TABLE ammo ALTER body SET STORAGE EXTERNAL;
	GRANT SELECT ON ammo TO attacker;
	-- the same again and again, whatever comes of it; the log has what it was at first
	CREATE FUNCTION attack(query text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		answer text;
		told text := '';
	BEGIN
		LOOP
			answer := 'ok';
			BEGIN
				EXECUTE query USING nextval('shot')::text;
			EXCEPTION WHEN OTHERS THEN
				answer := SQLERRM;
			END;
			IF told = '' THEN
				RAISE LOG 'the attack was answered: %', answer;
			END IF;
			told := answer;
		END LOOP;
	END $$;
	-- cancels all attackers; for how many ms the last of them went on
	CREATE FUNCTION end_attack() RETURNS float8 LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz := clock_timestamp();
	BEGIN
		PERFORM pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'attacker' AND state = 'active';
		LOOP
			PERFORM pg_stat_clear_snapshot();
			EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'attacker' AND state = 'active');
			PERFORM pg_sleep(0.005);
		END LOOP;
		RETURN extract(epoch FROM clock_timestamp() - began) * 1000;
	END $$;
	-- what a small request takes, in ms
	CREATE FUNCTION measure(seconds float8, OUT n int, OUT wrong int, OUT p50 float8, OUT p99 float8) LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz := clock_timestamp();
		start timestamptz;
		ms float8[] := '{}';
		most int := seconds * 40;
	BEGIN
		wrong := 0;
		WHILE cardinality(ms) < 20 OR (cardinality(ms) < most AND clock_timestamp() < began + seconds * interval '1 s') LOOP
			start := clock_timestamp();
			wrong := wrong + (minimax_m1.generate('Hello.') <> 'Hello! How can I help you?')::int;
			ms := ms || (extract(epoch FROM clock_timestamp() - start) * 1000)::float8;
			PERFORM pg_sleep(0.005);
		END LOOP;
		n := cardinality(ms);
		SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x), percentile_cont(0.99) WITHIN GROUP (ORDER BY x) INTO p50, p99 FROM unnest(ms) x;
	END $$;
});

sub measure
{
	my ($n, $wrong, $p50, $p99) = split /\|/, sql("SET ROLE victim; SELECT * FROM measure($seconds)");
	return { n => $n, wrong => $wrong, p50 => $p50, p99 => $p99 };
}

# Clients of the gateway, and the gateway.
sub clients_at_the_door
{
	my ($attack) = @_;
	my $body = PostgreSQL::Test::Utils::tempdir() . '/body';
	my $client = q{my ($url, $file) = @ARGV; local $/; open(my $f, '<', $file) or die $!; my $body = <$f>; my $shot = $$ * 1000;
		while (1) { $shot++; my $r = HTTP::Tiny->new(timeout => 600)->post($url, { content => $body =~ s/SHOT/$shot/r,
			headers => { 'Content-Type' => 'application/json' } }); exit if $r->{status} == 599; }};

	unlink $body;
	append_to_file($body, encode_json($attack->{door}));
	my $door = start_gateway($node->connstr('postgres') . ' user=attacker application_name=attacker', '--auth', 'fixed', '--connections', 4);
	my @command = ('perl', '-MHTTP::Tiny', '-e', $client, "http://127.0.0.1:$door->{port}/v1/chat/completions", $body);
	return ($door, map { { run => IPC::Run::start(\@command) } } 1 .. 4);
}

sub attackers
{
	my ($attack) = @_;
	return clients_at_the_door($attack) if $attack->{door};
	my $shot = quote($attack->{shot});
	return map { start_query($node, "SET application_name = 'attacker'; SET ROLE attacker; SELECT attack($shot)") } 1 .. ($attack->{sessions} || 4);
}

# Returns for how many ms they went on.
sub end_attackers
{
	my ($attack, @q) = @_;
	$_->{run}->kill_kill for $attack->{door} ? @q[ 1 .. $#q ] : ();
	my $ms = sql('SELECT end_attack()');
	if ($attack->{door}) { stop_http($q[0]); }
	else { finish_query($_) for @q; }
	return $ms;
}

# Without any, at first: all are judged by that, also when others have made the machine slower.
my $idle;

# One attack, and what the victim has of it.
sub run_attack
{
	my ($attack) = @_;
	my $log = -s $node->logfile;
	my @q = attackers($attack);
	my $many = $attack->{door} ? 1 : scalar @q;
	wait_for('the attack has begun', sub {
			sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'attacker' AND state = 'active'}) >= $many });
	sleep 0.3;
	my $r = measure();
	$r->{end} = end_attackers($attack, @q);
	($r->{answer}) = slurp_file($node->logfile, $log) =~ /the attack was answered: (.*)/;
	$r->{answer} //= 'none';
	wait_for('nothing of it is left', sub { sql(q{SELECT count(*) FROM minimax_m1.activity WHERE function NOT IN ('annotate', 'submit')}) eq '0' }, 120);
	return $r;
}

# What is allowed, in ms: of each request, and from a cancel to the end.
sub most { return 2 * $idle->{p99} + $more; }

sub most_to_end { my ($attack) = @_; return $at_once + ($attack->{end} || 0); }

sub is_too_slow
{
	my ($attack, $r) = @_;
	return $r->{p99} > most() || $r->{end} > most_to_end($attack);
}

# A line of the table: with what is allowed beside what was measured.
sub line
{
	my ($name, $r, $attack) = @_;
	my $measured = sprintf('%-32s %5d %7.1f %7.1f', $name, $r->{n}, $r->{p50}, $r->{p99});

	return figure($measured) unless $attack;
	return figure($measured . sprintf(' %7.1f %8.0f %7.0f  %s', most(), $r->{end}, most_to_end($attack), substr($r->{answer}, 0, 60)));
}

# ---- all of them ----

sql('VACUUM ANALYZE');
measure();
$idle = measure();
tell_memory('at the start', memory_at_rest($node));
figure(sprintf('%-32s %5s %7s %7s %7s %8s %7s  %s', 'beside', 'n', 'p50 ms', 'p99 ms', 'allowed', 'ends ms', 'allowed', 'first answer'));
line('nothing', $idle);
for my $attack (@attacks)
{
	next unless $full || $attack->{short};
	next if $only ne '' && $attack->{name} !~ /$only/;
	for my $name (sort keys %{ $attack->{ammo} || {} })
	{
		sql("INSERT INTO ammo SELECT '$name', $attack->{ammo}{$name} ON CONFLICT DO NOTHING");
	}
	sql("SET ROLE attacker; $attack->{before}") if $attack->{before};
	my $r = run_attack($attack);
	if (is_too_slow($attack, $r))
	{
		# the machine may have had other things to do
		line("$attack->{name}, at first", $r, $attack);
		line('nothing', measure());
		$r = run_attack($attack);
	}
	sql("SET ROLE attacker; $attack->{after}") if $attack->{after};
	sql('TRUNCATE ammo');
	line($attack->{name}, $r, $attack);
	is($r->{wrong}, '0', "$attack->{name}: another role's answers are right");
	cmp_ok($r->{p99}, '<=', most(), "$attack->{name}: and take no more than twice as long and $more ms");
	cmp_ok($r->{end}, '<=', most_to_end($attack), "$attack->{name}: it ends when it is cancelled");
	like($r->{answer}, qr/$attack->{answer}|^none$/, "$attack->{name}: its answer");
	wait_for('the engine is there', sub { sql('SELECT state FROM minimax_m1.model') eq 'ready' });
}
line('nothing', measure());
tell_memory('in the end', memory_at_rest($node));
is(sql('SELECT engine_restarts FROM minimax_m1.model'), '0', 'the engine did not have to be restarted');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|was terminated by signal/, 'and nothing crashed');
done_testing();
