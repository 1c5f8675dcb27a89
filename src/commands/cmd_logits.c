/*
 * cmd_logits.c - `logits`: ids in, the logits of every position out, for comparison with a reference. --prefill-chunk N
 * and --decode choose how the ids are fed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "commands/cli.h"
#include "model/forward.h"
#include "model/state.h"

static m1_status
check_ids(const m1_model *model, const m1_ids *ids, m1_error *err)
{
	if (ids->len == 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "there are no token ids");
	if (ids->len > (size_t) model->max_context)
		return m1_fail(err, M1_E_CONTEXT_OVERFLOW, "%zu token ids do not fit the context of %d", ids->len,
					   model->max_context);
	for (size_t i = 0; i < ids->len; i++)
		if (ids->data[i] >= model->config.vocab_size)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "token id %d is outside the vocabulary of %d", ids->data[i],
						   model->config.vocab_size);
	return M1_OK;
}

/* Feeds the ids `chunk` at a time and writes each chunk's logits. */
static m1_status
write_logits(m1_model *model, const m1_ids *ids, int chunk, FILE *out, m1_error *err)
{
	const size_t vocab = (size_t) model->config.vocab_size;
	m1b_state *state = m1_state_acquire(model, (int) ids->len, NULL);
	float *logits = malloc((size_t) chunk * vocab * sizeof *logits);
	int *rows = malloc((size_t) chunk * sizeof *rows);
	m1_status status = M1_OK;

	if (state == NULL || logits == NULL || rows == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for %zu tokens", ids->len);
	for (int i = 0; status == M1_OK && i < chunk; i++)
		rows[i] = i;
	for (int at = 0; status == M1_OK && at < (int) ids->len; at += chunk)
	{
		int n = (int) ids->len - at < chunk ? (int) ids->len - at : chunk;
		m1b_segment segment = {
			.state = state, .start = at, .n_tokens = n, .row = 0, .adapter = m1_adapter_set_count(model->adapters)};
		m1b_batch batch = {.tokens = ids->data + at, .n_tokens = n, .segments = &segment, .n_segments = 1};

		status = m1_forward(model, &batch, rows, n, logits, err);
		if (status == M1_OK && fwrite(logits, vocab * sizeof *logits, (size_t) n, out) != (size_t) n)
			status = m1_fail(err, M1_E_IO, "could not write the logits: %s", strerror(errno));
	}
	m1_state_release(model, state);
	free(logits);
	free(rows);
	return status;
}

static m1_status
run(const m1_cli *cli, m1_model *model, const m1_ids *ids, int chunk, m1_error *err)
{
	FILE *out = fopen(cli->out_file, "wb");
	m1_status status;

	if (out == NULL)
		return m1_fail(err, M1_E_IO, "could not create \"%.150s\": %s", cli->out_file, strerror(errno));
	status = write_logits(model, ids, chunk, out, err);
	if (fclose(out) != 0 && status == M1_OK)
		status = m1_fail(err, M1_E_IO, "could not write \"%.150s\": %s", cli->out_file, strerror(errno));
	return status;
}

int
m1_cmd_logits(const m1_cli *cli)
{
	m1_model_options options = m1_cli_model_options(cli);
	m1_cli_adapter_list adapters;
	m1_model *model = NULL;
	m1_ids ids = {0};
	m1_error err;
	m1_status status;

	if (cli->ids_file == NULL || cli->out_file == NULL)
	{
		fputs("minimax_m1_engine: logits needs --ids FILE and --out FILE\n", stderr);
		return 2;
	}
	if ((status = m1_cli_adapters(cli, 1, &adapters, &err)) != M1_OK)
		return m1_cli_report(&err);
	if (cli->decode)
		options.max_batch_tokens = 1;
	options.adapters = adapters.at;
	options.n_adapters = adapters.n;
	if ((status = m1_cli_read_ids(cli->ids_file, &ids, &err)) == M1_OK &&
		(status = m1_model_open(&options, &model, &err)) == M1_OK && (status = check_ids(model, &ids, &err)) == M1_OK)
		status = run(cli, model, &ids, options.max_batch_tokens, &err);
	m1_model_close(model);
	m1_ids_free(&ids);
	return status == M1_OK ? 0 : m1_cli_report(&err);
}
