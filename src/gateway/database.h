/*
 * database.h - statements under the rights of whoever asks, over a pool of connections that is keyed by role.
 *
 * Each statement is alone in its transaction, which is READ ONLY unless it says otherwise, and goes by the extended
 * protocol, in which a text is one statement whatever is in it. Nothing here waits: all goes on in the event loop. A
 * connection is used again only by who would be let in with the same user and password, for so long; and is reset in
 * between.
 *
 * Used by one thread, that of the loop.
 */
#ifndef M1_GATEWAY_DATABASE_H
#define M1_GATEWAY_DATABASE_H

#include <event2/event.h>

#include "gateway/failure.h"
#include "gateway/statement.h"

/* Who asks: what libpq is given. user NULL is who the connection string says. */
typedef struct gw_login
{
	const char *user;
	const char *password;
} gw_login;

/* Where tokens come from that are given in place of passwords. url NULL: they are passwords. */
typedef struct gw_issuer
{
	const char *url;   /* as the server's pg_hba.conf has it */
	const char *scope; /* that a token has to have, or NULL */
} gw_issuer;

typedef struct gw_pool gw_pool;
typedef struct gw_query gw_query;

/* What is called for a query: row for each of its rows, then end, once. */
typedef struct gw_reader
{
	void (*row)(void *context, const PGresult *result, int row);
	void (*caught_up)(void *context);					   /* all rows that have come so far have been read; or NULL */
	void (*end)(void *context, const gw_failure *failure); /* NULL: it is committed */
} gw_reader;

/* What a pool is told. The texts live as long as it. */
typedef struct gw_pool_options
{
	const char *conninfo;
	gw_issuer issuer;	 /* of all logins' passwords */
	long connections;	 /* at most */
	long login_lifetime; /* seconds for which a connection shows that its login is right; then another one has to */
} gw_pool_options;

/* M1_E_INVALID_ARGUMENT when libpq does not understand the string. The pool is freed when no query is left. */
m1_status gw_pool_open(struct event_base *base, const gw_pool_options *options, gw_pool **out, m1_error *err);
void gw_pool_close(gw_pool *pool);

/* How many connections there are, how many of them work, and how many queries wait for one. */
typedef struct gw_pool_counts
{
	int connections, busy, waiting;
} gw_pool_counts;

gw_pool_counts gw_pool_count(const gw_pool *pool);

/*
 * Runs the statement, which it takes over; nothing is called before it returns. NULL when memory runs out. The query
 * is freed behind `end`.
 */
gw_query *gw_query_start(gw_pool *pool, const gw_login *login, gw_statement *statement, const gw_reader *reader,
						 void *context);

/*
 * Nobody waits for it any more; nothing is called for it afterwards. The connection is closed, which the server notices
 * soon, whatever it is doing.
 */
void gw_query_cancel(gw_query *query);

/*
 * No more rows are wanted: called for one of them, it ends the query, as if they had all come, though nothing is
 * committed. `end` is called before it returns.
 */
void gw_query_suffice(gw_query *query);

/* Whether rows are left where they are, as the reader has nowhere to put them. */
void gw_query_pause(gw_query *query, bool paused);

/* The process that works on it; 0 before there is one. */
int gw_query_pid(const gw_query *query);

#endif
