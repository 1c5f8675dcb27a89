/*
 * cli.h - the engine's commands and what they share beside options: input files, output.
 *
 * Each command is one file with one function; main.c chooses. Commands print their results on stdout and errors on
 * stderr, and return the exit status.
 */
#ifndef M1_COMMANDS_CLI_H
#define M1_COMMANDS_CLI_H

#include "base/buf.h"
#include "base/status.h"
#include "commands/options.h"
#include "engine/engine.h"
#include "model/adapter_plan.h"

int m1_cmd_generate(const m1_cli *cli);
int m1_cmd_tokenize(const m1_cli *cli);
int m1_cmd_logits(const m1_cli *cli);
int m1_cmd_bench(const m1_cli *cli);
int m1_cmd_bench_train(const m1_cli *cli);
int m1_cmd_gradients(const m1_cli *cli);
int m1_cmd_serve(const m1_cli *cli);
int m1_cmd_proxy(const m1_cli *cli);
int m1_cmd_plan(const m1_cli *cli);
int m1_cmd_quantize(const m1_cli *cli);
int m1_cmd_merge(const m1_cli *cli);
int m1_cmd_tokenizer_train(const m1_cli *cli);
int m1_cmd_train(const m1_cli *cli);

/* For a command that needs an option: says so on stderr if the text is NULL. */
bool m1_cli_has(const char *command, const char *option, const void *given);

/* Prints message, detail and hint on stderr and returns the exit status of a failed command. */
int m1_cli_report(const m1_error *err);

/* Appends a whole file ("-" is stdin) to out. */
m1_status m1_cli_read_file(const char *path, m1_buf *out, m1_error *err);

/* Reads whitespace-separated token ids. */
m1_status m1_cli_read_ids(const char *path, m1_ids *out, m1_error *err);

/* For the log options of engine and model: a line on stderr. */
void m1_cli_log(void *context, const char *line);

#define M1_CLI_ADAPTER_NAME 64 /* bytes of a name, the end among them */

/* The adapters that --adapter names; paths point into argv, names into the list itself, which stays where it is. */
typedef struct m1_cli_adapter_list
{
	int n;
	m1_adapter_option at[M1_CLI_MAX_TEXTS];
	char names[M1_CLI_MAX_TEXTS][M1_CLI_ADAPTER_NAME];
} m1_cli_adapter_list;

/* M1_E_INVALID_ARGUMENT when there are more than `most`, or one is spelled wrongly. */
m1_status m1_cli_adapters(const m1_cli *cli, int most, m1_cli_adapter_list *out, m1_error *err);

/* For a model without an engine, of one sequence, in steps of --prefill-chunk tokens. */
m1_model_options m1_cli_model_options(const m1_cli *cli);

/* Of an adapter to be trained, as --rank and the options beside it say. */
m1_status m1_cli_adapter_plan(const m1_cli *cli, m1_adapter_plan *plan, m1_error *err);

/* With adapters that m1_cli_adapters has read; they must stay until the engine is open. */
m1_engine_options m1_cli_engine_options(const m1_cli *cli, const m1_cli_adapter_list *adapters);

/* The same n tokens each time: to measure with, any do. */
void m1_cli_random_tokens(const m1_model *model, int32_t *tokens, int n);

#endif
