# Runs of agents that were submitted: made by a process whose session is the owner's, and begun again when it is lost.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('agent_runs', 'minimax_m1.temperature = 0', 'restart_after_crash = on');
wait_ready($node);
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub as_clerk { return sql("SET SESSION AUTHORIZATION clerk; $_[0]"); }
sub ended { my ($run) = @_; return sub { sql("SELECT state IN ('done', 'failed') FROM minimax_m1.agent_runs WHERE id = $run") eq 't' }; }

sql(q{
	CREATE ROLE clerk LOGIN;
	SELECT minimax_m1.grant_usage('clerk');
	CREATE SCHEMA desk AUTHORIZATION clerk;
	SET SESSION AUTHORIZATION clerk;
	SET search_path = desk;
	CREATE TABLE orders AS SELECT 'B-12345' AS order_id, 'shipped' AS status;
	CREATE TABLE seen (who name, session name);
	CREATE FUNCTION lookup_order(order_id text) RETURNS SETOF orders LANGUAGE sql STABLE
		AS $$ SELECT o FROM orders o WHERE o.order_id = lookup_order.order_id $$;
	CREATE FUNCTION note_order(order_id text) RETURNS text LANGUAGE sql
		AS $$ INSERT INTO desk.seen VALUES (current_user, session_user) RETURNING 'noted' $$;
	CREATE FUNCTION wait_order(order_id text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT pg_sleep(300)::text $$;
	SELECT minimax_m1.create_agent('helpdesk', '{lookup_order(text)}', limits => '{"max_calls": 2}');
	SELECT minimax_m1.create_agent('writer', '{note_order(text)}', limits => '{"max_calls": 1, "read_only": false}');
	SELECT minimax_m1.create_agent('waiter', '{wait_order(text)}', limits => '{"max_calls": 1, "call_timeout": "5 minutes", "timeout": "5 minutes"}')});

my $run = as_clerk(q{SET search_path = desk; SELECT minimax_m1.submit_agent('helpdesk', 'Where is order B-12345?')});
wait_for('a submitted run ends', ended($run));
is(sql("SELECT state FROM minimax_m1.agent_runs WHERE id = $run"), 'done', 'it is done');
is(sql("SELECT body FROM minimax_m1.agent_steps WHERE run = $run AND kind = 'result' ORDER BY step LIMIT 1"),
	'[{"status": "shipped", "order_id": "B-12345"}]', 'with the search_path of who submitted it');
is((sqlstate($node, q{SELECT minimax_m1.submit_agent('none', 'x')}))[0], '42704', 'there must be such an agent');

# What is called is what was listed when it was submitted, and nothing that has got its name since.
$run = as_clerk(q{SET search_path = desk; BEGIN; SELECT minimax_m1.submit_agent('helpdesk', 'Where is order B-12345?');
	DROP FUNCTION lookup_order(text);
	CREATE FUNCTION lookup_order(order_id text) RETURNS SETOF orders LANGUAGE sql STABLE
		AS $$ SELECT o FROM orders o WHERE o.order_id = lookup_order.order_id $$;
	COMMIT});
wait_for('a run whose tool was dropped ends', ended($run));
like(sql("SELECT kind, error FROM minimax_m1.agent_steps WHERE run = $run"), qr/^error\|.*is no tool: it does not exist$/, 'another function of that name is not called');

$run = as_clerk(q{SELECT minimax_m1.submit_agent('writer', 'Where is order B-12345?')});
wait_for('a run that writes ends', ended($run));
is(sql('SELECT DISTINCT who || session FROM desk.seen'), 'clerkclerk', 'tools run as the owner, whose session it is');

# Its process is killed while a tool runs: nothing stays of it, and it is begun again.
$run = as_clerk(q{SELECT minimax_m1.submit_agent('waiter', 'Where is order B-12345?')});
my $pid = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'minimax_m1 agent' AND wait_event = 'PgSleep'};
my $first;
wait_for('a tool runs', sub { ($first = sql($pid)) ne '' });
is(sql("SELECT count(*) FROM minimax_m1.agent_steps WHERE run = $run"), '0', 'a run is one transaction');
sql("SELECT pg_terminate_backend($first)");
wait_for('another process has begun it again', sub { my $now = sql($pid); $now ne '' && $now ne $first });
is(sql("SELECT attempts FROM minimax_m1.agent_run WHERE id = $run"), '2', 'that is its second attempt');
for (2 .. 3)
{
	my $now;
	wait_for('a tool runs', sub { $now = sql($pid); $now ne '' && $now ne $first });
	sql("SELECT pg_terminate_backend($now)");
	$first = $now;
}
wait_for('it is given up', ended($run));
like(sql("SELECT error FROM minimax_m1.agent_steps WHERE run = $run"), qr/begun 3 times/, 'after three');

# Cancelled while it waits, and while a tool runs.
my $waits = as_clerk(q{SELECT minimax_m1.submit_agent('waiter', 'Where is order B-12345?')});
wait_for('a tool runs', sub { my $now = sql($pid); $now ne '' && $now ne $first });
$run = as_clerk(q{SELECT minimax_m1.submit_agent('helpdesk', 'Where is order B-12345?')});
is(as_clerk("SELECT minimax_m1.cancel_agent_run($run)"), 't', 'one that waits is cancelled');
is(as_clerk("SELECT minimax_m1.cancel_agent_run($run)"), 'f', 'once');
is(as_clerk("SELECT minimax_m1.cancel_agent_run($waits)"), 't', 'one that runs is cancelled');
wait_for('its process is gone', sub { sql($pid) eq '' });
is(sql("SELECT string_agg(state || step || error, ',') FROM minimax_m1.agent_runs r JOIN minimax_m1.agent_steps s ON s.run = r.id
	WHERE r.id IN ($run, $waits)"), join(',', ('failed0the run was cancelled') x 2), 'and both say so');

# The server crashes while a tool has written: the run is begun again at once, and what it has written is there once.
sql(q{
	CREATE TABLE desk.pace AS SELECT 300.0::float8 AS seconds;
	CREATE FUNCTION desk.slow_order(order_id text) RETURNS text LANGUAGE sql
		AS $$ INSERT INTO desk.seen VALUES ('slow', 'slow'); SELECT pg_sleep(seconds)::text || 'noted' FROM desk.pace $$;
	GRANT SELECT ON desk.pace TO clerk;
	ALTER FUNCTION desk.slow_order OWNER TO clerk;
	SET SESSION AUTHORIZATION clerk;
	SET search_path = desk;
	SELECT minimax_m1.create_agent('slow', '{slow_order(text)}',
		limits => '{"max_calls": 1, "read_only": false, "call_timeout": "5 minutes", "timeout": "5 minutes"}')});
for my $who ('the process of the run', 'the runner of jobs')
{
	my $now;
	my $count = sql(q{SELECT count(*) FROM desk.seen WHERE who = 'slow'});

	$run = as_clerk(q{SELECT minimax_m1.submit_agent('slow', 'Where is order B-12345?')});
	wait_for('a tool runs', sub { $now = sql($pid); $now ne '' });
	my $victim = $who =~ /run$/ ? $now : sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'minimax_m1 job runner' LIMIT 1});
	kill 'KILL', $victim;
	wait_for('the process is gone', sub { !kill 0, $victim });
	wait_for('the server is back', sub { $node->psql('postgres', q{UPDATE desk.pace SET seconds = 0}) == 0 });
	wait_for("a run ends after $who was killed", ended($run));
	is(sql("SELECT state || attempts FROM minimax_m1.agent_run WHERE id = $run"), 'done2', "$who is killed: the run is done in its second attempt");
	is(sql(q{SELECT count(*) FROM desk.seen WHERE who = 'slow'}), $count + 1, 'what it has written is there once');
	is(sql("SELECT count(DISTINCT step) = count(*) AND count(*) FILTER (WHERE kind = 'call') = 1 FROM minimax_m1.agent_steps WHERE run = $run"), 't',
		'and so are its steps');
	sql('UPDATE desk.pace SET seconds = 300');
}

# Owners take turns, and have one run at a time: one whose tools take for ever holds up none of the others.
sql(q{
	CREATE ROLE greedy LOGIN; CREATE ROLE other LOGIN;
	SELECT minimax_m1.grant_usage(r) FROM unnest('{greedy,other}'::regrole[]) r;
	GRANT USAGE ON SCHEMA desk TO greedy, other;
	SET SESSION AUTHORIZATION greedy;
	SELECT minimax_m1.create_agent('waiter', '{desk.wait_order(text)}', limits => '{"max_calls": 1, "call_timeout": "1 year", "timeout": "10 minutes"}');
	RESET SESSION AUTHORIZATION; SET SESSION AUTHORIZATION other;
	SELECT minimax_m1.create_agent('nobody', '{}')});
sql(q{SET SESSION AUTHORIZATION greedy; SELECT minimax_m1.submit_agent('waiter', 'Where is order B-12345?') FROM generate_series(1, 50)});
wait_for('a tool runs', sub { ($first = sql($pid)) ne '' });

# Who cancels a run stops its process, and no other one's, also where the transaction has looked at the activity before.
sql('CREATE TABLE desk.go ()');
my $looked = start_query($node, q{SELECT count(*) FROM pg_stat_activity;
	DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM desk.go) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;
	SELECT minimax_m1.cancel_agent_run(max(id)) FROM minimax_m1.agent_runs WHERE owner = 'clerk'::regrole});
wait_for('it has looked', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND wait_event = 'PgSleep'}) eq '1' });
as_clerk(q{SELECT minimax_m1.submit_agent('waiter', 'Where is order B-12345?')});
wait_for('two tools run', sub { sql("SELECT count(*) FROM ($pid) p") eq '2' });
sql('INSERT INTO desk.go DEFAULT VALUES');
finish_query($looked);
like($looked->{out}, qr/^t$/m, 'one of two is cancelled') or diag($looked->{err});
wait_for('one process is gone', sub { sql("SELECT count(*) FROM ($pid) p") eq '1' });
sleep 1;
is(sql($pid), $first, 'the process of the other one goes on');
is(sql(q{SELECT string_agg(attempts::text, ' ') FROM minimax_m1.agent_run WHERE owner = 'greedy'::regrole AND state = 'running'}), '1', 'in its first attempt');

$run = as_clerk(q{SELECT minimax_m1.submit_agent('helpdesk', 'Where is order B-12345?') FROM generate_series(1, 3)});
$run =~ s/.*\n//s;
my $others = sql(q{SET SESSION AUTHORIZATION other; SELECT minimax_m1.submit_agent('nobody', 'Hello.')});
wait_for('the runs of others end', sub { ended($run)->() && ended($others)->() });
is(sql(q{SELECT string_agg(state || n, ' ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM minimax_m1.agent_run WHERE owner = 'greedy'::regrole
	GROUP BY state) s}), 'queued49 running1', 'a role that keeps its runs going has one of them under way, and others have theirs');
is(sql("SELECT started_at < (SELECT started_at FROM minimax_m1.agent_run WHERE id = $run) FROM minimax_m1.agent_run WHERE id = $others"), 't',
	'who comes later than another role, with fewer runs, need not wait for all of its');
sql(q{SET SESSION AUTHORIZATION greedy; SELECT count(minimax_m1.cancel_agent_run(id)) FROM minimax_m1.agent_runs WHERE state IN ('queued', 'running')});

# How long a run may take is a superuser's to say, whatever it is asked with; nothing of it goes on after that.
sql(q{
	ALTER ROLE greedy RESET ALL;
	SET SESSION AUTHORIZATION greedy;
	SELECT minimax_m1.create_agent('lasting', '{desk.wait_order(text)}', limits => '{"call_timeout": "1000 years", "timeout": "1000 years"}')});
my ($refused, $why) = sqlstate($node, q{SET SESSION AUTHORIZATION greedy; SELECT minimax_m1.submit_agent('lasting', 'x')});
is($refused, '22023', 'a run that may take longer than others should wait is refused');
like($why, qr/a submitted run may take no longer than 00:10:00.*The timeout of the agent is 1000 years.*agent_run_timeout/s, 'with why, and who can change it');
is((sqlstate($node, q{SET SESSION AUTHORIZATION greedy; SELECT minimax_m1._agent_submit('x', '{}', '{"limits": {"timeout": "11 minutes"}}', '')}))[0], '22023',
	'also past submit_agent');
is((sqlstate($node, q{SET SESSION AUTHORIZATION greedy; SET minimax_m1.agent_run_timeout = 0}))[0], '42501', 'the role cannot change it');
sql('ALTER ROLE greedy SET minimax_m1.agent_run_timeout = 0');
is($node->psql('postgres', q{SELECT minimax_m1.cancel_agent_run(minimax_m1.submit_agent('lasting', 'x'))}, connstr => $node->connstr('postgres') . ' user=greedy'), 0,
	'a superuser can, for one role');
sql('ALTER ROLE greedy RESET ALL');
sql(q{
	CREATE TABLE desk.late (session name);
	CREATE FUNCTION desk.late() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		LOOP BEGIN PERFORM pg_sleep(1000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;
	END $$;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON desk.late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION desk.late();
	CREATE FUNCTION desk.late_order(order_id text) RETURNS text LANGUAGE sql AS $$ INSERT INTO desk.late VALUES (session_user) RETURNING 'noted' $$;
	GRANT INSERT, SELECT ON desk.late TO PUBLIC});
for my $who ('clerk', 'greedy')
{
	sql(qq{SET SESSION AUTHORIZATION $who;
		SELECT minimax_m1.create_agent('late', '{desk.late_order(text)}', limits => '{"max_calls": 1, "read_only": false, "timeout": "2 seconds"}')});
	sql(qq{SET SESSION AUTHORIZATION $who; SELECT minimax_m1.submit_agent('late', 'Where is order B-12345?') FROM generate_series(1, 5)});
}
wait_for('both places are taken', sub { sql("SELECT count(*) FROM ($pid) p") eq '2' });
$run = sql(q{SET SESSION AUTHORIZATION other; SELECT minimax_m1.submit_agent('nobody', 'Hello.')});
wait_for('the run of another role ends beside two that never would', ended($run), 40);
is(sql("SELECT state FROM minimax_m1.agent_runs WHERE id = $run"), 'done', 'what waits at its commit is ended, too');
is(sql(q{SELECT count(*) FROM desk.late}), '0', 'and leaves nothing');
sql(qq{SET SESSION AUTHORIZATION $_; SELECT count(minimax_m1.cancel_agent_run(id)) FROM minimax_m1.agent_runs WHERE state IN ('queued', 'running')}) for 'clerk', 'greedy';

# What it may do is looked at when it begins.
sql('REVOKE EXECUTE ON FUNCTION desk.lookup_order(text) FROM PUBLIC, clerk; ALTER FUNCTION desk.lookup_order(text) OWNER TO postgres');
is((sqlstate($node, q{SET SESSION AUTHORIZATION clerk; SELECT minimax_m1.submit_agent('helpdesk', 'x')}))[0], '42501', 'rights are looked at');

# No process is free. Cancelled between the turn that claims a run and the one that finds that out, it stays so.
$node->append_conf('postgresql.conf', "max_worker_processes = 3\nmax_logical_replication_workers = 0");
$node->restart;
wait_ready($node);
sql(q{
	CREATE FUNCTION desk.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM minimax_m1.agent_run WHERE state = 'running') THEN PERFORM pg_sleep(3); END IF;
		RETURN NULL;
	END $$;
	CREATE TRIGGER dawdle BEFORE UPDATE ON minimax_m1.agent_run FOR EACH STATEMENT EXECUTE FUNCTION desk.dawdle()});
$run = sql(q{SET SESSION AUTHORIZATION other; SELECT minimax_m1.submit_agent('nobody', 'Hello.')});
wait_for('it is claimed', sub { sql("SELECT state FROM minimax_m1.agent_run WHERE id = $run") eq 'running' });
is(sql("SELECT minimax_m1.cancel_agent_run($run)"), 't', 'one that was claimed is cancelled');
sql('DROP TRIGGER dawdle ON minimax_m1.agent_run');
sleep 1;
is(sql("SELECT state FROM minimax_m1.agent_run WHERE id = $run"), 'failed', 'and does not come back');

done_testing();
