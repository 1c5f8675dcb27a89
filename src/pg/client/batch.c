/*
 * batch.c
 *	  Several requests at once from one backend.
 *
 *	  Requests are started in order, a window of them is under way, and each is
 *	  handed on when it ends. What one request takes lives in a memory context of
 *	  its own, so the memory is that of the window, not of the batch. Exchanges
 *	  belong to the current resource owner: an error or a cancel ends them all.
 */
#include "pg/client/batch.h"
#include "pg/client/detached.h"
#include "pg/client/exchange.h"
#include "pg/client/request.h"
#include "pg/settings.h"

#include "miscadmin.h"
#include "utils/memutils.h"

/* Each request under way takes a shared memory segment, of which a server has a few hundred. */
#define MAX_WINDOW 128

typedef struct Running
{
	int			i;
	M1Exchange *exchange;
	m1_slice	adapter;		/* of the request */
	int			tries;			/* for its sake */
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

/* A few more than the engine takes, so that it never waits for this backend. */
static int
window_size(int n)
{
	return Min(Min(n, MAX_WINDOW), m1pg_max_requests + m1pg_max_requests / 4 + 1);
}

/* One of the batch's requests. */
typedef struct Opening
{
	const M1Batch *batch;
	Running    *running;
} Opening;

static M1Exchange *
open_request(void *arg, m1_error *error)
{
	const Opening *o = arg;
	const M1Batch *batch = o->batch;
	m1w_generate g;

	if (!batch->request(batch->arg, o->running->i, &g, error))
		return NULL;
	o->running->adapter = g.adapter;
	if (OidIsValid(batch->role))
		g.cache_owner = m1pg_cache_owner();
	return m1pg_open_generate(&g, batch->function, error);
}

static bool
open_running(const M1Batch *batch, Running *r, m1_error *error)
{
	Opening		opening = {batch, r};
	MemoryContext old = MemoryContextSwitchTo(r->context);

	r->exchange = OidIsValid(batch->role) ? m1pg_open_detached(batch->role, open_request, &opening, error) :
		open_request(&opening, error);
	MemoryContextSwitchTo(old);
	return r->exchange != NULL;
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
	m1_error	error;

	*r = (Running) {
		.i = w->next,
		.context = AllocSetContextCreate(CurrentMemoryContext, "minimax_m1 request", ALLOCSET_DEFAULT_SIZES)
	};
	if (open_running(batch, r, &error))
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

	type = m1pg_exchange_poll(r->exchange, &payload, &len, &error);
	if (type != M1PG_NO_EVENT && type != M1W_ERROR)
		m1pg_read_result(r->exchange, type, payload, len, &result);
	if (type != M1PG_NO_EVENT)
		m1pg_exchange_close(r->exchange);
	MemoryContextSwitchTo(old);
	if (type == M1PG_NO_EVENT)
		return false;
	if (type == M1W_ERROR && r->tries++ < M1PG_ADAPTER_TRIES && m1pg_lacked_adapter(r->adapter, &error) &&
		open_running(batch, r, &error))
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
			m1pg_exchange_wait();
	}
	pfree(w.running);
}
