/*
 * generate.c
 *	  generate(), complete() and generate_stream(): one prompt, one reply.
 */
#include "pg/m1pg.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(m1pg_generate);
PG_FUNCTION_INFO_V1(m1pg_complete);
PG_FUNCTION_INFO_V1(m1pg_generate_stream);

/* ---- texts ---- */

m1_slice
m1pg_to_utf8(const char *s, Size len)
{
	m1_slice	slice;

	slice.data = (const char *) pg_server_to_any(s, len, PG_UTF8);
	slice.len = slice.data == s ? len : strlen(slice.data);
	return slice;
}

m1_slice
m1pg_utf8_of_text(const text *t)
{
	return m1pg_to_utf8(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

text *
m1pg_text_from_utf8(m1_slice s)
{
	char	   *converted = pg_any_to_server(s.data, s.len, PG_UTF8);

	return cstring_to_text_with_len(converted, converted == s.data ? s.len : strlen(converted));
}

/* Converts as far as it goes; NULL when that is not to the end. */
static text *
convert_or_null(m1_slice s)
{
	int			encoding = GetDatabaseEncoding();
	Oid			proc = FindDefaultConversionProc(PG_UTF8, encoding);
	Size		size = (s.len + 2) * MAX_CONVERSION_GROWTH;
	char	   *converted;
	text	   *result = NULL;

	if (!OidIsValid(proc))
		return NULL;
	converted = palloc_extended(size, MCXT_ALLOC_HUGE);
	if (pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding, (unsigned char *) unconstify(char *, s.data),
									  (int) s.len, (unsigned char *) converted, (int) Min(size, INT_MAX),
									  true) == (int) s.len)
		result = cstring_to_text(converted);
	pfree(converted);
	return result;
}

text *
m1pg_try_text_from_utf8(m1_slice s)
{
	if (s.len == 0)
		return cstring_to_text("");
	if (!pg_verify_mbstr(PG_UTF8, s.data, (int) s.len, true))
		return NULL;
	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return cstring_to_text_with_len(s.data, (int) s.len);
	return convert_or_null(s);
}

text *
m1pg_scalar_text(m1_slice s)
{
	text	   *t = m1pg_try_text_from_utf8(s);

	if (t == NULL && m1pg_on_error == M1_ON_ERROR_RAISE)
		return m1pg_text_from_utf8(s);	/* raises, in PostgreSQL's words */
	return t;
}

/* ---- arguments ---- */

static void
bad_argument(const char *message, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("minimax_m1: %s", message), errdetail("%s", detail)));
}

/* Who shares snapshots: a role has no number 0, so the three kinds never meet. */
uint64
m1pg_cache_owner(void)
{
	switch ((M1Sharing) m1pg_prefix_cache_sharing)
	{
		case M1_SHARE_ALL:
			return 0;
		case M1_SHARE_DATABASE:
			return MyDatabaseId;
		default:
			return (uint64) GetUserId() << 32 | MyDatabaseId;
	}
}

uint64
m1pg_new_seed(void)
{
	uint64		seed;

	if (!pg_strong_random(&seed, sizeof seed))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random seed")));
	/* a bigint, so that complete() can report it */
	return seed & PG_INT64_MAX;
}

void
m1pg_default_request(m1w_generate *g)
{
	memset(g, 0, sizeof *g);
	g->system = m1pg_to_utf8(m1pg_system_prompt, strlen(m1pg_system_prompt));
	g->cache_owner = m1pg_cache_owner();
	g->max_tokens = m1pg_max_tokens;
	g->thinking_budget = m1pg_default_thinking_budget;
	g->temperature = (float) m1pg_temperature;
	g->top_p = (float) m1pg_top_p;
	g->seed = m1pg_new_seed();
}

static void
read_stops(ArrayType *array, m1w_generate *g)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	if (n > M1W_MAX_STOPS)
		bad_argument("too many stop strings", psprintf("There are %d; at most %d are possible.", n, M1W_MAX_STOPS));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			bad_argument("a stop string is NULL", psprintf("It is number %d.", i + 1));
		g->stops[i] = m1pg_utf8_of_text(DatumGetTextPP(values[i]));
		if (g->stops[i].len == 0)
			bad_argument("a stop string is empty", psprintf("It is number %d.", i + 1));
	}
	g->n_stops = n;
}

void
m1pg_read_options(FunctionCallInfo fcinfo, int arg, m1w_generate *g)
{
	if (!PG_ARGISNULL(arg))
		g->system = m1pg_utf8_of_text(PG_GETARG_TEXT_PP(arg));
	if (!PG_ARGISNULL(arg + 1) && (g->max_tokens = PG_GETARG_INT32(arg + 1)) < 1)
		bad_argument("max_tokens is out of range", psprintf("It is %d; it must be at least 1.", g->max_tokens));
	if (!PG_ARGISNULL(arg + 2) && (g->thinking_budget = PG_GETARG_INT32(arg + 2)) < -1)
		bad_argument("thinking_budget is out of range",
					 psprintf("It is %d; it must be -1 (no limit) or more.", g->thinking_budget));
	if (!PG_ARGISNULL(arg + 3))
	{
		double		t = PG_GETARG_FLOAT8(arg + 3);

		if (!(t >= 0 && t <= 100))
			bad_argument("temperature is out of range", psprintf("It is %g; it must be between 0 and 100.", t));
		g->temperature = (float) t;
	}
	if (!PG_ARGISNULL(arg + 4))
	{
		double		p = PG_GETARG_FLOAT8(arg + 4);

		g->top_p = (float) p;
		/* also what is too small for the engine's precision */
		if (!(p > 0 && p <= 1 && g->top_p > 0))
			bad_argument("top_p is out of range", psprintf("It is %g; it must be above 0 and at most 1.", p));
	}
	if (!PG_ARGISNULL(arg + 5))
		g->seed = (uint64) PG_GETARG_INT64(arg + 5);
}

void
m1pg_read_stops(FunctionCallInfo fcinfo, int arg, m1w_generate *g)
{
	if (!PG_ARGISNULL(arg))
		read_stops(PG_GETARG_ARRAYTYPE_P(arg), g);
}

bool
m1pg_read_prompt(const text *prompt, m1w_generate *g, m1_error *error)
{
	g->prompt = m1pg_utf8_of_text(prompt);
	if (g->prompt.len > 0)
		return true;
	m1_fail(error, M1_E_INVALID_ARGUMENT, "the prompt is empty");
	m1_error_detail(error, "It must have at least one character.");
	return false;
}

void
m1pg_task_prompt(m1w_generate *g, m1_slice task, m1_slice document)
{
	StringInfoData prompt;

	initStringInfo(&prompt);
	appendBinaryStringInfo(&prompt, task.data, task.len);
	appendStringInfoString(&prompt, "\n\n");
	g->template_len = prompt.len;
	appendBinaryStringInfo(&prompt, document.data, document.len);
	g->prompt = (m1_slice) {prompt.data, prompt.len};
}

static void
read_prompt(const text *prompt, m1w_generate *g)
{
	m1_error	error;

	if (!m1pg_read_prompt(prompt, g, &error))
		m1pg_report(&error);
}

static m1_slice
jsonb_to_utf8(Jsonb *jb)
{
	StringInfoData s;

	initStringInfo(&s);
	JsonbToCString(&s, &jb->root, VARSIZE(jb));
	return m1pg_to_utf8(s.data, s.len);
}

static void
check_array(Jsonb *jb, const char *name)
{
	if (!JB_ROOT_IS_ARRAY(jb) || JB_ROOT_IS_SCALAR(jb))
		bad_argument(psprintf("%s is not a JSON array", name), "It must be an array of objects.");
	if (JB_ROOT_COUNT(jb) == 0 && strcmp(name, "messages") == 0)
		bad_argument("messages is empty", "It must hold at least one message.");
}

/* ---- running to completion ---- */

/* The payload, palloc'd: nothing that malloc made may be around when an error is raised. */
static char *
encode(const m1w_generate *g, Size *len)
{
	m1_buf		buf = {0};
	char	   *payload = NULL;

	if (m1w_encode_generate(&buf, g))
	{
		*len = buf.len;
		payload = palloc_extended(buf.len, MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
		if (payload != NULL)
			memcpy(payload, buf.data, buf.len);
	}
	m1_buf_free(&buf);
	if (payload == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a request")));
	return payload;
}

/* What the activity view shows of a request. */
static char *
excerpt_of(const m1w_generate *g)
{
	m1_slice	s = g->prompt.len > 0 ? g->prompt : g->messages;
	int			len;
	char	   *head;

	if (s.len == 0)
		return "";
	len = pg_encoding_mbcliplen(PG_UTF8, s.data, s.len, M1PG_EXCERPT);
	head = pnstrdup(s.data, len);
	return pg_any_to_server(head, len, PG_UTF8);
}

M1Channel *
m1pg_open_generate(const m1w_generate *g, const char *function, m1_error *error)
{
	Size		len;
	char	   *payload = encode(g, &len);
	M1Channel  *channel = m1pg_channel_try_open(M1W_GENERATE, payload, len, function, excerpt_of(g), error);

	pfree(payload);
	return channel;
}

static m1w_done
decode_done(const char *payload, Size len)
{
	m1w_done	done;
	m1_error	error;

	if (m1w_decode_done(payload, len, &done, &error) != M1_OK)
		m1pg_report(&error);
	return done;
}

m1_slice
m1pg_keep(m1_slice s)
{
	char	   *copy = palloc(s.len + 1);

	/* not pnstrdup: numbers hold zero bytes */
	if (s.len > 0)
		memcpy(copy, s.data, s.len);
	copy[s.len] = '\0';
	s.data = copy;
	return s;
}

void
m1pg_read_result(const M1Channel *channel, m1w_type type, const char *payload, Size len, M1Result *result)
{
	int32	   *ids;

	if (type != M1W_DONE)
		elog(ERROR, "minimax_m1: unexpected event %d", type);
	result->done = decode_done(payload, len);
	result->done.content = m1pg_keep(result->done.content);
	result->done.reasoning = m1pg_keep(result->done.reasoning);
	result->done.tool_calls = m1pg_keep(result->done.tool_calls);
	result->done.choice_logprobs = m1pg_keep(result->done.choice_logprobs);
	ids = palloc(Max(result->done.ids.len, 1) * sizeof *ids);
	if (result->done.ids.len > 0)
		memcpy(ids, result->done.ids.data, result->done.ids.len * sizeof *ids);
	result->done.ids.data = ids;
	result->queue_ms = m1pg_channel_queue_ms(channel) + result->done.queue_ms;
}

bool
m1pg_try_run(const m1w_generate *g, const char *function, M1Result *result, m1_error *error)
{
	M1Channel  *channel = m1pg_open_generate(g, function, error);
	const char *payload;
	Size		len;
	m1w_type	type;
	bool		done;

	if (channel == NULL)
		return false;
	type = m1pg_channel_try_receive(channel, &payload, &len, error);
	done = type != M1W_ERROR;
	if (done)
		m1pg_read_result(channel, type, payload, len, result);
	m1pg_channel_close(channel);
	return done;
}

void
m1pg_run(const m1w_generate *g, const char *function, M1Result *result)
{
	m1_error	error;

	if (!m1pg_try_run(g, function, result, &error))
		m1pg_report(&error);
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

static Datum
jsonb_from_utf8(m1_slice s)
{
	char	   *text = text_to_cstring(m1pg_text_from_utf8(s));

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

/* prompt or messages: one of them. Returns false when the answer is NULL. */
static bool
read_conversation(FunctionCallInfo fcinfo, m1w_generate *g)
{
	const int	messages = 8;
	const int	tools = 9;

	if (!PG_ARGISNULL(0) && !PG_ARGISNULL(messages))
		bad_argument("both prompt and messages are given", "Give one of them.");
	if (PG_ARGISNULL(0) && PG_ARGISNULL(messages))
		return false;
	if (!PG_ARGISNULL(0))
		read_prompt(PG_GETARG_TEXT_PP(0), g);
	else
	{
		check_array(PG_GETARG_JSONB_P(messages), "messages");
		g->messages = jsonb_to_utf8(PG_GETARG_JSONB_P(messages));
	}
	if (!PG_ARGISNULL(tools))
	{
		check_array(PG_GETARG_JSONB_P(tools), "tools");
		g->tools = jsonb_to_utf8(PG_GETARG_JSONB_P(tools));
	}
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
	values[TOOL_CALLS] = nulls[TOOL_CALLS] ? (Datum) 0 : jsonb_from_utf8(done->tool_calls);
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
	M1Channel  *channel;		/* NULL once ended */
	int			seq;
} Stream;

/* The executor stops early: LIMIT, a closed cursor, an error. */
static void
shutdown_stream(Datum arg)
{
	Stream	   *stream = (Stream *) DatumGetPointer(arg);

	if (stream->channel != NULL)
		m1pg_channel_close(stream->channel);
	stream->channel = NULL;
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
	if ((stream->channel = m1pg_open_generate(&g, "generate_stream", &error)) == NULL)
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
	if (stream->channel != NULL &&
		m1pg_channel_receive(stream->channel, &payload, &len) == M1W_DELTA)
		SRF_RETURN_NEXT(context, delta_row(context->tuple_desc, ++stream->seq, payload, len));
	if (stream->channel != NULL)
		UnregisterExprContextCallback(rsinfo->econtext, shutdown_stream, PointerGetDatum(stream));
	shutdown_stream(PointerGetDatum(stream));
	SRF_RETURN_DONE(context);
}
