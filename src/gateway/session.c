/*
 * session.c - see session.h: one connection at its work.
 *
 * It goes round: idle, BEGIN, the statement, COMMIT or ROLLBACK, DISCARD ALL. When it has lived for as long as a login
 * is taken for right, it is closed: the server judges passwords and tokens when a session begins, and not again.
 */
#include "gateway/session.h"

#include <stdlib.h>

#include "base/clock.h"

#define IDLE_SECONDS 60
#define CONNECT_SECONDS 15

/* ---- connections ---- */

void
gw_close_connection(gw_connection *c)
{
	gw_pool *pool = c->pool;

	if (c->in_reader)
	{
		c->doomed = true;
		return;
	}
	for (gw_connection **at = &pool->connections; *at != NULL; at = &(*at)->next)
		if (*at == c)
		{
			*at = c->next;
			break;
		}
	if (c->io != NULL)
		event_free(c->io);
	if (c->timer != NULL)
		event_free(c->timer);
	PQfinish(c->pg);
	free(c);
}

static void
set_timer(gw_connection *c, double ms)
{
	const struct timeval after = {(time_t) (ms / 1000), (suseconds_t) ((long) ms % 1000 * 1000)};

	if (ms > 0)
		evtimer_add(c->timer, &after);
	else
		evtimer_del(c->timer);
}

static void on_io(evutil_socket_t fd, short what, void *context);

/* libpq may go on with another socket, while it connects. */
static void
listen_for(gw_connection *c, short what)
{
	if (c->io == NULL)
		c->io = event_new(c->pool->base, PQsocket(c->pg), what, on_io, c);
	else
	{
		event_del(c->io);
		event_assign(c->io, c->pool->base, PQsocket(c->pg), what, on_io, c);
	}
	if (c->io != NULL)
		event_add(c->io, NULL);
}

void
gw_listen_for_results(gw_connection *c)
{
	const bool paused = c->query != NULL && c->query->paused;
	const short writing = PQflush(c->pg) == 1 ? EV_WRITE : 0;

	if (paused && !writing && c->io != NULL)
		event_del(c->io);
	else
		listen_for(c, (short) ((paused ? 0 : EV_READ) | writing | EV_PERSIST));
}

/*
 * The connection is of no use any more. A query that it had not begun, because the server closed it while it was idle,
 * gets another one.
 */
static void
lose_connection(gw_connection *c)
{
	gw_query *q = c->query;
	const bool again = q != NULL && c->used && c->state == GW_BEGINNING;
	gw_pool *pool = c->pool;

	if (q != NULL && !again && !q->has_failed)
	{
		q->has_failed = true;
		gw_failure_of_connection(&q->failure, c->pg);
	}
	c->query = NULL;
	gw_close_connection(c);
	if (again)
	{
		q->connection = NULL;
		q->has_failed = false;
		gw_place(q);
	}
	else if (q != NULL)
		gw_end_query(q);
	gw_start_waiting(pool);
}

static void
send_command(gw_connection *c, const char *sql, gw_connection_state state)
{
	c->state = state;
	if (!PQsendQueryParams(c->pg, sql, 0, NULL, NULL, NULL, NULL, 0))
		lose_connection(c);
	else
		gw_listen_for_results(c);
}

void
gw_begin(gw_connection *c)
{
	set_timer(c, 0);
	send_command(c, c->query->statement.writes ? "BEGIN READ WRITE" : "BEGIN READ ONLY", GW_BEGINNING);
}

static void
run(gw_connection *c)
{
	gw_statement *s = &c->query->statement;
	const char *values[GW_MAX_PARAMETERS];

	for (int i = 0; i < s->n_values; i++)
		values[i] = s->values[i].data;
	c->state = GW_RUNNING;
	if (!PQsendQueryParams(c->pg, s->sql.data, s->n_values, NULL, values, NULL, NULL, 0) ||
		(s->by_row && !PQsetSingleRowMode(c->pg)))
	{
		lose_connection(c);
		return;
	}
	/* libpq has its own copy: prompts are not kept for as long as they are answered */
	gw_statement_free(s);
	gw_listen_for_results(c);
}

static void
give_back(gw_connection *c)
{
	const double left_ms = c->ends_ms - m1_now_ms();
	gw_pool *pool = c->pool;

	if (left_ms < 1)
		gw_close_connection(c);
	else
	{
		c->used = true;
		c->state = GW_IDLE;
		set_timer(c, left_ms < 1000 * IDLE_SECONDS ? left_ms : 1000 * IDLE_SECONDS);
		gw_listen_for_results(c);
	}
	gw_start_waiting(pool);
}

/* ---- results ---- */

static void
read_rows(gw_connection *c, const PGresult *result)
{
	c->in_reader = true;
	for (int row = 0; row < PQntuples(result) && c->query != NULL; row++)
		c->query->reader->row(c->query->context, result, row);
	c->in_reader = false;
}

/* There are no more rows for now. */
static void
tell_caught_up(gw_connection *c)
{
	if (c->query == NULL || c->query->reader->caught_up == NULL)
		return;
	c->in_reader = true;
	c->query->reader->caught_up(c->query->context);
	c->in_reader = false;
}

static void
read_result(gw_connection *c, const PGresult *result)
{
	switch (PQresultStatus(result))
	{
		case PGRES_SINGLE_TUPLE:
		case PGRES_TUPLES_OK:
			if (c->state == GW_RUNNING)
				read_rows(c, result);
			break;
		case PGRES_COMMAND_OK:
			break;
		default:
			if (c->query != NULL && !c->query->has_failed)
			{
				c->query->has_failed = true;
				gw_failure_of_result(&c->query->failure, result);
			}
			break;
	}
}

/* Lets the query go and goes on without it. */
static void
finish_query(gw_connection *c)
{
	gw_query *q = c->query;

	c->query = NULL;
	if (q == NULL)
		return;
	c->in_reader = true;
	gw_end_query(q);
	c->in_reader = false;
}

/* A command has come to its end: what follows. */
static void
go_on(gw_connection *c)
{
	const bool failed = c->query != NULL && c->query->has_failed;

	switch (c->state)
	{
		case GW_BEGINNING:
			if (!failed)
				run(c);
			else
			{
				finish_query(c);
				gw_close_connection(c);
			}
			break;
		case GW_RUNNING:
			if (failed)
				finish_query(c);
			send_command(c, failed ? "ROLLBACK" : "COMMIT", GW_ENDING);
			break;
		case GW_ENDING:
			finish_query(c);
			send_command(c, "DISCARD ALL", GW_RESETTING);
			break;
		default:
			give_back(c);
			break;
	}
}

static bool
is_live(const gw_pool *pool, const gw_connection *c)
{
	for (const gw_connection *each = pool->connections; each != NULL; each = each->next)
		if (each == c)
			return true;
	return false;
}

/* Takes what has come, as long as the connection lives. */
static void
pump(gw_connection *c)
{
	gw_pool *pool = c->pool;

	while (is_live(pool, c) && c->state != GW_IDLE)
	{
		PGresult *result;

		if (c->doomed || PQstatus(c->pg) == CONNECTION_BAD)
		{
			lose_connection(c);
			return;
		}
		if ((c->query != NULL && c->query->paused) || PQisBusy(c->pg))
		{
			tell_caught_up(c);
			return;
		}
		result = PQgetResult(c->pg);
		if (result == NULL)
			go_on(c);
		else
		{
			read_result(c, result);
			PQclear(result);
		}
	}
}

/* ---- connecting ---- */

static void
connected(gw_connection *c)
{
	gw_query *q = c->query;

	/* who was waiting for it has gone */
	if (q == NULL)
	{
		gw_close_connection(c);
		return;
	}
	if (!gw_is_proven(&c->pool->target, c->pg, &q->login, &q->failure))
	{
		q->has_failed = true;
		lose_connection(c);
		return;
	}
	PQsetErrorVerbosity(c->pg, PQERRORS_DEFAULT);
	if (PQsetnonblocking(c->pg, 1) != 0)
		lose_connection(c);
	else
		gw_begin(c);
}

static void
go_on_connecting(gw_connection *c)
{
	switch (PQconnectPoll(c->pg))
	{
		case PGRES_POLLING_READING:
			listen_for(c, EV_READ);
			break;
		case PGRES_POLLING_WRITING:
			listen_for(c, EV_WRITE);
			break;
		case PGRES_POLLING_OK:
			connected(c);
			break;
		default:
			lose_connection(c);
			break;
	}
}

static void
on_io(evutil_socket_t fd, short what, void *context)
{
	gw_connection *c = context;

	(void) fd;
	if (c->state == GW_CONNECTING)
	{
		go_on_connecting(c);
		return;
	}
	if (((what & EV_READ) && !PQconsumeInput(c->pg)) || PQflush(c->pg) < 0 || PQstatus(c->pg) == CONNECTION_BAD)
	{
		/* what has come before the end tells why */
		for (PGresult *result; c->state != GW_IDLE && !PQisBusy(c->pg) && (result = PQgetResult(c->pg)) != NULL;
			 PQclear(result))
			if (PQresultStatus(result) == PGRES_FATAL_ERROR)
				read_result(c, result);
		lose_connection(c);
		return;
	}
	if ((what & EV_WRITE) != 0)
		gw_listen_for_results(c);
	pump(c);
}

/* It has taken too long to connect, or been idle for long enough, or lived. */
static void
on_timer(evutil_socket_t fd, short what, void *context)
{
	gw_connection *c = context;

	(void) fd;
	(void) what;
	if (c->state == GW_CONNECTING && c->query != NULL)
	{
		c->query->has_failed = true;
		gw_failure_set(&c->query->failure, "08001", "the server does not answer", NULL, NULL);
	}
	lose_connection(c);
}

bool
gw_connect_for(gw_query *q)
{
	gw_pool *pool = q->pool;
	gw_connection *c = calloc(1, sizeof *c);

	if (c == NULL)
		return false;
	c->pool = pool;
	c->pg = gw_connect_start(&pool->target, &q->login);
	c->timer = evtimer_new(pool->base, on_timer, c);
	c->own = q->login.user == NULL;
	c->ends_ms = m1_now_ms() + pool->lifetime_ms;
	c->next = pool->connections;
	pool->connections = c;
	if (c->pg == NULL || c->timer == NULL || PQstatus(c->pg) == CONNECTION_BAD)
	{
		if (c->pg != NULL)
			gw_failure_of_connection(&q->failure, c->pg);
		gw_close_connection(c);
		return false;
	}
	c->query = q;
	q->connection = c;
	set_timer(c, 1000 * CONNECT_SECONDS);
	listen_for(c, EV_WRITE);
	return true;
}
