/*
 * cmd_tokenizer_train.c - `tokenizer-train --data FILES --vocab-size N --out DIR`: learns a byte-level BPE, and writes
 * tokenizer.json and tokenizer_config.json. Progress goes to stderr; an interrupt ends it and leaves nothing behind.
 */
#include <stdio.h>

#include "commands/cli.h"
#include "commands/progress.h"
#include "train/learn_tokenizer.h"

static bool
on_progress(void *context, int tokens, int wanted)
{
	m1_progress *shown = context;
	const double share = (double) tokens / (double) wanted;

	if (m1_progress_due(shown, share))
		m1_progress_show(shown, share, "%d of %d tokens", tokens, wanted);
	return !m1_interrupted();
}

int
m1_cmd_tokenizer_train(const m1_cli *cli)
{
	m1_added_token added[M1_CLI_MAX_TEXTS];
	m1_progress shown;
	const m1_learn_tokenizer_options options = {
		.files = cli->data.at,
		.n_files = cli->data.n,
		.out = cli->out_file,
		.replace = cli->force,
		.vocab_size = cli->vocab_size,
		.added = added,
		.n_added = (size_t) cli->control_tokens.n,
		.single_digits = cli->single_digits,
		.system = cli->system,
		.progress = on_progress,
		.context = &shown,
	};
	int tokens;
	m1_error err;

	if (!m1_cli_has("tokenizer-train", "--data FILES", cli->data.n > 0 ? cli : NULL) ||
		!m1_cli_has("tokenizer-train", "--vocab-size N", cli->vocab_size > 0 ? cli : NULL) ||
		!m1_cli_has("tokenizer-train", "--out DIR", cli->out_file))
		return 2;
	for (int i = 0; i < cli->control_tokens.n; i++)
		added[i] = (m1_added_token){cli->control_tokens.at[i], true};
	m1_catch_interrupts();
	m1_progress_start(&shown);
	if (m1_learn_tokenizer(&options, &tokens, &err) != M1_OK)
	{
		m1_progress_break(&shown);
		return m1_cli_report(&err);
	}
	if (tokens < cli->vocab_size)
		fprintf(stderr, "minimax_m1_engine: only %d tokens: no other pair occurs twice\n", tokens);
	printf("%s: %d tokens\n", cli->out_file, tokens);
	return 0;
}
