/*
 * chat.c - POST /v1/chat/completions: a chat from its request to its end; see openai.h.
 *
 * A stream begins with the first piece of the answer, so that what is wrong with the request has its status. Where that
 * takes long it begins earlier, with comments that keep the connection from looking dead.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "gateway/jsonform.h"
#include "gateway/metrics.h"
#include "gateway/openai.h"

#define KEEP_ALIVE_SECONDS 10

typedef struct chat
{
	gw_http_exchange *http;
	gw_query *query;
	struct event *timer;
	gw_chat_options options;
	gw_chat_reply reply;
	m1_buf out; /* of a whole answer */
	bool begun; /* the stream */
	bool told_first;
	bool answered; /* a row has come that ends the answer */
	bool misread;  /* calls were told that are none */
	double asked_ms;
} chat;

static void
free_chat(chat *c)
{
	gw_counted.running--;
	if (c->timer != NULL)
		event_free(c->timer);
	gw_chat_reply_free(&c->reply);
	m1_buf_free(&c->out);
	free(c);
}

/* ---- pieces ---- */

static void
begin_stream(chat *c)
{
	if (!c->begun)
		gw_http_begin(c->http, 200, "text/event-stream");
	c->begun = true;
}

static void
send_out(chat *c)
{
	begin_stream(c);
	gw_http_write(c->http, (m1_slice){c->out.data, c->out.len});
	c->out.len = 0;
	if (c->query != NULL && gw_http_is_full(c->http))
		gw_query_pause(c->query, true);
}

/* Pieces that have not been sent, of an answer that has not ended. */
static bool
has_pieces(const chat *c)
{
	return c->options.streams && !c->answered && c->out.len > 0;
}

static void
on_drained(void *context)
{
	chat *c = context;

	if (c->query != NULL)
		gw_query_pause(c->query, false);
}

static void
keep_alive(chat *c)
{
	const struct timeval after = {KEEP_ALIVE_SECONDS, 0};

	evtimer_add(c->timer, &after);
}

static void
on_timer(evutil_socket_t fd, short what, void *context)
{
	chat *c = context;

	(void) fd;
	(void) what;
	begin_stream(c);
	if (!gw_http_is_full(c->http))
		gw_http_write(c->http, m1_slice_of(": waiting\n\n"));
	keep_alive(c);
}

/* ---- rows ---- */

static void
tell_first(chat *c, double seconds)
{
	if (!c->told_first)
		m1_latency_add(&gw_counted.first_token, seconds);
	c->told_first = true;
}

static void
take_model(chat *c, const PGresult *result, int row)
{
	if (c->reply.model.len == 0 && !PQgetisnull(result, row, GW_CHAT_MODEL))
		m1_buf_puts(&c->reply.model, PQgetvalue(result, row, GW_CHAT_MODEL));
	m1_buf_cstr(&c->reply.model);
}

static void
take_end(chat *c, const PGresult *result, int row)
{
	take_model(c, result, row);
	tell_first(c, strtod(PQgetvalue(result, row, GW_CHAT_FIRST_TOKEN_MS), NULL) / 1000);
	c->answered = true;
	if (c->options.streams)
		c->misread = !gw_chat_put_last(&c->out, &c->reply, result, row, c->options.with_usage);
	else
		gw_chat_put_whole(&c->out, &c->reply, result, row);
}

static void
on_row(void *context, const PGresult *result, int row)
{
	chat *c = context;
	const bool ends = PQgetisnull(result, row, GW_CHAT_CHANNEL);

	/* the end is told when the statement has been committed */
	if (ends && has_pieces(c))
		send_out(c);
	if (c->options.streams && !c->told_first)
		gw_chat_put_first(&c->out, &c->reply);
	if (ends)
		take_end(c, result, row);
	else
	{
		tell_first(c, (m1_now_ms() - c->asked_ms) / 1000);
		gw_chat_put_delta(&c->out, &c->reply, result, row);
	}
}

/* Pieces that came at once leave at once. */
static void
on_caught_up(void *context)
{
	chat *c = context;

	if (has_pieces(c))
		send_out(c);
}

/* ---- the end ---- */

/* A stream that has begun can only say what went wrong. */
static void
end_badly(chat *c, const gw_failure *failure)
{
	m1_buf out = {0};

	gw_counted.failed++;
	if (!c->begun)
	{
		gw_http_fail_with(c->http, failure, NULL);
		return;
	}
	m1_buf_puts(&out, "data: ");
	gw_put_error(&out, failure, NULL);
	m1_buf_puts(&out, "\n\n");
	gw_http_write(c->http, (m1_slice){out.data, out.len});
	m1_buf_free(&out);
	gw_http_end(c->http);
}

static void
end_well(chat *c)
{
	gw_counted.completed++;
	m1_latency_add(&gw_counted.whole, (m1_now_ms() - c->asked_ms) / 1000);
	if (!c->options.streams)
	{
		gw_http_reply(c->http, 200, "application/json", (m1_slice){c->out.data, c->out.len});
		return;
	}
	m1_buf_puts(&c->out, "data: [DONE]\n\n");
	begin_stream(c);
	gw_http_write(c->http, (m1_slice){c->out.data, c->out.len});
	gw_http_end(c->http);
}

static void
on_end(void *context, const gw_failure *failure)
{
	chat *c = context;
	gw_failure other;

	c->query = NULL;
	if (has_pieces(c))
		send_out(c);
	if (failure == NULL && !c->answered)
	{
		gw_failure_set(&other, "42P0M", "there is no such model", NULL, "GET /v1/models tells which there is.");
		failure = &other;
	}
	else if (failure == NULL && c->misread)
	{
		gw_failure_set(&other, "XX000", "the model has written a tool call that cannot be read",
					   "Its pieces are no call, and are not to be followed.", NULL);
		failure = &other;
	}
	else if (failure == NULL && c->out.failed)
	{
		gw_failure_set(&other, "53200", "out of memory", NULL, NULL);
		failure = &other;
	}
	if (failure != NULL)
		end_badly(c, failure);
	else
		end_well(c);
	free_chat(c);
}

static void
on_closed(void *context)
{
	chat *c = context;

	gw_counted.cancelled++;
	if (c->query != NULL)
		gw_query_cancel(c->query);
	free_chat(c);
}

/* ---- the beginning ---- */

/* false: it was answered. */
static bool
read_body(gw_http_exchange *x, gw_statement *statement, chat *c)
{
	const char *param = NULL;
	gw_failure failure = {.sqlstate = ""};
	m1_json_doc doc;
	m1_error err;
	bool ok = m1_json_parse(x->body, "body", NULL, &doc, &err) == M1_OK;

	if (!ok)
		gw_failure_of_error(&failure, &err);
	else
	{
		const m1_json *model = m1_json_get(doc.root, "model");

		ok = gw_chat_read(doc.root, statement, &c->options, &failure, &param);
		m1_buf_append(&c->reply.model, m1_json_text(model).data, m1_json_text(model).len);
		m1_buf_cstr(&c->reply.model);
	}
	if (!ok)
		gw_http_fail_with(x, &failure, param);
	m1_json_free(&doc);
	return ok;
}

void
gw_chat_handle(gw_http_exchange *x)
{
	static const gw_reader reader = {on_row, on_caught_up, on_end};
	chat *c = calloc(1, sizeof *c);
	gw_statement statement = {0};

	if (c == NULL)
	{
		gw_http_fail(x, 503, "server_error", NULL, "out of memory");
		return;
	}
	gw_counted.running++;
	c->http = x;
	c->asked_ms = m1_now_ms();
	gw_chat_reply_init(&c->reply);
	if (!read_body(x, &statement, c))
	{
		gw_statement_free(&statement);
		free_chat(c);
		return;
	}
	c->timer = evtimer_new(x->gateway->base, on_timer, c);
	c->query = c->timer == NULL ? NULL : gw_query_start(x->gateway->pool, &x->login, &statement, &reader, c);
	if (c->query == NULL)
	{
		gw_statement_free(&statement);
		free_chat(c);
		gw_http_fail(x, 503, "server_error", NULL, "the request is too large, or memory ran out");
		return;
	}
	x->context = c;
	x->closed = on_closed;
	x->drained = on_drained;
	if (c->options.streams)
		keep_alive(c);
}
