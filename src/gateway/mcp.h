/*
 * mcp.h - the Model Context Protocol, whatever carries its messages: requests as JSON-RPC, answered by statements.
 *
 * Both eras: revision 2026-07-28, in which each request says who asks, and those before it, which begin with
 * `initialize`. Called by mcp_stdio.c and mcp_http.c, in the event loop.
 */
#ifndef M1_GATEWAY_MCP_H
#define M1_GATEWAY_MCP_H

#include "gateway/gateway.h"
#include "text/jsonparse.h"

/* A request that is being answered. It owns the message it came in. */
typedef struct gw_mcp_call gw_mcp_call;

/* Where messages go that belong to a request. */
typedef struct gw_mcp_peer
{
	/*
	 * The response, with its status in HTTP; the call is gone. An empty message says that there is nothing to answer.
	 */
	void (*answer)(void *context, int status, m1_slice message);
	void (*notify)(void *context, m1_slice message);
	/* The request with that id is not wanted any more. */
	void (*cancel)(void *context, const m1_json *id);
	/* A client of a revision before 2026-07-28 begins; NULL where there is but one client. */
	void (*begin)(void *context);
} gw_mcp_peer;

/* What HTTP has beside the message; each NULL where it is absent. */
typedef struct gw_mcp_headers
{
	const char *version, *method, *name;
} gw_mcp_headers;

/* Whether --tools names tools, and no two tools have one name. M1_E_INVALID_ARGUMENT says which is at fault. */
m1_status gw_mcp_check_options(const gw_options *options, m1_error *err);

/*
 * Takes a message. headers is NULL where there are none. login lives as long as the call. NULL when it was answered
 * before this returned.
 */
gw_mcp_call *gw_mcp_take(gw_gateway *gateway, const gw_login *login, m1_slice message, const gw_mcp_headers *headers,
						 const gw_mcp_peer *peer, void *context);

bool gw_mcp_has_id(const gw_mcp_call *call, const m1_json *id);

/* Stops what it does, and frees it; nothing is answered. */
void gw_mcp_cancel(gw_mcp_call *call);

#endif
