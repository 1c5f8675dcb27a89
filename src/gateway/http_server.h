/*
 * http_server.h - an HTTP/1.1 server: connections, exchanges on them, and what bounds both.
 *
 * An exchange is a request and its answer, at once or as a stream. Its head is taken first: answered, or given a
 * handler, who is called when the body has been read whole. It is freed behind its end, or when the client goes, of
 * which the handler is told by `closed`. Used in the event loop.
 */
#ifndef M1_GATEWAY_HTTP_SERVER_H
#define M1_GATEWAY_HTTP_SERVER_H

#include "gateway/gateway.h"
#include "gateway/http_parse.h"

#define GW_HTTP_MAX_BODY (64u << 20)

typedef struct gw_http_exchange gw_http_exchange;

struct gw_http_exchange
{
	gw_gateway *gateway;
	const gw_http_head *head;
	void (*handle)(gw_http_exchange *x); /* set by who takes the head */
	m1_slice body;						 /* for the handler */
	gw_login login;

	/* The handler's. */
	void *context;
	void (*closed)(void *context);	/* the client has gone: stop, and forget the exchange */
	void (*drained)(void *context); /* what was unsent is on its way, for who waited for that; or NULL */
};

/*
 * Listens, and has `take` look at the head of what comes: it answers, or sets the exchange's handle.
 * M1_E_INVALID_ARGUMENT where the address is none, or M1_E_IO.
 */
typedef struct gw_http_server gw_http_server;

m1_status gw_http_listen(gw_gateway *gateway, void (*take)(gw_http_exchange *x), gw_http_server **out, m1_error *err);
void gw_http_close(gw_http_server *server);
int gw_http_port(const gw_http_server *server);
bool gw_http_is_loopback(const gw_http_server *server);
int gw_http_clients(const gw_http_server *server);

/* A field of the answer; before it begins. */
void gw_http_add_field(gw_http_exchange *x, const char *name, const char *value);

/* All of the answer. */
void gw_http_reply(gw_http_exchange *x, int status, const char *type, m1_slice body);

/* An answer piece by piece. */
void gw_http_begin(gw_http_exchange *x, int status, const char *type);
void gw_http_write(gw_http_exchange *x, m1_slice piece);
void gw_http_end(gw_http_exchange *x);

/* More is waiting to be sent than a client should leave unread: `drained` will be called. */
bool gw_http_is_full(const gw_http_exchange *x);

#endif
