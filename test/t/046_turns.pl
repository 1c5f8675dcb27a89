# Roles take turns: whoever comes beside a role that floods the server is served next, not last. A stopped engine keeps
# requests where they are.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_server('turns', 'minimax_m1.max_requests = 1', 'minimax_m1.reserved_requests = 0', 'max_connections = 60');
wait_ready($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{CREATE TABLE done (n serial, who text);
	CREATE ROLE flood; CREATE ROLE victim; CREATE ROLE other;
	GRANT INSERT ON done TO PUBLIC; GRANT USAGE ON SEQUENCE done_n_seq TO PUBLIC;
	SELECT minimax_m1.grant_usage(r) FROM unnest('{flood,victim,other}'::regrole[]) r});

sub stop_engine { my $pid = engine_pid($node); kill 'STOP', $pid; return $pid; }

# Sessions of a role that make one call each, and note that it is done.
sub sessions
{
	my ($n, $role, $call) = @_;
	my $before = sql('SELECT count(*) FROM minimax_m1.activity');
	my @q = map { start_query($node, "SET ROLE $role; SELECT minimax_m1.$call; INSERT INTO done (who) VALUES (current_user)") } 1 .. $n;

	wait_for("$n requests of $role are there", sub { sql('SELECT count(*) FROM minimax_m1.activity') == $before + $n });
	usleep(300_000); # the worker has seen them, too
	return @q;
}

sub positions
{
	return sql(qq{SELECT string_agg(queue_position::text, ' ' ORDER BY queue_position) FROM minimax_m1.activity WHERE "user" = '$_[0]'});
}

# Who was done, in this order; begins anew.
sub done
{
	my (@q) = @_;

	finish_query($_) for @q;
	is(join('', map { $_->{err} } @q), '', 'nobody got an error');
	return split / /, sql(q{WITH d AS (DELETE FROM done RETURNING *) SELECT string_agg(who, ' ' ORDER BY n) FROM d});
}

# What takes long enough for others to note in time that they are done.
my $call = q{generate_ids('{1,2,3}', 300)};

# One place: a long queue of one role, and then somebody else.
my $engine = stop_engine();
my @q = sessions(8, 'flood', $call);
push @q, sessions(1, 'victim', $call);
is(positions('victim'), '1', 'who comes new is next');
is(positions('flood'), '2 3 4 5 6 7 8', 'the others wait for their turn');
push @q, sessions(2, 'other', $call);
is(positions('victim') . ' ' . positions('other'), '1 2 4', 'roles alternate');
kill 'CONT', $engine;
my @order = done(@q);
like("@order[0 .. 2]", qr/victim/, 'and so they are served') or diag("@order");
like("@order[0 .. 3]", qr/other/, 'each of them') or diag("@order");
cmp_ok(scalar(grep { $_ eq 'other' } @order[0 .. 5]), '==', 2, 'before the flood is') or diag("@order");

# A share of three places to one.
sql('ALTER ROLE other SET minimax_m1.share = 3');
$engine = stop_engine();
@q = sessions(1, 'postgres', $call);
push @q, sessions(6, 'flood', $call), sessions(6, 'other', $call);
kill 'CONT', $engine;
@order = grep { $_ ne 'postgres' } done(@q);
my $others = grep { $_ eq 'other' } @order[0 .. 7];
ok($others == 6 || $others == 5, 'a role with a share of 3 gets three places where another gets one') or diag("@order");
like("@order[0 .. 4]", qr/flood/, 'which is not left out') or diag("@order");
sql('ALTER ROLE other RESET minimax_m1.share');
my ($state) = sqlstate($node, 'SET ROLE flood; SET minimax_m1.share = 100');
is($state, '42501', 'nobody helps himself');
$node->psql('postgres', 'SET minimax_m1.share = 0', stderr => \my $err);
like($err, qr/outside the valid range/, 'a share is at least 1');

# The tokenizer takes no place in the batch, but roles take turns at it, too.
$engine = stop_engine();
@q = sessions(10, 'flood', q{count_tokens('Hello.')});
push @q, sessions(1, 'victim', q{count_tokens('Hello.')});
is(positions('victim'), '1', 'who comes new is next at the tokenizer');
is(positions('flood'), '2 3', 'eight are with the engine, the others wait');
push @q, sessions(1, 'other', q{generate('Hello.')});
is(positions('other'), undef // '', 'which holds up nobody who wants the model');
kill 'CONT', $engine;
@order = done(@q);
is(scalar @order, 12, 'all are served');

# Long requests in all places: whoever comes gets those that become free, until both have as many.
$node->append_conf('postgresql.conf', 'minimax_m1.max_requests = 4');
$node->restart;
wait_ready($node);
my $running = q{SELECT string_agg(format('%s %s', "user", n), ' ' ORDER BY "user") FROM (
	SELECT "user", count(*) AS n FROM minimax_m1.activity WHERE queue_position IS NULL GROUP BY 1) r};
@q = sessions(8, 'flood', q{generate_ids('{1,2,3}', 32000)});
push @q, sessions(8, 'victim', q{generate_ids('{1,2,3}', 32000)});
is(sql($running), 'flood 4', 'one role has all places');
for my $wanted ('flood 3 victim 1', 'flood 2 victim 2', 'flood 2 victim 2')
{
	sql(q{SELECT minimax_m1.cancel(min(request)) FROM minimax_m1.activity WHERE "user" = 'flood' AND queue_position IS NULL});
	wait_for("a place is given away: $wanted", sub { sql($running) eq $wanted });
	pass("then: $wanted");
}
sql(q{SELECT minimax_m1.cancel(request) FROM minimax_m1.activity});
finish_query($_) for @q;
wait_for('all is quiet', sub { is_idle($node) });

# The same with places that are reserved: who has none does not wait for an end.
$node->append_conf('postgresql.conf', "minimax_m1.max_requests = 2\nminimax_m1.reserved_requests = 1");
$node->restart;
wait_ready($node);
@q = sessions(4, 'flood', q{generate_ids('{1,2,3}', 32000)});
is(sql($running), 'flood 2', 'one role has all places but the reserved one');
is(sql(q{SET ROLE victim; SET statement_timeout = '60s'; SELECT cardinality(minimax_m1.generate_ids('{1,2,3}', 20))}), '20',
	'which is for another role');
push @q, sessions(2, 'victim', q{generate_ids('{1,2,3}', 32000)});
is(sql($running), 'flood 2 victim 1', 'for a first request');
sql(q{SELECT minimax_m1.cancel(min(request)) FROM minimax_m1.activity WHERE "user" = 'flood' AND queue_position IS NULL});
wait_for('the place that is free again is the reserved one', sub { sql('SELECT count(*) FROM minimax_m1.activity') == 5 });
usleep(300_000);
is(sql($running), 'flood 1 victim 1', 'and there are no more places than max_requests for the others');
sql(q{SELECT minimax_m1.cancel(request) FROM minimax_m1.activity});
finish_query($_) for @q;
$node->stop;
done_testing();
