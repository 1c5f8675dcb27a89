/* main.c - the engine's command line: which command to run, with which options. */
#define _GNU_SOURCE /* explicit_bzero */
#include <jansson.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "commands/cli.h"

typedef struct cli_command
{
	const char *name;
	m1_cli_takers options; /* those that name it */
	int (*run)(const m1_cli *cli);
	const char *arguments;
	const char *summary;
	bool converts;	  /* takes IN and OUT instead of --model */
	bool takes_files; /* those behind the options belong to --data; it looks itself what is missing */
} cli_command;

/* In the order of --help. */
static const cli_command commands[] = {
	{"generate", M1_CLI_GENERATE, m1_cmd_generate, "--model DIR --prompt TEXT [options]",
	 .summary = "answer one prompt"},
	{"tokenize", M1_CLI_TOKENIZE, m1_cmd_tokenize, "--model DIR", .summary = "text on stdin, ids on stdout"},
	{"logits", M1_CLI_LOGITS, m1_cmd_logits, "--model DIR --ids FILE --out FILE",
	 .summary = "F32 [n, vocab], little-endian"},
	{"bench", M1_CLI_BENCH, m1_cmd_bench, "--model DIR", .summary = "speeds as JSON"},
	{"quantize", M1_CLI_QUANTIZE, m1_cmd_quantize, "IN OUT.gguf", .summary = "any model as a GGUF file",
	 .converts = true},
	{"merge", M1_CLI_MERGE, m1_cmd_merge, "--model DIR --adapter DIR --out PATH",
	 .summary = "a model with an adapter in its weights"},
	{"tokenizer-train", M1_CLI_TOKENIZER_TRAIN, m1_cmd_tokenizer_train, "--data FILES --vocab-size N --out DIR",
	 .summary = "tokenizer.json", .takes_files = true},
	{"train", M1_CLI_TRAIN, m1_cmd_train, "--model DIR --data FILE.jsonl --out DIR", .summary = "a trained model",
	 .takes_files = true},
	{"gradients", M1_CLI_GRADIENTS, m1_cmd_gradients, "--model DIR --batch FILE --loss NAME --out FILE",
	 .summary = "of a loss by every parameter"},
	{"bench-train", M1_CLI_BENCH_TRAIN, m1_cmd_bench_train, "--model DIR", .summary = "speeds of training as JSON"},
	{"serve", M1_CLI_SERVE, m1_cmd_serve, "--model DIR --fd N", .summary = "frames on an inherited socket"},
	{"plan", M1_CLI_PLAN, m1_cmd_plan, "--model DIR", .summary = "what it takes, and how fast it could be"},
	{"proxy", M1_CLI_PROXY, m1_cmd_proxy, "--model DIR --url LIST --fd N", .summary = "the same, by servers elsewhere"},
};

#define COMMANDS (sizeof commands / sizeof *commands)

static void
print_command(FILE *out, const cli_command *c)
{
	fprintf(out, "  minimax_m1_engine %s %-*s %s\n", c->name, (int) (45 - strlen(c->name)), c->arguments, c->summary);
	m1_cli_print_options(out, c->options);
}

static void
print_usage(FILE *out)
{
	fputs("minimax_m1_engine - runs MiniMax-M1 checkpoints\n\n", out);
	for (size_t i = 0; i < COMMANDS; i++)
		print_command(out, &commands[i]);
	fputs("\nOptions that commands share:\n", out);
	m1_cli_print_shared_options(out, M1_CLI_ALL);
}

static int
help(const cli_command *command)
{
	print_command(stdout, command);
	fputs("\nOptions that it shares with other commands:\n", stdout);
	m1_cli_print_shared_options(stdout, command->options);
	return 0;
}

/* What is left after the options, from `next` on: IN and OUT of a command that converts, or files. */
static bool
take_arguments(m1_cli *cli, const cli_command *command, int next, int argc, char **argv)
{
	if (command->converts && argc - next >= 2)
	{
		cli->model = argv[next++];
		cli->out_file = argv[next++];
	}
	else if (command->takes_files)
	{
		while (next < argc)
			if (!m1_cli_add_data(cli, argv[next++]))
				return false;
	}
	else if (cli->model == NULL || command->converts)
	{
		fprintf(stderr, "minimax_m1_engine: %s needs %s\n", command->name,
				command->converts ? "IN and OUT.gguf" : "--model DIR");
		return false;
	}
	if (next < argc)
	{
		fprintf(stderr, "minimax_m1_engine: unexpected argument \"%s\"\n", argv[next]);
		return false;
	}
	return true;
}

static const cli_command *
find_command(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

/* Trees of JSON hold users' messages and schemas: what they leave in memory is wiped. */
static void
free_wiped(void *p)
{
	if (p != NULL)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

int
main(int argc, char **argv)
{
	const cli_command *command;
	m1_cli cli = m1_cli_defaults;
	int next;

	json_set_alloc_funcs(malloc, free_wiped);
	if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
	{
		print_usage(argc < 2 ? stderr : stdout);
		return argc < 2 ? 2 : 0;
	}
	if ((command = find_command(argv[1])) == NULL)
	{
		fprintf(stderr, "minimax_m1_engine: unknown command \"%s\" (see --help)\n", argv[1]);
		return 2;
	}
	next = m1_cli_parse(&cli, command->options, argc - 1, argv + 1);
	if (next >= 0 && cli.help)
		return help(command);
	if (next < 0 || !take_arguments(&cli, command, next, argc - 1, argv + 1))
		return 2;
	return command->run(&cli);
}
