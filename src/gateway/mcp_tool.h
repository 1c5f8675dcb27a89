/*
 * mcp_tool.h - what a tool is: its parameters, from which its schema and its statement are made.
 */
#ifndef M1_GATEWAY_MCP_TOOL_H
#define M1_GATEWAY_MCP_TOOL_H

#include "gateway/mcp_call.h"

typedef enum mcp_kind
{
	MCP_TEXT,
	MCP_WHOLE,
	MCP_NUMBER,
	MCP_BOOLEAN,
	MCP_TEXTS,	/* an array of strings */
	MCP_OBJECT, /* JSON, as it is written */
} mcp_kind;

typedef struct mcp_parameter
{
	const char *name;
	mcp_kind kind;
	const char *type; /* in SQL; NULL where the tool makes something else of it */
	bool required;
	const char *argument;	 /* its name in SQL; NULL: the same */
	const char *description; /* or NULL */
} mcp_parameter;

#define MCP_MAX_PARAMETERS 9

struct mcp_tool
{
	const char *name;
	const char *description;
	mcp_parameter parameters[MCP_MAX_PARAMETERS]; /* up to one without a name */
	const char *before, *behind;				  /* of the arguments, in SQL */
	/* Makes the statement where it is no call of a function. false: *failure says why. */
	bool (*make)(gw_mcp_call *call, const m1_json *arguments, gw_statement *statement, gw_failure *failure);
	void (*finish)(gw_mcp_call *call); /* makes the result of call->text; NULL: that is the result */
	bool writes;
	bool rows;		 /* each row is an element of an array */
	bool structured; /* what comes is JSON */
};

extern const mcp_tool mcp_tools[];
extern const size_t mcp_n_tools;

/* Whether the command line has this tool. */
bool mcp_has_tool(const gw_gateway *gateway, const mcp_tool *tool);

/* The tools that are not functions of the database's own. */
const mcp_tool *mcp_find_tool(const gw_gateway *gateway, const m1_json *name);

/* Appends what tools/list says of a tool. */
void mcp_put_tool(m1_buf *out, const mcp_tool *tool);

/* Checks names and kinds of arguments. */
bool mcp_check_arguments(const mcp_tool *tool, const m1_json *arguments, gw_failure *failure);

/* Adds those that have a type to a function call. */
void mcp_add_arguments(const mcp_tool *tool, const m1_json *arguments, gw_statement *statement);

/* Functions of the database's own, as --functions lists them. */
void mcp_list_functions(gw_mcp_call *call);
void mcp_call_function(gw_mcp_call *call);

/* What several tools read by. */
extern const gw_reader mcp_tool_reader;
bool mcp_make_ask_rows(gw_mcp_call *call, const m1_json *arguments, gw_statement *statement, gw_failure *failure);
bool mcp_make_extract(gw_mcp_call *call, const m1_json *arguments, gw_statement *statement, gw_failure *failure);
bool mcp_make_job(gw_mcp_call *call, const m1_json *arguments, gw_statement *statement, gw_failure *failure);

#endif
