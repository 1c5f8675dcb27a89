# Without shared_preload_libraries every function says what to do, and nothing else breaks.
use strict;
use warnings;
use M1Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('plain', "shared_preload_libraries = ''", 'minimax_m1.max_requests = 3');
my %calls = (
	generate => "generate('Hello.')",
	complete => "complete('Hello.')",
	generate_stream => "generate_stream('Hello.')",
	complete_stream => "complete_stream('Hello.')",
	summarize => "summarize('Hello.')",
	count_tokens => "count_tokens('Hello.')",
	tokenize => "tokenize('Hello.')",
	detokenize => 'detokenize(ARRAY[1])',
	generate_ids => 'generate_ids(ARRAY[1], 1)',
	logits => 'logits(ARRAY[1])',
	cancel => 'cancel(1)',
	stats_reset => 'stats_reset()',
	activity_rows => 'activity_rows()',
	model_row => 'model_row()',
	stats_row => 'stats_row()',
	prefix_cache_row => 'prefix_cache_row()',
	stats_by_function_rows => 'stats_by_function_rows()',
	stats_latency_rows => 'stats_latency_rows()',
	last_statement_rows => 'last_statement_rows()',
	usage_rows => 'usage_rows()',
	usage_reset => 'usage_reset()',
	role_use => 'role_use(10)',
	generate_batch => "generate_batch(ARRAY['Hello.'])",
	generate_json => q{generate_json('Hello.', '{"type": "boolean"}')},
	classify => "classify('Hello.', ARRAY['yes', 'no'])",
	extract => "extract('Hello.', NULL::pair)",
	is_true => "is_true('It is short.', 'Hello.')",
	score => "score('It is short.', 'Hello.')",
	rank => "rank('It is short.', ARRAY['Hello.'])",
	summarize_agg => "summarize_agg('Hello.')",
	reduce_agg => "reduce_agg('Hello.', 'Repeat.')",
	evaluate => "evaluate('SELECT 1 AS prompt', 'reward_exact')",
	compare => "compare('SELECT 1 AS prompt', 'reward_exact', ARRAY['base'])",
	training_check => "training_check('SELECT 1 AS prompt', 'reward_exact')",
	train => "train('x', examples => 'SELECT 1 AS prompt', reward => 'reward_exact')",
	train_classify => "train_classify('x', 'SELECT ''a'' AS input, ''a'' AS category', ARRAY['a', 'b'], 'SELECT ''a'' AS input, ''a'' AS category')",
	train_extract => "train_extract('x', 'SELECT ''a'' AS document, NULL::pair AS answer', NULL::pair, 'SELECT ''a'' AS document, NULL::pair AS answer')",
	corrections => "corrections('x')",
	reward_judge => q{reward_judge('a', '{"prompt": "b", "answer": "c"}')},
	agent => "agent('Hello.')",
	ask => "ask('Hello.')",
	submit => "submit('Hello.')");
$node->safe_psql('postgres', 'CREATE TYPE pair AS (a text, b int)');

# In the first session that touches the library as in one that has loaded it, which knows its settings then.
for my $first ('', "LOAD 'minimax_m1';")
{
	for my $name (sort keys %calls)
	{
		my ($state, $message) = sqlstate($node, "$first SELECT minimax_m1.$calls{$name}");

		is($state, '55000', "$first $name");
		like($message, qr/HINT:\s+Add minimax_m1 to shared_preload_libraries and restart the server/, "$first $name: the hint");
	}
}
# but for those that need no model, and those that only look after the queue: it is worked on when the library is loaded
is($node->safe_psql('postgres', "SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc
	WHERE pronamespace = 'minimax_m1'::regnamespace AND proname NOT LIKE '\\_%' AND proname <> ALL ('{" . join(',', keys %calls) . "}')"),
	'alter_annotator annotate annotate_row backfill backfill_batch call_support cancel_agent_run cancel_job cancel_training coverage create_agent create_annotator drop_adapter drop_agent drop_annotator drop_training '
	  . 'enqueue_annotation export_adapter forget_agent_runs grant_adapter grant_training grant_usage import_adapter mcnemar_p pass_at_k pause_training plot_training poll reduce_agg_final reduce_agg_step '
	  . 'resume_training retry_failed revoke_adapter revoke_training reward_exact reward_format reward_json reward_length reward_number reward_sql run_agent set_price set_quota submit_agent summarize_agg_step wait_for wait_for_training', 'all functions are here');
is((sqlstate($node, q{CALL minimax_m1.wait_for('{1}')}))[0], '55000', 'wait_for');
is((sqlstate($node, q{CALL minimax_m1.wait_for_training('x')}))[0], '55000', 'wait_for_training');
$node->safe_psql('postgres', q{
	CREATE TABLE queued (id int PRIMARY KEY, body text, answer text);
	SELECT minimax_m1.create_annotator('queued', 'queued', 'answer', '{body}');
	INSERT INTO queued VALUES (1, 'Hello.')});
is($node->safe_psql('postgres', 'SELECT pending FROM minimax_m1.annotators'), '1', 'rows are queued all the same');
$node->safe_psql('postgres', "CREATE ROLE r; SELECT minimax_m1.grant_usage('r')");
my ($state, $message) = sqlstate($node, q{
	CREATE TABLE notes (body text, answer text);
	CREATE TRIGGER ask BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION minimax_m1.annotate('answer', '{body}');
	INSERT INTO notes VALUES ('Hello.')});
is($state, '55000', 'the trigger');
like($message, qr/HINT:\s+Add minimax_m1 to shared_preload_libraries/, 'the trigger: the hint');
is($node->safe_psql('postgres', "SELECT minimax_m1.generate(NULL) IS NULL"), 't', 'NULL needs no model');
is($node->safe_psql('postgres', "SET minimax_m1.temperature = 0.5; LOAD 'minimax_m1'; SHOW minimax_m1.temperature"), '0.5',
	'settings are taken up when the library is loaded');

# Doing what the hint says helps.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'minimax_m1'");
$node->restart;
is($node->safe_psql('postgres', "SELECT minimax_m1.generate('Hello.')"), 'Hello! How can I help you?', 'the hint is right');
$node->stop;
done_testing();
