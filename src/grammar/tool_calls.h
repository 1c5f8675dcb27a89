/*
 * tool_calls.h - tool calls as a constraint: which tools a reply may or must call, and what its calls look like. For
 * constraint.c.
 */
#ifndef M1_GRAMMAR_TOOL_CALLS_H
#define M1_GRAMMAR_TOOL_CALLS_H

#include "grammar/nfa.h"

#define M1_MAX_CALLS 32 /* of one reply */

typedef enum m1_calls
{
	M1_CALLS_AUTO, /* text, or calls behind it */
	M1_CALLS_NONE,
	M1_CALLS_REQUIRED, /* nothing else */
} m1_calls;

/*
 * Writes the calls of the tools behind the tag that opens them: {"name": one of them, "arguments": what its schema
 * describes}, a call a line, and the tag that closes them. choice is "auto" or empty, "none", "required", or the name
 * of the one tool that must be called, once, by itself or as {"type": "function", "function": {"name": ...}}. *start is
 * M1_NFA_FAIL for "none". Errors name the tool, and the place in its schema.
 */
m1_status m1_tool_calls_compile(m1_nfa *nfa, m1_slice tools, m1_slice choice, m1_calls *calls, int32_t *start,
								m1_error *err);

/* Whether it asks for no call: without tools, no other choice makes sense. */
bool m1_tool_choice_is_free(m1_slice choice);
bool m1_tool_choice_is_none(m1_slice choice);

#endif
