/* main.c - the engine's command line: options, and which command to run. */
#define _GNU_SOURCE /* getopt_long, explicit_bzero */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "commands/cli.h"

static const char usage[] =
	"minimax_m1_engine - runs MiniMax-M1 checkpoints\n"
	"\n"
	"  minimax_m1_engine generate --model DIR --prompt TEXT [options]   answer one prompt\n"
	"      --system TEXT           system prompt (default \"You are a helpful assistant.\")\n"
	"      --messages FILE         a JSON array of {role, content} instead of --prompt\n"
	"      --tools FILE            a JSON array of tool definitions\n"
	"      --ids FILE              token ids instead of --prompt; prints the generated ids\n"
	"      --max-tokens N          length of the reply (default: what the context leaves)\n"
	"      --thinking-budget N     tokens of reasoning at most; 0 = none, -1 = no limit (default)\n"
	"      --temperature X         default 1.0; 0 = greedy\n"
	"      --top-p X               default 0.95\n"
	"      --top-k N               default 0 = off\n"
	"      --seed N                default: random\n"
	"      --stop TEXT             end the answer before this text; may be repeated\n"
	"      --choices JSON          the answer is one of the strings of this array\n"
	"      --score                 with --choices: print the probability of each, and answer by it\n"
	"      --json-schema FILE      the answer is JSON of this schema\n"
	"      --regex TEXT            the whole answer matches this regular expression\n"
	"      --json                  print one JSON object\n"
	"  minimax_m1_engine tokenize --model DIR                           text on stdin, ids on stdout\n"
	"      --special               recognise control tokens in the text\n"
	"  minimax_m1_engine logits --model DIR --ids FILE --out FILE       F32 [n, vocab], little-endian\n"
	"      --decode                feed one token a step instead of prefilling\n"
	"  minimax_m1_engine bench --model DIR                              speeds as JSON\n"
	"      --prefill LIST          prompt lengths (default 512,2048)\n"
	"      --batch LIST            batch sizes of decode (default 1,4,16)\n"
	"      --tokens N              tokens each sequence decodes (default 64)\n"
	"      --context LIST          also the time of a decoded token after so many\n"
	"  minimax_m1_engine quantize IN OUT.gguf                           any model as a GGUF file\n"
	"      --weight-format FORMAT  q8_0 (default), q4, or stored: change the file format only\n"
	"      --force                 replace OUT.gguf if it exists\n"
	"  minimax_m1_engine serve --model DIR --fd N                       frames on an inherited socket\n"
	"\n"
	"DIR is a checkpoint folder or a GGUF file. Common options: --weight-format stored|q8_0|fp8|q4 (what a checkpoint\n"
	"of floats is quantized to while it is loaded; default stored), --device auto|cpu|cuda, --gpus N (that share the\n"
	"model), --threads N (0 = all cores), --max-context N (0 = the model's own),\n"
	"--max-requests N (sequences in one batch), --prefill-chunk N (prompt tokens of one step),\n"
	"--kv-cache MB (0 = a safe share of the memory), --prefix-cache MB (0 = no snapshots of prompts' beginnings),\n"
	"--isa portable|avx2|avx512|avx512vnni\n";

enum option_id
{
	OPT_MODEL = 256,
	OPT_DEVICE,
	OPT_GPUS,
	OPT_ISA,
	OPT_THREADS,
	OPT_WEIGHT_FORMAT,
	OPT_MAX_REQUESTS,
	OPT_MAX_CONTEXT,
	OPT_PREFILL_CHUNK,
	OPT_KV_CACHE,
	OPT_PREFIX_CACHE,
	OPT_PROMPT,
	OPT_SYSTEM,
	OPT_MESSAGES,
	OPT_TOOLS,
	OPT_IDS,
	OPT_MAX_TOKENS,
	OPT_THINKING_BUDGET,
	OPT_TEMPERATURE,
	OPT_TOP_P,
	OPT_TOP_K,
	OPT_SEED,
	OPT_STOP,
	OPT_CHOICES,
	OPT_SCORE,
	OPT_JSON_SCHEMA,
	OPT_REGEX,
	OPT_JSON,
	OPT_OUT,
	OPT_FORCE,
	OPT_DECODE,
	OPT_SPECIAL,
	OPT_PREFILL,
	OPT_BATCH,
	OPT_CONTEXT,
	OPT_TOKENS,
	OPT_FD,
};

static const struct option options[] = {
	{"model", required_argument, NULL, OPT_MODEL},
	{"device", required_argument, NULL, OPT_DEVICE},
	{"gpus", required_argument, NULL, OPT_GPUS},
	{"isa", required_argument, NULL, OPT_ISA},
	{"threads", required_argument, NULL, OPT_THREADS},
	{"weight-format", required_argument, NULL, OPT_WEIGHT_FORMAT},
	{"max-requests", required_argument, NULL, OPT_MAX_REQUESTS},
	{"max-context", required_argument, NULL, OPT_MAX_CONTEXT},
	{"prefill-chunk", required_argument, NULL, OPT_PREFILL_CHUNK},
	{"kv-cache", required_argument, NULL, OPT_KV_CACHE},
	{"prefix-cache", required_argument, NULL, OPT_PREFIX_CACHE},
	{"prompt", required_argument, NULL, OPT_PROMPT},
	{"system", required_argument, NULL, OPT_SYSTEM},
	{"messages", required_argument, NULL, OPT_MESSAGES},
	{"tools", required_argument, NULL, OPT_TOOLS},
	{"ids", required_argument, NULL, OPT_IDS},
	{"max-tokens", required_argument, NULL, OPT_MAX_TOKENS},
	{"thinking-budget", required_argument, NULL, OPT_THINKING_BUDGET},
	{"temperature", required_argument, NULL, OPT_TEMPERATURE},
	{"top-p", required_argument, NULL, OPT_TOP_P},
	{"top-k", required_argument, NULL, OPT_TOP_K},
	{"seed", required_argument, NULL, OPT_SEED},
	{"stop", required_argument, NULL, OPT_STOP},
	{"choices", required_argument, NULL, OPT_CHOICES},
	{"score", no_argument, NULL, OPT_SCORE},
	{"json-schema", required_argument, NULL, OPT_JSON_SCHEMA},
	{"regex", required_argument, NULL, OPT_REGEX},
	{"json", no_argument, NULL, OPT_JSON},
	{"out", required_argument, NULL, OPT_OUT},
	{"force", no_argument, NULL, OPT_FORCE},
	{"decode", no_argument, NULL, OPT_DECODE},
	{"special", no_argument, NULL, OPT_SPECIAL},
	{"prefill", required_argument, NULL, OPT_PREFILL},
	{"batch", required_argument, NULL, OPT_BATCH},
	{"context", required_argument, NULL, OPT_CONTEXT},
	{"tokens", required_argument, NULL, OPT_TOKENS},
	{"fd", required_argument, NULL, OPT_FD},
	{0},
};

/* The first bad value ends the program's options; 0 is returned meanwhile. */
typedef struct values
{
	const char *option;
	bool bad;
} values;

static int
integer(values *v, const char *text, int low)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || n < low || n > INT_MAX)
	{
		fprintf(stderr, "minimax_m1_engine: --%s takes a whole number of at least %d, not \"%s\"\n", v->option, low,
				text);
		v->bad = true;
		return 0;
	}
	return (int) n;
}

static double
real(values *v, const char *text)
{
	char *end;
	double x = strtod(text, &end);

	if (end == text || *end != '\0')
	{
		fprintf(stderr, "minimax_m1_engine: --%s takes a number, not \"%s\"\n", v->option, text);
		v->bad = true;
		return 0;
	}
	return x;
}

static uint64_t
unsigned_integer(values *v, const char *text)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0')
	{
		fprintf(stderr, "minimax_m1_engine: --%s takes a whole number, not \"%s\"\n", v->option, text);
		v->bad = true;
	}
	return n;
}

static void
add_stop(m1_cli *cli, values *v, const char *text)
{
	if (cli->n_stops == M1W_MAX_STOPS)
	{
		fprintf(stderr, "minimax_m1_engine: more than %d stop strings\n", M1W_MAX_STOPS);
		v->bad = true;
		return;
	}
	cli->stops[cli->n_stops++] = text;
}

static void
set_weight_format(m1_cli *cli, values *v, const char *text)
{
	cli->weight_format_given = true;
	if (m1_weight_format_parse(text, &cli->weight_format))
		return;
	fprintf(stderr, "minimax_m1_engine: --%s takes stored, q8_0, fp8 or q4, not \"%s\"\n", v->option, text);
	v->bad = true;
}

static bool
set_option(m1_cli *cli, int id, const char *name, const char *value)
{
	values v = {.option = name};

	switch ((enum option_id) id)
	{
		case OPT_MODEL:
			cli->model = value;
			break;
		case OPT_DEVICE:
			cli->device = value;
			break;
		case OPT_GPUS:
			cli->gpus = integer(&v, value, 1);
			break;
		case OPT_ISA:
			cli->isa = value;
			break;
		case OPT_THREADS:
			cli->threads = integer(&v, value, 0);
			break;
		case OPT_WEIGHT_FORMAT:
			set_weight_format(cli, &v, value);
			break;
		case OPT_MAX_REQUESTS:
			cli->max_requests = integer(&v, value, 1);
			break;
		case OPT_MAX_CONTEXT:
			cli->max_context = integer(&v, value, 0);
			break;
		case OPT_PREFILL_CHUNK:
			cli->prefill_chunk = integer(&v, value, 1);
			break;
		case OPT_KV_CACHE:
			cli->kv_cache = integer(&v, value, 0);
			break;
		case OPT_PREFIX_CACHE:
			cli->prefix_cache = integer(&v, value, 0);
			break;
		case OPT_PROMPT:
			cli->prompt = value;
			break;
		case OPT_SYSTEM:
			cli->system = value;
			break;
		case OPT_MESSAGES:
			cli->messages_file = value;
			break;
		case OPT_TOOLS:
			cli->tools_file = value;
			break;
		case OPT_IDS:
			cli->ids_file = value;
			break;
		case OPT_MAX_TOKENS:
			cli->max_tokens = integer(&v, value, 1);
			break;
		case OPT_THINKING_BUDGET:
			cli->thinking_budget = integer(&v, value, -1);
			break;
		case OPT_TEMPERATURE:
			cli->temperature = real(&v, value);
			break;
		case OPT_TOP_P:
			cli->top_p = real(&v, value);
			break;
		case OPT_TOP_K:
			cli->top_k = integer(&v, value, 0);
			break;
		case OPT_SEED:
			cli->seed = unsigned_integer(&v, value);
			cli->seed_given = true;
			break;
		case OPT_STOP:
			add_stop(cli, &v, value);
			break;
		case OPT_CHOICES:
			cli->choices = value;
			break;
		case OPT_SCORE:
			cli->score = true;
			break;
		case OPT_JSON_SCHEMA:
			cli->schema_file = value;
			break;
		case OPT_REGEX:
			cli->regex = value;
			break;
		case OPT_JSON:
			cli->json = true;
			break;
		case OPT_OUT:
			cli->out_file = value;
			break;
		case OPT_FORCE:
			cli->force = true;
			break;
		case OPT_DECODE:
			cli->decode = true;
			break;
		case OPT_SPECIAL:
			cli->special = true;
			break;
		case OPT_PREFILL:
			cli->prefill_list = value;
			break;
		case OPT_BATCH:
			cli->batch_list = value;
			break;
		case OPT_CONTEXT:
			cli->context_list = value;
			break;
		case OPT_TOKENS:
			cli->bench_tokens = integer(&v, value, 1);
			break;
		case OPT_FD:
			cli->fd = integer(&v, value, 0);
			break;
	}
	return !v.bad;
}

typedef struct cli_command
{
	const char *name;
	int (*run)(const m1_cli *cli);
	bool converts; /* takes IN and OUT instead of --model */
} cli_command;

static const cli_command commands[] = {
	{"generate", m1_cmd_generate, false}, {"tokenize", m1_cmd_tokenize, false}, {"logits", m1_cmd_logits, false},
	{"bench", m1_cmd_bench, false},		  {"serve", m1_cmd_serve, false},		{"quantize", m1_cmd_quantize, true},
};

static bool
parse_options(m1_cli *cli, const cli_command *command, int argc, char **argv)
{
	int id;
	int index = 0;

	while ((id = getopt_long(argc, argv, "", options, &index)) != -1)
		if (id == '?' || !set_option(cli, id, options[index].name, optarg))
			return false;
	if (command->converts && argc - optind >= 2)
	{
		cli->model = argv[optind++];
		cli->out_file = argv[optind++];
	}
	else if (cli->model == NULL || command->converts)
	{
		fprintf(stderr, "minimax_m1_engine: %s needs %s\n", command->name,
				command->converts ? "IN and OUT.gguf" : "--model DIR");
		return false;
	}
	if (optind < argc)
	{
		fprintf(stderr, "minimax_m1_engine: unexpected argument \"%s\"\n", argv[optind]);
		return false;
	}
	return true;
}

static const cli_command *
find_command(const char *name)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
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
	m1_cli cli = {
		.device = "auto",
		.gpus = 1,
		.max_requests = 1,
		.system = "You are a helpful assistant.",
		.max_tokens = INT_MAX,
		.thinking_budget = -1,
		.temperature = 1.0,
		.top_p = 0.95,
		.prefill_list = "512,2048",
		.batch_list = "1,4,16",
		.bench_tokens = 64,
		.fd = -1,
	};

	json_set_alloc_funcs(malloc, free_wiped);
	if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
	{
		fputs(usage, argc < 2 ? stderr : stdout);
		return argc < 2 ? 2 : 0;
	}
	if ((command = find_command(argv[1])) == NULL)
	{
		fprintf(stderr, "minimax_m1_engine: unknown command \"%s\" (see --help)\n", argv[1]);
		return 2;
	}
	return parse_options(&cli, command, argc - 1, argv + 1) ? command->run(&cli) : 2;
}
