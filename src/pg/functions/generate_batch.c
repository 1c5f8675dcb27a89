/*
 * generate_batch.c
 *	  generate_batch(): many prompts, the replies as rows.
 */
#include "pg/client/batch.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/report.h"
#include "pg/rows.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(m1pg_generate_batch);

typedef struct Reply
{
	bool		done;
	text	   *content;
	text	   *reasoning;
	text	   *error;
} Reply;

/* Rows are put out in the order of the prompts; what ends earlier waits. */
typedef struct BatchCall
{
	ReturnSetInfo *rsinfo;
	m1w_generate options;
	bool		seeded;			/* by the caller: then all have the same seed */
	Datum	   *prompts;
	bool	   *nulls;
	int			n;
	Reply	   *replies;
	int			put_out;
} BatchCall;

static bool
batch_request(void *arg, int i, m1w_generate *g, m1_error *error)
{
	BatchCall  *call = arg;

	*g = call->options;
	if (!call->seeded)
		g->seed = (g->seed + (uint64) i) & PG_INT64_MAX;
	if (call->nulls[i])
	{
		error->code = M1_OK;	/* a NULL prompt has a NULL reply, and no error */
		return false;
	}
	return m1pg_read_prompt(DatumGetTextPP(call->prompts[i]), g, error);
}

static void
put_row(BatchCall *call, int i)
{
	Reply	   *reply = &call->replies[i];
	text	   *columns[] = {reply->content, reply->reasoning, reply->error};
	Datum		values[4] = {Int32GetDatum(i + 1)};
	bool		nulls[4] = {false};

	for (int c = 0; c < 3; c++)
	{
		nulls[c + 1] = columns[c] == NULL;
		values[c + 1] = PointerGetDatum(columns[c]);
	}
	tuplestore_putvalues(call->rsinfo->setResult, call->rsinfo->setDesc, values, nulls);
	for (int c = 0; c < 3; c++)
		if (columns[c] != NULL)
			pfree(columns[c]);
}

static void
batch_finish(void *arg, int i, const M1Result *result, const m1_error *error)
{
	BatchCall  *call = arg;
	Reply	   *reply = &call->replies[i];

	reply->done = true;
	if (result != NULL)
	{
		reply->content = m1pg_try_text_from_utf8(result->done.content);
		if (result->done.reasoning.len > 0)
			reply->reasoning = m1pg_try_text_from_utf8(result->done.reasoning);
		if (reply->content == NULL || (reply->reasoning == NULL && result->done.reasoning.len > 0))
			reply->error = cstring_to_text("the reply has characters that the database's encoding does not have");
	}
	else if (error->code != M1_OK)
		reply->error = m1pg_error_text(error);
	while (call->put_out < call->n && call->replies[call->put_out].done)
		put_row(call, call->put_out++);
}

Datum
m1pg_generate_batch(PG_FUNCTION_ARGS)
{
	BatchCall	call = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};
	M1Batch		batch = {.function = "generate_batch", .arg = &call, .request = batch_request, .finish = batch_finish};

	m1pg_start_rows(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	m1pg_default_request(&call.options);
	m1pg_read_options(fcinfo, 1, &call.options);
	m1pg_read_stops(fcinfo, 7, &call.options);
	call.seeded = !PG_ARGISNULL(6);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &call.prompts, &call.nulls, &call.n);
	call.replies = palloc_extended(Max(call.n, 1) * sizeof *call.replies, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	batch.n = call.n;
	m1pg_run_batch(&batch);
	return (Datum) 0;
}
