/*
 * cli.h - the engine's commands and what they share: options, input files, output.
 *
 * Each command is one file with one function; main.c chooses. Commands print their results on stdout and errors on
 * stderr, and return the exit status.
 */
#ifndef M1_COMMANDS_CLI_H
#define M1_COMMANDS_CLI_H

#include <stdio.h>

#include "base/buf.h"
#include "base/status.h"
#include "engine/engine.h"

/* Every option of every command; main.c says which command takes which. */
typedef struct m1_cli
{
	const char *model;
	const char *device;
	int gpus;
	const char *isa;
	int threads;
	m1_weight_format weight_format;
	bool weight_format_given;
	int max_requests;
	int max_context;
	int prefill_chunk;
	int kv_cache;	  /* MB; 0 = a safe share of the memory */
	int prefix_cache; /* MB; 0 = none */

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
	const char *stops[M1W_MAX_STOPS];
	int n_stops;
	const char *choices; /* a JSON array */
	const char *schema_file;
	const char *regex;
	bool score;
	bool json;

	/* quantize */
	bool force;

	/* logits */
	const char *out_file; /* also quantize */
	bool decode;		  /* one token a step */

	/* tokenize */
	bool special;

	/* bench */
	const char *prefill_list;
	const char *batch_list;
	const char *context_list; /* NULL = none */
	int bench_tokens;

	/* serve */
	int fd;
} m1_cli;

int m1_cmd_generate(const m1_cli *cli);
int m1_cmd_tokenize(const m1_cli *cli);
int m1_cmd_logits(const m1_cli *cli);
int m1_cmd_bench(const m1_cli *cli);
int m1_cmd_serve(const m1_cli *cli);
int m1_cmd_quantize(const m1_cli *cli);

/* Prints message, detail and hint on stderr and returns the exit status of a failed command. */
int m1_cli_report(const m1_error *err);

/* Appends a whole file ("-" is stdin) to out. */
m1_status m1_cli_read_file(const char *path, m1_buf *out, m1_error *err);

/* Reads whitespace-separated token ids. */
m1_status m1_cli_read_ids(const char *path, m1_ids *out, m1_error *err);

/* For the log options of engine and model: a line on stderr. */
void m1_cli_log(void *context, const char *line);

m1_engine_options m1_cli_engine_options(const m1_cli *cli);

#endif
