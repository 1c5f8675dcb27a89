/* options.c - see options.h. */
#define _GNU_SOURCE /* getopt_long */
#include "commands/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define ENGINE (M1_CLI_GENERATE | M1_CLI_SERVE)
#define LEARNING (M1_CLI_TOKENIZER_TRAIN | M1_CLI_TRAIN)
#define ADAPTED (ENGINE | M1_CLI_LOGITS | M1_CLI_BENCH)
#define ADAPTS (M1_CLI_TRAIN | M1_CLI_BENCH_TRAIN)
#define MODEL (ADAPTED | M1_CLI_GRADIENTS | M1_CLI_BENCH_TRAIN)

typedef enum option_kind
{
	FLAG,		   /* bool: takes nothing */
	TEXT,		   /* const char * */
	TEXTS,		   /* m1_cli_texts: may be repeated, up to `most` times */
	INTEGER,	   /* int, of at least `least` */
	UNSIGNED,	   /* uint64_t */
	REAL,		   /* double */
	SIZES,		   /* m1_cli_sizes */
	WEIGHT_FORMAT, /* m1_weight_format */
} option_kind;

typedef struct option_row
{
	const char *name;
	const char *argument; /* what --help calls it; NULL for a flag */
	option_kind kind;
	size_t place; /* in m1_cli */
	unsigned takers;
	const char *help; /* its lines */
	int least;
	int most;
	size_t given;		 /* in m1_cli: a bool that tells whether it was given; 0 for none */
	const char *setting; /* its key in hints, if that is not the name with _ for - */
} option_row;

#define AT(member) offsetof(m1_cli, member)

const m1_cli m1_cli_defaults = {
	.device = "auto",
	.gpus = 1,
	.max_requests = 1,
	.system = "You are a helpful assistant.",
	.max_tokens = INT_MAX,
	.thinking_budget = -1,
	.temperature = 1.0,
	.top_p = 0.95,
	.prefill = {.n = 2, .at = {512, 2048}},
	.batch = {.n = 3, .at = {1, 4, 16}},
	.bench_tokens = 64,
	.sequences = 32,
	.answer_weight = 1.0,
	.too_long = "refuse",
	.batch_tokens = 4096,
	.epochs = 1,
	.decay = "cosine",
	.rank = 16,
	.expert_rank = 1,
	.alpha = 32.0,
	.beta1 = 0.9,
	.beta2 = 0.95,
	.eps = 1e-15,
	.weight_decay = 0.1,
	.clip = 1.0,
	.balance = 0.001,
	.fd = -1,
	.learning_share = 0.3,
	.servers = {.dialect = "auto", .model = "", .timeout = 600},
};

/* In the order of --help. */
static const option_row rows[] = {
	{"prompt", "TEXT", TEXT, AT(prompt), M1_CLI_GENERATE, .help = "what the user says"},
	{"system", "TEXT", TEXT, AT(system), M1_CLI_GENERATE | LEARNING,
	 .help = "system prompt (default \"You are a helpful assistant.\")"},
	{"messages", "FILE", TEXT, AT(messages_file), M1_CLI_GENERATE,
	 .help = "a JSON array of {role, content} instead of --prompt"},
	{"tools", "FILE", TEXT, AT(tools_file), M1_CLI_GENERATE, .help = "a JSON array of tool definitions"},
	{"ids", "FILE", TEXT, AT(ids_file), M1_CLI_GENERATE | M1_CLI_LOGITS,
	 .help = "token ids; generate takes them instead of --prompt, and prints the generated ids"},
	{"max-tokens", "N", INTEGER, AT(max_tokens), M1_CLI_GENERATE,
	 .help = "length of the reply (default: what the context leaves)", .least = 1},
	{"thinking-budget", "N", INTEGER, AT(thinking_budget), M1_CLI_GENERATE,
	 .help = "tokens of reasoning at most; 0 = none, -1 = no limit (default)", .least = -1},
	{"temperature", "X", REAL, AT(temperature), M1_CLI_GENERATE, .help = "default 1.0; 0 = greedy"},
	{"top-p", "X", REAL, AT(top_p), M1_CLI_GENERATE, .help = "default 0.95"},
	{"top-k", "N", INTEGER, AT(top_k), M1_CLI_GENERATE, .help = "0 = off (default)"},
	{"seed", "N", UNSIGNED, AT(seed), M1_CLI_GENERATE | M1_CLI_TRAIN, .help = "default: random; of a training, 0",
	 .given = AT(seed_given)},
	{"stop", "TEXT", TEXTS, AT(stops), M1_CLI_GENERATE, .help = "end the answer before this text; may be repeated",
	 .most = M1W_MAX_STOPS},
	{"choices", "JSON", TEXT, AT(choices), M1_CLI_GENERATE, .help = "the answer is one of the strings of this array"},
	{"score", NULL, FLAG, AT(score), M1_CLI_GENERATE,
	 .help = "with --choices: print the probability of each, and answer by it"},
	{"json-schema", "FILE", TEXT, AT(schema_file), M1_CLI_GENERATE, .help = "the answer is JSON of this schema"},
	{"regex", "TEXT", TEXT, AT(regex), M1_CLI_GENERATE, .help = "the whole answer matches this regular expression"},
	{"json", NULL, FLAG, AT(json), M1_CLI_GENERATE, .help = "print one JSON object"},

	{"special", NULL, FLAG, AT(special), M1_CLI_TOKENIZE, .help = "recognise control tokens in the text"},

	{"data", "FILE", TEXTS, AT(data), LEARNING,
	 .help = "what to learn from: JSON lines, or plain text for tokenizer-train where the name does\n"
			 "not end in .jsonl; may be repeated, as may FILEs behind it",
	 .most = M1_CLI_MAX_TEXTS},
	{"vocab-size", "N", INTEGER, AT(vocab_size), M1_CLI_TOKENIZER_TRAIN,
	 .help = "tokens: 256 bytes, control tokens, and what is learnt", .least = 1},
	{"control-token", "TEXT", TEXTS, AT(control_tokens), M1_CLI_TOKENIZER_TRAIN,
	 .help = "beside those of M1's chats; may be repeated", .most = M1_CLI_MAX_TEXTS},
	{"single-digits", NULL, FLAG, AT(single_digits), M1_CLI_TOKENIZER_TRAIN, .help = "numbers stay digit by digit"},

	{"config", "FILE", TEXT, AT(config_file), M1_CLI_TRAIN,
	 .help = "a config.json: train from scratch, instead of --model"},
	{"tokenizer", "DIR", TEXT, AT(tokenizer), M1_CLI_TRAIN,
	 .help = "with --config: where its tokenizer is (default: lines have token ids)"},
	{"f32", NULL, FLAG, AT(f32), M1_CLI_TRAIN, .help = "with --config: store weights as F32 (default: BF16)"},
	{"rank", "N", INTEGER, AT(rank), ADAPTS,
	 .help = "train a LoRA adapter instead of the weights; of attention and head (default 16)", .given = AT(adapts)},
	{"expert-rank", "N", INTEGER, AT(expert_rank), ADAPTS, .help = "of experts, in an adapter (default 1)",
	 .given = AT(adapts)},
	{"targets", "LIST", TEXT, AT(targets), ADAPTS,
	 .help = "what an adapter changes: attention, experts, router and head, or modules by name\n"
			 "(default attention,experts,router)",
	 .given = AT(adapts)},
	{"alpha", "X", REAL, AT(alpha), ADAPTS, .help = "of an adapter, which is scaled by alpha / rank (default 32)",
	 .given = AT(adapts)},
	{"resume", NULL, FLAG, AT(resume), M1_CLI_TRAIN, .help = "go on from the checkpoint in --out"},
	{"prompt-weight", "X", REAL, AT(prompt_weight), M1_CLI_TRAIN,
	 .help = "of a prompt's tokens in the loss (default 0)"},
	{"answer-weight", "X", REAL, AT(answer_weight), M1_CLI_TRAIN, .help = "of an answer's (default 1)"},
	{"too-long", "WHAT", TEXT, AT(too_long), M1_CLI_TRAIN,
	 .help = "what becomes of an example that is longer than the context: refuse (default), skip, or\n"
			 "split: texts are learnt in pieces"},
	{"held-out", "X", REAL, AT(held_out), M1_CLI_TRAIN,
	 .help = "share of the examples that are only evaluated (default 0)"},
	{"batch-tokens", "N", INTEGER, AT(batch_tokens), M1_CLI_TRAIN, .help = "tokens of a step (default 4096)",
	 .least = 1},
	{"steps", "N", INTEGER, AT(steps), M1_CLI_TRAIN, .help = "of the training (default: by --epochs)", .least = 1},
	{"epochs", "N", INTEGER, AT(epochs), M1_CLI_TRAIN, .help = "times that each example is learnt (default 1)",
	 .least = 1},
	{"lr", "X", REAL, AT(lr), M1_CLI_TRAIN, .help = "learning rate (default 1e-5; from scratch, 2e-4)",
	 .given = AT(lr_given)},
	{"last-lr", "X", REAL, AT(last_lr), M1_CLI_TRAIN, .help = "at the decay's end (default: a tenth of it)",
	 .given = AT(last_lr_given)},
	{"warmup", "N", INTEGER, AT(warmup), M1_CLI_TRAIN, .help = "steps in which it rises (default 0)"},
	{"decay", "HOW", TEXT, AT(decay), M1_CLI_TRAIN,
	 .help = "how it falls at the end: none, linear, exponential or cosine (default)"},
	{"decay-steps", "N", INTEGER, AT(decay_steps), M1_CLI_TRAIN,
	 .help = "steps in which it does (default: all after the warm-up)"},
	{"weight-decay", "X", REAL, AT(weight_decay), M1_CLI_TRAIN, .help = "of matrices (default 0.1; of an adapter, 0)",
	 .given = AT(weight_decay_given)},
	{"clip", "X", REAL, AT(clip), M1_CLI_TRAIN, .help = "largest norm of the gradient; 0 = any (default 1)"},
	{"beta1", "X", REAL, AT(beta1), M1_CLI_TRAIN, .help = "of AdamW (default 0.9)"},
	{"beta2", "X", REAL, AT(beta2), M1_CLI_TRAIN, .help = "default 0.95"},
	{"eps", "X", REAL, AT(eps), M1_CLI_TRAIN, .help = "default 1e-15"},
	{"balance", "X", REAL, AT(balance), M1_CLI_TRAIN, .help = "weight of the routers' auxiliary loss (default 0.001)"},
	{"save-every", "N", INTEGER, AT(save_every), M1_CLI_TRAIN,
	 .help = "steps from checkpoint to checkpoint; 0 = at the end (default)"},
	{"evaluate-every", "N", INTEGER, AT(evaluate_every), M1_CLI_TRAIN,
	 .help = "steps from one held-out loss to the next; 0 = at the end (default)"},
	{"log", "FILE", TEXT, AT(log_file), M1_CLI_TRAIN,
	 .help = "where a line of JSON for each step is added (default: stdout)"},

	{"out", "PATH", TEXT, AT(out_file), M1_CLI_LOGITS | M1_CLI_GRADIENTS | M1_CLI_MERGE | LEARNING,
	 .help = "logits, gradients: the file that they go to; tokenizer-train, train: the folder; merge:\n"
			 "a folder, or a file whose name ends in .gguf"},
	{"decode", NULL, FLAG, AT(decode), M1_CLI_LOGITS, .help = "feed one token a step instead of prefilling"},

	{"prefill", "LIST", SIZES, AT(prefill), M1_CLI_BENCH, .help = "prompt lengths (default 512,2048)"},
	{"batch", "LIST", SIZES, AT(batch), M1_CLI_BENCH, .help = "batch sizes of decode (default 1,4,16)"},
	{"tokens", "N", INTEGER, AT(bench_tokens), M1_CLI_BENCH | M1_CLI_BENCH_TRAIN,
	 .help = "that each sequence decodes, or has in training (default 64)", .least = 1},
	{"sequences", "N", INTEGER, AT(sequences), M1_CLI_BENCH_TRAIN, .help = "of a step of training (default 32)",
	 .least = 1},
	{"context", "LIST", SIZES, AT(context), M1_CLI_BENCH, .help = "also the time of a decoded token after so many"},

	{"force", NULL, FLAG, AT(force), M1_CLI_QUANTIZE | M1_CLI_MERGE | LEARNING,
	 .help = "replace what exists; merge: only a file"},

	{"batch", "FILE", TEXT, AT(batch_file), M1_CLI_GRADIENTS,
	 .help = "sequences and what is known of their tokens, as safetensors"},
	{"loss", "NAME", TEXT, AT(loss), M1_CLI_GRADIENTS, .help = "weighted, ce, ce_aux, cispo, grpo or dapo"},

	{"fd", "N", INTEGER, AT(fd), M1_CLI_SERVE | M1_CLI_PROXY, .help = "the open socket"},
	{"learning-share", "X", REAL, AT(learning_share), M1_CLI_SERVE,
	 .help = "of the time, that learning may take while requests are served (default 0.3)"},
	{"adapter-memory", "MB", INTEGER, AT(adapter_memory), M1_CLI_SERVE,
	 .help = "of adapters that are served; 0 = a quarter of the machine's (default)"},

	{"cpu", NULL, FLAG, AT(plan.cpu), M1_CLI_PLAN, .help = "a machine without GPUs"},
	{"gpu-memory", "GB", REAL, AT(plan.memory), M1_CLI_PLAN,
	 .help = "of each GPU (default 141), or with --cpu of the machine (default: this one's)"},
	{"bandwidth", "TB/s", REAL, AT(plan.bandwidth), M1_CLI_PLAN,
	 .help = "of that memory (default 4.8; with --cpu 0.3)"},
	{"tflops", "X", REAL, AT(plan.tflops), M1_CLI_PLAN, .help = "of each, dense (default 989; with --cpu 2)"},
	{"context", "N", INTEGER, AT(plan.context), M1_CLI_PLAN,
	 .help = "tokens of a sequence (default 131072, or what the model has)", .least = 1},
	{"requests", "N", INTEGER, AT(max_requests), M1_CLI_PLAN, .help = "at the same time (default 1)", .least = 1},
	{"weight-format", "FORMAT", TEXT, AT(plan.format), M1_CLI_PLAN,
	 .help = "what large matrices of floats become: stored (default), q8_0, fp8 or q4, or the type of\n"
			 "a GGUF file: f32, f16, bf16, q4_0, q4_k, q5_k or q6_k"},

	{"url", "LIST", TEXT, AT(servers.urls), M1_CLI_PROXY, .help = "of servers, with commas between",
	 .setting = "engine_url"},
	{"dialect", "NAME", TEXT, AT(servers.dialect), M1_CLI_PROXY,
	 .help = "auto (default), vllm, llama.cpp, sglang or openai", .setting = "engine_dialect"},
	{"served-model", "NAME", TEXT, AT(servers.model), M1_CLI_PROXY,
	 .help = "what servers call the model (default: the first that they name)", .setting = "engine_model"},
	{"api-key-file", "FILE", TEXT, AT(servers.api_key_file), M1_CLI_PROXY, .help = "that holds what servers ask for",
	 .setting = "engine_api_key_file"},
	{"ca-file", "FILE", TEXT, AT(servers.ca_file), M1_CLI_PROXY,
	 .help = "of certificates that servers' are signed by (default: the system's)", .setting = "engine_ca_file"},
	{"server-timeout", "SECONDS", INTEGER, AT(servers.timeout), M1_CLI_PROXY,
	 .help = "that a server may say nothing (default 600)", .least = 1, .setting = "engine_timeout"},

	{"model", "DIR", TEXT, AT(model),
	 MODEL | M1_CLI_MERGE | M1_CLI_TOKENIZE | M1_CLI_TRAIN | M1_CLI_PROXY | M1_CLI_PLAN,
	 .help = "a checkpoint folder or a GGUF file"},
	{"weight-format", "FORMAT", WEIGHT_FORMAT, AT(weight_format), MODEL | M1_CLI_QUANTIZE | M1_CLI_MERGE | M1_CLI_TRAIN,
	 .help = "what a checkpoint of floats is quantized to while it is loaded: stored (default), q8_0,\n"
			 "fp8 or q4; for quantize: q8_0 (default), q4, or stored: change the file format only;\n"
			 "for merge into a .gguf: stored (default), q8_0 or q4; for train: with an adapter",
	 .given = AT(weight_format_given)},
	{"adapter", "[NAME=]DIR", TEXTS, AT(adapters), ADAPTED | M1_CLI_MERGE | M1_CLI_TRAIN,
	 .help = "a LoRA adapter in PEFT's format, which requests use by its name (default: that of\n"
			 "the folder); only serve takes several; train goes on from it",
	 .most = M1_CLI_MAX_TEXTS},
	{"device", "DEVICE", TEXT, AT(device), MODEL | M1_CLI_TRAIN, .help = "auto (default), cpu or cuda"},
	{"gpus", "N", INTEGER, AT(gpus), MODEL | M1_CLI_PLAN, .help = "that share the model (default 1)", .least = 1},
	{"threads", "N", INTEGER, AT(threads), MODEL | M1_CLI_QUANTIZE | M1_CLI_MERGE | M1_CLI_TRAIN,
	 .help = "0 = all cores (default)"},
	{"max-context", "N", INTEGER, AT(max_context), MODEL | M1_CLI_TRAIN | M1_CLI_PROXY,
	 .help = "tokens of one sequence; 0 = the model's own (default)"},
	{"max-requests", "N", INTEGER, AT(max_requests), ENGINE, .help = "sequences in one batch (default 1)", .least = 1},
	{"reserved-requests", "N", INTEGER, AT(reserved_requests), M1_CLI_SERVE,
	 .help = "further sequences that there may be at times (default 0)"},
	{"prefill-chunk", "N", INTEGER, AT(prefill_chunk), MODEL,
	 .help = "prompt tokens of one step (default: what suits the device)", .least = 1},
	{"kv-cache", "MB", INTEGER, AT(kv_cache), ENGINE, .help = "of KV pages; 0 = a safe share of the memory (default)",
	 .setting = "kv_cache_size"},
	{"prefix-cache", "MB", INTEGER, AT(prefix_cache), ENGINE,
	 .help = "of snapshots of prompts' beginnings; 0 = none (default)", .setting = "prefix_cache_size"},
	{"isa", "NAME", TEXT, AT(isa), MODEL | M1_CLI_TRAIN,
	 .help = "portable, avx2, avx512 or avx512vnni (default: the best that there is)"},
	{"help", NULL, FLAG, AT(help), M1_CLI_ALL, .help = "of a command: print what it takes"},
};

#define ROWS ((int) (sizeof rows / sizeof *rows))

/* ---- values ---- */

static bool
refuse(const option_row *row, const char *takes, const char *text)
{
	fprintf(stderr, "minimax_m1_engine: --%s takes %s, not \"%s\"\n", row->name, takes, text);
	return false;
}

static bool
set_integer(const option_row *row, const char *text, int *out)
{
	char takes[64];
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno == 0 && end != text && *end == '\0' && n >= row->least && n <= INT_MAX)
	{
		*out = (int) n;
		return true;
	}
	snprintf(takes, sizeof takes, "a whole number of at least %d", row->least);
	return refuse(row, takes, text);
}

static bool
set_unsigned(const option_row *row, const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return (errno == 0 && end != text && *end == '\0') || refuse(row, "a whole number", text);
}

static bool
set_real(const option_row *row, const char *text, double *out)
{
	char *end;

	*out = strtod(text, &end);
	return (end != text && *end == '\0') || refuse(row, "a number", text);
}

static bool
add_text(const option_row *row, const char *text, m1_cli_texts *out)
{
	if (out->n == row->most)
	{
		fprintf(stderr, "minimax_m1_engine: --%s is there more than %d times\n", row->name, row->most);
		return false;
	}
	out->at[out->n++] = text;
	return true;
}

static bool
set_sizes(const option_row *row, const char *text, m1_cli_sizes *out)
{
	const char *at = text;
	char *end;

	out->n = 0;
	while (out->n < M1_CLI_MAX_SIZES)
	{
		long value = strtol(at, &end, 10);

		if (end == at || value < 1 || value > 1 << 24 || (*end != ',' && *end != '\0'))
			break;
		out->at[out->n++] = (int) value;
		if (*end == '\0')
			return true;
		at = end + 1;
	}
	return refuse(row, "up to 16 positive numbers with commas between", text);
}

static bool
set_value(const option_row *row, const char *text, void *out)
{
	switch (row->kind)
	{
		case FLAG:
			*(bool *) out = true;
			return true;
		case TEXT:
			*(const char **) out = text;
			return true;
		case TEXTS:
			return add_text(row, text, out);
		case INTEGER:
			return set_integer(row, text, out);
		case UNSIGNED:
			return set_unsigned(row, text, out);
		case REAL:
			return set_real(row, text, out);
		case SIZES:
			return set_sizes(row, text, out);
		case WEIGHT_FORMAT:
			return m1_weight_format_parse(text, out) || refuse(row, "stored, q8_0, fp8 or q4", text);
	}
	return false;
}

int
m1_cli_parse(m1_cli *cli, m1_cli_takers command, int argc, char **argv)
{
	struct option options[ROWS + 1];
	int found = 0; /* the row of the option that getopt_long returns */
	int n = 0;

	for (int i = 0; i < ROWS; i++)
		if ((rows[i].takers & command) != 0)
			options[n++] =
				(struct option){rows[i].name, rows[i].kind == FLAG ? no_argument : required_argument, &found, i};
	options[n] = (struct option){0};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
	{
		/* 0 is an option of the table; anything else was no option, and getopt_long has said so */
		if (c != 0 || !set_value(&rows[found], optarg, (char *) cli + rows[found].place))
			return -1;
		if (rows[found].given != 0)
			*(bool *) ((char *) cli + rows[found].given) = true;
	}
	return optind;
}

bool
m1_cli_add_data(m1_cli *cli, const char *path)
{
	int i = 0;

	while (rows[i].place != AT(data))
		i++;
	return add_text(&rows[i], path, &cli->data);
}

/* ---- what they are called ---- */

/* What serve takes, so do others: those options are listed once. */
static bool
is_shared(const option_row *row)
{
	return (row->takers & M1_CLI_SERVE) != 0 && row->takers != M1_CLI_SERVE &&
		   row->takers != (M1_CLI_SERVE | M1_CLI_PROXY);
}

static void
print_row(FILE *out, const option_row *row)
{
	char spelled[64];
	const char *line = row->help;

	snprintf(spelled, sizeof spelled, "--%s%s%s", row->name, row->argument != NULL ? " " : "",
			 row->argument != NULL ? row->argument : "");
	fprintf(out, "      %-23s ", spelled);
	for (const char *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
		fprintf(out, "%.*s\n%30s", (int) (end - line), line, "");
	fprintf(out, "%s\n", line);
}

void
m1_cli_print_options(FILE *out, m1_cli_takers command)
{
	for (int i = 0; i < ROWS; i++)
		if ((rows[i].takers & command) != 0 && !is_shared(&rows[i]))
			print_row(out, &rows[i]);
}

void
m1_cli_print_shared_options(FILE *out, m1_cli_takers commands)
{
	for (int i = 0; i < ROWS; i++)
		if ((rows[i].takers & commands) != 0 && is_shared(&rows[i]))
			print_row(out, &rows[i]);
}

static bool
is_setting(const option_row *row, const char *key)
{
	const char *name = row->name;

	if (row->setting != NULL)
		return strcmp(row->setting, key) == 0;
	while (*name != '\0' && *key == (*name == '-' ? '_' : *name))
	{
		name++;
		key++;
	}
	return *name == '\0' && *key == '\0';
}

bool
m1_cli_spell_setting(const char *key, char *out, size_t size)
{
	for (int i = 0; i < ROWS; i++)
		if (is_setting(&rows[i], key))
		{
			snprintf(out, size, "--%s", rows[i].name);
			return true;
		}
	return false;
}
