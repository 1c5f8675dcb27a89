# Whose rights the code of an annotated table has: its owner's, whoever owns the annotator, and never the other way round.
# Every kind of code that an owner can attach tells the server's log as whom it was run, and tries to become superuser.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('rights', 'minimax_m1.job_retry_delay = 100', "log_min_messages = log");
wait_ready($node);

my $leak = 'Hello, The coffee machine I bought leaks water. I would like a refund. Regards, Omar';
my $template = q{E'Classify the following text as one of: hardware, account, billing, delivery, praise, other.\n\n{body}'};

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The attacker in a session of its own, where no RESET ROLE leads to anybody else.
sub attack { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'attacker' ]); }

sub state_of { my ($state, $error) = sqlstate($node, $_[0]); return $state; }

sub annotate
{
	my ($role, $name, $table, @options) = @_;
	return join(', ', "SET ROLE $role; SELECT minimax_m1.create_annotator('$name', '$table', 'topic', $template", @options) . ')';
}

sub wait_drained
{
	wait_for('the queue is empty', sub {
			sql("SELECT count(*) FROM minimax_m1.job WHERE state IN ('pending', 'running')") eq '0' });
}

sub last_error { return sql('SELECT sqlstate FROM minimax_m1.job_errors ORDER BY id DESC LIMIT 1'); }

sub is_super { return sql("SELECT rolsuper FROM pg_roles WHERE rolname = '$_[0]'"); }

# As whom the kinds of code were run, by the log.
sub ran
{
	my %by = ();
	my $log = slurp_file($node->logfile);
	$by{$1}{$2} = 1 while $log =~ /evil (\w+) as (\w+)/g;
	return \%by;
}

sql(qq{
	CREATE ROLE attacker LOGIN; CREATE ROLE boss; CREATE ROLE third;
	SELECT minimax_m1.grant_usage(r) FROM unnest(ARRAY['attacker', 'boss', 'third']::regrole[]) r;
	CREATE SCHEMA m AUTHORIZATION attacker;
	GRANT USAGE ON SCHEMA m TO boss, third;
	SET ROLE attacker;
	-- volatile, so that a session which has planned a call of it once runs it the next time, too
	CREATE FUNCTION m.try_all(kind text) RETURNS bool LANGUAGE plpgsql AS \$\$
	BEGIN
		RAISE LOG 'evil % as %', kind, current_user;
		BEGIN EXECUTE 'ALTER ROLE attacker SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
		BEGIN RESET ROLE; RESET SESSION AUTHORIZATION; EXECUTE 'ALTER ROLE attacker SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
		RETURN true;
	END \$\$;
	CREATE FUNCTION m.evil(kind text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN m.try_all(kind); END';
	CREATE FUNCTION m.evil_trigger() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		PERFORM m.try_all(TG_ARGV[0]);
		BEGIN EXECUTE 'ALTER ROLE attacker SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
		RETURN new;
	END \$\$;
	CREATE DOMAIN m.evil_text AS text CHECK (m.evil('domain'));
	CREATE FUNCTION m.evil_cast(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM m.try_all(''index''); RETURN \$1; END';
	CREATE TYPE m.mood AS ENUM ('calm', 'hardware');
	CREATE FUNCTION m.mood_default() RETURNS m.mood LANGUAGE plpgsql AS 'BEGIN PERFORM m.try_all(''default''); RETURN enum_first(NULL::m.mood); END';
	CREATE FUNCTION m.mood_text(m.mood) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM m.try_all(''cast''); RETURN CAST(enum_out(\$1) AS text); END';
	CREATE FUNCTION m.text_mood(text) RETURNS m.mood IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM m.try_all(''cast''); RETURN enum_first(NULL::m.mood); END';
	CREATE CAST (m.mood AS text) WITH FUNCTION m.mood_text(m.mood) AS IMPLICIT;
	CREATE CAST (text AS m.mood) WITH FUNCTION m.text_mood(text) AS IMPLICIT;
	CREATE FUNCTION m.evil_of(kind text, value text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM m.try_all(kind); RETURN value; END';
	CREATE FUNCTION m.evil_equal(text, text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM m.try_all(''operator''); RETURN \$1 = \$2; END';
	CREATE OPERATOR m.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = m.evil_equal);
	CREATE COLLATION m.loose (provider = icu, locale = 'und', deterministic = false);
	CREATE TYPE m.tone AS ENUM ('calm', 'hardware');
	CREATE FUNCTION m.tone_place(m.tone) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM m.try_all(''reference''); RETURN array_position(enum_range(\$1), \$1); END';
	CREATE CAST (m.tone AS int) WITH FUNCTION m.tone_place(m.tone) AS IMPLICIT;
	CREATE TABLE m.tones (place int PRIMARY KEY);
	INSERT INTO m.tones VALUES (1), (2);
});
is(state_of("SET ROLE attacker; $_"), '42501', 'what PostgreSQL itself keeps from them')
  for 'CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION m.evil_trigger()',
  'CREATE OPERATOR CLASS m.evil_ops FOR TYPE text USING btree AS OPERATOR 3 m.===';

# ---- every kind of code of the table's owner, under annotators of a superuser and of an ordinary role ----

sub make_table
{
	my ($name) = @_;
	attack(qq{
		CREATE TABLE m.$name (id int PRIMARY KEY, body text, topic m.evil_text COLLATE m.loose, status text, mood m.mood,
			temper m.mood DEFAULT m.mood_default(), echo text, tone m.tone REFERENCES m.tones,
			twin text GENERATED ALWAYS AS (m.evil_cast(topic || '')) STORED, CHECK (m.evil('check') OR topic = ''));
		GRANT SELECT, UPDATE, TRIGGER, REFERENCES ON m.$name TO boss});
}

sub attach_code
{
	my ($name) = @_;
	attack(qq{
		CREATE INDEX ON m.$name (m.evil_cast(topic::text));
		CREATE INDEX ON m.$name (id) WHERE m.evil('predicate');
		CREATE INDEX ON m.$name ((topic::text OPERATOR(m.===) 'hardware'));
		ALTER TABLE m.$name ADD EXCLUDE USING btree (m.evil_of('exclusion', topic::text) WITH =);
		CREATE TRIGGER a BEFORE UPDATE ON m.$name FOR EACH ROW EXECUTE FUNCTION m.evil_trigger('before');
		CREATE TRIGGER b AFTER UPDATE ON m.$name FOR EACH ROW EXECUTE FUNCTION m.evil_trigger('after');
		CREATE TRIGGER c BEFORE UPDATE ON m.$name FOR EACH STATEMENT EXECUTE FUNCTION m.evil_trigger('statement');
		CREATE TRIGGER d BEFORE UPDATE ON m.$name FOR EACH ROW WHEN (m.evil('condition')) EXECUTE FUNCTION m.evil_trigger('when');
		CREATE CONSTRAINT TRIGGER e AFTER UPDATE ON m.$name DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION m.evil_trigger('deferred');
		CREATE RULE r AS ON UPDATE TO m.$name DO ALSO SELECT m.evil('rule')});
}

for my $role ('postgres', 'boss')
{
	my $name = "of_$role";
	make_table($name);
	sql(annotate($role, "${name}_topic", "m.$name", "status_column => 'status'"));
	# also where columns are of a type of theirs: its casts are not run, neither for what is filled nor for the template
	sql("SET ROLE $role; SELECT minimax_m1.create_annotator('${name}_mood', 'm.$name', 'mood', '{body}', max_attempts => 1),
		minimax_m1.create_annotator('${name}_tone', 'm.$name', 'tone', $template),
		minimax_m1.create_annotator('${name}_echo', 'm.$name', 'echo', '{temper} {body}')");
	attach_code($name);
	truncate($node->logfile, 0);
	attack("INSERT INTO m.$name (id, body) VALUES (1, '$leak')");
	wait_drained();
	my $ran = ran();
	is(join(' ', sort map { keys %$_ } values %$ran), join(' ', ('attacker') x keys %$ran), "$role: all code of the table's ran as its owner");
	is(join(' ', sort keys %$ran), 'after before check condition default deferred domain exclusion index operator predicate reference rule statement when',
		'of every kind');
	is(is_super('attacker'), 'f', 'nobody became superuser');
	is(attack("SELECT topic, status, tone FROM m.$name"), 'hardware|done|hardware', 'and the row is annotated');
}

# The key of a partitioned table is looked at when a row of a part is written.
attack(q{
	CREATE TABLE m.keyed (id int, body text, topic text) PARTITION BY RANGE (m.evil_of('key', id::text));
	CREATE TABLE m.leaf PARTITION OF m.keyed (PRIMARY KEY (id)) FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
	GRANT SELECT, UPDATE, TRIGGER ON m.leaf TO boss});
sql(annotate('boss', 'leaf', 'm.leaf'));
truncate($node->logfile, 0);
attack("INSERT INTO m.keyed VALUES (1, '$leak')");
wait_drained();
is_deeply(ran(), { key => { attacker => 1 } }, 'the expression of a partition key ran as its owner');
is(sql('SELECT topic FROM m.leaf'), 'hardware', 'and the row is annotated');

# What is no table has no rows of its own: a view's triggers are not run at all.
attack(q{
	CREATE TABLE m.behind (id int PRIMARY KEY, body text, topic text);
	CREATE VIEW m.front AS SELECT * FROM m.behind;
	CREATE TRIGGER a INSTEAD OF UPDATE ON m.front FOR EACH ROW EXECUTE FUNCTION m.evil_trigger('instead');
	GRANT SELECT, UPDATE, TRIGGER ON m.front TO boss});
is(state_of(annotate($_, 'front', 'm.front')), '42809', "a view with an INSTEAD OF trigger refuses an annotator of $_") for 'postgres', 'boss', 'attacker';

# A table that changes hands: as whoever owns it now.
make_table('moving');
sql(annotate('postgres', 'moving', 'm.moving'));
attach_code('moving');
sql('ALTER TABLE m.moving OWNER TO boss; GRANT ALL ON m.moving TO attacker; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA m TO PUBLIC');
truncate($node->logfile, 0);
attack(qq{INSERT INTO m.moving (id, body) VALUES (1, '$leak')});
wait_drained();
ok(ran()->{before}{boss} && !ran()->{before}{attacker}, 'the owner is looked up each time');

# ---- rights are looked at each time ----

make_table('revoked');
sql(annotate('boss', 'revoked', 'm.revoked', 'max_attempts => 1'));
attack('REVOKE UPDATE ON m.revoked FROM boss; ' . "INSERT INTO m.revoked (id, body) VALUES (1, '$leak')");
wait_drained();
is(last_error(), '42501', 'without the right to update, nothing is written');
attack("GRANT UPDATE (topic) ON m.revoked TO boss; REVOKE SELECT ON m.revoked FROM boss; GRANT SELECT (id, topic, body) ON m.revoked TO boss");
sql("SET ROLE boss; SELECT minimax_m1.retry_failed('revoked')");
wait_drained();
is(sql('SELECT topic FROM m.revoked'), 'hardware', 'rights on the columns are enough');
attack(q{REVOKE SELECT (body) ON m.revoked FROM boss; UPDATE m.revoked SET body = body || ' '});
wait_drained();
is(last_error(), '42501', 'what the owner may not read is not sent to the model');

# ---- row security ----

make_table('secured');
attack('ALTER TABLE m.secured ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON m.secured USING (m.evil(\'policy\'))');
is(state_of(annotate('boss', 'secured', 'm.secured')), '42501', 'row security that holds for the owner refuses an annotator');
attack('ALTER TABLE m.secured DISABLE ROW LEVEL SECURITY');
sql(annotate('boss', 'secured', 'm.secured', 'max_attempts => 1'));
truncate($node->logfile, 0);
attack("ALTER TABLE m.secured ENABLE ROW LEVEL SECURITY; INSERT INTO m.secured (id, body) VALUES (1, '$leak')");
wait_drained();
is(last_error(), '42501', 'also when it comes later');
ok(!ran()->{policy}{boss}, 'and no policy was run');
attack("ALTER TABLE m.secured FORCE ROW LEVEL SECURITY");
is(state_of(annotate('postgres', 'forced', 'm.secured')), '42501', 'nor one that holds for the table\'s owner');

# One that comes while the model is asked, and hides the row from whoever would write it.
sql("CREATE TABLE hidden (id int PRIMARY KEY, body text, topic text); ALTER TABLE hidden OWNER TO attacker");
sql(annotate('attacker', 'hidden', 'hidden', 'max_attempts => 1'));
kill 'STOP', engine_pid($node);
sql("INSERT INTO hidden VALUES (1, '$leak')");
wait_for('it is asked', sub { sql(q{SELECT count(*) FROM minimax_m1.activity WHERE function = 'annotate'}) eq '1' });
my $asked = sql('SELECT requests FROM minimax_m1.stats');
attack('ALTER TABLE hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON hidden USING (false)');
kill 'CONT', engine_pid($node);
wait_drained();
is(sql(q{SELECT sqlstate, state, attempts FROM minimax_m1.job_errors WHERE annotator = 'hidden'}), '42501|failed|1',
	'a row that a policy hides meanwhile has failed, and its job is there to say so');
is(sql('SELECT requests FROM minimax_m1.stats'), $asked, 'the model was not asked again');
is(sql('SELECT topic FROM hidden'), '', 'nothing was written');

# ---- rights that an annotator must not lend ----

sql(q{
	CREATE TABLE precious (id int PRIMARY KEY, body text, topic text);
	GRANT SELECT, UPDATE, INSERT, TRIGGER ON precious TO attacker;
	SET ROLE attacker;
	CREATE TRIGGER mine BEFORE UPDATE ON precious FOR EACH ROW EXECUTE FUNCTION m.evil_trigger('lent')});
is(state_of(annotate('attacker', 'lent', 'precious')), '42501', 'a trigger with code of a third role refuses an annotator');
sql('DROP TRIGGER mine ON precious');
sql(annotate('attacker', 'lent', 'precious', 'max_attempts => 1'));
for my $trigger (q{EXECUTE FUNCTION m.evil_trigger('lent')}, q{WHEN (m.evil('lent')) EXECUTE FUNCTION suppress_redundant_updates_trigger()})
{
	truncate($node->logfile, 0);
	attack("CREATE TRIGGER mine BEFORE UPDATE ON precious FOR EACH ROW $trigger");
	attack("INSERT INTO precious SELECT coalesce(max(id), 0) + 1, '$leak' FROM precious");
	wait_drained();
	is(last_error(), '42501', 'also when it comes later');
	ok(!ran()->{lent}, 'and it was not run');
	sql('DROP TRIGGER mine ON precious');
}
is(is_super('attacker'), 'f', 'nobody became superuser');
attack(q{SELECT minimax_m1.retry_failed('lent')});
wait_drained();
is(sql('SELECT DISTINCT topic FROM precious'), 'hardware', 'without it the rows are annotated');

# ---- partitions of another owner ----

sql(qq{
	CREATE TABLE parted (id int PRIMARY KEY, body text, topic text) PARTITION BY RANGE (id);
	CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
	CREATE TABLE part_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
	ALTER TABLE part_2 OWNER TO attacker;
	SET ROLE attacker;
	CREATE TRIGGER mine BEFORE UPDATE ON part_2 FOR EACH ROW EXECUTE FUNCTION m.evil_trigger('partition')});
sql(annotate('postgres', 'parted', 'parted', 'max_attempts => 1'));
truncate($node->logfile, 0);
sql("INSERT INTO parted VALUES (1, '$leak'), (11, '$leak')");
wait_drained();
is(sql(q{SELECT string_agg(coalesce(topic, 'none'), ' ' ORDER BY id) FROM parted}), 'hardware none',
	'a partition of another owner is not written');
is(last_error(), '42501', 'which is said');
ok(!ran()->{partition}, 'and its code not run');

# ---- names that come to mean another table ----

sql(qq{
	CREATE SCHEMA shop; CREATE TABLE shop.mail (id int PRIMARY KEY, body text, topic text);
	CREATE SCHEMA decoy; CREATE TABLE decoy.mail (id int PRIMARY KEY, body text, topic text);
	INSERT INTO decoy.mail SELECT i, '$leak' FROM generate_series(1, 10) i});
sql(annotate('postgres', 'shop', 'shop.mail'));
my $engine = engine_pid($node);
sql("INSERT INTO shop.mail VALUES (1, '$leak')");
wait_drained();
kill 'STOP', $engine;
sql("INSERT INTO shop.mail SELECT i, '$leak' FROM generate_series(2, 10) i");
wait_for('jobs run', sub { sql(q{SELECT count(*) > 0 FROM minimax_m1.activity WHERE function = 'annotate'}) eq 't' });
sql('ALTER SCHEMA shop RENAME TO old_shop; ALTER SCHEMA decoy RENAME TO shop');
kill 'CONT', $engine;
wait_drained();
is(sql('SELECT count(*) FROM shop.mail WHERE topic IS NOT NULL'), '0', 'a table that took the name is left alone');
is(sql(q{SELECT count(*) FROM old_shop.mail WHERE topic = 'hardware'}), '10', 'the rows went into the table that was meant');

# ---- a row that is kept as it was ----

sql(qq{
	CREATE TABLE stubborn (id int PRIMARY KEY, body text, topic text);
	CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'});
sql(annotate('postgres', 'stubborn', 'stubborn', 'max_attempts => 1'));
sql("CREATE TRIGGER keep BEFORE UPDATE ON stubborn FOR EACH ROW EXECUTE FUNCTION keep(); INSERT INTO stubborn VALUES (1, '$leak')");
wait_drained();
is(last_error(), '09000', 'an UPDATE that a trigger keeps from the row is a failure');

# A table whose triggers or rules have a word to say; what came of the annotation, and of the row.
sub annotated_beside
{
	my ($name, $code, %o) = @_;
	my $target = $o{target} // 'text';
	my $values = $o{values} // "1, '$leak'";
	sql("CREATE TABLE $name (id int PRIMARY KEY, body text, topic $target, reasoning text, status text)");
	sql(annotate('postgres', $name, $name, 'max_attempts => 1', @{ $o{options} // [] }));
	sql("SET ROLE postgres; $code");
	sql("INSERT INTO $name VALUES ($values)");
	wait_drained();
	return came_of($name);
}

sub came_of
{
	my ($name) = @_;
	my $error = sql("SELECT sqlstate || ' ' || error FROM minimax_m1.job_errors WHERE annotator = '$name'");
	return join(' ', sql("SELECT coalesce(topic, 'NULL') FROM $name"), $error =~ /^(09000|40001)?/ && $1 ? $1 : $error);
}

sub before_update
{
	my ($name, $body) = @_;
	return "CREATE FUNCTION $name() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN $body END';
		CREATE TRIGGER x BEFORE UPDATE ON $name FOR EACH ROW EXECUTE FUNCTION $name()";
}

my @status = (options => [q{status_column => 'status'}]);
my @reasoning = (options => [q{reasoning_column => 'reasoning'}]);
is(annotated_beside('nowhere', 'CREATE RULE x AS ON UPDATE TO nowhere DO INSTEAD NOTHING'), 'NULL 09000', 'a rule that does nothing instead');
sql("CREATE TABLE elsewhere (id int, topic text); INSERT INTO elsewhere VALUES (1)");
is(annotated_beside('diverted', 'CREATE RULE x AS ON UPDATE TO diverted DO INSTEAD UPDATE elsewhere SET topic = new.topic WHERE id = new.id'),
	'NULL 09000', 'a rule that writes elsewhere');
is(annotated_beside('old_row', before_update('old_row', 'RETURN old;')), 'NULL 09000', 'a trigger that returns the old row');
is(annotated_beside('old_topic', before_update('old_topic', 'new.topic := old.topic; RETURN new;'), @status), 'NULL 09000', 'one that keeps the target');
is(annotated_beside('old_status', before_update('old_status', 'new.status := old.status; RETURN new;'), @status), 'NULL 09000', 'or the status');
is(annotated_beside('upper_case', before_update('upper_case', 'new.topic := upper(new.topic); RETURN new;'), @status), 'HARDWARE ', 'what it changes is its own affair');
is(annotated_beside('no_reasoning', before_update('no_reasoning', 'new.reasoning := NULL; RETURN new;'), @reasoning), 'hardware ', 'and so is the reasoning');
is(annotated_beside('by_itself', before_update('by_itself', 'IF pg_trigger_depth() > 1 THEN RETURN new; END IF;
	UPDATE public.by_itself SET topic = new.topic WHERE id = new.id; RETURN NULL;')), 'hardware ', 'one that writes the row by itself');

# What is there already is not written once more.
is(annotated_beside('redundant', 'CREATE TRIGGER z BEFORE UPDATE ON redundant FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()'),
	'hardware ', 'an annotation, beside a trigger that suppresses what changes nothing');
my $done = q{SELECT done FROM minimax_m1.annotators WHERE name = 'redundant'};
my $before = sql($done);
sql(q{UPDATE redundant SET body = body || ' '});
wait_drained();
is(came_of('redundant'), 'hardware ', 'the same one for another text');
is(sql($done), $before + 1, 'it is done');

# A NULL is the domain's to refuse.
sql('CREATE DOMAIN filled AS text NOT NULL');
like(annotated_beside('refusing', '', target => 'filled', values => "1, NULL, 'as it was'"), qr/^as it was $/, 'a row that asks nothing');
sql("UPDATE refusing SET body = '$leak'");
wait_drained();
is(came_of('refusing'), 'hardware ', 'an answer');
sql('UPDATE refusing SET body = NULL');
wait_drained();
like(came_of('refusing'), qr/^hardware 23502 /, 'no answer, which the domain of the target refuses');
done_testing();
