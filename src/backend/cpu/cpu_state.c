/*
 * cpu_state.c - the memory of sequences: fixed-size lightning states, paged KV, and
 * snapshots of both. pages.c knows who holds which page.
 *
 * Both pools are address space only until they are touched, so resident memory
 * follows the tokens in use; what a sequence gives back is wiped, and returned to
 * the system but for a little, which short requests take again and again: to map
 * it anew for each would take longer than a step of a small model.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MADV_DONTNEED */
#include "blocks/blocks.h"
#include "backend/cpu/cpu_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/least.h"
#include "base/memory.h"

/* Of a pool, from its beginning; but no more than snapshots may take, so that who wants none gets all back. */
#define KEPT_BYTES ((size_t) 64 << 20)

static char *
reserve_address_space(size_t bytes)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *p = bytes > 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) : MAP_FAILED;

	if (p == MAP_FAILED)
		p = NULL;
	return p;
}

/* ---- the pools ---- */

/*
 * Half of the memory that the weights leave: activations, states, PostgreSQL and the page cache need room, too. Where
 * weights are larger than memory, and read from disk again and again, still an eighth of it.
 */
static size_t
safe_share(size_t weight_bytes)
{
	const size_t memory = m1_machine_memory();
	const size_t left = memory > weight_bytes ? (memory - weight_bytes) / 2 : 0;

	return left > memory / 8 ? left : memory / 8;
}

/* Pages that sequences may use: the budget, or enough for every state's whole context. */
static size_t
sequence_pages(const m1b_cpu *c)
{
	const m1b_geometry *g = &c->g;
	const size_t whole = (size_t) m1b_pages_for(g->max_context) * (size_t) g->max_states;

	return m1_min_size(whole, (g->kv_bytes == 0 ? safe_share(g->weight_bytes) : g->kv_bytes) / c->pages.page_bytes);
}

size_t
m1b_cpu_head_bytes(const m1b_cpu *c)
{
	return m1b_bytes(c->kv_type, (size_t) M1B_PAGE_TOKENS * (size_t) c->g.head_dim);
}

static char *
page_at(const m1b_cpu *c, int page)
{
	return c->page_memory + (size_t) page * c->pages.page_bytes;
}

/* Zeroes a piece of a pool, so that the text is gone. It goes back to the system, unless it is one of the first. */
static void
wipe(const m1b_cpu *c, char *pool, size_t offset, size_t bytes)
{
	const size_t kept = m1_min_size(KEPT_BYTES, c->g.snapshot_bytes);

	if (offset + bytes <= kept || madvise(pool + offset, bytes, MADV_DONTNEED) != 0)
		memset(pool + offset, 0, bytes);
}

static void
wipe_page(void *backend, int page)
{
	const m1b_cpu *c = backend;

	wipe(c, c->page_memory, (size_t) page * c->pages.page_bytes, c->pages.page_bytes);
}

static void
copy_page(void *backend, int to, int from)
{
	const m1b_cpu *c = backend;

	memcpy(page_at(c, to), page_at(c, from), c->pages.page_bytes);
}

static m1_status
reserve_pools(m1b_cpu *c, m1_error *err)
{
	const m1b_geometry *g = &c->g;
	const size_t page_bytes = c->pages.page_bytes;
	const size_t for_sequences = sequence_pages(c);
	/* snapshots cannot take what the machine does not have */
	const size_t for_snapshots = m1_min_size(g->snapshot_bytes, m1_machine_memory()) / page_bytes;
	const size_t pages = m1_min_size(for_sequences + for_snapshots, INT32_MAX);

	if (for_sequences < 1 || for_sequences > INT32_MAX)
	{
		m1_fail(err, M1_E_NO_MEMORY, "the KV cache does not hold a single page of %d tokens", M1B_PAGE_TOKENS);
		m1_error_detail(err, "A page takes %zu bytes.", page_bytes);
		m1_error_hint(err, "Raise {kv_cache_size}.");
		return M1_E_NO_MEMORY;
	}
	c->pages.sequence_pages = (int) for_sequences;
	c->pages.n_pages = (int) pages;
	c->states = calloc((size_t) g->max_states, sizeof *c->states);
	c->page_memory = reserve_address_space(pages * page_bytes);
	if (c->pages.state_bytes > 0)
		c->state_memory = reserve_address_space((size_t) g->max_states * c->pages.state_bytes);
	if (!m1b_pages_create(&c->pages) || c->states == NULL || c->page_memory == NULL ||
		(c->pages.state_bytes > 0 && c->state_memory == NULL))
	{
		m1_fail(err, M1_E_NO_MEMORY, "could not reserve address space for %d sequences", g->max_states);
		m1_error_detail(err, "%zu bytes of state each and %zu KV pages of %zu bytes.", c->pages.state_bytes, pages,
						page_bytes);
		m1_error_hint(err, "Lower {max_requests}, {max_context} or {kv_cache_size}.");
		return M1_E_NO_MEMORY;
	}
	return M1_OK;
}

m1_status
m1b_cpu_states_configure(m1b_cpu *c, m1_error *err)
{
	const m1b_geometry *g = &c->g;
	size_t system_page = (size_t) sysconf(_SC_PAGESIZE);
	size_t dd = (size_t) g->head_dim * (size_t) g->head_dim;
	size_t heads = (size_t) g->softmax_layers * 2 * (size_t) g->kv_heads;
	m1_status status;

	c->kv_type = g->integer_experts ? M1B_BF16 : M1B_F32;
	c->pages.wipe = wipe_page;
	c->pages.copy = copy_page;
	c->pages.backend = c;
	c->pages.state_bytes =
		m1b_round_up((size_t) g->lightning_layers * (size_t) g->heads * dd * sizeof(float), system_page);
	c->pages.page_bytes = m1b_round_up(heads * m1b_cpu_head_bytes(c), system_page);
	/* A model without softmax layers still counts pages, of the smallest size, so that admission stays one rule. */
	if (c->pages.page_bytes == 0)
		c->pages.page_bytes = system_page;
	if ((status = reserve_pools(c, err)) != M1_OK)
		return status;
	for (int i = 0; i < g->max_states; i++)
	{
		m1b_state *s = &c->states[i];

		s->lightning = (float *) (void *) (c->state_memory + (size_t) i * c->pages.state_bytes);
		s->list.pages = calloc((size_t) c->pages.sequence_pages, sizeof *s->list.pages);
		if (s->list.pages == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d page tables", g->max_states);
	}
	return M1_OK;
}

void
m1b_cpu_states_free(m1b_cpu *c)
{
	if (c->states != NULL)
		for (int i = 0; i < c->g.max_states; i++)
			free(c->states[i].list.pages);
	free(c->states);
	m1b_pages_free(&c->pages);
	if (c->page_memory != NULL)
		munmap(c->page_memory, (size_t) c->pages.n_pages * c->pages.page_bytes);
	if (c->state_memory != NULL)
		munmap(c->state_memory, (size_t) c->g.max_states * c->pages.state_bytes);
}

m1b_memory
m1b_cpu_memory(const m1b_backend *b)
{
	const m1b_cpu *c = (const m1b_cpu *) b;
	m1b_memory memory = m1b_pages_memory(&c->pages);

	/* their states are mapped when they are taken, as a sequence's own */
	memory.own_places = c->g.max_states;
	return memory;
}

/* ---- states ---- */

/* One that nobody uses, for n_tokens; NULL when there is none. */
static m1b_state *
free_state(m1b_cpu *c, int n_tokens)
{
	for (int i = 0; i < c->g.max_states && n_tokens <= c->g.max_context; i++)
		if (!c->states[i].used)
			return &c->states[i];
	return NULL;
}

m1b_state *
m1b_cpu_state_acquire(m1b_backend *b, int n_tokens)
{
	m1b_cpu *c = m1b_cpu_of(b);
	m1b_state *s = free_state(c, n_tokens);

	if (s == NULL || !m1b_pages_reserve(&c->pages, &s->list, n_tokens))
		return NULL;
	s->used = true;
	return s;
}

m1b_state *
m1b_cpu_state_acquire_from(m1b_backend *b, int n_tokens, const m1b_snapshot *from)
{
	m1b_cpu *c = m1b_cpu_of(b);
	m1b_state *s = free_state(c, n_tokens);

	if (s == NULL || !m1b_pages_reserve_from(&c->pages, &s->list, n_tokens, from->pages, from->n_pages, from->partial))
		return NULL;
	if (c->pages.state_bytes > 0)
		memcpy(s->lightning, from->lightning, c->pages.state_bytes);
	s->used = true;
	return s;
}

void
m1b_cpu_state_trim(m1b_backend *b, m1b_state *s, int n_tokens)
{
	m1b_pages_trim(&m1b_cpu_of(b)->pages, &s->list, n_tokens);
}

void
m1b_cpu_state_release(m1b_backend *b, m1b_state *s)
{
	m1b_cpu *c = m1b_cpu_of(b);

	/* the state starts from zero next time, and the text is gone */
	if (c->pages.state_bytes > 0)
		wipe(c, c->state_memory, (size_t) (s - c->states) * c->pages.state_bytes, c->pages.state_bytes);
	m1b_pages_release(&c->pages, &s->list);
	s->used = false;
}

void
m1b_cpu_state_extend(m1b_cpu *c, m1b_state *s, int n_tokens)
{
	m1b_pages_extend(&c->pages, &s->list, n_tokens);
}

void *
m1b_cpu_page(const m1b_cpu *c, const m1b_state *s, int page, int slot, int which, int kv_head)
{
	size_t head = ((size_t) slot * 2 + (size_t) which) * (size_t) c->g.kv_heads + (size_t) kv_head;

	return page_at(c, s->list.pages[page]) + head * m1b_cpu_head_bytes(c);
}

/* ---- snapshots ---- */

size_t
m1b_cpu_snapshot_cost(const m1b_backend *b, const m1b_state *s, int n_tokens)
{
	return m1b_pages_snapshot_cost(&((const m1b_cpu *) b)->pages, s != NULL ? &s->list : NULL, n_tokens);
}

/* The states' part of a snapshot. false when there is no memory. */
static bool
copy_lightning(const m1b_cpu *c, const m1b_state *s, m1b_snapshot *snapshot)
{
	if (c->pages.state_bytes == 0)
		return true;
	snapshot->lightning = (float *) (void *) reserve_address_space(c->pages.state_bytes);
	if (snapshot->lightning == NULL)
		return false;
	memcpy(snapshot->lightning, s->lightning, c->pages.state_bytes);
	return true;
}

static void
free_snapshot(const m1b_cpu *c, m1b_snapshot *snapshot)
{
	/* gone from this process; the system wipes it before anybody sees it again */
	if (snapshot != NULL && snapshot->lightning != NULL)
		munmap(snapshot->lightning, c->pages.state_bytes);
	free(snapshot);
}

m1b_snapshot *
m1b_cpu_snapshot_take(m1b_backend *b, const m1b_state *s, int n_tokens, m1b_account account)
{
	m1b_cpu *c = m1b_cpu_of(b);
	const int held = m1b_pages_held(&s->list, n_tokens);
	m1b_snapshot *snapshot = calloc(1, sizeof *snapshot + (size_t) held * sizeof *snapshot->pages);

	if (snapshot == NULL || !copy_lightning(c, s, snapshot) ||
		!m1b_pages_snapshot(&c->pages, &s->list, n_tokens, account, snapshot->pages, &snapshot->partial))
	{
		free_snapshot(c, snapshot);
		return NULL;
	}
	snapshot->account = account;
	snapshot->n_pages = held;
	return snapshot;
}

void
m1b_cpu_snapshot_release(m1b_backend *b, m1b_snapshot *snapshot)
{
	m1b_cpu *c = m1b_cpu_of(b);

	m1b_pages_snapshot_release(&c->pages, snapshot->account, snapshot->pages, snapshot->n_pages);
	free_snapshot(c, snapshot);
}
