/*
 * mcp_call.h - what the files of MCP share: a call, and how it ends.
 */
#ifndef M1_GATEWAY_MCP_CALL_H
#define M1_GATEWAY_MCP_CALL_H

#include "gateway/mcp.h"

#define MCP_INVALID_REQUEST (-32600)
#define MCP_UNKNOWN_METHOD (-32601)
#define MCP_INVALID_PARAMS (-32602)
#define MCP_INTERNAL (-32603)
#define MCP_PARSE_ERROR (-32700)
#define MCP_HEADER_MISMATCH (-32020)
#define MCP_UNSUPPORTED_VERSION (-32022)

#define MCP_NEWEST "2026-07-28"
#define MCP_NEWEST_LEGACY "2025-11-25"

/* How far the work is, for who asked to be told. */
typedef struct mcp_progress
{
	const m1_json *token; /* NULL: nobody */
	struct event *timer;
	gw_query *query;
	int64_t told; /* tokens */
} mcp_progress;

typedef struct mcp_tool mcp_tool;

/* What the catalog says of an SQL function that is called. */
typedef struct mcp_function
{
	bool found, writes, is_set;
	bool is_bare; /* it is called without arguments */
} mcp_function;

struct gw_mcp_call
{
	gw_gateway *gateway;
	const gw_login *login;
	const gw_mcp_peer *peer;
	void *context;
	m1_json_doc doc;
	const m1_json *id, *params;
	bool modern;

	gw_query *query;
	const mcp_tool *tool;
	const char *uri; /* of the resource that is read */
	int64_t offset;	 /* of the first row, or byte */
	m1_buf text;	 /* what rows have brought so far */
	int64_t n_rows;
	bool cut; /* there is more than fits */
	mcp_function function;
	m1_buf sought; /* an argument that it does not have */
	mcp_progress progress;
};

/*
 * The end of a call, which is freed: members of its result, or an error of the protocol. `data` are JSON, or empty.
 * They are written without braces.
 */
void mcp_succeed(gw_mcp_call *call, m1_slice members);
void mcp_refuse(gw_mcp_call *call, int code, int status, const char *message, m1_slice data);

/* An error of the protocol for what the database says: 401 over HTTP where it lets nobody in who asks. */
void mcp_fail(gw_mcp_call *call, const gw_failure *failure);

/* The statement is run for the call; where that cannot be, the call ends. */
void mcp_run(gw_mcp_call *call, gw_statement *statement, const gw_reader *reader);

/* How many bytes a result may have. */
size_t mcp_room(const gw_mcp_call *call);

/* The results of tools/call: a text, with structuredContent if that is JSON, and whether it tells a failure. */
void mcp_give_text(gw_mcp_call *call, m1_slice text, m1_slice structured, bool is_error);
void mcp_give_failure(gw_mcp_call *call, const gw_failure *failure);

#define MCP_LINE_SIZE 25 /* models read it, digit by digit */

/* Appends data between two lines that nobody can foresee, and says that they are data. */
void mcp_fence(m1_buf *out, m1_slice data, const char *what);

/* Of a reader: a row, whose one column is JSON, to call->text; or the end of it where that is full. */
void mcp_take_row(void *context, const PGresult *result, int row);

/* Two lists without an answer from the database, and two of its calls. */
void mcp_list_tools(gw_mcp_call *call);
void mcp_call_tool(gw_mcp_call *call);
void mcp_list_resources(gw_mcp_call *call);
void mcp_read_resource(gw_mcp_call *call);

/* Tells the peer how far it is, from now on until the call ends. */
void mcp_watch(gw_mcp_call *call);
void mcp_unwatch(gw_mcp_call *call);

#endif
