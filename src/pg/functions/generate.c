/*
 * generate.c
 *	  generate() and generate_stream(): one prompt, one reply.
 */
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/functions/stream.h"
#include "pg/report.h"

#include "funcapi.h"

PG_FUNCTION_INFO_V1(m1pg_generate);
PG_FUNCTION_INFO_V1(m1pg_generate_stream);

/* ---- arguments ---- */

static void
read_prompt(const text *prompt, m1w_generate *g)
{
	m1_error	error;

	if (!m1pg_read_prompt(prompt, g, &error))
		m1pg_report(&error);
}

/* ---- generate ---- */

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

/* ---- generate_stream ---- */

static void
start(FunctionCallInfo fcinfo, M1Stream *stream)
{
	m1w_generate g;

	if (PG_ARGISNULL(0))
		return;
	m1pg_default_request(&g);
	read_prompt(PG_GETARG_TEXT_PP(0), &g);
	m1pg_read_options(fcinfo, 1, &g);
	m1pg_read_stops(fcinfo, 7, &g);
	m1pg_stream_open(fcinfo, stream, &g, "generate_stream");
}

Datum
m1pg_generate_stream(PG_FUNCTION_ARGS)
{
	FuncCallContext *context = m1pg_stream_call(fcinfo, start);
	M1Stream   *stream = context->user_fctx;
	const char *payload;
	Size		len;

	if (m1pg_stream_next(stream, &payload, &len) == M1W_DELTA)
		SRF_RETURN_NEXT(context, m1pg_stream_row(context->tuple_desc, stream, payload, len));
	m1pg_stream_close(fcinfo, stream);
	SRF_RETURN_DONE(context);
}
