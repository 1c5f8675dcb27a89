/*
 * cuda_state.c - the memory of sequences on the GPU: fixed-size lightning states, paged
 * KV, and snapshots of both, all allocated when the backend is configured. pages.c knows
 * who holds which page.
 *
 * What is given back is wiped, in the order of the stream: after the steps that still
 * read it, before those of its next owner. Which page holds which positions is known on
 * the host, and in a table on the device that learns of new pages before the step that
 * uses them. The copy that is sent there is changed only once the one before has gone: a
 * sequence that starts anew may be given pages while its predecessor's are still on their
 * way.
 */
#include "backend/cuda/cuda_internal.h"
#include "base/least.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(M1K_PAGE_TOKENS == M1B_PAGE_TOKENS, "kernels and backend agree on pages");

/* A snapshot keeps at most so many pages that no sequence shares, on average: what the pool has room for. */
#define PAGES_OF_SNAPSHOT 64

/* ---- the plan ---- */

void
m1b_cuda_states_want(m1b_cuda *c, m1b_cuda_buffers *all)
{
	c->pool.table_stride = m1b_pages_for(c->g.max_context);
	m1b_cuda_want(all, &c->pool.device_table, (size_t) c->g.max_states * (size_t) c->pool.table_stride,
				  sizeof *c->pool.device_table);
}

static m1_status
does_not_fit(const m1b_geometry *g, const m1b_cuda_plan *plan, m1_error *err)
{
	m1_fail(err, M1_E_NO_MEMORY, "the model does not fit the device");
	m1_error_detail(err,
					"Bytes: %zu available; %zu weights, %zu activations, %zu work space, %zu states of %d sequences, "
					"%d snapshots and %d choices being scored, %zu for each page of %d tokens.",
					plan->available, plan->weights, plan->activations, plan->work, plan->states, g->max_states,
					plan->snapshots, plan->own_places, plan->page_bytes, M1B_PAGE_TOKENS);
	m1_error_hint(err, "Lower {max_requests}, {max_context} or {prefix_cache_size}, or use smaller weights.");
	return M1_E_NO_MEMORY;
}

/* As many as there are sequences, unless that takes more than this share of what pages could have. */
#define OWN_PLACES_SHARE 4

static int
own_places(const m1b_geometry *g, const m1b_cuda_plan *plan, size_t taken)
{
	const size_t left = plan->available > taken ? plan->available - taken : 0;
	const size_t fit = left / OWN_PLACES_SHARE / (plan->state_bytes + 1);

	return fit < 1 ? 1 : (int) m1_min_size(fit, (size_t) g->max_states);
}

m1_status
m1b_cuda_states_plan(const m1b_geometry *g, bool tensor_cores, m1b_cuda_plan *plan, m1_error *err)
{
	const size_t dd = (size_t) g->head_dim * (size_t) g->head_dim;
	const size_t whole = (size_t) m1b_pages_for(g->max_context) * (size_t) g->max_states;
	size_t taken, states, pages, extra;

	plan->state_bytes = (size_t) g->lightning_layers * (size_t) g->heads * dd * sizeof(float);
	plan->slot_bytes = (size_t) 2 * (size_t) g->kv_heads * M1B_PAGE_TOKENS * (size_t) g->head_dim *
					   (tensor_cores ? sizeof(uint16_t) : sizeof(float));
	plan->page_bytes = m1b_cuda_round((size_t) g->softmax_layers * plan->slot_bytes);
	/* A model without softmax layers still counts pages, so that admission stays one rule. */
	if (plan->page_bytes == 0)
		plan->page_bytes = M1B_CUDA_ALIGNMENT;
	plan->snapshots = (int) m1_min_size(g->snapshot_bytes / (plan->state_bytes + plan->page_bytes), 65536);
	taken = plan->weights + plan->activations + plan->work;
	states = (size_t) g->max_states + (size_t) plan->snapshots;
	plan->own_places = own_places(g, plan, taken + states * plan->state_bytes);
	plan->states = m1b_cuda_round((states + (size_t) plan->own_places) * plan->state_bytes);
	taken += plan->states;
	if (taken + plan->page_bytes > plan->available)
		return does_not_fit(g, plan, err);
	pages = m1_min_size(m1_min_size((plan->available - taken) / plan->page_bytes, whole), INT32_MAX);
	if (g->kv_bytes != 0)
		pages = m1_min_size(pages, g->kv_bytes / plan->page_bytes);
	if (pages == 0)
		return does_not_fit(g, plan, err);
	extra =
		m1_min_size((plan->available - taken) / plan->page_bytes - pages,
					m1_min_size((size_t) plan->snapshots * PAGES_OF_SNAPSHOT, g->snapshot_bytes / plan->page_bytes));
	plan->sequence_pages = (int) pages;
	plan->n_pages = (int) m1_min_size(pages + extra, INT32_MAX);
	plan->pages = (size_t) plan->n_pages * plan->page_bytes;
	return M1_OK;
}

/* ---- the pools ---- */

static char *
page_at(const m1b_cuda *c, int page)
{
	return c->pool.page_memory + (size_t) page * c->plan.page_bytes;
}

/* States come first, then snapshots. */
static char *
state_at(const m1b_cuda *c, int index)
{
	return (char *) c->pool.state_memory + (size_t) index * c->plan.state_bytes;
}

static void
copy_state(m1b_cuda *c, int to, int from)
{
	m1b_cuda_copy(c, state_at(c, to), state_at(c, from), c->plan.state_bytes, "copying a state");
}

static void
wipe_state(m1b_cuda *c, int index)
{
	m1b_cuda_zero(c, state_at(c, index), c->plan.state_bytes, "wiping a state");
}

static void
wipe_page(void *backend, int page)
{
	m1b_cuda *c = backend;

	m1b_cuda_zero(c, page_at(c, page), c->plan.page_bytes, "wiping a page");
}

static void
copy_page(void *backend, int to, int from)
{
	m1b_cuda *c = backend;

	m1b_cuda_copy(c, page_at(c, to), page_at(c, from), c->plan.page_bytes, "copying a page");
}

static m1_status
allocate(m1b_cuda *c, m1_error *err)
{
	m1b_cuda_pool *pool = &c->pool;
	const size_t numbers = (size_t) c->g.max_states * (size_t) pool->table_stride;
	const m1_status status = m1b_cuda_pinned(&pool->host_table, numbers * sizeof *pool->host_table, err);
	cudaError_t error = cudaSuccess;
	void *states = NULL;
	void *pages = NULL;

	if (status != M1_OK)
		return status;
	if (c->plan.states > 0)
		error = cudaMalloc(&states, c->plan.states);
	pool->state_memory = states;
	if (error == cudaSuccess)
		error = cudaMalloc(&pages, c->plan.pages);
	pool->page_memory = pages;
	if (error != cudaSuccess)
		return m1b_cuda_error(error, "allocating states and KV pages", err);
	/* zeros: a state starts from them, and attention multiplies unwritten values of a page by zero */
	m1b_cuda_zero(c, states, c->plan.states, "wiping states");
	m1b_cuda_zero(c, pages, c->plan.pages, "wiping pages");
	return m1b_cuda_status(c, err);
}

m1_status
m1b_cuda_states_create(m1b_cuda *c, m1_error *err)
{
	m1b_cuda_pool *pool = &c->pool;
	const m1b_geometry *g = &c->g;
	m1_status status;

	pool->page_numbers = calloc((size_t) g->max_states * (size_t) pool->table_stride, sizeof *pool->page_numbers);
	pool->states = calloc((size_t) g->max_states, sizeof *pool->states);
	pool->snapshots = calloc((size_t) (c->plan.snapshots + c->plan.own_places), sizeof *pool->snapshots);
	pool->pages = (m1b_pages){.n_pages = c->plan.n_pages,
							  .sequence_pages = c->plan.sequence_pages,
							  .page_bytes = c->plan.page_bytes,
							  .state_bytes = c->plan.state_bytes,
							  .wipe = wipe_page,
							  .copy = copy_page,
							  .backend = c};
	if (!m1b_pages_create(&pool->pages) || pool->page_numbers == NULL || pool->states == NULL ||
		pool->snapshots == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d page numbers", c->plan.n_pages);
	if ((status = allocate(c, err)) != M1_OK)
		return status;
	for (int i = 0; i < g->max_states; i++)
	{
		pool->states[i].index = i;
		pool->states[i].list.pages = pool->page_numbers + (size_t) i * (size_t) pool->table_stride;
	}
	return M1_OK;
}

void
m1b_cuda_states_free(m1b_cuda *c)
{
	m1b_cuda_pool *pool = &c->pool;

	for (int i = 0; pool->snapshots != NULL && i < c->plan.snapshots + c->plan.own_places; i++)
		free(pool->snapshots[i].pages);
	free(pool->snapshots);
	free(pool->states);
	m1b_pages_free(&pool->pages);
	free(pool->page_numbers);
	cudaFreeHost(pool->host_table);
	cudaFree(pool->state_memory);
	cudaFree(pool->page_memory);
}

m1b_memory
m1b_cuda_memory(const m1b_backend *b)
{
	const m1b_cuda *c = (const m1b_cuda *) b;
	m1b_memory memory = m1b_pages_memory(&c->pool.pages);

	memory.own_places = c->plan.own_places;
	return memory;
}

/* ---- states ---- */

/* One that nobody uses, for n_tokens; NULL when there is none. */
static m1b_state *
free_state(m1b_cuda *c, int n_tokens)
{
	m1b_cuda_pool *pool = &c->pool;

	for (int i = 0; i < c->g.max_states && n_tokens <= c->g.max_context; i++)
		if (!pool->states[i].used)
			return &pool->states[i];
	return NULL;
}

m1b_state *
m1b_cuda_state_acquire(m1b_backend *b, int n_tokens)
{
	m1b_cuda *c = m1b_cuda_of(b);
	m1b_state *s = free_state(c, n_tokens);

	if (s == NULL || !m1b_pages_reserve(&c->pool.pages, &s->list, n_tokens))
		return NULL;
	s->used = true;
	s->uploaded = 0;
	return s;
}

m1b_state *
m1b_cuda_state_acquire_from(m1b_backend *b, int n_tokens, const m1b_snapshot *from)
{
	m1b_cuda *c = m1b_cuda_of(b);
	m1b_state *s = free_state(c, n_tokens);

	if (s == NULL ||
		!m1b_pages_reserve_from(&c->pool.pages, &s->list, n_tokens, from->pages, from->n_pages, from->partial))
		return NULL;
	copy_state(c, s->index, from->index);
	s->used = true;
	s->uploaded = 0;
	return s;
}

void
m1b_cuda_state_trim(m1b_backend *b, m1b_state *s, int n_tokens)
{
	m1b_pages_trim(&m1b_cuda_of(b)->pool.pages, &s->list, n_tokens);
}

void
m1b_cuda_state_release(m1b_backend *b, m1b_state *s)
{
	m1b_cuda *c = m1b_cuda_of(b);

	wipe_state(c, s->index);
	m1b_pages_release(&c->pool.pages, &s->list);
	s->used = false;
}

void
m1b_cuda_state_extend(m1b_cuda *c, m1b_state *s, int n_tokens)
{
	const int from = s->uploaded;
	const size_t at = (size_t) s->index * (size_t) c->pool.table_stride + (size_t) from;
	size_t bytes;

	m1b_pages_extend(&c->pool.pages, &s->list, n_tokens);
	bytes = (size_t) (s->list.n_pages - from) * sizeof *s->list.pages;
	memcpy(c->pool.host_table + at, s->list.pages + from, bytes);
	m1b_cuda_upload(c, c->pool.device_table + at, c->pool.host_table + at, bytes, "uploading page numbers");
	s->uploaded = s->list.n_pages;
}

/* ---- snapshots ---- */

size_t
m1b_cuda_snapshot_cost(const m1b_backend *b, const m1b_state *s, int n_tokens)
{
	return m1b_pages_snapshot_cost(&((const m1b_cuda *) b)->pool.pages, s != NULL ? &s->list : NULL, n_tokens);
}

static m1b_snapshot *
free_place(m1b_cuda *c, m1b_account account)
{
	m1b_cuda_pool *pool = &c->pool;
	const int first = account == M1B_SHARED ? 0 : c->plan.snapshots;
	const int end = account == M1B_SHARED ? c->plan.snapshots : c->plan.snapshots + c->plan.own_places;

	for (int i = first; i < end; i++)
		if (pool->snapshots[i].pages == NULL)
		{
			pool->snapshots[i].index = c->g.max_states + i;
			pool->snapshots[i].account = account;
			return &pool->snapshots[i];
		}
	return NULL;
}

m1b_snapshot *
m1b_cuda_snapshot_take(m1b_backend *b, const m1b_state *s, int n_tokens, m1b_account account)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const int held = m1b_pages_held(&s->list, n_tokens);
	m1b_snapshot *snapshot = free_place(c, account);
	int *pages = snapshot != NULL ? calloc((size_t) held + 1, sizeof *pages) : NULL;

	if (pages == NULL || !m1b_pages_snapshot(&c->pool.pages, &s->list, n_tokens, account, pages, &snapshot->partial))
	{
		free(pages);
		return NULL;
	}
	snapshot->pages = pages;
	snapshot->n_pages = held;
	copy_state(c, snapshot->index, s->index);
	return snapshot;
}

void
m1b_cuda_snapshot_release(m1b_backend *b, m1b_snapshot *snapshot)
{
	m1b_cuda *c = m1b_cuda_of(b);

	wipe_state(c, snapshot->index);
	m1b_pages_snapshot_release(&c->pool.pages, snapshot->account, snapshot->pages, snapshot->n_pages);
	free(snapshot->pages);
	snapshot->pages = NULL;
}
