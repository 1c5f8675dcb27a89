/*
 * complete.c
 *	  complete() and complete_stream(): a prompt or a conversation with all that a
 *	  program may ask for, and everything that is known of the reply.
 *
 *	  Their arguments have the order of the enum below. Functions of older versions
 *	  of the extension have fewer of them, and fewer columns.
 */
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/functions/logprobs.h"
#include "pg/functions/stream.h"
#include "pg/functions/type_schema.h"
#include "pg/report.h"
#include "pg/shared.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(m1pg_complete);
PG_FUNCTION_INFO_V1(m1pg_complete_stream);

/* ---- arguments ---- */

enum
{
	ARG_PROMPT, ARG_SYSTEM_PROMPT, ARG_MAX_TOKENS, ARG_THINKING_BUDGET, ARG_TEMPERATURE, ARG_TOP_P, ARG_SEED, ARG_STOP,
	ARG_MESSAGES, ARG_TOOLS, ARG_TOOL_CHOICE, ARG_JSON_SCHEMA, ARG_CHOICES, ARG_REGEX, ARG_TOP_K, ARG_LOGPROBS,
	ARG_TOP_LOGPROBS, ARG_N, ARG_PRESENCE_PENALTY, ARG_FREQUENCY_PENALTY, ARG_LOGIT_BIAS
};

static bool
is_given(FunctionCallInfo fcinfo, int arg)
{
	return arg < PG_NARGS() && !PG_ARGISNULL(arg);
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

/* prompt or messages: one of them. Returns false when the answer is NULL. */
static bool
read_conversation(FunctionCallInfo fcinfo, m1w_generate *g)
{
	m1_error	error;

	if (is_given(fcinfo, ARG_PROMPT) && is_given(fcinfo, ARG_MESSAGES))
		m1pg_bad_argument("both prompt and messages are given", "Give one of them.");
	if (!is_given(fcinfo, ARG_PROMPT) && !is_given(fcinfo, ARG_MESSAGES))
		return false;
	if (is_given(fcinfo, ARG_MESSAGES))
		g->messages = read_array(fcinfo, ARG_MESSAGES, "messages");
	else if (!m1pg_read_prompt(PG_GETARG_TEXT_PP(ARG_PROMPT), g, &error))
		m1pg_report(&error);
	return true;
}

static void
read_tools(FunctionCallInfo fcinfo, m1w_generate *g)
{
	if (is_given(fcinfo, ARG_TOOLS))
		g->tools = read_array(fcinfo, ARG_TOOLS, "tools");
	if (!is_given(fcinfo, ARG_TOOL_CHOICE))
		return;
	g->tool_choice = m1pg_utf8_of_text(PG_GETARG_TEXT_PP(ARG_TOOL_CHOICE));
	if (g->tool_choice.len == 0)
		m1pg_bad_argument("tool_choice is empty", "It is auto, none, required, or the name of a tool.");
}

static void
read_sampling(FunctionCallInfo fcinfo, m1w_generate *g)
{
	m1pg_read_options(fcinfo, ARG_SYSTEM_PROMPT, g);
	m1pg_read_stops(fcinfo, ARG_STOP, g);
	if (is_given(fcinfo, ARG_TOP_K) && (g->top_k = PG_GETARG_INT32(ARG_TOP_K)) < 0)
		m1pg_bad_argument("top_k is out of range", psprintf("It is %d; it must be 0 (all) or more.", g->top_k));
	if (is_given(fcinfo, ARG_LOGPROBS))
		g->logprobs = PG_GETARG_BOOL(ARG_LOGPROBS);
	if (is_given(fcinfo, ARG_TOP_LOGPROBS))
	{
		const int	top = PG_GETARG_INT32(ARG_TOP_LOGPROBS);

		if (top < 0 || top > M1W_MAX_TOP_LOGPROBS)
			m1pg_bad_argument("top_logprobs is out of range",
							  psprintf("It is %d; it must be between 0 and %d.", top, M1W_MAX_TOP_LOGPROBS));
		if (top > 0 && !g->logprobs)
			m1pg_bad_argument("top_logprobs is given without logprobs", "Say logprobs => true.");
		g->top_logprobs = top;
	}
}

static void
refuse(const char *argument, const char *neutral, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("minimax_m1: %s is not supported, unless it is %s", argument, neutral),
			 errhint("%s", hint)));
}

/* What other servers have, and this one has not: it is refused where it would change the reply. */
static void
refuse_others(FunctionCallInfo fcinfo)
{
	static const char *const penalty = "Tokens are chosen by temperature, top_p and top_k.";

	if (is_given(fcinfo, ARG_N) && PG_GETARG_INT32(ARG_N) != 1)
		refuse("n", "1", "Call the function once for each reply.");
	if (is_given(fcinfo, ARG_PRESENCE_PENALTY) && PG_GETARG_FLOAT8(ARG_PRESENCE_PENALTY) != 0)
		refuse("presence_penalty", "0", penalty);
	if (is_given(fcinfo, ARG_FREQUENCY_PENALTY) && PG_GETARG_FLOAT8(ARG_FREQUENCY_PENALTY) != 0)
		refuse("frequency_penalty", "0", penalty);
	if (is_given(fcinfo, ARG_LOGIT_BIAS))
	{
		const char *bias = text_to_cstring(m1pg_json_argument(fcinfo, ARG_LOGIT_BIAS));

		if (strspn(bias, "{} \t\r\n") < strlen(bias))
			refuse("logit_bias", "{}", "Hold the answer to a form with choices, json_schema or regex.");
	}
}

/* Returns false when the answer is NULL. *adapter: "name/version" of what the reply is begun with; NULL = none. */
static bool
read_arguments(FunctionCallInfo fcinfo, m1w_generate *g, char **adapter)
{
	*adapter = m1pg_named_request(g);
	if (!read_conversation(fcinfo, g))
		return false;
	read_tools(fcinfo, g);
	if (PG_NARGS() > ARG_REGEX)
		m1pg_read_form(fcinfo, (M1FormArguments) {ARG_JSON_SCHEMA, ARG_CHOICES, ARG_REGEX}, g);
	read_sampling(fcinfo, g);
	refuse_others(fcinfo);
	return true;
}

/* ---- columns ---- */

/* What both functions tell of a reply, from its calls on. */
enum
{
	TOOL_CALLS, FINISH_REASON, PROMPT_TOKENS, CACHED_TOKENS, REASONING_TOKENS, COMPLETION_TOKENS, SEED, MODEL, QUEUE_MS,
	PREFILL_MS, DECODE_MS, LOGPROBS, N_FACTS
};

/* complete: content and reasoning come first; complete_stream: seq, channel and delta. */
#define COMPLETE_COLUMNS	(2 + N_FACTS)
#define STREAM_COLUMNS	(3 + N_FACTS)

/*
 * Of the type that the function is declared with: json, which keeps every digit, or, in older versions, jsonb. What an
 * engine says is read as anybody's input.
 */
static Datum
json_from_utf8(m1_slice s, Oid type)
{
	char	   *json = text_to_cstring(m1pg_text_from_utf8(s));

	return DirectFunctionCall1(type == JSONBOID ? jsonb_in : json_in, CStringGetDatum(json));
}

static void
fill_facts(const M1Result *result, const char *adapter, Oid calls_type, Datum *values, bool *nulls)
{
	const m1w_done *done = &result->done;
	const char *name = m1pg_displayable(m1pg_shared->model.name);

	if (!(nulls[TOOL_CALLS] = done->tool_calls.len == 0))
		values[TOOL_CALLS] = json_from_utf8(done->tool_calls, calls_type);
	values[FINISH_REASON] = CStringGetTextDatum(m1w_finish_name(done->finish));
	values[PROMPT_TOKENS] = Int32GetDatum(done->prompt_tokens);
	values[CACHED_TOKENS] = Int32GetDatum(done->cached_tokens);
	values[REASONING_TOKENS] = Int32GetDatum(done->reasoning_tokens);
	values[COMPLETION_TOKENS] = Int32GetDatum(done->completion_tokens);
	values[SEED] = Int64GetDatum((int64) done->seed);
	values[MODEL] = CStringGetTextDatum(adapter == NULL ? name : psprintf("%s/%s", name, adapter));
	values[QUEUE_MS] = Float8GetDatum(result->queue_ms);
	values[PREFILL_MS] = Float8GetDatum(done->prefill_ms);
	values[DECODE_MS] = Float8GetDatum(done->decode_ms);
	if (!(nulls[LOGPROBS] = done->logprobs.len == 0))
		values[LOGPROBS] = json_from_utf8(m1pg_read_logprobs(done->logprobs), JSONOID);
}

/* ---- the functions ---- */

Datum
m1pg_complete(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	Datum		values[COMPLETE_COLUMNS];
	bool		nulls[COMPLETE_COLUMNS] = {false};
	m1w_generate g;
	M1Result	result;
	char	   *adapter;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!read_arguments(fcinfo, &g, &adapter))
		PG_RETURN_NULL();
	m1pg_run(&g, "complete", &result);

	values[0] = PointerGetDatum(m1pg_text_from_utf8(result.done.content));
	nulls[1] = result.done.reasoning.len == 0;
	values[1] = PointerGetDatum(m1pg_text_from_utf8(result.done.reasoning));
	fill_facts(&result, adapter, TupleDescAttr(tupdesc, 2 + TOOL_CALLS)->atttypid, values + 2, nulls + 2);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

static void
start(FunctionCallInfo fcinfo, M1Stream *stream)
{
	m1w_generate g;

	if (read_arguments(fcinfo, &g, &stream->adapter))
		m1pg_stream_open(fcinfo, stream, &g, "complete_stream");
}

static Datum
last_row(TupleDesc tupdesc, M1Stream *stream, m1w_type type, const char *payload, Size len)
{
	Datum		values[STREAM_COLUMNS];
	bool		nulls[STREAM_COLUMNS] = {false, true, true};
	M1Result	result;

	m1pg_read_result(stream->exchange, type, payload, len, &result);
	values[0] = Int32GetDatum(++stream->seq);
	fill_facts(&result, stream->adapter, JSONOID, values + 3, nulls + 3);
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

Datum
m1pg_complete_stream(PG_FUNCTION_ARGS)
{
	FuncCallContext *context = m1pg_stream_call(fcinfo, start);
	M1Stream   *stream = context->user_fctx;
	m1w_type	type;
	const char *payload;
	Size		len;
	Datum		row;

	if ((type = m1pg_stream_next(stream, &payload, &len)) == M1PG_NO_EVENT)
		SRF_RETURN_DONE(context);
	if (type == M1W_DELTA)
		SRF_RETURN_NEXT(context, m1pg_stream_row(context->tuple_desc, stream, payload, len));
	row = last_row(context->tuple_desc, stream, type, payload, len);
	m1pg_stream_close(fcinfo, stream);
	SRF_RETURN_NEXT(context, row);
}
