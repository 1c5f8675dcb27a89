/*
 * call_pieces.h - tool calls while they are written: which call begins, and its arguments piece by piece.
 *
 * The text is that between a reply's tags, and comes in pieces itself. It is read as long as it has the form that
 * constraints hold it to, {"name": ..., "arguments": {...}} one behind the other. What has another form is left to the
 * strict reader of the database, which tells at the end of the reply what the calls are. Nothing here waits.
 */
#ifndef M1_GATEWAY_CALL_PIECES_H
#define M1_GATEWAY_CALL_PIECES_H

#include "text/jsonparse.h"

/* Where the text is. Zero-initialised is its beginning. */
typedef struct gw_call_pieces
{
	m1_buf head; /* of a call, up to the beginning of its arguments */
	int depth;	 /* of brackets */
	bool in_string, escaped;
	int state;
	int begun, ended; /* how many calls */
} gw_call_pieces;

/* Calls are counted from 0. A call's pieces together are its arguments, as the model writes them. */
typedef struct gw_call_listener
{
	void (*begin)(void *context, int index, m1_slice name);
	void (*arguments)(void *context, int index, m1_slice piece);
} gw_call_listener;

/* When memory runs out, p->head.failed is set, and no more is told. */
void gw_call_pieces_read(gw_call_pieces *p, m1_slice text, const gw_call_listener *listener, void *context);

/*
 * Whether the calls that were told are, all of them, the first that the strict reader has found: an array of
 * {"name", "arguments"}, and of {"error", "text"} for what is no call.
 */
bool gw_call_pieces_agree(const gw_call_pieces *p, const m1_json *calls);

void gw_call_pieces_free(gw_call_pieces *p);

#endif
