/*
 * gateway.h - what the faces share: options of the command line, the event loop and the pool.
 */
#ifndef M1_GATEWAY_GATEWAY_H
#define M1_GATEWAY_GATEWAY_H

#include "gateway/database.h"

#define GW_VERSION "0.3"
#define GW_MAX_FUNCTIONS 64
#define GW_MAX_ORIGINS 16

typedef enum gw_auth
{
	GW_AUTH_PASSWORD, /* a request's credentials are those of its database role */
	GW_AUTH_OAUTH,	  /* or a token, that the database server judges */
	GW_AUTH_FIXED,	  /* all requests have the role of the connection string */
} gw_auth;

typedef struct gw_options
{
	gw_pool_options pool;
	bool http;
	const char *listen; /* ADDRESS:PORT */
	gw_auth auth;
	const char *role_claim;				 /* of a token, that names its role */
	const char *resource;				 /* our address, as clients know it; NULL: where we listen */
	const char *origins[GW_MAX_ORIGINS]; /* that pages may have, beside our own */
	int n_origins;
	const char *tools;				   /* names, separated by commas; NULL: all */
	char *functions[GW_MAX_FUNCTIONS]; /* as schema.name, each a tool */
	int n_functions;
	bool write; /* such functions may be VOLATILE */
	long max_rows;
	long max_result_tokens;
	long clients; /* connections to us */
} gw_options;

typedef struct gw_gateway
{
	gw_options options;
	struct event_base *base;
	gw_pool *pool;
	/* NULL on stdio */
	struct gw_http_server *http;
	struct gw_health *health;		   /* of health.c, when somebody has asked */
	struct gw_mcp_exchange *exchanges; /* of mcp_http.c: those that are being answered */
} gw_gateway;

/*
 * The command line: sets *help, or returns M1_E_INVALID_ARGUMENT. What options point to is argv, and lives as long as
 * the process.
 */
m1_status gw_options_read(int argc, char **argv, gw_options *options, bool *help, m1_error *err);
void gw_options_print(void);

/* The faces. Each returns when it has come to its end: the status of the process. */
int gw_stdio_serve(gw_gateway *gateway);
int gw_http_serve(gw_gateway *gateway);

#endif
