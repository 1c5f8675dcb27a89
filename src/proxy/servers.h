/*
 * servers.h - the servers that requests go to: what each is, whether it is up, and which one is next.
 *
 * A server is asked what it is before anything goes there, again whenever it has been away, and now and then: another
 * model may have come up behind its address. One that fails is left alone for 1, 2, 4 ... 60 seconds. Belongs to the
 * thread of the calls.
 */
#ifndef M1_PROXY_SERVERS_H
#define M1_PROXY_SERVERS_H

#include "model/model.h"
#include "proxy/call.h"
#include "proxy/dialect.h"

#define M1_MAX_SERVERS 64
#define M1_MAX_URL 512
#define M1_MAX_SERVED_ADAPTERS 64 /* bits of m1_server_facts.adapters */

typedef enum m1_server_state
{
	M1_SERVER_DOWN, /* until next_try_ms; is asked then */
	M1_SERVER_UP,	/* and is asked again now and then */
} m1_server_state;

typedef struct m1_servers m1_servers;

typedef struct m1_server
{
	m1_servers *all;
	char url[M1_MAX_URL]; /* without a slash at its end */
	m1_server_state state;
	m1_server_facts facts;
	m1_server_facts learnt; /* by the questions that are open */
	int probe;				/* which of them is */
	m1_call *probe_call;	/* NULL = none is */
	double next_look_ms;	/* of one that is up */
	double failed_ms;		/* of one that is down: when it did for the last time */
	double next_try_ms;		/* and when it is asked again */
	double busy_until_ms;	/* of one that is up, and has asked not to be asked */
	double busy_said_ms;	/* in the log, the last time; 0 = never */
	int failures;			/* in a row */
	int in_flight;
	bool asked;		/* it has been up or down once */
	m1_error why;	/* it is down */
	char said[256]; /* the kind of reason that the log has; empty while it is up */
} m1_server;

typedef struct m1_servers_options
{
	const char *urls; /* with commas between */
	m1_dialect_kind dialect;
	const char *model_name; /* at the servers; "" = the first that one serves */
	const m1_model *model;	/* the texts' */
	m1_calls *calls;
	/* A server does not accept the key that calls have. */
	void (*renew_key)(void *context, const m1_server *server);
	void *renew_context;
	double patience_ms; /* with a server that is too busy for a request */
	void (*log)(void *context, const char *line);
	void *log_context;
} m1_servers_options;

struct m1_servers
{
	m1_servers_options options;
	m1_server at[M1_MAX_SERVERS];
	int n;
	int turn;
	char *adapters[M1_MAX_SERVED_ADAPTERS]; /* that some of them serve beside the model */
	int n_adapters;
	m1_ids sample; /* what all must make of M1_SAMPLE_TEXT */
	/* what requests are told of all, once it is fixed: a server that comes up must be fit for it */
	bool fixed;
	bool takes_ids;
	int context;
	bool changed; /* which are up, or what one of them is, since this was last made false */
};

/* M1_E_INVALID_ARGUMENT names an url that is none. No server is asked yet. */
m1_status m1_servers_create(const m1_servers_options *options, m1_servers **out, m1_error *err);
void m1_servers_free(m1_servers *s);

/*
 * From now on, all take ids or none does, and requests have so many tokens at most: a server that is of another kind,
 * or has a shorter context, does not come up.
 */
void m1_servers_fix(m1_servers *s, bool takes_ids, int context);

/* Asks those whose time has come. Returns in how many milliseconds the next one's comes, -1 = never. */
int m1_servers_look(m1_servers *s, double now);
/* Somebody waits for any server: those that are down are asked sooner. */
void m1_servers_hurry(m1_servers *s);

/*
 * The one with the least to do of those that are up, not busy, and have this adapter (NULL = none is needed), but not
 * `other`; NULL = there is none now.
 */
m1_server *m1_servers_choose(m1_servers *s, const char *adapter, const m1_server *other, double now);
/* Whether it is up, not busy, and has the adapter. */
bool m1_server_is_free(const m1_server *server, const char *adapter, double now);
/* Some server that has the adapter is up, though maybe busy. */
bool m1_servers_any_up(const m1_servers *s, const char *adapter);
/* Every server has said what it is, or failed to. */
bool m1_servers_all_asked(const m1_servers *s);
/* Why there is none to ask, for requests that have waited for one: the first that is down says why. */
void m1_servers_why_down(const m1_servers *s, const char *adapter, m1_error *err);

/* A call to it could not be made or was broken off: it is down. */
void m1_server_failed(m1_server *server, const char *why, double now);
/* It asks to be left alone for so many seconds; -1 = for a while. */
void m1_server_busy(m1_server *server, double seconds, double now);
/* The same, to a question: it stays up as what it was, and is asked again then. */
void m1_server_looks_busy(m1_server *server, double seconds, double now);
/* What it has answered makes it useless: it is down. hint: NULL = none. */
void m1_server_reject(m1_server *server, m1_status status, const char *why, const char *hint);
/* With this HTTP status: the same. */
void m1_server_refuses(m1_server *server, long status);
/* It is what it has told when it was asked (server->learnt), and up, if that is fit for use. */
void m1_server_came_up(m1_server *server);
/* A line "server ... WHAT: MORE" in the log. */
void m1_server_log(const m1_server *server, const char *what, const char *more);
/* It has answered a request. */
void m1_server_answered(m1_server *server);

#endif
