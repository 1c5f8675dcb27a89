/*
 * calls.h - tool calls: as JSON in conversations and results, and in the form of M1's texts, one object a line between
 * the tags. Called by chat.c and reply.c, of one request each.
 */
#ifndef M1_TEXT_CALLS_H
#define M1_TEXT_CALLS_H

#include "text/jsonparse.h"

/*
 * Appends the line of a call in an assistant's message: {"id", "type", "function": {"name", "arguments": text of JSON}}
 * as OpenAI's clients write it, or what m1_calls_read gave. M1_E_INVALID_ARGUMENT names the key of `where` that is at
 * fault.
 */
m1_status m1_call_write(const m1_json *call, const char *where, m1_buf *out, m1_error *err);

/* The id and the name of such a call; empty where it has none. */
m1_slice m1_call_id(const m1_json *call);
m1_slice m1_call_name(const m1_json *call);

/*
 * Reads what a reply has between the tags, and appends it as an array: [{"name": ..., "arguments": {...}}, ...]. Calls
 * are a line each, and may also be joined by commas, or stand in an array. What is no call comes in its place as
 * {"error": why, "text": as the model wrote it}; nothing is left out. Appends nothing when there is nothing between the
 * tags. false when memory ran out.
 */
bool m1_calls_read(m1_slice text, m1_buf *out);

#endif
