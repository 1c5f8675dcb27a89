/*
 * health.c - GET /health: whether the model answers; see http.h.
 *
 * Whoever can connect may ask, and as often as they like: one statement answers all who ask while it runs, and for a
 * second after it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "gateway/http.h"
#include "gateway/jsonform.h"

#define FRESH_MS 1000

typedef struct waiter
{
	struct waiter *next;
	gw_http_exchange *http;
	gw_health *health;
} waiter;

struct gw_health
{
	waiter *waiters;
	bool asking;
	double known_ms; /* when state was; 0 = never */
	char state[32];
};

static void
reply_state(gw_http_exchange *x, const char *state)
{
	const bool ready = strcmp(state, "ready") == 0;
	m1_buf body = {0};

	gw_json(&body, "{'status':%s}", ready ? "ok" : state);
	gw_http_reply(x, ready ? 200 : 503, "application/json", (m1_slice){body.data, body.len});
	m1_buf_free(&body);
}

static void
unlink_waiter(waiter *w)
{
	waiter **at = &w->health->waiters;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
}

static void
on_closed(void *context)
{
	unlink_waiter(context);
	free(context);
}

static void
on_row(void *context, const PGresult *result, int row)
{
	gw_health *h = context;

	snprintf(h->state, sizeof h->state, "%s", PQgetvalue(result, row, 0));
}

static void
on_end(void *context, const gw_failure *failure)
{
	gw_health *h = context;

	h->asking = false;
	h->known_ms = m1_now_ms();
	if (failure != NULL)
		snprintf(h->state, sizeof h->state, "unreachable");
	for (waiter *w; (w = h->waiters) != NULL; free(w))
	{
		h->waiters = w->next;
		reply_state(w->http, h->state);
	}
}

/* With the role of the connection string, for it tells nobody's secrets. */
static bool
ask(gw_gateway *gateway)
{
	static const gw_reader reader = {.row = on_row, .end = on_end};
	const gw_login own = {NULL, NULL};
	gw_statement s = {0};

	if (gateway->health->asking)
		return true;
	gw_sql(&s, "SELECT state FROM minimax_m1.model");
	gateway->health->asking = gw_query_start(gateway->pool, &own, &s, &reader, gateway->health) != NULL;
	return gateway->health->asking;
}

void
gw_health_handle(gw_http_exchange *x)
{
	gw_gateway *gateway = x->gateway;
	gw_health *h = gateway->health != NULL ? gateway->health : (gateway->health = calloc(1, sizeof *h));
	waiter *w;

	if (h != NULL && h->known_ms > 0 && m1_now_ms() - h->known_ms < FRESH_MS)
	{
		reply_state(x, h->state);
		return;
	}
	w = h == NULL || !ask(gateway) ? NULL : calloc(1, sizeof *w);
	if (w == NULL)
	{
		gw_http_fail(x, 503, "server_error", NULL, "out of memory");
		return;
	}
	*w = (waiter){.next = h->waiters, .http = x, .health = h};
	h->waiters = w;
	x->context = w;
	x->closed = on_closed;
}

void
gw_health_free(gw_health *health)
{
	free(health);
}
