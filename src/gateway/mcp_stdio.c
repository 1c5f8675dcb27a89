/*
 * mcp_stdio.c - MCP on stdin and stdout: a message a line; see gateway.h.
 *
 * Requests are answered side by side, each on a connection of its own. At the end of stdin those that have come are
 * still answered, as long as somebody holds the other end of stdout; then the process ends.
 */
#define _DEFAULT_SOURCE /* S_ISSOCK */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/jsonform.h"
#include "gateway/mcp_call.h"

#define MAX_LINE (64u << 20)
#define READ_SIZE 65536
#define MAX_UNREAD (1u << 20) /* of output, before more input is read */

typedef struct server server;

typedef struct entry
{
	struct entry *next;
	server *server;
	gw_mcp_call *call;
} entry;

struct server
{
	gw_gateway *gateway;
	struct event *in, *out;
	struct event *look; /* at stdout, when stdin has ended */
	m1_buf input, output;
	entry *entries; /* requests that are being answered */
	bool too_long;	/* the rest of the line is passed over */
	bool ended;		/* stdin is */
};

static const gw_login own = {NULL, NULL};

static void
leave(server *s)
{
	event_base_loopbreak(s->gateway->base);
}

static void
leave_if_done(server *s)
{
	if (s->ended && s->entries == NULL && s->output.len == 0)
		leave(s);
}

/* ---- output ---- */

static void
on_writable(evutil_socket_t fd, short what, void *context)
{
	server *s = context;
	ssize_t n;

	(void) what;
	if (s->output.len > 0)
	{
		n = write(fd, s->output.data, s->output.len);
		if (n > 0)
			m1_buf_consume(&s->output, (size_t) n);
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
		{
			leave(s);
			return;
		}
	}
	if (s->output.len > 0)
		event_add(s->out, NULL);
	else
	{
		if (!s->ended)
			event_add(s->in, NULL);
		leave_if_done(s);
	}
}

static void
send_line(server *s, m1_slice message)
{
	if (!m1_buf_append(&s->output, message.data, message.len) || !m1_buf_puts(&s->output, "\n"))
		leave(s);
	else
	{
		event_add(s->out, NULL);
		if (s->output.len > MAX_UNREAD)
			event_del(s->in);
	}
}

/* ---- requests ---- */

static void
remove_entry(entry *e)
{
	for (entry **at = &e->server->entries; *at != NULL; at = &(*at)->next)
		if (*at == e)
		{
			*at = e->next;
			break;
		}
	free(e);
}

static void
on_answer(void *context, int status, m1_slice message)
{
	entry *e = context;
	server *s = e->server;

	(void) status;
	if (message.len > 0)
		send_line(s, message);
	remove_entry(e);
	leave_if_done(s);
}

static void
on_notify(void *context, m1_slice message)
{
	send_line(((entry *) context)->server, message);
}

static void
on_cancel(void *context, const m1_json *id)
{
	server *s = ((entry *) context)->server;

	for (entry *e = s->entries; e != NULL; e = e->next)
		if (e->call != NULL && gw_mcp_has_id(e->call, id))
		{
			gw_mcp_cancel(e->call);
			remove_entry(e);
			return;
		}
}

static void
take_line(server *s, m1_slice line)
{
	static const gw_mcp_peer peer = {on_answer, on_notify, on_cancel, NULL};
	entry *e;
	gw_mcp_call *call;

	if (line.len > 0 && line.data[line.len - 1] == '\r')
		line.len--;
	if (line.len == 0)
		return;
	e = calloc(1, sizeof *e);
	if (e == NULL)
	{
		leave(s);
		return;
	}
	e->server = s;
	e->next = s->entries;
	s->entries = e;
	call = gw_mcp_take(s->gateway, &own, line, NULL, &peer, e);
	if (call != NULL)
		e->call = call;
}

/* ---- input ---- */

/* Of a line that is too long nobody knows the id. */
static void
refuse_line(server *s)
{
	m1_buf out = {0};

	gw_json(&out, "{'jsonrpc':'2.0','id':null,'error':{'code':%d,'message':'a line has more than %d bytes'}}",
			(int64_t) MCP_INVALID_REQUEST, (int64_t) MAX_LINE);
	send_line(s, (m1_slice){out.data, out.len});
	m1_buf_free(&out);
	s->too_long = true;
}

static void
take_input(server *s)
{
	char *end;

	while ((end = s->input.len == 0 ? NULL : memchr(s->input.data, '\n', s->input.len)) != NULL)
	{
		const size_t n = (size_t) (end - s->input.data);

		if (!s->too_long)
			take_line(s, (m1_slice){s->input.data, n});
		s->too_long = false;
		m1_buf_consume(&s->input, n + 1);
	}
	if (s->input.len > MAX_LINE)
		refuse_line(s);
	if (s->too_long || s->input.len == 0)
		m1_buf_free(&s->input);
}

static void
on_readable(evutil_socket_t fd, short what, void *context)
{
	server *s = context;
	ssize_t n;

	(void) what;
	if (!m1_buf_reserve(&s->input, READ_SIZE))
	{
		leave(s);
		return;
	}
	n = read(fd, s->input.data + s->input.len, READ_SIZE);
	if (n > 0)
	{
		s->input.len += (size_t) n;
		take_input(s);
	}
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
	{
		if (s->input.len > 0 && !s->too_long)
			take_line(s, (m1_slice){s->input.data, s->input.len});
		event_del(s->in);
		s->ended = true;
		event_active(s->look, EV_TIMEOUT, 0);
		leave_if_done(s);
	}
}

/* A write to a pipe waits for no reader; whatever else stdout is shared with stays as it is. */
static void
make_nonblocking(int fd)
{
	struct stat st;

	if (fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		evutil_make_socket_nonblocking(fd);
}

/* Whoever read the answers may have gone, too: the pipe says so, even while nothing is written. */
static void
on_look(evutil_socket_t fd, short what, void *context)
{
	const struct timeval after = {0, 500000};
	struct pollfd out = {.fd = STDOUT_FILENO};
	server *s = context;

	(void) fd;
	(void) what;
	if (poll(&out, 1, 0) > 0 && (out.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0)
		leave(s);
	else
		evtimer_add(s->look, &after);
}

int
gw_stdio_serve(gw_gateway *gateway)
{
	server s = {.gateway = gateway};
	int status = 1;

	make_nonblocking(STDOUT_FILENO);
	s.in = event_new(gateway->base, STDIN_FILENO, EV_READ | EV_PERSIST, on_readable, &s);
	s.out = event_new(gateway->base, STDOUT_FILENO, EV_WRITE, on_writable, &s);
	s.look = evtimer_new(gateway->base, on_look, &s);
	if (s.in != NULL && s.out != NULL && s.look != NULL && event_add(s.in, NULL) == 0)
	{
		event_base_dispatch(gateway->base);
		status = 0;
	}
	while (s.entries != NULL)
	{
		gw_mcp_cancel(s.entries->call);
		remove_entry(s.entries);
	}
	if (s.in != NULL)
		event_free(s.in);
	if (s.out != NULL)
		event_free(s.out);
	if (s.look != NULL)
		event_free(s.look);
	m1_buf_free(&s.input);
	m1_buf_free(&s.output);
	return status;
}
