/* cmd_proxy.c - `proxy`: servers elsewhere, for PostgreSQL's worker, which sees no difference to `serve`. */
#include <sys/resource.h>

#include "commands/serving.h"
#include "proxy/proxy.h"

#define MOST_FILES 4096 /* for a connection of each request, with room for others */

/* By default a process may have fewer files open than max_requests may ask for. */
static void
allow_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= MOST_FILES)
		return;
	limit.rlim_cur = limit.rlim_max < MOST_FILES ? limit.rlim_max : MOST_FILES;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static m1_status
open_proxy(const m1_cli *cli, const m1_engine_events *events, void **out, m1_error *err)
{
	m1_proxy_options options = {
		.model_path = cli->model,
		.urls = cli->servers.urls,
		.dialect = cli->servers.dialect,
		.model_name = cli->servers.model,
		.api_key_file = cli->servers.api_key_file,
		.ca_file = cli->servers.ca_file,
		.max_context = cli->max_context,
		.silence = cli->servers.timeout,
		.log = m1_cli_log,
	};
	m1_proxy *p = NULL;
	m1_status status;

	if (cli->servers.urls == NULL)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "proxy needs the url of a server");
		m1_error_hint(err, "See {engine_url}.");
		return M1_E_INVALID_ARGUMENT;
	}
	allow_files();
	status = m1_proxy_open(&options, events, &p, err);
	*out = p;
	return status;
}

static const m1_model *
model(const void *p)
{
	return m1_proxy_model(p);
}

static m1w_ready
info(const void *p)
{
	return m1_proxy_info(p);
}

static m1_status
generate(void *p, uint64_t id, const m1w_generate *g, m1_work *work, m1_error *err)
{
	return m1_proxy_generate(p, id, g, work, err);
}

static m1_status
logits(void *p, uint64_t id, m1w_id_slice ids, m1_error *err)
{
	(void) p;
	(void) id;
	(void) ids;
	m1_fail(err, M1_E_UNSUPPORTED, "a server elsewhere does not tell all logits");
	m1_error_hint(err, "Only the engine on this machine does: see {engine_url}.");
	return M1_E_UNSUPPORTED;
}

static m1_status
learn(void *p, uint64_t id, m1w_type type, m1_buf *payload, m1_work *work, m1_error *err)
{
	(void) p;
	(void) id;
	(void) payload;
	(void) work;
	if (type == M1W_TRAINING || type == M1W_LESSON || type == M1W_FETCH)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "servers elsewhere do not train");
		m1_error_detail(err, "A training needs the gradients of the model, which no such server gives.");
		m1_error_hint(err, "Only the engine on this machine trains: see {engine_url}.");
		return M1_E_UNSUPPORTED;
	}
	m1_fail(err, M1_E_UNSUPPORTED, "servers elsewhere are not given adapters");
	m1_error_detail(err, "They have those that they were started with, by their names.");
	m1_error_hint(err, "See {adapter}, and {engine_url} for the engine on this machine.");
	return M1_E_UNSUPPORTED;
}

static void
cancel(void *p, uint64_t id)
{
	m1_proxy_cancel(p, id);
}

static void
pause_request(void *p, uint64_t id)
{
	m1_proxy_pause(p, id);
}

static void
resume(void *p, uint64_t id)
{
	m1_proxy_resume(p, id);
}

static m1_status
step(void *p, m1_error *err)
{
	return m1_proxy_step(p, err);
}

int
m1_cmd_proxy(const m1_cli *cli)
{
	static const m1_served served = {open_proxy, model,	 info,			generate, logits,
									 learn,		 cancel, pause_request, resume,	  step};

	return m1_serve(cli, "proxy", &served);
}
