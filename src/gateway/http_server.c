/*
 * http_server.c - see http_server.h.
 *
 * A connection reads a head, then a body, then answers, and begins again. Each of the first two has a deadline; while
 * it answers it goes on listening, so that it notices when the client goes. What is wrong with a head is answered
 * before any of the body is read; bodies have room as they come. What a client does not read is bounded by who writes
 * (gw_http_is_full), and by the time in which it has to be read.
 */
#define _DEFAULT_SOURCE /* strdup */
#include "gateway/http_server.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "gateway/address.h"

#define IDLE_SECONDS 75	  /* between two requests */
#define HEAD_SECONDS 15	  /* of a head that has begun */
#define BODY_SECONDS 120  /* of a whole body */
#define UNREAD_SECONDS 60 /* until what is unsent is, or no longer FULL */
#define LINGER_SECONDS 2
#define RETRY_SECONDS 1 /* to accept clients, where no file was free */
#define FULL (256u << 10)
#define DRAINED (64u << 10)
#define MAX_BODIES (512u << 20) /* of all clients, beyond what of each is short */
#define SHORT_BODY (64u << 10)

typedef enum client_state
{
	READING_HEAD,
	READING_BODY,
	ANSWERING,
	CLOSING, /* when all is sent */
} client_state;

typedef struct client
{
	struct client *next;
	gw_http_server *server;
	struct bufferevent *io;
	struct event *deadline;
	client_state state;
	gw_http_head head;
	gw_http_chunks chunks;
	m1_buf body;
	size_t reserved; /* of the room for bodies */
	m1_buf fields;	 /* of the answer */
	bool begun;		 /* some of the head has come */
	bool waits;		 /* for its output to drain */
	bool taking;	 /* the handler is being called */
	bool shut;		 /* all is sent, and the client knows */
	gw_http_exchange exchange;
} client;

struct gw_http_server
{
	gw_gateway *gateway;
	void (*take)(gw_http_exchange *x);
	struct evconnlistener *listener;
	struct event *retry; /* to accept */
	double told_ms;		 /* when it was said that no file is free; 0 = never */
	client *clients;
	int n_clients;
	size_t bodies; /* bytes that clients have reserved */
	bool loopback;
	int port;
};

static void read_on(client *c);

/* ---- clients ---- */

static client *
client_of(gw_http_exchange *x)
{
	return (client *) (void *) ((char *) x - offsetof(client, exchange));
}

static void
forget_login(gw_login *login)
{
	if (login->password != NULL)
		explicit_bzero((char *) login->password, strlen(login->password));
	free((char *) login->user);
	free((char *) login->password);
	*login = (gw_login){0};
}

/* What belongs to one request. */
static void
forget_exchange(client *c)
{
	c->server->bodies -= c->reserved;
	c->reserved = 0;
	explicit_bzero(&c->head, sizeof c->head);
	c->chunks = (gw_http_chunks){0};
	m1_buf_free(&c->body);
	m1_buf_free(&c->fields);
	forget_login(&c->exchange.login);
	c->exchange = (gw_http_exchange){0};
	c->begun = c->waits = false;
}

static void
drop(client *c)
{
	gw_http_server *s = c->server;

	if (c->state == ANSWERING && c->exchange.closed != NULL)
		c->exchange.closed(c->exchange.context);
	for (client **at = &s->clients; *at != NULL; at = &(*at)->next)
		if (*at == c)
		{
			*at = c->next;
			break;
		}
	s->n_clients--;
	forget_exchange(c);
	event_free(c->deadline);
	bufferevent_free(c->io);
	free(c);
}

static void
set_deadline(client *c, int seconds)
{
	const struct timeval after = {seconds, 0};

	if (seconds > 0)
		evtimer_add(c->deadline, &after);
	else
		evtimer_del(c->deadline);
}

/* ---- answers ---- */

static const char *
reason_of(int status)
{
	static const struct
	{
		int status;
		const char *reason;
	} reasons[] = {
		{200, "OK"},
		{202, "Accepted"},
		{204, "No Content"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{408, "Request Timeout"},
		{413, "Content Too Large"},
		{415, "Unsupported Media Type"},
		{417, "Expectation Failed"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{499, "Client Closed Request"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"},
	};

	for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Error";
}

void
gw_http_add_field(gw_http_exchange *x, const char *name, const char *value)
{
	m1_buf *fields = &client_of(x)->fields;

	m1_buf_puts(fields, name);
	m1_buf_puts(fields, ": ");
	m1_buf_puts(fields, value);
	m1_buf_puts(fields, "\r\n");
}

/* length: of the body, or -1 where it comes in pieces. */
static void
write_head(client *c, int status, const char *type, long length)
{
	struct evbuffer *out = bufferevent_get_output(c->io);

	/* an old client knows the end of the answer by that of the connection */
	if (length < 0 && c->head.http10)
		c->head.keep_alive = false;
	evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n", status,
						reason_of(status));
	if (type != NULL)
		evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
	if (length >= 0)
		evbuffer_add_printf(out, "Content-Length: %ld\r\n", length);
	else if (!c->head.http10)
		evbuffer_add_printf(out, "Transfer-Encoding: chunked\r\n");
	if (!c->head.keep_alive)
		evbuffer_add_printf(out, "Connection: close\r\n");
	else if (c->head.http10)
		evbuffer_add_printf(out, "Connection: keep-alive\r\n");
	evbuffer_add(out, c->fields.data, c->fields.len);
	evbuffer_add(out, "\r\n", 2);
}

/*
 * When all is sent, the client is told so, and has some time to close: a connection that is closed with something
 * unread takes back what was sent.
 */
static void
close_when_sent(client *c)
{
	if (c->shut || evbuffer_get_length(bufferevent_get_output(c->io)) > 0)
		return;
	c->shut = true;
	shutdown(bufferevent_getfd(c->io), SHUT_WR);
	set_deadline(c, LINGER_SECONDS);
}

/* The answer is complete: the next request, or the end of the connection when all is sent. */
static void
finish(client *c)
{
	const bool again = c->head.keep_alive;

	forget_exchange(c);
	if (!again)
	{
		c->state = CLOSING;
		set_deadline(c, UNREAD_SECONDS);
		return;
	}
	c->state = READING_HEAD;
	set_deadline(c, IDLE_SECONDS);
	/* what has been read already comes with no event */
	if (!c->taking)
		read_on(c);
}

void
gw_http_reply(gw_http_exchange *x, int status, const char *type, m1_slice body)
{
	client *c = client_of(x);
	const bool is_head = c->head.method != NULL && strcmp(c->head.method, "HEAD") == 0;

	write_head(c, status, type, (long) body.len);
	if (!is_head)
		bufferevent_write(c->io, body.data, body.len);
	finish(c);
}

void
gw_http_begin(gw_http_exchange *x, int status, const char *type)
{
	client *c = client_of(x);

	gw_http_add_field(x, "X-Accel-Buffering", "no");
	write_head(c, status, type, -1);
}

/*
 * Bytes of a stream: to the socket at once where nothing is in front of them, as most are, which spares a round of the
 * loop. What it does not take, and what is wrong with it, is left to the loop.
 */
static void
send_parts(client *c, struct iovec *parts, size_t n)
{
	struct evbuffer *out = bufferevent_get_output(c->io);
	const struct msghdr message = {.msg_iov = parts, .msg_iovlen = n};
	ssize_t sent = 0;

	if (evbuffer_get_length(out) == 0)
		sent = sendmsg(bufferevent_getfd(c->io), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	for (size_t i = 0, gone = sent > 0 ? (size_t) sent : 0; i < n; i++)
	{
		const size_t past = gone < parts[i].iov_len ? gone : parts[i].iov_len;

		evbuffer_add(out, (const char *) parts[i].iov_base + past, parts[i].iov_len - past);
		gone -= past;
	}
	if (!c->waits && evbuffer_get_length(out) > FULL)
	{
		c->waits = true;
		set_deadline(c, UNREAD_SECONDS);
	}
}

void
gw_http_write(gw_http_exchange *x, m1_slice piece)
{
	client *c = client_of(x);
	char length[24];
	char end[] = "\r\n";
	struct iovec parts[3] = {{length, 0}, {(char *) piece.data, piece.len}, {end, 0}};

	/* an empty chunk would end the answer */
	if (piece.len == 0)
		return;
	if (!c->head.http10)
	{
		parts[0].iov_len = (size_t) snprintf(length, sizeof length, "%zx\r\n", piece.len);
		parts[2].iov_len = 2;
	}
	send_parts(c, parts, 3);
}

void
gw_http_end(gw_http_exchange *x)
{
	client *c = client_of(x);

	if (!c->head.http10)
		evbuffer_add(bufferevent_get_output(c->io), "0\r\n\r\n", 5);
	finish(c);
}

bool
gw_http_is_full(const gw_http_exchange *x)
{
	return client_of((gw_http_exchange *) x)->waits;
}

/* Refuses what is no request; nothing that follows on the connection can be trusted. */
static void
refuse(client *c, int status)
{
	char text[128];

	snprintf(text, sizeof text, "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\",\"code\":null}}",
			 reason_of(status));
	c->head.keep_alive = false;
	c->head.http10 = false;
	c->head.method = NULL;
	c->exchange.closed = NULL;
	gw_http_reply(&c->exchange, status, "application/json", m1_slice_of(text));
}

/* ---- requests ---- */

static void
take_request(client *c)
{
	c->state = ANSWERING;
	set_deadline(c, 0);
	c->exchange.body = (m1_slice){c->body.data, c->body.len};
	c->taking = true;
	c->exchange.handle(&c->exchange);
	c->taking = false;
}

/* Room for so much of a body, among all that are there. What is short has it always: nobody's long ones shut it out. */
static bool
reserve(client *c, size_t length)
{
	const size_t wanted = length > SHORT_BODY ? length - SHORT_BODY : 0;

	if (wanted <= c->reserved)
		return true;
	if (c->server->bodies + wanted - c->reserved > MAX_BODIES)
		return false;
	c->server->bodies += wanted - c->reserved;
	c->reserved = wanted;
	return true;
}

/* Moves what has come of a body of known length. The status that refuses it, or 0. */
static int
read_counted(client *c, struct evbuffer *in)
{
	const size_t left = c->head.content_length - c->body.len;
	const size_t n = evbuffer_get_length(in) < left ? evbuffer_get_length(in) : left;

	if (n == 0)
		return 0;
	if (!reserve(c, c->body.len + n) || !m1_buf_reserve(&c->body, n))
		return 503;
	evbuffer_remove(in, c->body.data + c->body.len, n);
	c->body.len += n;
	return 0;
}

static int
read_chunked(client *c, struct evbuffer *in)
{
	const size_t n = evbuffer_get_length(in);
	const m1_slice bytes = {(const char *) evbuffer_pullup(in, -1), n};
	size_t used;
	int status;

	if (n == 0)
		return 0;
	status = gw_http_read_chunks(&c->chunks, bytes, GW_HTTP_MAX_BODY, &c->body, &used);
	evbuffer_drain(in, used);
	return status == 0 && !reserve(c, c->body.len) ? 503 : status;
}

/* true when the request is complete, or was refused. */
static bool
read_body(client *c, struct evbuffer *in)
{
	const int status = c->head.chunked ? read_chunked(c, in) : read_counted(c, in);
	const bool done = c->head.chunked ? c->chunks.done : c->body.len == c->head.content_length;

	if (status != 0 || c->body.failed)
		refuse(c, status != 0 ? status : 503);
	else if (done)
		take_request(c);
	else
		return false;
	return true;
}

/* Who asks for what: an answer at once, or who gives it when the body is there. */
static void
take_head(client *c)
{
	const bool keep_alive = c->head.keep_alive;

	c->exchange = (gw_http_exchange){.gateway = c->server->gateway, .head = &c->head};
	/* a body behind an answer would be read as the next request */
	c->head.keep_alive = keep_alive && !c->head.chunked && c->head.content_length == 0;
	c->taking = true;
	c->server->take(&c->exchange);
	c->taking = false;
	if (c->exchange.handle == NULL)
		return;
	c->head.keep_alive = keep_alive;
	c->state = READING_BODY;
	set_deadline(c, BODY_SECONDS);
	if (c->head.expects)
		evbuffer_add_printf(bufferevent_get_output(c->io), "HTTP/1.1 100 Continue\r\n\r\n");
}

/* true when there is a head, or it was refused. */
static bool
read_head(client *c, struct evbuffer *in)
{
	const size_t n = evbuffer_get_length(in);
	const m1_slice bytes = {
		(const char *) evbuffer_pullup(in, n > GW_HTTP_MAX_HEAD ? GW_HTTP_MAX_HEAD : (ev_ssize_t) n), n};
	size_t used;
	int status;

	if (n == 0)
		return false;
	status = gw_http_read_head(bytes, &c->head, &used);
	if (status == 0 && used == 0)
		return false;
	evbuffer_drain(in, used);
	if (status == 0 && c->head.content_length > GW_HTTP_MAX_BODY)
		status = 413;
	if (status != 0)
		refuse(c, status);
	else
		take_head(c);
	return true;
}

static void
read_on(client *c)
{
	struct evbuffer *in = bufferevent_get_input(c->io);
	bool more = true;

	while (more)
	{
		if (c->state == READING_HEAD)
			more = read_head(c, in);
		else if (c->state == READING_BODY)
			more = read_body(c, in);
		else
			more = false;
	}
	if (c->state == CLOSING)
		evbuffer_drain(in, evbuffer_get_length(in));
}

/* ---- events ---- */

static void
on_read(struct bufferevent *io, void *context)
{
	client *c = context;

	(void) io;
	/* a head that has begun is not to take as long as the pause before it may */
	if (c->state == READING_HEAD && !c->begun)
	{
		c->begun = true;
		set_deadline(c, HEAD_SECONDS);
	}
	read_on(c);
}

static void
on_written(struct bufferevent *io, void *context)
{
	client *c = context;

	if (c->state == CLOSING)
		close_when_sent(c);
	else if (c->waits && evbuffer_get_length(bufferevent_get_output(io)) <= DRAINED)
	{
		c->waits = false;
		set_deadline(c, 0);
		if (c->state == ANSWERING && c->exchange.drained != NULL)
			c->exchange.drained(c->exchange.context);
	}
}

static void
on_event(struct bufferevent *io, short what, void *context)
{
	(void) io;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT))
		drop(context);
}

static void
on_deadline(evutil_socket_t fd, short what, void *context)
{
	client *c = context;

	(void) fd;
	(void) what;
	if (c->state == READING_BODY || (c->state == READING_HEAD && c->begun))
		refuse(c, 408);
	else
		drop(c);
}

static void
on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length, void *context)
{
	const struct timeval unread = {UNREAD_SECONDS, 0};
	gw_http_server *s = context;
	client *c = s->n_clients < s->gateway->options.clients ? calloc(1, sizeof *c) : NULL;
	const int yes = 1;

	(void) listener;
	(void) address;
	(void) length;
	if (c == NULL)
	{
		evutil_closesocket(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
	c->server = s;
	c->io = bufferevent_socket_new(s->gateway->base, fd, BEV_OPT_CLOSE_ON_FREE);
	c->deadline = evtimer_new(s->gateway->base, on_deadline, c);
	c->next = s->clients;
	s->clients = c;
	s->n_clients++;
	bufferevent_setcb(c->io, on_read, on_written, on_event, c);
	bufferevent_setwatermark(c->io, EV_READ, 0, 1u << 20);
	bufferevent_setwatermark(c->io, EV_WRITE, DRAINED, 0);
	bufferevent_set_timeouts(c->io, NULL, &unread);
	set_deadline(c, IDLE_SECONDS);
	bufferevent_enable(c->io, EV_READ | EV_WRITE);
}

/* ---- the server ---- */

static void
on_retry(evutil_socket_t fd, short what, void *context)
{
	(void) fd;
	(void) what;
	evconnlistener_enable(((gw_http_server *) context)->listener);
}

/* Where no file is free the client stays where it is: asking for it at once would find the same, again and again. */
static void
on_accept_error(struct evconnlistener *listener, void *context)
{
	const struct timeval after = {RETRY_SECONDS, 0};
	gw_http_server *s = context;

	if (s->told_ms == 0 || m1_now_ms() - s->told_ms > 60000)
	{
		fprintf(stderr, "minimax_m1_gateway: cannot accept a client: %s\n", strerror(errno));
		s->told_ms = m1_now_ms();
	}
	evconnlistener_disable(listener);
	evtimer_add(s->retry, &after);
}

m1_status
gw_http_listen(gw_gateway *gateway, void (*take)(gw_http_exchange *x), gw_http_server **out, m1_error *err)
{
	struct sockaddr_storage address;
	int length = sizeof address;
	gw_http_server *s;

	if (!gw_address_read(gateway->options.listen, &address, &length))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "--listen is an address and a port, as 127.0.0.1:8087, not \"%s\"",
					   gateway->options.listen);
	s = calloc(1, sizeof *s);
	if (s == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	s->gateway = gateway;
	s->take = take;
	s->loopback = gw_address_is_loopback((struct sockaddr *) &address);
	s->listener = evconnlistener_new_bind(gateway->base, on_accept, s,
										  LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_EXEC, 1024,
										  (struct sockaddr *) &address, length);
	if (s->listener == NULL)
	{
		m1_fail(err, M1_E_IO, "cannot listen on %s", gateway->options.listen);
		m1_error_detail(err, "%s", evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
		free(s);
		return M1_E_IO;
	}
	s->retry = evtimer_new(gateway->base, on_retry, s);
	evconnlistener_set_error_cb(s->listener, on_accept_error);
	s->port = gw_address_port_of(evconnlistener_get_fd(s->listener));
	*out = s;
	return M1_OK;
}

void
gw_http_close(gw_http_server *s)
{
	evconnlistener_free(s->listener);
	if (s->retry != NULL)
		event_free(s->retry);
	while (s->clients != NULL)
		drop(s->clients);
	free(s);
}

int
gw_http_port(const gw_http_server *s)
{
	return s->port;
}

bool
gw_http_is_loopback(const gw_http_server *s)
{
	return s->loopback;
}

int
gw_http_clients(const gw_http_server *s)
{
	return s->n_clients;
}
