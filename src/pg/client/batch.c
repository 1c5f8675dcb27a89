/*
 * batch.c
 *	  Several requests at once from one backend, and generate_batch() on top.
 *
 *	  Requests are started in order, a window of them is under way, and each is
 *	  handed on when it ends. What one request takes lives in a memory context of
 *	  its own, so the memory is that of the window, not of the batch. Channels
 *	  belong to the current resource owner: an error or a cancel ends them all.
 */
#include "pg/m1pg.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(m1pg_generate_batch);

/* Each request under way takes a shared memory segment, of which a server has a few hundred. */
#define MAX_WINDOW 128

typedef struct Running
{
	int			i;
	M1Channel  *channel;
	MemoryContext context;
} Running;

typedef struct Window
{
	const M1Batch *batch;
	Running    *running;
	int			size;
	int			n;				/* of running */
	int			next;			/* to be started */
	bool		held;			/* the server's queue was full: wait until one of ours has ended */
} Window;

/* ---- the window ---- */

/* A few more than the engine takes, so that it never waits for this backend. */
static int
window_size(int n)
{
	return Min(Min(n, MAX_WINDOW), m1pg_max_requests + m1pg_max_requests / 4 + 1);
}

/*
 * Starts the next request. When the server's queue is full while some of ours
 * are under way, it is tried again as soon as one of them has ended.
 */
static void
start_next(Window *w)
{
	const M1Batch *batch = w->batch;
	Running    *r = &w->running[w->n];
	m1w_generate g;
	m1_error	error;
	MemoryContext old;

	r->i = w->next;
	r->context = AllocSetContextCreate(CurrentMemoryContext, "minimax_m1 request", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(r->context);
	r->channel = NULL;
	if (batch->request(batch->arg, r->i, &g, &error))
		r->channel = m1pg_open_generate(&g, batch->function, &error);
	MemoryContextSwitchTo(old);
	if (r->channel != NULL)
	{
		w->n++;
		w->next++;
		return;
	}
	w->held = error.code == M1_E_OVERLOADED && w->n > 0;
	if (!w->held)
	{
		batch->finish(batch->arg, r->i, NULL, &error);
		w->next++;
	}
	MemoryContextDelete(r->context);
}

/* true: the request has ended, and was handed on. */
static bool
collect(Window *w, Running *r)
{
	const M1Batch *batch = w->batch;
	const char *payload;
	Size		len;
	m1w_type	type;
	M1Result	result;
	m1_error	error;
	MemoryContext old = MemoryContextSwitchTo(r->context);

	type = m1pg_channel_poll(r->channel, &payload, &len, &error);
	if (type != M1PG_NO_EVENT && type != M1W_ERROR)
		m1pg_read_result(r->channel, type, payload, len, &result);
	if (type != M1PG_NO_EVENT)
		m1pg_channel_close(r->channel);
	MemoryContextSwitchTo(old);
	if (type == M1PG_NO_EVENT)
		return false;
	batch->finish(batch->arg, r->i, type != M1W_ERROR ? &result : NULL, &error);
	MemoryContextDelete(r->context);
	return true;
}

/* true: at least one has ended. */
static bool
collect_all(Window *w)
{
	int			kept = 0;
	bool		any;

	for (int i = 0; i < w->n; i++)
		if (!collect(w, &w->running[i]))
			w->running[kept++] = w->running[i];
	any = kept < w->n;
	w->n = kept;
	return any;
}

void
m1pg_run_batch(const M1Batch *batch)
{
	Window		w = {.batch = batch, .size = window_size(batch->n)};

	w.running = palloc(Max(w.size, 1) * sizeof *w.running);
	while (w.next < batch->n || w.n > 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (w.next < batch->n && w.n < w.size && !w.held)
			start_next(&w);
		else if (collect_all(&w))
			w.held = false;
		else
			m1pg_channel_wait();
	}
	pfree(w.running);
}

/* ---- generate_batch ---- */

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
