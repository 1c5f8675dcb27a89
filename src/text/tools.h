/*
 * tools.h - definitions of tools, as conversations offer them: an object of name, description and parameters, by itself
 * or inside {"type": "function", "function": ...}. Called by chat.c, which shows them to the model, and by
 * grammar/tool_calls.c, which holds calls to them.
 */
#ifndef M1_TEXT_TOOLS_H
#define M1_TEXT_TOOLS_H

#include "text/jsonparse.h"

#define M1_TOOLS_MAX_BYTES ((size_t) 1 << 20)

typedef struct m1_tool
{
	const m1_json *definition;
	m1_slice name;
	const m1_json *parameters; /* the schema of its arguments, or NULL */
} m1_tool;

/* Parses an array of definitions. M1_E_UNSUPPORTED when it is too long. On failure *doc is empty. */
m1_status m1_tools_parse(m1_slice json, m1_work *work, m1_json_doc *doc, m1_error *err);
/* Definition i of them. M1_E_INVALID_ARGUMENT with its place ("tools[2]"). */
m1_status m1_tool_read(const m1_json *definition, size_t i, m1_tool *tool, m1_error *err);

#endif
