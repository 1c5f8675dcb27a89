/* cli.c - see cli.h. */
#include "commands/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files/regular.h"

bool
m1_cli_has(const char *command, const char *option, const void *given)
{
	if (given == NULL)
		fprintf(stderr, "minimax_m1_engine: %s needs %s\n", command, option);
	return given != NULL;
}

int
m1_cli_report(const m1_error *err)
{
	m1_error shown = *err;

	m1_error_spell_settings(&shown, m1_cli_spell_setting);
	fprintf(stderr, "minimax_m1_engine: %s\n", shown.message);
	if (shown.detail[0] != '\0')
		fprintf(stderr, "DETAIL: %s\n", shown.detail);
	if (shown.hint[0] != '\0')
		fprintf(stderr, "HINT: %s\n", shown.hint);
	return 1;
}

m1_status
m1_cli_read_file(const char *path, m1_buf *out, m1_error *err)
{
	FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
	m1_status status;

	if (file == NULL)
		return m1_fail(err, M1_E_IO, "could not open \"%.150s\": %s", path, strerror(errno));
	status = m1_read_rest(file, path, out, err);
	if (file != stdin)
		fclose(file);
	return status;
}

m1_status
m1_cli_read_ids(const char *path, m1_ids *out, m1_error *err)
{
	m1_buf text = {0};
	m1_status status = m1_cli_read_file(path, &text, err);
	const char *at = status == M1_OK ? m1_buf_cstr(&text) : NULL;

	while (status == M1_OK && at != NULL)
	{
		char *end;
		long id;

		at += strspn(at, " \t\r\n");
		if (*at == '\0')
			break;
		errno = 0;
		id = strtol(at, &end, 10);
		if (end == at || errno != 0 || id < 0 || id > INT_MAX)
			status = m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" holds something that is not a token id", path);
		else
			m1_ids_push(out, (int32_t) id);
		at = end;
	}
	m1_buf_free(&text);
	if (status == M1_OK && out->failed)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the token ids");
	return status;
}

void
m1_cli_log(void *context, const char *line)
{
	(void) context;
	fprintf(stderr, "minimax_m1_engine: %s\n", line);
}

/* "NAME=DIR", or "DIR", whose last component is the name then. */
static m1_status
split_adapter(const char *text, char *room, m1_adapter_option *out, m1_error *err)
{
	const char *equals = strchr(text, '=');
	const char *path = equals != NULL ? equals + 1 : text;
	size_t end = equals != NULL ? (size_t) (equals - text) : strlen(text);
	size_t begin = 0;

	while (equals == NULL && end > 1 && text[end - 1] == '/')
		end--;
	for (size_t i = 0; equals == NULL && i < end; i++)
		begin = text[i] == '/' ? i + 1 : begin;
	if (begin == end || *path == '\0')
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "--adapter takes a folder, or NAME=FOLDER, not \"%.100s\"", text);
	if (end - begin >= M1_CLI_ADAPTER_NAME)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the name of adapter \"%.100s\" is longer than %d bytes", path,
					   M1_CLI_ADAPTER_NAME - 1);
	memcpy(room, text + begin, end - begin);
	room[end - begin] = '\0';
	*out = (m1_adapter_option){.name = room, .path = path};
	return M1_OK;
}

m1_status
m1_cli_adapters(const m1_cli *cli, int most, m1_cli_adapter_list *out, m1_error *err)
{
	m1_status status = M1_OK;

	*out = (m1_cli_adapter_list){.n = cli->adapters.n};
	if (out->n > most)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "this command uses one adapter only");
	for (int i = 0; i < out->n && status == M1_OK; i++)
		status = split_adapter(cli->adapters.at[i], out->names[i], &out->at[i], err);
	return status;
}

m1_model_options
m1_cli_model_options(const m1_cli *cli)
{
	return (m1_model_options){
		.path = cli->model,
		.device = cli->device,
		.gpus = cli->gpus,
		.isa = cli->isa,
		.weight_format = cli->weight_format,
		.threads = cli->threads,
		.max_context = cli->max_context,
		.max_sequences = 1,
		.max_batch_tokens = cli->prefill_chunk > 0 ? cli->prefill_chunk : m1_model_prefill_chunk(cli->device),
		.log = m1_cli_log,
	};
}

m1_status
m1_cli_adapter_plan(const m1_cli *cli, m1_adapter_plan *plan, m1_error *err)
{
	*plan = m1_adapter_default_plan();
	plan->rank = cli->rank;
	plan->expert_rank = cli->expert_rank;
	plan->alpha = (float) cli->alpha;
	return cli->targets != NULL ? m1_adapter_plan_targets(plan, m1_slice_of(cli->targets), err) : M1_OK;
}

m1_engine_options
m1_cli_engine_options(const m1_cli *cli, const m1_cli_adapter_list *adapters)
{
	m1_engine_options options = {
		.model_path = cli->model,
		.device = cli->device,
		.gpus = cli->gpus,
		.isa = cli->isa,
		.weight_format = cli->weight_format,
		.threads = cli->threads,
		.max_requests = cli->max_requests + cli->reserved_requests,
		.max_context = cli->max_context,
		.prefill_chunk = cli->prefill_chunk,
		.kv_bytes = (size_t) cli->kv_cache << 20,
		.prefix_cache_bytes = (size_t) cli->prefix_cache << 20,
		.learning_share = cli->learning_share,
		.adapter_bytes = (size_t) cli->adapter_memory << 20,
		.adapters = adapters->at,
		.n_adapters = adapters->n,
		.log = m1_cli_log,
	};

	return options;
}

void
m1_cli_random_tokens(const m1_model *model, int32_t *tokens, int n)
{
	uint32_t x = 12345;

	for (int i = 0; i < n; i++)
	{
		x = x * 1664525u + 1013904223u;
		tokens[i] = (int32_t) ((x >> 8) % (uint32_t) model->config.vocab_size);
	}
}
