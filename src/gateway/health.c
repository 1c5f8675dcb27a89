/* health.c - GET /health: whether the model answers; see http.h. */
#include <stdlib.h>
#include <string.h>

#include "gateway/http.h"
#include "gateway/jsonform.h"

typedef struct health
{
	gw_http_exchange *http;
	gw_query *query;
	m1_buf state;
} health;

static void
on_row(void *context, const PGresult *result, int row)
{
	health *h = context;

	m1_buf_append(&h->state, PQgetvalue(result, row, 0), (size_t) PQgetlength(result, row, 0));
}

static void
on_end(void *context, const gw_failure *failure)
{
	health *h = context;
	gw_http_exchange *http = h->http;
	m1_buf out = {0};
	const char *state = failure != NULL ? "unreachable" : m1_buf_cstr(&h->state);
	const bool ready = state != NULL && strcmp(state, "ready") == 0;

	gw_json(&out, "{'status':%s}", ready ? "ok" : state);
	m1_buf_free(&h->state);
	free(h);
	gw_http_reply(http, ready ? 200 : 503, "application/json", (m1_slice){out.data, out.len});
	m1_buf_free(&out);
}

static void
on_closed(void *context)
{
	health *h = context;

	gw_query_cancel(h->query);
	m1_buf_free(&h->state);
	free(h);
}

/* With the role of the connection string, for it tells nobody's secrets. */
void
gw_health_handle(gw_http_exchange *x)
{
	static const gw_reader reader = {on_row, on_end};
	const gw_login own = {NULL, NULL};
	gw_statement s = {0};
	health *h = calloc(1, sizeof *h);

	gw_sql(&s, "SELECT state FROM minimax_m1.model");
	if (h != NULL)
	{
		h->http = x;
		h->query = gw_query_start(x->gateway->pool, &own, &s, &reader, h);
	}
	if (h == NULL || h->query == NULL)
	{
		free(h);
		gw_http_fail(x, 503, "server_error", NULL, "out of memory");
		return;
	}
	x->context = h;
	x->closed = on_closed;
}
