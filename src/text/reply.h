/*
 * reply.h - what the model writes, taken apart while it streams: reasoning, content, tool calls, and stop strings.
 *
 * Reasoning is found in the decoded text, never by id: <think> is one token in some checkpoints and several in others,
 * and may be cut anywhere. A reply reasons only if it begins with <think> (white space before it is allowed). Line
 * breaks around the tags belong to the markup, not to the texts.
 */
#ifndef M1_TEXT_REPLY_H
#define M1_TEXT_REPLY_H

#include "text/tokenizer.h"

#define M1_MAX_STOPS 16		   /* stop strings of one reply */
#define M1_MAX_STOP_BYTES 1024 /* of one of them */

typedef struct m1_reply m1_reply;

/* The parts that a reply is taken apart into. */
typedef enum m1_channel
{
	M1_CONTENT = 0,	   /* the answer */
	M1_REASONING = 1,  /* between <think> and </think> */
	M1_TOOL_CALLS = 2, /* between <tool_calls> and </tool_calls>, of a reply that takes calls */
	M1_CHANNEL_COUNT
} m1_channel;

typedef enum m1_reply_state
{
	M1_REPLY_OPENING,	/* nothing but white space or part of "<think>" yet */
	M1_REPLY_REASONING, /* <think> was seen, </think> not yet */
	M1_REPLY_CONTENT,
	M1_REPLY_CALLS,	  /* between <tool_calls> and </tool_calls>, of a reply that takes calls */
	M1_REPLY_STOPPED, /* a stop string was found in the content; further tokens are ignored */
} m1_reply_state;

/*
 * Stop strings, of which there may be so many, each so long, are copied; they apply to the content, not to reasoning or
 * tool calls. NULL when memory ran out.
 */
m1_reply *m1_reply_create(const m1_tokenizer *t, const m1_slice *stops, size_t n_stops);
void m1_reply_free(m1_reply *r);

/*
 * The content will be exactly what is written: only the two line breaks behind </think> are markup then, and those at
 * the end belong to it. For constrained answers; before the first push.
 */
void m1_reply_keep_breaks(m1_reply *r);

/*
 * The model was offered tools: what it writes between <tool_calls> and </tool_calls>, which may be missing at the end,
 * is tool calls, and no content. Before the first push.
 */
void m1_reply_take_calls(m1_reply *r);

/* Feeds one generated token. false when memory ran out. */
bool m1_reply_push(m1_reply *r, int32_t id);
/* The model has ended: releases what was held back for a possible tag, stop string or character. */
bool m1_reply_finish(m1_reply *r);

m1_reply_state m1_reply_where(const m1_reply *r);
/* Nothing but the line breaks that belong to a tag has come since that. */
bool m1_reply_in_markup(const m1_reply *r);

/* True when the reasoning so far ends with a line break (the budget's closing tag then needs none of its own). */
bool m1_reply_at_line_start(const m1_reply *r);

/* The whole text of a channel so far: final text only, nothing that is still held back. Valid until the next push. */
m1_slice m1_reply_text(const m1_reply *r, m1_channel channel);

/*
 * The tool calls of a finished reply that takes calls, as a JSON array (see m1_calls_read) in *json, left empty when
 * there are none.
 */
bool m1_reply_tool_calls(const m1_reply *r, m1_buf *json);

#endif
