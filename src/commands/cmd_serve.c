/* cmd_serve.c - `serve`: the engine in this process, for PostgreSQL's worker. */
#include "commands/serving.h"

static m1_status
open_engine(const m1_cli *cli, const m1_engine_events *events, void **out, m1_error *err)
{
	m1_cli_adapter_list adapters;
	m1_engine_options options;
	m1_engine *e = NULL;
	m1_status status = m1_cli_adapters(cli, M1_CLI_MAX_TEXTS, &adapters, err);

	if (status != M1_OK)
		return status;
	options = m1_cli_engine_options(cli, &adapters);
	status = m1_engine_open(&options, events, &e, err);
	*out = e;
	return status;
}

static const m1_model *
model(const void *e)
{
	return m1_engine_model(e);
}

static m1w_ready
info(const void *e)
{
	return m1_engine_info(e);
}

static m1_status
generate(void *e, uint64_t id, const m1w_generate *g, m1_work *work, m1_error *err)
{
	return m1_engine_generate(e, id, g, work, err);
}

static m1_status
logits(void *e, uint64_t id, m1w_id_slice ids, m1_error *err)
{
	return m1_engine_logits(e, id, ids, err);
}

static m1_status
learn(void *e, uint64_t id, m1w_type type, m1_buf *payload, m1_work *work, m1_error *err)
{
	return m1_engine_learn(e, id, type, payload, work, err);
}

static void
cancel(void *e, uint64_t id)
{
	m1_engine_cancel(e, id);
}

static void
pause_request(void *e, uint64_t id)
{
	m1_engine_pause(e, id);
}

static void
resume(void *e, uint64_t id)
{
	m1_engine_resume(e, id);
}

static m1_status
step(void *e, m1_error *err)
{
	bool busy;
	m1_status status = m1_engine_step(e, &busy, err);

	if (status == M1_OK && !busy)
		m1_engine_wait(e);
	return status;
}

int
m1_cmd_serve(const m1_cli *cli)
{
	static const m1_served served = {open_engine, model,  info,			 generate, logits,
									 learn,		  cancel, pause_request, resume,   step};

	return m1_serve(cli, "serve", &served);
}
