/*
 * stream.h - a reply as rows, while it is being written (stream.c).
 */
#ifndef M1PG_STREAM_H
#define M1PG_STREAM_H

#include "pg/client/request.h"

#include "funcapi.h"

/* Of one call of a set-returning function; lives in its multi-call memory context. */
typedef struct M1Stream
{
	M1Exchange *exchange;		/* NULL: there is none, or it has ended */
	int			seq;			/* rows so far */
	m1w_generate request;		/* as long as the function's first call, whose arguments its texts are */
	const char *function;
	char	   *adapter;		/* "name/version"; NULL = none */
} M1Stream;

/* Reads the arguments, and opens the stream unless there is nothing to answer. */
typedef void (*M1StreamStart) (FunctionCallInfo fcinfo, M1Stream *stream);

/*
 * Begins a call of the function: the first one starts the stream. The stream is
 * the context's user_fctx, and its tuple_desc the rows' type.
 */
extern FuncCallContext *m1pg_stream_call(FunctionCallInfo fcinfo, M1StreamStart start);
/* For `start`: sends the request, and closes the stream when the executor stops early. Raises a failure. */
extern void m1pg_stream_open(FunctionCallInfo fcinfo, M1Stream *stream, m1w_generate *g, const char *function);
/* Waits for the next event; M1PG_NO_EVENT when there is no stream. Raises a failure. */
extern m1w_type m1pg_stream_next(M1Stream *stream, const char **payload, Size *len);
/* The row of a M1W_DELTA: seq, channel and delta, and NULL in all further columns. */
extern Datum m1pg_stream_row(TupleDesc tupdesc, M1Stream *stream, const char *payload, Size len);
extern void m1pg_stream_close(FunctionCallInfo fcinfo, M1Stream *stream);

#endif							/* M1PG_STREAM_H */
