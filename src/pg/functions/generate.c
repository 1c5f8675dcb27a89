/*
 * generate.c
 *	  generate(), complete() and generate_stream(): one prompt, one reply.
 */
#include "pg/client/exchange.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/report.h"
#include "pg/shared.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(m1pg_generate);
PG_FUNCTION_INFO_V1(m1pg_complete);
PG_FUNCTION_INFO_V1(m1pg_generate_stream);

/* ---- arguments ---- */

static void
read_prompt(const text *prompt, m1w_generate *g)
{
	m1_error	error;

	if (!m1pg_read_prompt(prompt, g, &error))
		m1pg_report(&error);
}

/* An argument that is an array of JSON. */
static m1_slice
read_array(FunctionCallInfo fcinfo, int arg, const char *name)
{
	text	   *json = m1pg_json_argument(fcinfo, arg);
	char	   *s = text_to_cstring(json);

	s += strspn(s, " \t\r\n");
	if (*s != '[')
		m1pg_bad_argument(psprintf("%s is not a JSON array", name), "It must be an array of objects.");
	if (strcmp(name, "messages") == 0 && s[1 + strspn(s + 1, " \t\r\n")] == ']')
		m1pg_bad_argument("messages is empty", "It must hold at least one message.");
	return m1pg_utf8_of_text(json);
}

/* ---- generate and complete ---- */

Datum
m1pg_generate(PG_FUNCTION_ARGS)
{
	m1w_generate g;
	M1Result	result;
	m1_error	error;
	text	   *answer;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	m1pg_default_request(&g);
	m1pg_read_options(fcinfo, 1, &g);
	m1pg_read_stops(fcinfo, 7, &g);
	if (!m1pg_read_prompt(PG_GETARG_TEXT_PP(0), &g, &error) || !m1pg_try_run(&g, "generate", &result, &error))
	{
		m1pg_report_or_null(&error);
		PG_RETURN_NULL();
	}
	if ((answer = m1pg_scalar_text(result.done.content)) == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(answer);
}

/* Of the type that the function is declared with: json, which keeps every digit, or, in older versions, jsonb. */
static Datum
json_from_utf8(m1_slice s, Oid type)
{
	text	   *json = m1pg_text_from_utf8(s);

	if (type == JSONBOID)
		return DirectFunctionCall1(jsonb_in, CStringGetDatum(text_to_cstring(json)));
	return PointerGetDatum(json);
}

/* prompt or messages: one of them. Returns false when the answer is NULL. */
static bool
read_conversation(FunctionCallInfo fcinfo, m1w_generate *g)
{
	const int	messages = 8;
	const int	tools = 9;

	if (!PG_ARGISNULL(0) && !PG_ARGISNULL(messages))
		m1pg_bad_argument("both prompt and messages are given", "Give one of them.");
	if (PG_ARGISNULL(0) && PG_ARGISNULL(messages))
		return false;
	if (!PG_ARGISNULL(0))
		read_prompt(PG_GETARG_TEXT_PP(0), g);
	else
		g->messages = read_array(fcinfo, messages, "messages");
	if (!PG_ARGISNULL(tools))
		g->tools = read_array(fcinfo, tools, "tools");
	return true;
}

Datum
m1pg_complete(PG_FUNCTION_ARGS)
{
	enum
	{
		CONTENT, REASONING, TOOL_CALLS, FINISH_REASON, PROMPT_TOKENS, CACHED_TOKENS, REASONING_TOKENS,
		COMPLETION_TOKENS, SEED, MODEL, QUEUE_MS, PREFILL_MS, DECODE_MS, N_COLUMNS
	};
	TupleDesc	tupdesc;
	Datum		values[N_COLUMNS];
	bool		nulls[N_COLUMNS] = {false};
	m1w_generate g;
	M1Result	result;
	const m1w_done *done = &result.done;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	m1pg_default_request(&g);
	if (!read_conversation(fcinfo, &g))
		PG_RETURN_NULL();
	m1pg_read_options(fcinfo, 1, &g);
	m1pg_read_stops(fcinfo, 7, &g);
	m1pg_run(&g, "complete", &result);

	values[CONTENT] = PointerGetDatum(m1pg_text_from_utf8(done->content));
	nulls[REASONING] = done->reasoning.len == 0;
	values[REASONING] = PointerGetDatum(m1pg_text_from_utf8(done->reasoning));
	nulls[TOOL_CALLS] = done->tool_calls.len == 0;
	values[TOOL_CALLS] = nulls[TOOL_CALLS] ? (Datum) 0 :
		json_from_utf8(done->tool_calls, TupleDescAttr(tupdesc, TOOL_CALLS)->atttypid);
	values[FINISH_REASON] = CStringGetTextDatum(m1w_finish_name(done->finish));
	values[PROMPT_TOKENS] = Int32GetDatum(done->prompt_tokens);
	values[CACHED_TOKENS] = Int32GetDatum(done->cached_tokens);
	values[REASONING_TOKENS] = Int32GetDatum(done->reasoning_tokens);
	values[COMPLETION_TOKENS] = Int32GetDatum(done->completion_tokens);
	values[SEED] = Int64GetDatum((int64) done->seed);
	values[MODEL] = CStringGetTextDatum(m1pg_shared->model.name);
	values[QUEUE_MS] = Float8GetDatum(result.queue_ms);
	values[PREFILL_MS] = Float8GetDatum(done->prefill_ms);
	values[DECODE_MS] = Float8GetDatum(done->decode_ms);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/* ---- generate_stream ---- */

typedef struct Stream
{
	M1Exchange *exchange;		/* NULL once ended */
	int			seq;
} Stream;

/* The executor stops early: LIMIT, a closed cursor, an error. */
static void
shutdown_stream(Datum arg)
{
	Stream	   *stream = (Stream *) DatumGetPointer(arg);

	if (stream->exchange != NULL)
		m1pg_exchange_close(stream->exchange);
	stream->exchange = NULL;
}

static void
start_stream(FunctionCallInfo fcinfo, FuncCallContext *context)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Stream	   *stream = palloc0(sizeof *stream);
	m1w_generate g;
	m1_error	error;

	if (get_call_result_type(fcinfo, NULL, &context->tuple_desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	context->tuple_desc = BlessTupleDesc(context->tuple_desc);
	context->user_fctx = stream;
	if (PG_ARGISNULL(0))
		return;
	m1pg_default_request(&g);
	read_prompt(PG_GETARG_TEXT_PP(0), &g);
	m1pg_read_options(fcinfo, 1, &g);
	m1pg_read_stops(fcinfo, 7, &g);
	g.stream = 1;
	if ((stream->exchange = m1pg_open_generate(&g, "generate_stream", &error)) == NULL)
		m1pg_report(&error);
	RegisterExprContextCallback(rsinfo->econtext, shutdown_stream, PointerGetDatum(stream));
}

static Datum
delta_row(TupleDesc tupdesc, int seq, const char *payload, Size len)
{
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	m1w_delta	delta;
	m1_error	error;

	if (m1w_decode_delta(payload, len, &delta, &error) != M1_OK)
		m1pg_report(&error);
	values[0] = Int32GetDatum(seq);
	values[1] = CStringGetTextDatum(m1w_channel_name(delta.channel));
	values[2] = PointerGetDatum(m1pg_text_from_utf8(delta.text));
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

Datum
m1pg_generate_stream(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	FuncCallContext *context;
	Stream	   *stream;
	const char *payload;
	Size		len;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;

		context = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		start_stream(fcinfo, context);
		MemoryContextSwitchTo(old);
	}
	context = SRF_PERCALL_SETUP();
	stream = context->user_fctx;
	if (stream->exchange != NULL &&
		m1pg_exchange_receive(stream->exchange, &payload, &len) == M1W_DELTA)
		SRF_RETURN_NEXT(context, delta_row(context->tuple_desc, ++stream->seq, payload, len));
	if (stream->exchange != NULL)
		UnregisterExprContextCallback(rsinfo->econtext, shutdown_stream, PointerGetDatum(stream));
	shutdown_stream(PointerGetDatum(stream));
	SRF_RETURN_DONE(context);
}
