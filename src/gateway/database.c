/*
 * database.c - see database.h: queries, and which connection each gets.
 *
 * What a query waits for is a connection of its login; where there are as many as there may be, an idle one of another
 * login makes room.
 */
#define _DEFAULT_SOURCE /* strdup, explicit_bzero */
#include "gateway/database.h"

#include <stdlib.h>
#include <string.h>

#include "gateway/session.h"

#define MAX_WAITING 1000

/* ---- queries ---- */

void
gw_free_query(gw_query *q)
{
	if (q->soon != NULL)
		event_free(q->soon);
	if (q->login.password != NULL)
		explicit_bzero((char *) q->login.password, strlen(q->login.password));
	free((char *) q->login.user);
	free((char *) q->login.password);
	gw_statement_free(&q->statement);
	free(q);
}

/* Tells how it ended. The reader may start another query meanwhile. */
void
gw_end_query(gw_query *q)
{
	q->reader->end(q->context, q->has_failed ? &q->failure : NULL);
	gw_free_query(q);
}

static void
on_soon(evutil_socket_t fd, short what, void *context)
{
	(void) fd;
	(void) what;
	gw_end_query(context);
}

/* Nothing is called for a query before gw_query_start has returned. */
static void
fail_soon(gw_query *q)
{
	const struct timeval now = {0, 0};

	q->has_failed = true;
	q->connection = NULL;
	q->soon = evtimer_new(q->pool->base, on_soon, q);
	if (q->soon != NULL)
		evtimer_add(q->soon, &now);
}

static void
unlink_waiting(gw_query *q)
{
	for (gw_query **at = &q->pool->waiting; *at != NULL; at = &(*at)->next)
		if (*at == q)
		{
			*at = q->next;
			return;
		}
}

static void
append_waiting(gw_query *q)
{
	gw_query **at = &q->pool->waiting;

	while (*at != NULL)
		at = &(*at)->next;
	q->next = NULL;
	*at = q;
}

/* ---- the pool ---- */

gw_pool_counts
gw_pool_count(const gw_pool *pool)
{
	gw_pool_counts counts = {0};

	for (const gw_connection *c = pool->connections; c != NULL; c = c->next)
	{
		counts.connections++;
		counts.busy += c->state != GW_IDLE;
	}
	for (const gw_query *q = pool->waiting; q != NULL; q = q->next)
		counts.waiting++;
	return counts;
}

static gw_connection *
find_idle(const gw_pool *pool, const gw_login *login)
{
	for (gw_connection *c = pool->connections; c != NULL; c = c->next)
		if (c->state == GW_IDLE && (login == NULL || gw_is_of(c->pg, c->own, login)))
			return c;
	return NULL;
}

/* A role has three quarters of the connections at most: there is always one for others, where there are two. */
static bool
has_share(const gw_pool *pool, const gw_login *login)
{
	const int others = pool->most < 4 ? pool->most > 1 : pool->most / 4;
	int busy = 0;

	for (const gw_connection *c = pool->connections; login->user != NULL && c != NULL; c = c->next)
		busy += c->state != GW_IDLE && !c->own && strcmp(PQuser(c->pg), login->user) == 0;
	return busy < pool->most - others;
}

static bool
has_room(const gw_query *q)
{
	const gw_pool *pool = q->pool;

	return has_share(pool, &q->login) &&
		   (gw_pool_count(pool).connections < pool->most || find_idle(pool, NULL) != NULL);
}

/* Gives the query a connection, for which there is room: one of its login, or a new one, perhaps in another's place. */
static void
give_connection(gw_query *q)
{
	gw_pool *pool = q->pool;
	gw_connection *c = find_idle(pool, &q->login);

	if (c != NULL)
	{
		c->query = q;
		q->connection = c;
		gw_begin(c);
		return;
	}
	if (gw_pool_count(pool).connections >= pool->most)
		gw_close_connection(find_idle(pool, NULL));
	if (gw_connect_for(q))
		return;
	if (q->failure.sqlstate[0] == '\0')
		gw_failure_set(&q->failure, "53200", "out of memory", NULL, NULL);
	fail_soon(q);
}

void
gw_place(gw_query *q)
{
	if (has_room(q))
		give_connection(q);
	else if (gw_pool_count(q->pool).waiting < MAX_WAITING)
		append_waiting(q);
	else
	{
		gw_failure_set(&q->failure, "53300", "too many requests wait for a connection", NULL, "Try again later.");
		fail_soon(q);
	}
}

/* The oldest of those for whom there is room. */
static gw_query *
next_waiting(const gw_pool *pool)
{
	gw_query *q = pool->waiting;

	while (q != NULL && !has_room(q))
		q = q->next;
	return q;
}

void
gw_start_waiting(gw_pool *pool)
{
	gw_query *q;

	while ((q = next_waiting(pool)) != NULL)
	{
		unlink_waiting(q);
		give_connection(q);
	}
}

m1_status
gw_pool_open(struct event_base *base, const gw_pool_options *options, gw_pool **out, m1_error *err)
{
	gw_pool *pool = calloc(1, sizeof *pool);
	m1_status status;

	if (pool == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	pool->base = base;
	pool->most = (int) options->connections;
	pool->lifetime_ms = 1000.0 * (double) options->login_lifetime;
	status = gw_target_read(options->conninfo, &pool->target, err);
	pool->target.issuer = options->issuer;
	if (status == M1_OK)
		*out = pool;
	else
		free(pool);
	return status;
}

void
gw_pool_close(gw_pool *pool)
{
	while (pool->connections != NULL)
	{
		if (pool->connections->query != NULL)
			gw_free_query(pool->connections->query);
		gw_close_connection(pool->connections);
	}
	while (pool->waiting != NULL)
	{
		gw_query *q = pool->waiting;

		pool->waiting = q->next;
		gw_free_query(q);
	}
	gw_target_free(&pool->target);
	free(pool);
}

/* ---- for those who ask ---- */

gw_query *
gw_query_start(gw_pool *pool, const gw_login *login, gw_statement *statement, const gw_reader *reader, void *context)
{
	gw_query *q = calloc(1, sizeof *q);

	if (q != NULL)
	{
		q->pool = pool;
		q->reader = reader;
		q->context = context;
		q->statement = *statement;
		memset(statement, 0, sizeof *statement);
		if (login->user != NULL)
		{
			q->login.user = strdup(login->user);
			q->login.password = strdup(login->password);
		}
	}
	else
		gw_statement_free(statement);
	if (q == NULL || !gw_statement_finish(&q->statement) ||
		(login->user != NULL && (q->login.user == NULL || q->login.password == NULL)))
	{
		if (q != NULL)
			gw_free_query(q);
		return NULL;
	}
	gw_place(q);
	return q;
}

void
gw_query_cancel(gw_query *q)
{
	gw_connection *c = q->connection;
	gw_pool *pool = q->pool;

	if (c == NULL)
		unlink_waiting(q);
	gw_free_query(q);
	if (c == NULL)
		return;
	c->query = NULL;
	gw_close_connection(c);
	gw_start_waiting(pool);
}

void
gw_query_suffice(gw_query *q)
{
	gw_connection *c = q->connection;

	c->query = NULL;
	gw_close_connection(c);
	gw_end_query(q);
}

void
gw_query_pause(gw_query *q, bool paused)
{
	if (q->paused == paused)
		return;
	q->paused = paused;
	if (q->connection == NULL || q->connection->state == GW_CONNECTING)
		return;
	gw_listen_for_results(q->connection);
	/* what libpq has read already comes with no event of the socket */
	if (!paused)
		event_active(q->connection->io, EV_READ, 0);
}

int
gw_query_pid(const gw_query *q)
{
	return q->connection == NULL || q->connection->state == GW_CONNECTING ? 0 : PQbackendPID(q->connection->pg);
}
