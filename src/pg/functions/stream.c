/*
 * stream.c
 *	  What the functions share that return a reply piece by piece.
 */
#include "pg/functions/stream.h"
#include "pg/client/texts.h"
#include "pg/report.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "utils/builtins.h"

/* The executor stops early: LIMIT, a closed cursor, an error. */
static void
shutdown_stream(Datum arg)
{
	M1Stream   *stream = (M1Stream *) DatumGetPointer(arg);

	if (stream->exchange != NULL)
		m1pg_exchange_close(stream->exchange);
	stream->exchange = NULL;
}

/* The exchange lives as long as the stream. */
static void
open_exchange(M1Stream *stream)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(stream));
	m1_error	error;

	if ((stream->exchange = m1pg_open_generate(&stream->request, stream->function, &error)) == NULL)
		m1pg_report(&error);
	MemoryContextSwitchTo(old);
}

void
m1pg_stream_open(FunctionCallInfo fcinfo, M1Stream *stream, m1w_generate *g, const char *function)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	g->stream = 1;
	stream->request = *g;
	stream->function = function;
	open_exchange(stream);
	RegisterExprContextCallback(rsinfo->econtext, shutdown_stream, PointerGetDatum(stream));
}

FuncCallContext *
m1pg_stream_call(FunctionCallInfo fcinfo, M1StreamStart start)
{
	if (SRF_IS_FIRSTCALL())
	{
		FuncCallContext *context = SRF_FIRSTCALL_INIT();
		MemoryContext old = MemoryContextSwitchTo(context->multi_call_memory_ctx);

		if (get_call_result_type(fcinfo, NULL, &context->tuple_desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		context->tuple_desc = BlessTupleDesc(context->tuple_desc);
		context->user_fctx = palloc0(sizeof(M1Stream));
		start(fcinfo, context->user_fctx);
		MemoryContextSwitchTo(old);
	}
	return SRF_PERCALL_SETUP();
}

/* What is wrong with a request is its first event. */
m1w_type
m1pg_stream_next(M1Stream *stream, const char **payload, Size *len)
{
	m1_error	error;
	m1w_type	type;

	if (stream->exchange == NULL)
		return M1PG_NO_EVENT;
	for (int tries = 0;
		 (type = m1pg_exchange_try_receive(stream->exchange, payload, len, &error)) == M1W_ERROR; tries++)
	{
		if (stream->seq > 0 || tries == M1PG_ADAPTER_TRIES || !m1pg_lacked_adapter(stream->request.adapter, &error))
			m1pg_report(&error);
		m1pg_exchange_close(stream->exchange);
		stream->exchange = NULL;
		open_exchange(stream);
	}
	return type;
}

Datum
m1pg_stream_row(TupleDesc tupdesc, M1Stream *stream, const char *payload, Size len)
{
	Datum	   *values = palloc0(tupdesc->natts * sizeof *values);
	bool	   *nulls = palloc(tupdesc->natts * sizeof *nulls);
	m1w_delta	delta;
	m1_error	error;

	if (m1w_decode_delta(payload, len, &delta, &error) != M1_OK)
		m1pg_report(&error);
	memset(nulls, true, tupdesc->natts * sizeof *nulls);
	memset(nulls, false, 3 * sizeof *nulls);
	values[0] = Int32GetDatum(++stream->seq);
	values[1] = CStringGetTextDatum(m1w_channel_name(delta.channel));
	values[2] = PointerGetDatum(m1pg_text_from_utf8(delta.text));
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

void
m1pg_stream_close(FunctionCallInfo fcinfo, M1Stream *stream)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	if (stream->exchange != NULL)
		UnregisterExprContextCallback(rsinfo->econtext, shutdown_stream, PointerGetDatum(stream));
	shutdown_stream(PointerGetDatum(stream));
}
