/*
 * mcp_progress.c - how far a call is, as minimax_m1.activity shows it to the role that asked; see mcp_call.h.
 *
 * A second connection of the same role looks now and then. What it counts only rises: tokens read and written.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/jsonform.h"
#include "gateway/mcp_call.h"

#define FIRST_LOOK_MS 200
#define LOOK_MS 500

static void
look_again(gw_mcp_call *call, int ms)
{
	const struct timeval after = {ms / 1000, ms % 1000 * 1000};

	evtimer_add(call->progress.timer, &after);
}

/* Columns: tokens, and what to say. */
static void
on_row(void *context, const PGresult *result, int row)
{
	gw_mcp_call *call = context;
	const int64_t tokens = strtoll(PQgetvalue(result, row, 0), NULL, 10);
	m1_buf out = {0};

	if (tokens <= call->progress.told)
		return;
	call->progress.told = tokens;
	gw_json(&out,
			"{'jsonrpc':'2.0','method':'notifications/progress','params':{'progressToken':%j,'progress':%d,"
			"'message':%s}}",
			call->progress.token, tokens, PQgetvalue(result, row, 1));
	if (!out.failed)
		call->peer->notify(call->context, (m1_slice){out.data, out.len});
	m1_buf_free(&out);
}

/* One that fails is no reason to say anything: the call itself tells what is wrong. */
static void
on_end(void *context, const gw_failure *failure)
{
	gw_mcp_call *call = context;

	(void) failure;
	call->progress.query = NULL;
	look_again(call, LOOK_MS);
}

static void
on_timer(evutil_socket_t fd, short what, void *context)
{
	static const gw_reader reader = {.row = on_row, .end = on_end};
	gw_mcp_call *call = context;
	const int pid = call->query == NULL ? 0 : gw_query_pid(call->query);
	gw_statement s = {0};

	(void) fd;
	(void) what;
	if (pid == 0)
	{
		look_again(call, LOOK_MS);
		return;
	}
	gw_sql(&s,
		   "SELECT prefilled + generated, pg_catalog.format('%s, %s of %s tokens read, %s written', state, prefilled, "
		   "prompt_tokens, generated) FROM minimax_m1.activity WHERE pid = ");
	gw_sql_number(&s, pid, "int");
	gw_sql(&s, " ORDER BY request LIMIT 1");
	call->progress.query = gw_query_start(call->gateway->pool, call->login, &s, &reader, call);
	if (call->progress.query == NULL)
		look_again(call, LOOK_MS);
}

void
mcp_watch(gw_mcp_call *call)
{
	if (call->progress.token == NULL || call->progress.timer != NULL)
		return;
	call->progress.timer = evtimer_new(call->gateway->base, on_timer, call);
	if (call->progress.timer != NULL)
		look_again(call, FIRST_LOOK_MS);
}

void
mcp_unwatch(gw_mcp_call *call)
{
	if (call->progress.timer != NULL)
		event_free(call->progress.timer);
	if (call->progress.query != NULL)
		gw_query_cancel(call->progress.query);
	memset(&call->progress, 0, sizeof call->progress);
}
