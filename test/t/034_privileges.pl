# What a role that is no superuser prepares for the extension: a false queue, a schema, default privileges.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('privileges');
wait_ready($node);

sub sql { my ($query, $db) = @_; return $node->safe_psql($db // 'postgres', $query); }

# A database without the extension, whose owner has made a table with the queue's name.
sql('CREATE ROLE hostile LOGIN');
sql('CREATE DATABASE hostile OWNER hostile');
sql(q{
	SET ROLE hostile;
	CREATE SCHEMA minimax_m1;
	CREATE SEQUENCE minimax_m1.fired;
	CREATE TABLE minimax_m1.job (id bigint, owner oid, annotator_id int, key text[], state text, attempts int, max_attempts int,
		losses int, run_at timestamptz, leased_by int, leased_at timestamptz, lease_until timestamptz, finished_at timestamptz,
		sqlstate text, error text, failed_at timestamptz);
	CREATE FUNCTION minimax_m1.fire() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM nextval('minimax_m1.fired'); RETURN NULL; END $$;
	CREATE TRIGGER t BEFORE UPDATE OR DELETE ON minimax_m1.job FOR EACH STATEMENT EXECUTE FUNCTION minimax_m1.fire()}, 'hostile');
my $commits = q{SELECT xact_commit FROM pg_stat_database WHERE datname = 'hostile'};
$node->stop;
$node->start;
my $before = sql($commits);
wait_ready($node);
wait_for('a runner has looked at the database', sub {
		sql($commits) > $before || sql(q{SELECT pg_postmaster_start_time() < clock_timestamp() - interval '5 s'}) eq 't' });
is(sql('SELECT is_called FROM minimax_m1.fired', 'hostile'), 'f', 'a table with the queue\'s name is not the queue');
my ($refused) = sqlstate($node, 'CREATE EXTENSION minimax_m1', connstr => $node->connstr('hostile'));
is($refused, '42501', 'nor is a schema of another role the extension\'s');

# Default privileges of whoever installs the extension. Grants on what 0.1 has stay.
sql('CREATE ROLE someone');
sql('CREATE DATABASE old');
sql(q{
	CREATE EXTENSION minimax_m1 VERSION '0.1';
	SELECT minimax_m1.grant_usage('someone');
	GRANT EXECUTE ON FUNCTION minimax_m1.stats_row TO PUBLIC;
	ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON ROUTINES TO someone;
	ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO someone, PUBLIC;
	ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO someone;
	ALTER EXTENSION minimax_m1 UPDATE}, 'old');
my $acls = q{SELECT string_agg(name, ' ' ORDER BY name) FROM (
	SELECT proname, coalesce(proacl, acldefault('f', proowner)), proowner, pronamespace FROM pg_proc
	UNION ALL SELECT relname, relacl, relowner, relnamespace FROM pg_class) o(name, acl, owner, nsp)
	WHERE nsp = 'minimax_m1'::regnamespace AND EXISTS (SELECT FROM aclexplode(acl) a WHERE a.grantee <> owner)};
is(sql($acls, 'old'), 'activity activity_rows annotate cancel complete count_tokens detokenize generate generate_ids generate_stream '
	. 'logits model model_row prefix_cache_row stats stats_row summarize tokenize', 'an update grants nothing that is new');
sql(q{DROP EXTENSION minimax_m1; CREATE EXTENSION minimax_m1}, 'old');
is(sql($acls, 'old'), '', 'neither does an installation');
sql(q{GRANT USAGE ON SCHEMA minimax_m1 TO someone; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA minimax_m1 TO someone}, 'old');
for my $call (q{_run_as('postgres'::regrole::oid, 'SELECT 1')}, q{_depend(0, 0, 0, '{}')}, q{_unannotated(1, NULL, 1)})
{
	my ($state) = sqlstate($node, "SET ROLE someone; SELECT minimax_m1.$call", connstr => $node->connstr('old'));
	is($state, '42501', "$call is for the owner");
}
done_testing();
