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
done_testing();
