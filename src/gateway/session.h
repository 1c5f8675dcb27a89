/*
 * session.h - the inside of database.h: one connection at its work (session.c), and who gets which (database.c).
 */
#ifndef M1_GATEWAY_SESSION_H
#define M1_GATEWAY_SESSION_H

#include "gateway/connection.h"

typedef enum gw_connection_state
{
	GW_CONNECTING,
	GW_IDLE,
	GW_BEGINNING,
	GW_RUNNING,
	GW_ENDING,
	GW_RESETTING,
} gw_connection_state;

typedef struct gw_connection
{
	struct gw_connection *next;
	gw_pool *pool;
	PGconn *pg;
	gw_query *query; /* NULL: nobody waits for what it does */
	struct event *io;
	struct event *timer; /* while it connects, or is idle */
	gw_connection_state state;
	double ends_ms; /* no query begins later: see login_lifetime */
	bool own;		/* connected as the connection string says */
	bool used;		/* an earlier query has had it: the server may have closed it since */
	bool in_reader; /* a reader is being called: it is not freed before that returns */
	bool doomed;	/* to be closed */
} gw_connection;

struct gw_query
{
	gw_query *next; /* of those that wait */
	gw_pool *pool;
	gw_connection *connection;
	gw_login login;
	gw_statement statement;
	const gw_reader *reader;
	void *context;
	struct event *soon; /* it has failed before it could begin */
	bool has_failed;
	bool paused;
	gw_failure failure;
};

struct gw_pool
{
	struct event_base *base;
	gw_target target;
	gw_connection *connections;
	gw_query *waiting; /* the oldest first */
	int most;
	double lifetime_ms; /* of a connection */
};

/* ---- session.c ---- */

/* A new connection for the query. false when it could not be begun. */
bool gw_connect_for(gw_query *q);
/* Has the connection's query run on it. */
void gw_begin(gw_connection *c);
void gw_listen_for_results(gw_connection *c);
void gw_close_connection(gw_connection *c);

/* ---- database.c ---- */

/* Finds a connection for the query, or has it wait for one. */
void gw_place(gw_query *q);
/* A connection has become free, or gone: those who wait may go on. */
void gw_start_waiting(gw_pool *pool);
/* Tells the reader how the query ended, and frees it. */
void gw_end_query(gw_query *q);
void gw_free_query(gw_query *q);

#endif
