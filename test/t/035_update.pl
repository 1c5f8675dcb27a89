# A database that was updated has what a new one has: everything that the catalogs and pg_dump tell is compared.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('update', '# no_extension');

my $facts = slurp_file(root() . '/test/t/facts.sql');

# What facts.sql tells of a database, after a statement that is taken back again.
sub told
{
	my ($db, $statement) = @_;

	return sort split /\n/, $node->safe_psql($db, 'BEGIN; ' . ($statement // '') . ";\n$facts; ROLLBACK");
}

# A dump, without what each has of its own: a password, and the OIDs and positions that pg_upgrade keeps.
sub dumped
{
	my ($db, @options) = @_;
	my ($out, $err) = run_command([ 'pg_dump', @options, '-d', $node->connstr($db) ]);

	die $err if $err;
	$out =~ s/^\\(un)?restrict .*\n//mg;
	return map { s{\b(\d{3,}|0/[0-9A-F]+)\b}{N}g if /binary_upgrade|relfrozenxid|^WHERE oid/; $_ } split /\n/, $out;
}

# The lines that only one of two lists has, or has more often.
sub differences
{
	my ($these, $those) = @_;
	my %count;

	$count{$_}-- for @$these;
	$count{$_}++ for @$those;
	return join "\n", map { ($count{$_} < 0 ? '- ' : '+ ') . $_ } grep { $count{$_} } sort keys %count;
}

sub made
{
	my ($db, @statements) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, $_) for @statements;
}

sub is_made_the_same
{
	my ($db, $new, $how) = @_;

	is(differences([ told($new) ], [ told($db) ]), '', "$how, the catalogs tell the same");
	for my $options ([], [ '--binary-upgrade', '--schema-only' ])
	{
		my @expected = dumped($new, @$options);
		my @got = dumped($db, @$options);

		ok("@got" eq "@expected", "so does pg_dump @$options")
		  or diag(differences(\@expected, \@got) || 'the order differs');
	}
}

my %create = map { $_ => "CREATE EXTENSION minimax_m1 VERSION '$_'" } '0.1', '0.2';
my $create = 'CREATE EXTENSION minimax_m1';
my $update = 'ALTER EXTENSION minimax_m1 UPDATE';

made('new', $create);
for my $version ('0.1', '0.2')
{
	my $db = 'from_' . $version =~ tr/.//dr;

	made($db, $create{$version}, $update);
	is_made_the_same($db, 'new', "updated from $version");
}

# What roles may do: after grant_usage(), which is called again for what is new since then.
my $grant = q{SELECT minimax_m1.grant_usage('reader')};
$node->safe_psql('postgres', 'CREATE ROLE reader');
made('granted', $create, $grant);
made('granted_01', $create{'0.1'}, $grant, $update, $grant);
made('granted_02', $create{'0.2'}, $grant, $update, $grant);
is_made_the_same('granted_01', 'granted', 'granted in 0.1 and again');
is_made_the_same('granted_02', 'granted', 'granted in 0.2 and again');
isnt(differences([ told('new') ], [ told('granted') ]), '', 'grants are told');

# And where default privileges would give it what is made.
my $default = join '; ', map { "ALTER DEFAULT PRIVILEGES GRANT ALL ON $_ TO reader" }
  'FUNCTIONS', 'TABLES', 'SEQUENCES', 'TYPES';
made('defaults', $default, $create);
made('defaults_01', $create{'0.1'}, $default, $update);
made('defaults_02', $default, $create{'0.2'}, $update);
is(join("\n", grep { /(acl|initprivs) = .*reader/ } told('defaults')), '',
	'default privileges give nothing to anybody');
is_made_the_same('defaults_01', 'defaults', 'with default privileges when 0.1 is updated');
is_made_the_same('defaults_02', 'defaults', 'with default privileges and 0.2');

# A schema that was there before: another's is not used, and what is in a superuser's stays as it is.
made('taken', 'CREATE SCHEMA minimax_m1 AUTHORIZATION reader');
is((sqlstate($node, $create, connstr => $node->connstr('taken')))[0], '42501', 'not into the schema of another role');
made('there', 'CREATE SCHEMA minimax_m1; CREATE FUNCTION minimax_m1.own() RETURNS int LANGUAGE sql RETURN 1', $create);
is($node->safe_psql('there', q{SELECT has_function_privilege('reader', 'minimax_m1.own()', 'EXECUTE')}), 't',
	'what is in a schema that was there before keeps its privileges');

# Schemas of jobs and annotators are kept, in the order that they have; what depends on a function that is made anew is
# for its owner to make anew, too.
made('kept', $create{'0.2'}, q{INSERT INTO minimax_m1.job (owner, prompt, json_schema) VALUES ('reader', 'x', '{"enum": [1.50]}')},
	q{INSERT INTO minimax_m1.annotator (name, owner, source, key_columns, target_column, template, mode, fire, max_attempts, json_schema)
		VALUES ('x', 'reader', 'pg_class', '{oid}', 'relname', 'x', 'async', 'origin', 1, '{"enum": ["b", "a"]}')},
	q{CREATE VIEW mine AS SELECT minimax_m1.generate_json('x', '{"enum": [1]}')});
like((sqlstate($node, $update, connstr => $node->connstr('kept')))[1], qr/cannot drop function .*generate_json/, 'a view is in the way');
$node->safe_psql('kept', "DROP VIEW mine; $update; CREATE VIEW mine AS SELECT minimax_m1.generate_json('x', '{\"enum\": [1]}')");
is($node->safe_psql('kept', 'SELECT json_schema FROM minimax_m1.job UNION ALL SELECT json_schema FROM minimax_m1.annotators'),
	qq({"enum": [1.50]}\n{"enum": ["b", "a"]}), 'schemas are kept');

# The comparison sees what it is there for: of many changes at once it names each.
my @changes = (
	[ 'ALTER FUNCTION minimax_m1.generate STABLE', 'function minimax_m1.generate.*provolatile' ],
	[ 'ALTER FUNCTION minimax_m1.submit PARALLEL SAFE', 'function minimax_m1.submit.*proparallel' ],
	[ 'ALTER FUNCTION minimax_m1.logits COST 1', 'function minimax_m1.logits.*procost' ],
	[ 'ALTER FUNCTION minimax_m1.generate_stream ROWS 1', 'function minimax_m1.generate_stream.*prorows' ],
	[ 'ALTER FUNCTION minimax_m1.set_quota SECURITY INVOKER', 'function minimax_m1.set_quota.*prosecdef' ],
	[ 'ALTER FUNCTION minimax_m1.set_price RESET ALL', 'function minimax_m1.set_price.*proconfig' ],
	[ 'ALTER FUNCTION minimax_m1.detokenize CALLED ON NULL INPUT', 'function minimax_m1.detokenize.*proisstrict' ],
	[ q{UPDATE pg_proc SET prosupport = 0 WHERE proname = 'generate_json'},
		'function minimax_m1.generate_json.*prosupport' ],
	[ q{UPDATE pg_proc SET prosrc = prosrc || ' ' WHERE proname = 'grant_usage'},
		'function minimax_m1.grant_usage.*prosrc' ],
	[ q{UPDATE pg_aggregate SET aggfinalmodify = 's' WHERE aggfnoid = 'minimax_m1.reduce_agg'::regproc},
		'function minimax_m1.reduce_agg.*aggfinalmodify' ],
	[ 'GRANT EXECUTE ON FUNCTION minimax_m1.score TO PUBLIC', 'function minimax_m1.score.*proacl = =X/' ],
	[ 'GRANT SELECT ON minimax_m1.bill TO reader', 'view minimax_m1.bill: relacl.* reader=r/' ],
	[ 'GRANT SELECT (prompt) ON minimax_m1.job TO reader', 'column prompt of table minimax_m1.job: attacl' ],
	[ 'GRANT USAGE ON SCHEMA minimax_m1 TO reader', 'schema minimax_m1: nspacl.* reader=U/' ],
	[ q{DELETE FROM pg_init_privs WHERE objoid = 'minimax_m1.cancel'::regproc},
		'function minimax_m1.cancel.*initprivs' ],
	[ 'COMMENT ON FUNCTION minimax_m1.score IS NULL', 'function minimax_m1.score.*comment' ],
	[ 'ALTER VIEW minimax_m1.jobs RESET (security_barrier)', 'view minimax_m1.jobs: reloptions' ],
	[ 'CREATE OR REPLACE VIEW minimax_m1.model AS SELECT * FROM minimax_m1.model_row() WHERE true',
		'view minimax_m1.model: definition' ],
	[ 'ALTER TABLE minimax_m1.job ALTER priority SET DEFAULT 1', 'default.* for column priority.*definition' ],
	[ 'ALTER TABLE minimax_m1.job ALTER owner DROP NOT NULL', 'column owner of table minimax_m1.job: attnotnull' ],
	[ 'ALTER TABLE minimax_m1.job DROP CONSTRAINT job_state_check', 'constraint job_state_check' ],
	[ 'ALTER TABLE minimax_m1.job RESET (fillfactor)', 'table minimax_m1.job: reloptions' ],
	[ 'ALTER TABLE minimax_m1.annotator ENABLE ROW LEVEL SECURITY', 'table minimax_m1.annotator: relrowsecurity' ],
	[ 'CREATE POLICY every ON minimax_m1.annotator USING (true)', 'policy every on table minimax_m1.annotator' ],
	[ 'ALTER TABLE minimax_m1.prices OWNER TO reader', 'table minimax_m1.prices: relowner' ],
	[ 'DROP INDEX minimax_m1.job_row; CREATE INDEX job_row ON minimax_m1.job (key) WHERE annotator_id IS NOT NULL',
		'index minimax_m1.job_row: definition' ],
	[ 'ALTER SEQUENCE minimax_m1.job_id_seq CACHE 2', 'sequence minimax_m1.job_id_seq: seqcache' ],
	[ 'ALTER SEQUENCE minimax_m1.job_id_seq OWNED BY NONE', 'sequence minimax_m1.job_id_seq: depends' ],
	[ 'ALTER EVENT TRIGGER minimax_m1_follow_drop ENABLE', 'event trigger minimax_m1_follow_drop: evtenabled' ],
	[ q{UPDATE pg_extension SET extcondition[1] = 'WHERE false' WHERE extname = 'minimax_m1'},
		'pg_dump: carries = .*WHERE false' ],
	[ 'ALTER EXTENSION minimax_m1 DROP VIEW minimax_m1.stats', 'view minimax_m1.stats: depends = e extension' ]);
my $seen = differences([ told('new') ], [ told('new', join '; ', map { $_->[0] } @changes) ]);
like($seen, qr/^[-+] $_->[1]/m, "seen: $_->[0]") for @changes;

$node->stop;
done_testing();
