/*
 * test_options.c - the command line's table: each kind of option is parsed, or refused without a change of heart later;
 * and how hints spell settings, on the command line and for SQL.
 */
#include "testing.h"

#include <getopt.h>
#include <limits.h>
#include <string.h>

#include "commands/options.h"

#define MAX_ARGUMENTS 40

/* Parses words with blanks between, as options of all commands but plan, which has some of other kinds by the same names. */
static int
parse(const char *line, m1_cli *cli)
{
	static char words[1000];
	char *argv[MAX_ARGUMENTS];
	int argc = 0;

	snprintf(words, sizeof words, "command %s", line);
	for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
		argv[argc++] = word;
	assert_true(argc < MAX_ARGUMENTS);
	*cli = m1_cli_defaults;
	optind = 0; /* getopt_long starts anew */
	return m1_cli_parse(cli, (m1_cli_takers) (M1_CLI_ALL & ~M1_CLI_PLAN), argc, argv);
}

static void
test_defaults(void **state)
{
	m1_cli cli;

	(void) state;
	assert_int_equal(parse("", &cli), 1);
	assert_memory_equal(&cli, &m1_cli_defaults, sizeof cli);
	assert_null(cli.model);
	assert_string_equal(cli.device, "auto");
	assert_int_equal(cli.gpus, 1);
	assert_int_equal(cli.max_tokens, INT_MAX);
	assert_int_equal(cli.thinking_budget, -1);
	assert_int_equal(cli.batch.n, 3);
	assert_int_equal(cli.fd, -1);
}

static void
test_kinds(void **state)
{
	m1_cli cli;

	(void) state;
	assert_int_equal(
		parse("--model m --gpus 2 --top-p 0.5 --seed 18446744073709551615 --score --stop a --stop=b", &cli), 13);
	assert_string_equal(cli.model, "m");
	assert_int_equal(cli.gpus, 2);
	assert_true(cli.top_p == 0.5);
	assert_true(cli.seed_given && cli.seed == UINT64_MAX);
	assert_true(cli.score && !cli.json);
	assert_int_equal(cli.stops.n, 2);
	assert_string_equal(cli.stops.at[1], "b");
	assert_false(cli.weight_format_given);

	assert_int_equal(parse("--weight-format q4 --prefill 7,16777216 --thinking-budget -1", &cli), 7);
	assert_true(cli.weight_format_given);
	assert_int_equal(cli.weight_format, M1_WEIGHTS_Q4);
	assert_int_equal(cli.prefill.n, 2);
	assert_int_equal(cli.prefill.at[0], 7);
	assert_int_equal(cli.prefill.at[1], 1 << 24);
	assert_int_equal(cli.thinking_budget, -1);

	/* arguments come last, whatever their place was */
	assert_int_equal(parse("in --force out.gguf", &cli), 2);
	assert_true(cli.force);
}

static void
test_refused(void **state)
{
	static const char *const lines[] = {
		"--gpus 0",
		"--gpus 1x",
		"--gpus 4294967296",
		"--max-context -1",
		"--thinking-budget -2",
		"--top-p half",
		"--seed one",
		"--weight-format q5",
		"--batch 1,0",
		"--batch 1,",
		"--batch 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17",
		"--no-such-option",
		"--model",
		"--stop 1 --stop 2 --stop 3 --stop 4 --stop 5 --stop 6 --stop 7 --stop 8 --stop 9 --stop 10 --stop 11 --stop "
		"12 "
		"--stop 13 --stop 14 --stop 15 --stop 16 --stop=17",
	};
	m1_cli cli;

	(void) state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		if (parse(lines[i], &cli) != -1)
			fail_msg("%s was taken", lines[i]);
}

/* ---- hints ---- */

/* As SQL spells them; src/pg/report.c asks the server which there are. */
static bool
spell_for_sql(const char *key, char *out, size_t size)
{
	static const char *const known[] = {"max_context", "kv_cache_size", "prefix_cache_size", "gpus"};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strcmp(key, known[i]) == 0)
		{
			snprintf(out, size, "minimax_m1.%s", key);
			return true;
		}
	return false;
}

static void
assert_spelled(const char *hint, const char *cli, const char *sql)
{
	m1_error err;

	m1_fail(&err, M1_E_INTERNAL, "{gpus}");
	m1_error_hint(&err, "%s", hint);
	m1_error_spell_settings(&err, m1_cli_spell_setting);
	assert_string_equal(err.hint, cli);
	assert_string_equal(err.message, "{gpus}");

	m1_error_hint(&err, "%s", hint);
	m1_error_spell_settings(&err, spell_for_sql);
	assert_string_equal(err.hint, sql);
}

static void
test_settings_in_hints(void **state)
{
	(void) state;
	assert_spelled("", "", "");
	assert_spelled("Ask in parts.", "Ask in parts.", "Ask in parts.");
	assert_spelled("Raise {max_context}.", "Raise --max-context.", "Raise minimax_m1.max_context.");
	assert_spelled("{gpus}", "--gpus", "minimax_m1.gpus");
	assert_spelled("{kv_cache_size}, {prefix_cache_size}", "--kv-cache, --prefix-cache",
				   "minimax_m1.kv_cache_size, minimax_m1.prefix_cache_size");
	/* by their option's name, settings that have another are not known */
	assert_spelled("{kv_cache}{max-context}", "{kv_cache}{max-context}", "{kv_cache}{max-context}");
}

static void
test_other_braces_stay(void **state)
{
	static const char *const hints[] = {
		"Lower its counts: maxLength, {n,m}.",
		"{\"role\": \"user\"}",
		"{",
		"}",
		"{}",
		"{gpus",
		"{{gpu}}",
		"{ gpus }",
		"{no_such_setting}",
		"{max_contextmax_contextmax_contextmax_contextmax_contextmax_contextmax_context}"};

	(void) state;
	for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
		assert_spelled(hints[i], hints[i], hints[i]);
	assert_spelled("{{gpus}", "{--gpus", "{minimax_m1.gpus");
}

/* A hint that grows beyond its place is cut, not overrun. */
static void
test_long_hints(void **state)
{
	char hint[256] = "";
	m1_error err;

	(void) state;
	for (int i = 0; i < 42; i++)
		strcat(hint, "{gpus}");
	m1_fail(&err, M1_E_INTERNAL, "x");
	m1_error_hint(&err, "%s", hint);
	m1_error_spell_settings(&err, spell_for_sql);
	assert_int_equal(strlen(err.hint), sizeof err.hint - 1);
	assert_memory_equal(err.hint, "minimax_m1.gpusminimax_m1.gpus", 30);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),		  cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_refused),			  cmocka_unit_test(test_settings_in_hints),
		cmocka_unit_test(test_other_braces_stay), cmocka_unit_test(test_long_hints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
