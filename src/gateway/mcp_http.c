/*
 * mcp_http.c - MCP over HTTP: a message a POST; see http.h.
 *
 * An answer that comes soon is one JSON text. Where one takes longer, or there is progress to tell, it is a stream of
 * events, in which comments keep the connection from looking dead. A client that goes has cancelled. One of a revision
 * before 2026-07-28 may also say so on another connection. It is told apart by the session that `initialize` gives it,
 * of which nothing is kept: a session is what the same role says it is.
 */
#define _GNU_SOURCE /* strcasestr */
#include <stdlib.h>
#include <string.h>

#include "gateway/http.h"
#include "gateway/mcp.h"
#include "gateway/nonce.h"

#define SESSION "Mcp-Session-Id"

#define PATIENCE_SECONDS 2
#define KEEP_ALIVE_SECONDS 15

typedef struct gw_mcp_exchange mcp_exchange;

struct gw_mcp_exchange
{
	mcp_exchange *next; /* of those that are being answered */
	gw_http_exchange *http;
	gw_mcp_call *call;
	struct event *timer;
	bool takes_events;
	bool streams;
};

static void
free_exchange(mcp_exchange *x)
{
	mcp_exchange **at = &x->http->gateway->exchanges;

	while (*at != NULL && *at != x)
		at = &(*at)->next;
	if (*at == x)
		*at = x->next;
	if (x->timer != NULL)
		event_free(x->timer);
	free(x);
}

static void
write_event(mcp_exchange *x, m1_slice message)
{
	m1_buf event = {0};

	m1_buf_puts(&event, "event: message\ndata: ");
	m1_buf_append(&event, message.data, message.len);
	m1_buf_puts(&event, "\n\n");
	gw_http_write(x->http, (m1_slice){event.data, event.len});
	m1_buf_free(&event);
}

static void
begin_stream(mcp_exchange *x)
{
	if (!x->streams)
		gw_http_begin(x->http, 200, "text/event-stream");
	x->streams = true;
}

static void
on_answer(void *context, int status, m1_slice message)
{
	mcp_exchange *x = context;
	gw_http_exchange *http = x->http;

	if (x->streams)
	{
		write_event(x, message);
		free_exchange(x);
		gw_http_end(http);
		return;
	}
	free_exchange(x);
	if (status == 401)
		gw_http_ask_login(http);
	gw_http_reply(http, status, message.len == 0 ? NULL : "application/json", message);
}

static void
on_notify(void *context, m1_slice message)
{
	mcp_exchange *x = context;

	if (!x->takes_events || gw_http_is_full(x->http))
		return;
	begin_stream(x);
	write_event(x, message);
}

static void
on_closed(void *context)
{
	mcp_exchange *x = context;

	gw_mcp_cancel(x->call);
	free_exchange(x);
}

/* Of one session, which must have a name, of one login. */
static bool
are_of_one(const gw_http_exchange *a, const gw_http_exchange *b)
{
	const char *fields[] = {SESSION, "Authorization"};
	const char *session = gw_http_field_of(a->head, SESSION);

	for (int i = 0; i < 2; i++)
	{
		const char *of_a = gw_http_field_of(a->head, fields[i]);
		const char *of_b = gw_http_field_of(b->head, fields[i]);

		if ((of_a == NULL) != (of_b == NULL) || (of_a != NULL && strcmp(of_a, of_b) != 0))
			return false;
	}
	return session != NULL;
}

/* Nothing is answered to what was cancelled. */
static void
on_cancel(void *context, const m1_json *id)
{
	const mcp_exchange *asking = context;

	for (mcp_exchange *x = asking->http->gateway->exchanges; x != NULL; x = x->next)
		if (are_of_one(x->http, asking->http) && gw_mcp_has_id(x->call, id))
		{
			gw_http_exchange *http = x->http;
			const bool streams = x->streams;

			on_closed(x);
			if (streams)
				gw_http_end(http);
			else
				gw_http_reply(http, 202, NULL, (m1_slice){0});
			return;
		}
}

static void
on_begin(void *context)
{
	char session[GW_NONCE_SIZE];

	gw_make_nonce(session, sizeof session);
	gw_http_add_field(((mcp_exchange *) context)->http, SESSION, session);
}

static void
set_timer(mcp_exchange *x, int seconds)
{
	const struct timeval after = {seconds, 0};

	evtimer_add(x->timer, &after);
}

static void
on_timer(evutil_socket_t fd, short what, void *context)
{
	mcp_exchange *x = context;

	(void) fd;
	(void) what;
	begin_stream(x);
	gw_http_write(x->http, m1_slice_of(": working\n\n"));
	set_timer(x, KEEP_ALIVE_SECONDS);
}

void
gw_mcp_handle(gw_http_exchange *http)
{
	static const gw_mcp_peer peer = {on_answer, on_notify, on_cancel, on_begin};
	const gw_mcp_headers headers = {gw_http_field_of(http->head, "MCP-Protocol-Version"),
									gw_http_field_of(http->head, "Mcp-Method"),
									gw_http_field_of(http->head, "Mcp-Name")};
	const char *accept = gw_http_field_of(http->head, "Accept");
	mcp_exchange *x = calloc(1, sizeof *x);
	gw_mcp_call *call;

	if (x == NULL || (x->timer = evtimer_new(http->gateway->base, on_timer, x)) == NULL)
	{
		free(x);
		gw_http_reply(http, 503, NULL, (m1_slice){0});
		return;
	}
	x->http = http;
	x->takes_events = accept != NULL && strcasestr(accept, "text/event-stream") != NULL;
	call = gw_mcp_take(http->gateway, &http->login, http->body, &headers, &peer, x);
	if (call == NULL)
		return;
	x->call = call;
	x->next = http->gateway->exchanges;
	http->gateway->exchanges = x;
	http->context = x;
	http->closed = on_closed;
	if (x->takes_events)
		set_timer(x, PATIENCE_SECONDS);
}
