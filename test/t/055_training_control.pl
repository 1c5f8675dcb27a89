# Trainings from the outside: to wait for one, to hold it, and what a dump and another role have of it. The rows stand for
# what a runner writes; a lease keeps runners from them.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('training_control');

$node->safe_psql('postgres', q{
	CREATE ROLE teacher;
	SELECT minimax_m1.grant_usage('teacher'), minimax_m1.grant_training('teacher');
	INSERT INTO minimax_m1.training_run (name, owner, method, examples, options, path, steps, step, state, leased_until)
	VALUES ('held', 'teacher', 'cispo', 'SELECT 1 AS prompt', '{}', 'public', 14, 3, 'running', now() + interval '1 day')});

# What a runner does at the end of a training, or of a step after which it is to pause.
sub ended
{
	my ($state) = @_;

	$node->safe_psql('postgres', qq{
		BEGIN;
		UPDATE minimax_m1.training_run SET state = '$state', wanted = NULL WHERE name = 'held';
		SELECT minimax_m1._queue_changed();
		COMMIT});
}

# A wait in a session of its own, once it sleeps.
sub waiting
{
	my ($call) = @_;
	my $q = start_query($node, $call);

	wait_for('somebody waits', sub {
			$node->safe_psql('postgres', q{
				SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Extension'}) eq '1' });
	return $q;
}

my $q = waiting("CALL minimax_m1.wait_for_training('held')");
is($node->safe_psql('postgres', q{SELECT backend_xid IS NULL AND backend_xmin IS NULL FROM pg_stat_activity WHERE query LIKE 'CALL%'}),
	't', 'who waits holds no transaction');
ended('done');
is(finish_query($q)->{err}, '', 'and is told of the end');
for my $state ('paused', 'cancelled')
{
	ended('running');
	$q = waiting("CALL minimax_m1.wait_for_training('held', '1 hour')");
	ended($state);
	is(finish_query($q)->{err}, '', "or that it is $state");
}
ended('running');
$q = waiting("CALL minimax_m1.wait_for_training('held')");
$node->safe_psql('postgres', q{UPDATE minimax_m1.training_run SET sqlstate = '53200', error = 'minimax_m1: no memory', detail = 'It is full.', hint = 'Buy some.'});
ended('failed');
like(finish_query($q)->{err}, qr/^\S*\s*WARNING:  (53200: )?minimax_m1: training "held" has failed: no memory\s+DETAIL:  It is full.\s+HINT:  Buy some./, 'or why it has failed');
$node->safe_psql('postgres', q{UPDATE minimax_m1.training_run SET sqlstate = NULL, error = NULL, detail = NULL, hint = NULL});
ended('running');
$q = waiting("CALL minimax_m1.wait_for_training('held')");
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL%'});
is(finish_query($q)->{state}, '57014', 'a wait can be cancelled');
$q = waiting("CALL minimax_m1.wait_for_training('held')");
$node->safe_psql('postgres', q{
	BEGIN;
	UPDATE minimax_m1.training_run SET leased_until = NULL;
	SELECT minimax_m1.cancel_training('held'), minimax_m1.drop_training('held');
	COMMIT});
is(finish_query($q)->{state}, '42704', 'one that was dropped meanwhile is not there any more');
is((sqlstate($node, q{CALL minimax_m1.wait_for_training('held', '-1 s')}))[0], '42704', 'nor is it for who comes later');

# ---- rights and dumps ----

$node->safe_psql('postgres', 'CREATE ROLE pupil; CREATE DATABASE restored');
is((sqlstate($node, "SELECT minimax_m1._training_allowed('pupil'::regrole)"))[0], '42501', 'who was not granted it, may not train');
$node->safe_psql('postgres', q{
	INSERT INTO minimax_m1.training_run (name, owner, method, examples, options, path, steps, step, state, leased_until)
	VALUES ('ended', 'teacher', 'cispo', 'SELECT 1 AS prompt', '{}', 'public', 14, 14, 'done', NULL),
		('broken', 'teacher', 'cispo', 'SELECT 1 AS prompt', '{}', 'public', 14, 3, 'failed', NULL),
		('held', 'teacher', 'cispo', 'SELECT 1 AS prompt', '{}', 'public', 14, 3, 'running', now() + interval '1 day');
	INSERT INTO minimax_m1.training_statistics (training, step, reward)
	SELECT id, s, 0.5 FROM minimax_m1.training_run, generate_series(0, step) s;
	INSERT INTO minimax_m1.training_example SELECT id, 'train', 1, '{"prompt": "x"}' FROM minimax_m1.training_run;
	INSERT INTO minimax_m1.training_answer (training, step, part, item, sample) SELECT id, 1, 'train', 1, 1 FROM minimax_m1.training_run});
$node->safe_psql('postgres', q{
	CREATE ROLE gone;
	INSERT INTO minimax_m1.training_run (name, owner, method, examples, options, path, steps, state) VALUES ('of nobody', 'gone', 'cispo', '', '{}', '', 1, 'done');
	INSERT INTO minimax_m1.training_example SELECT id, 'train', 1, '{}' FROM minimax_m1.training_run WHERE name = 'of nobody';
	INSERT INTO minimax_m1.adapter_version (id, name, version, owner, digest, rank, bytes, config) VALUES (77, 'of nobody', 1, 'gone', '', 1, 0, '{}');
	INSERT INTO minimax_m1.adapter_piece VALUES (77, 0, '');
	INSERT INTO minimax_m1.adapter_grant VALUES ('anything', 'gone');
	INSERT INTO minimax_m1.training_grant VALUES ('gone');
	DROP ROLE gone});
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'and back');
is($node->safe_psql('restored', 'SELECT name, state, step FROM minimax_m1.training ORDER BY name DESC'), "ended|done|14\nbroken|failed|3",
	'a dump has trainings that have ended');
is($node->safe_psql('restored', q{SELECT (SELECT count(*) FROM minimax_m1.adapter_version) + (SELECT count(*) FROM minimax_m1.adapter_piece)
	+ (SELECT count(*) FROM minimax_m1.adapter_grant) + (SELECT count(*) FROM minimax_m1.training_grant WHERE role::oid NOT IN (SELECT oid FROM pg_roles))
	+ (SELECT count(*) FROM minimax_m1.training_example WHERE example = '{}')}), '0', 'and nothing of a role that was dropped');
is($node->safe_psql('restored', q{SELECT count(*) FROM minimax_m1.training_step WHERE training = 'ended'}), '15', 'with their steps');
is($node->safe_psql('restored', q{SELECT training, example FROM minimax_m1.rollout WHERE training = 'ended'}), 'ended|{"prompt": "x"}', 'and answers');
my ($lost, $what) = sqlstate($node, q{SELECT minimax_m1.resume_training('broken')}, connstr => $node->connstr('restored'));
is($lost, '55000', 'but not what one that failed would go on from');
like($what, qr/what step 3 of training "broken" has left is not there/, 'which is told');
is($node->safe_psql('restored', q{SELECT count(*) FROM minimax_m1.plot_training('ended')}), '18', 'whose curve is drawn as before');
is($node->safe_psql('restored', q{SELECT minimax_m1._training_allowed('teacher'::regrole)}), '', 'and who may train');

# ---- an adapter of more bytes than a value holds ----

# The bytes are all alike; compressed, they are no load for the disk.
$node->safe_psql('postgres', q{
	ALTER TABLE minimax_m1.training_state ALTER data SET STORAGE EXTENDED;
	ALTER TABLE minimax_m1.adapter_piece ALTER data SET STORAGE EXTENDED;
	INSERT INTO minimax_m1.training_run (name, owner, method, examples, options, path, steps, step, state, best_step)
	VALUES ('large', 'teacher', 'cispo', 'SELECT 1 AS prompt', '{}', 'public', 14, 14, 'paused', 14);
	WITH head AS (SELECT convert_to('{"peft_type": "LORA", "r": 8}', 'UTF8') AS config)
	INSERT INTO minimax_m1.training_state (training, part, step, piece, data)
	SELECT r.id, 'best', 14, p,
		CASE WHEN p = 0 THEN convert_to('m1peft01', 'UTF8') || set_byte('\x00000000', 0, length(config)) || config
			|| convert_to(repeat('a', 1048576 - 12 - length(config)), 'UTF8')
			WHEN p < 1100 THEN convert_to(repeat(chr(98 + p % 20), 1048576), 'UTF8') ELSE 'the end' END
	FROM minimax_m1.training_run r, head, generate_series(0, 1100) p WHERE r.name = 'large'});
is($node->safe_psql('postgres', q{SELECT minimax_m1._training_keep_adapter(id) FROM minimax_m1.training_run WHERE name = 'large'}), '1', 'is made a version');
is($node->safe_psql('postgres', q{SELECT v.rank, v.bytes - 1100 * 1048576::bigint, count(*), sum(length(p.data)) = v.bytes,
	max(length(p.data)), max(convert_from(substr(p.data, 1048576 - 45), 'UTF8')) FILTER (WHERE p.piece = 1099),
	max(convert_from(substr(p.data, 1048576 - 42, 4), 'UTF8')) FILTER (WHERE p.piece = 0)
	FROM minimax_m1.adapter_version v JOIN minimax_m1.adapter_piece p ON p.adapter_id = v.id WHERE v.name = 'large' GROUP BY v.id}),
	'8|-34|1100|t|1048576|uuuuuthe end|aacc', 'piece by piece');

# ---- settings ----

$node->append_conf('postgresql.conf', "minimax_m1.training_retention = 2\n");
$node->reload;
wait_for('the setting is read', sub { $node->safe_psql('postgres', 'SHOW minimax_m1.training_retention') eq '2' });
$node->safe_psql('postgres', q{
	INSERT INTO minimax_m1.training_answer (training, step, part, item, sample)
	SELECT id, s, 'train', 2, 1 FROM minimax_m1.training_run, generate_series(0, 9) s WHERE name = 'ended';
	SELECT minimax_m1._forget_rollouts(id, 9) FROM minimax_m1.training_run WHERE name = 'ended'});
is($node->safe_psql('postgres', q{SELECT string_agg(step::text, ' ' ORDER BY step) FROM minimax_m1.rollout WHERE training = 'ended'}),
	'0 8 9', 'answers of so many steps are kept, and those before the first');
$node->append_conf('postgresql.conf', "minimax_m1.training_retention = -1\n");
$node->reload;
wait_for('the setting is read', sub { $node->safe_psql('postgres', 'SHOW minimax_m1.training_retention') eq '-1' });
$node->safe_psql('postgres', q{SELECT minimax_m1._forget_rollouts(id, 1000) FROM minimax_m1.training_run WHERE name = 'ended'});
is($node->safe_psql('postgres', q{SELECT count(*) FROM minimax_m1.rollout WHERE training = 'ended'}), '3', 'or of all');
is((sqlstate($node, 'SET minimax_m1.training_retention = 1'))[0], '55P02', 'which no session decides');

$node->stop;
done_testing();
