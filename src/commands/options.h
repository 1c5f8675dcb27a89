/*
 * options.h - the command line's options. options.c has the one table of them: how each is spelled, what it takes,
 * where it goes, which commands take it and what --help says of it.
 *
 * main.c parses, commands read; texts point into argv.
 */
#ifndef M1_COMMANDS_OPTIONS_H
#define M1_COMMANDS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "model/quantize.h"
#include "wire/message.h"

/* Which commands take an option: bits. */
typedef enum m1_cli_takers
{
	M1_CLI_GENERATE = 1,
	M1_CLI_TOKENIZE = 2,
	M1_CLI_LOGITS = 4,
	M1_CLI_BENCH = 8,
	M1_CLI_QUANTIZE = 16,
	M1_CLI_SERVE = 32,
	M1_CLI_TOKENIZER_TRAIN = 64,
	M1_CLI_TRAIN = 128,
	M1_CLI_MERGE = 256,
	M1_CLI_GRADIENTS = 512,
	M1_CLI_BENCH_TRAIN = 1024,
	M1_CLI_PROXY = 2048,
	M1_CLI_PLAN = 4096,
	M1_CLI_ALL = 8191,
} m1_cli_takers;

#define M1_CLI_MAX_TEXTS 64

/* An option that may be repeated. */
typedef struct m1_cli_texts
{
	int n;
	const char *at[M1_CLI_MAX_TEXTS];
} m1_cli_texts;

#define M1_CLI_MAX_SIZES 16

/* Positive numbers with commas between. */
typedef struct m1_cli_sizes
{
	int n;
	int at[M1_CLI_MAX_SIZES];
} m1_cli_sizes;

/* Of plan; 0 = not given. */
typedef struct m1_cli_hardware
{
	bool cpu;
	double memory;	  /* GB of each device */
	double bandwidth; /* TB/s */
	double tflops;
	int context;
	const char *format; /* of weights */
} m1_cli_hardware;

/* Of proxy. */
typedef struct m1_cli_servers
{
	const char *urls; /* with commas between */
	const char *dialect;
	const char *model;
	const char *api_key_file;
	const char *ca_file;
	int timeout; /* seconds */
} m1_cli_servers;

/* Every option of every command. */
typedef struct m1_cli
{
	bool help; /* what the command takes is asked for; nothing else counts */
	const char *model;
	const char *device;
	int gpus;
	const char *isa;
	int threads;
	m1_weight_format weight_format;
	bool weight_format_given;
	m1_cli_texts adapters;
	int max_requests;
	int reserved_requests;
	int max_context;
	int prefill_chunk;
	int kv_cache, adapter_memory; /* MB; 0 = a safe share of the memory */
	int prefix_cache;			  /* MB; 0 = none */

	/* generate */
	const char *prompt;
	const char *system;
	const char *messages_file;
	const char *tools_file;
	const char *ids_file; /* also logits */
	int max_tokens;
	int thinking_budget;
	double temperature;
	double top_p;
	int top_k;
	uint64_t seed;
	bool seed_given;
	m1_cli_texts stops;
	const char *choices; /* a JSON array */
	const char *schema_file;
	const char *regex;
	bool score;
	bool json;

	/* quantize */
	bool force; /* also tokenizer-train, train */

	/* logits */
	const char *out_file; /* also merge, quantize; a folder for tokenizer-train and train */
	bool decode;		  /* one token a step */

	/* tokenize */
	bool special;

	/* tokenizer-train */
	m1_cli_texts data; /* files; arguments that are no options, too; also train */
	int vocab_size;
	m1_cli_texts control_tokens;
	bool single_digits;

	/* train */
	const char *config_file; /* from scratch, with the next */
	const char *tokenizer;
	bool f32;
	bool adapts; /* one of the following was given */
	int rank, expert_rank;
	const char *targets;
	double alpha;
	bool resume;
	double prompt_weight, answer_weight;
	const char *too_long;
	double held_out;
	int batch_tokens;
	int steps; /* 0: by epochs */
	int epochs;
	double lr;
	bool lr_given;
	double last_lr;
	bool last_lr_given;
	int warmup;
	const char *decay;
	int decay_steps;
	double beta1, beta2, eps;
	double weight_decay;
	bool weight_decay_given;
	double clip;
	double balance;
	int save_every;
	int evaluate_every;
	const char *log_file;

	/* bench */
	m1_cli_sizes prefill;
	m1_cli_sizes batch;
	m1_cli_sizes context; /* none by default */
	int bench_tokens;	  /* also bench-train */

	/* bench-train */
	int sequences;

	/* gradients */
	const char *batch_file;
	const char *loss;

	int fd; /* serve, proxy */
	double learning_share;
	m1_cli_servers servers;
	m1_cli_hardware plan;
} m1_cli;

/* With no option given. */
extern const m1_cli m1_cli_defaults;

/*
 * Sets what the options among the arguments say, which must be options of the command; argv[0] is its name. Returns the
 * index of the first argument that is no option, all of which come to the end; -1 after saying on stderr what is wrong.
 */
int m1_cli_parse(m1_cli *cli, m1_cli_takers command, int argc, char **argv);
/* One more file of --data. */
bool m1_cli_add_data(m1_cli *cli, const char *path);

/* What --help says of a command's own options, and of those of some commands that several share. */
void m1_cli_print_options(FILE *out, m1_cli_takers command);
void m1_cli_print_shared_options(FILE *out, m1_cli_takers commands);

/* For m1_error_spell_settings: "--max-context" of "max_context". */
bool m1_cli_spell_setting(const char *key, char *out, size_t size);

#endif
