/*
 * cpu_state.c - the memory of sequences: fixed-size lightning states, paged KV, and
 * snapshots of both.
 *
 * Both pools are address space only until they are touched, so resident memory
 * follows the tokens in use; what a sequence gives back is returned to the system
 * at once, which also wipes it. Pages for a whole sequence are reserved when its
 * state is acquired: a step never runs out midway.
 *
 * A page belongs to all states and snapshots that hold it. Only the page at a
 * sequence's end is ever written to, and only full pages are shared, so a shared
 * page is never written to. At any time n_unreserved + what all states have
 * reserved = n_free, and n_free + pages with holders = n_pages.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MADV_DONTNEED */
#include "backend/cpu_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"

static size_t
round_up(size_t n, size_t unit)
{
	return (n + unit - 1) / unit * unit;
}

static char *
reserve_address_space(size_t bytes)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *p = bytes > 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) : MAP_FAILED;

	if (p == MAP_FAILED)
		p = NULL;
	return p;
}

static int
pages_for(int n_tokens)
{
	return (n_tokens + M1B_PAGE_TOKENS - 1) / M1B_PAGE_TOKENS;
}

static size_t
smaller(size_t a, size_t b)
{
	return a < b ? a : b;
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
	const size_t whole = (size_t) pages_for(g->max_context) * (size_t) g->max_states;

	return smaller(whole, (g->kv_bytes == 0 ? safe_share(g->weight_bytes) : g->kv_bytes) / c->page_bytes);
}

static m1_status
reserve_pools(m1b_cpu *c, m1_error *err)
{
	const m1b_geometry *g = &c->g;
	const size_t for_sequences = sequence_pages(c);
	/* snapshots cannot take what the machine does not have */
	const size_t for_snapshots = smaller(g->snapshot_bytes, m1_machine_memory()) / c->page_bytes;
	const size_t pages = smaller(for_sequences + for_snapshots, INT32_MAX);

	if (for_sequences < 1 || for_sequences > INT32_MAX)
	{
		m1_fail(err, M1_E_NO_MEMORY, "the KV cache does not hold a single page of %d tokens", M1B_PAGE_TOKENS);
		m1_error_detail(err, "A page takes %zu bytes.", c->page_bytes);
		m1_error_hint(err, "Raise minimax_m1.kv_cache_size.");
		return M1_E_NO_MEMORY;
	}
	c->sequence_pages = (int) for_sequences;
	c->n_pages = (int) pages;
	c->states = calloc((size_t) g->max_states, sizeof *c->states);
	c->free_pages = calloc(pages, sizeof *c->free_pages);
	c->page_use = calloc(pages, sizeof *c->page_use);
	c->page_memory = reserve_address_space(pages * c->page_bytes);
	if (c->state_bytes > 0)
		c->state_memory = reserve_address_space((size_t) g->max_states * c->state_bytes);
	if (c->states == NULL || c->free_pages == NULL || c->page_use == NULL || c->page_memory == NULL ||
		(c->state_bytes > 0 && c->state_memory == NULL))
	{
		m1_fail(err, M1_E_NO_MEMORY, "could not reserve address space for %d sequences", g->max_states);
		m1_error_detail(err, "%zu bytes of state each and %zu KV pages of %zu bytes.", c->state_bytes, pages,
						c->page_bytes);
		m1_error_hint(err, "Lower max_requests, max_context or kv_cache_size.");
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
	m1_status status;

	c->state_bytes = round_up((size_t) g->lightning_layers * (size_t) g->heads * dd * sizeof(float), system_page);
	c->page_bytes = round_up((size_t) g->softmax_layers * 2 * (size_t) g->kv_heads * M1B_PAGE_TOKENS *
								 (size_t) g->head_dim * sizeof(float),
							 system_page);
	/* A model without softmax layers still counts pages, of the smallest size, so that admission stays one rule. */
	if (c->page_bytes == 0)
		c->page_bytes = system_page;
	if ((status = reserve_pools(c, err)) != M1_OK)
		return status;
	for (int i = 0; i < c->n_pages; i++)
		c->free_pages[i] = c->n_pages - 1 - i;
	c->n_free = c->n_unreserved = c->n_pages;
	for (int i = 0; i < g->max_states; i++)
	{
		m1b_state *s = &c->states[i];

		s->lightning = (float *) (void *) (c->state_memory + (size_t) i * c->state_bytes);
		s->pages = calloc((size_t) c->sequence_pages, sizeof *s->pages);
		if (s->pages == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d page tables", g->max_states);
	}
	return M1_OK;
}

void
m1b_cpu_states_free(m1b_cpu *c)
{
	if (c->states != NULL)
		for (int i = 0; i < c->g.max_states; i++)
			free(c->states[i].pages);
	free(c->states);
	free(c->free_pages);
	free(c->page_use);
	if (c->page_memory != NULL)
		munmap(c->page_memory, (size_t) c->n_pages * c->page_bytes);
	if (c->state_memory != NULL)
		munmap(c->state_memory, (size_t) c->g.max_states * c->state_bytes);
}

m1b_memory
m1b_cpu_memory(const m1b_backend *b)
{
	const m1b_cpu *c = (const m1b_cpu *) b;

	return (m1b_memory){
		.page_tokens = M1B_PAGE_TOKENS,
		.page_bytes = c->page_bytes,
		.pages = c->sequence_pages,
		.free_pages = c->n_unreserved,
		.snapshot_pages = c->n_snapshot_pages,
		.snapshots = c->n_snapshots,
		.snapshot_bytes = c->snapshot_bytes,
	};
}

/* ---- pages and their holders ---- */

static char *
page_at(const m1b_cpu *c, int page)
{
	return c->page_memory + (size_t) page * c->page_bytes;
}

static bool
only_snapshots(const m1b_page_use *use)
{
	return use->holders > 0 && use->holders == use->snapshots;
}

/* Adds or takes away (n = 1 or -1) a holder, and keeps the counts. */
static void
count_holder(m1b_cpu *c, int page, int n, bool is_snapshot)
{
	m1b_page_use *use = &c->page_use[page];
	const m1b_page_use before = *use;

	use->holders += n;
	use->snapshots += is_snapshot ? n : 0;
	c->n_snapshot_pages += only_snapshots(use) - only_snapshots(&before);
	if (before.snapshots == 0 && use->snapshots > 0)
		c->snapshot_bytes += c->page_bytes;
	else if (before.snapshots > 0 && use->snapshots == 0)
		c->snapshot_bytes -= c->page_bytes;
}

/* A free page for one holder; the caller has made sure that there is one that it may have. */
static int
take_page(m1b_cpu *c, bool is_snapshot)
{
	int page = c->free_pages[--c->n_free];

	count_holder(c, page, 1, is_snapshot);
	return page;
}

static void
leave_page(m1b_cpu *c, int page, bool is_snapshot)
{
	count_holder(c, page, -1, is_snapshot);
	if (c->page_use[page].holders > 0)
		return;
	/* MADV_DONTNEED gives zeroed memory at the next touch: the text is gone. */
	if (madvise(page_at(c, page), c->page_bytes, MADV_DONTNEED) != 0)
		memset(page_at(c, page), 0, c->page_bytes);
	c->free_pages[c->n_free++] = page;
	c->n_unreserved++;
}

/* ---- states ---- */

/* A state with `pages` pages reserved, or NULL. */
static m1b_state *
reserve_state(m1b_cpu *c, int n_tokens, int pages)
{
	if (pages > c->n_unreserved || n_tokens > c->g.max_context || pages_for(n_tokens) > c->sequence_pages)
		return NULL;
	for (int i = 0; i < c->g.max_states; i++)
	{
		m1b_state *s = &c->states[i];

		if (s->used)
			continue;
		s->used = true;
		s->n_pages = 0;
		s->reserved = pages;
		c->n_unreserved -= pages;
		return s;
	}
	return NULL;
}

m1b_state *
m1b_cpu_state_acquire(m1b_backend *b, int n_tokens)
{
	return reserve_state(m1b_cpu_of(b), n_tokens, pages_for(n_tokens));
}

m1b_state *
m1b_cpu_state_acquire_from(m1b_backend *b, int n_tokens, const m1b_snapshot *from)
{
	m1b_cpu *c = m1b_cpu_of(b);
	const int shared = from->n_pages - from->partial;
	m1b_state *s = reserve_state(c, n_tokens, pages_for(n_tokens) - shared);

	if (s == NULL)
		return NULL;
	for (; s->n_pages < shared; s->n_pages++)
	{
		s->pages[s->n_pages] = from->pages[s->n_pages];
		count_holder(c, s->pages[s->n_pages], 1, false);
	}
	if (from->partial)
	{
		m1b_cpu_state_extend(c, s, (shared + 1) * M1B_PAGE_TOKENS);
		memcpy(page_at(c, s->pages[shared]), page_at(c, from->pages[shared]), c->page_bytes);
	}
	if (c->state_bytes > 0)
		memcpy(s->lightning, from->lightning, c->state_bytes);
	return s;
}

void
m1b_cpu_state_trim(m1b_backend *b, m1b_state *s, int n_tokens)
{
	const int needed = pages_for(n_tokens) > s->n_pages ? pages_for(n_tokens) - s->n_pages : 0;

	if (needed >= s->reserved)
		return;
	m1b_cpu_of(b)->n_unreserved += s->reserved - needed;
	s->reserved = needed;
}

void
m1b_cpu_state_release(m1b_backend *b, m1b_state *s)
{
	m1b_cpu *c = m1b_cpu_of(b);

	/* the state starts from zero next time, and the text is gone */
	if (c->state_bytes > 0 && madvise(s->lightning, c->state_bytes, MADV_DONTNEED) != 0)
		memset(s->lightning, 0, c->state_bytes);
	for (int i = 0; i < s->n_pages; i++)
		leave_page(c, s->pages[i], false);
	c->n_unreserved += s->reserved;
	s->n_pages = s->reserved = 0;
	s->used = false;
}

void
m1b_cpu_state_extend(m1b_cpu *c, m1b_state *s, int n_tokens)
{
	while (s->n_pages < pages_for(n_tokens))
	{
		s->pages[s->n_pages++] = take_page(c, false);
		s->reserved--;
	}
}

float *
m1b_cpu_page(const m1b_cpu *c, const m1b_state *s, int page, int slot, int which, int kv_head)
{
	size_t head_floats = (size_t) M1B_PAGE_TOKENS * (size_t) c->g.head_dim;
	size_t at = (((size_t) slot * 2 + (size_t) which) * (size_t) c->g.kv_heads + (size_t) kv_head) * head_floats;

	return (float *) (void *) page_at(c, s->pages[page]) + at;
}

/* ---- snapshots ---- */

/* A state has pages only as far as softmax layers have filled them. */
static int
pages_held(const m1b_state *s, int n_tokens)
{
	return s->n_pages < pages_for(n_tokens) ? s->n_pages : pages_for(n_tokens);
}

size_t
m1b_cpu_snapshot_cost(const m1b_backend *b, const m1b_state *s, int n_tokens)
{
	const m1b_cpu *c = (const m1b_cpu *) b;
	size_t pages = (size_t) pages_for(n_tokens);

	if (s != NULL)
	{
		pages = (size_t) pages_held(s, n_tokens);
		for (int i = 0; i < s->n_pages && i < n_tokens / M1B_PAGE_TOKENS; i++)
			if (c->page_use[s->pages[i]].snapshots > 0)
				pages--; /* counted already */
	}
	return c->state_bytes + pages * c->page_bytes;
}

/* The states' part of a snapshot. false when there is no memory. */
static bool
copy_lightning(const m1b_cpu *c, const m1b_state *s, m1b_snapshot *snapshot)
{
	if (c->state_bytes == 0)
		return true;
	snapshot->lightning = (float *) (void *) reserve_address_space(c->state_bytes);
	if (snapshot->lightning == NULL)
		return false;
	memcpy(snapshot->lightning, s->lightning, c->state_bytes);
	return true;
}

m1b_snapshot *
m1b_cpu_snapshot_take(m1b_backend *b, const m1b_state *s, int n_tokens)
{
	m1b_cpu *c = m1b_cpu_of(b);
	const int held = pages_held(s, n_tokens);
	const int full = n_tokens / M1B_PAGE_TOKENS < held ? n_tokens / M1B_PAGE_TOKENS : held;
	m1b_snapshot *snapshot;

	if (held - full > c->n_unreserved)
		return NULL;
	snapshot = calloc(1, sizeof *snapshot + (size_t) held * sizeof *snapshot->pages);
	if (snapshot == NULL || !copy_lightning(c, s, snapshot))
	{
		free(snapshot);
		return NULL;
	}
	for (int i = 0; i < full; i++)
	{
		snapshot->pages[i] = s->pages[i];
		count_holder(c, s->pages[i], 1, true);
	}
	if (held > full)
	{
		/* the sequence goes on writing to its last page: the snapshot has a copy */
		snapshot->pages[full] = take_page(c, true);
		c->n_unreserved--;
		memcpy(page_at(c, snapshot->pages[full]), page_at(c, s->pages[full]), c->page_bytes);
	}
	snapshot->n_pages = held;
	snapshot->partial = held > full;
	c->n_snapshots++;
	c->snapshot_bytes += c->state_bytes;
	return snapshot;
}

void
m1b_cpu_snapshot_release(m1b_backend *b, m1b_snapshot *snapshot)
{
	m1b_cpu *c = m1b_cpu_of(b);

	for (int i = 0; i < snapshot->n_pages; i++)
		leave_page(c, snapshot->pages[i], true);
	/* gone from this process; the system wipes it before anybody sees it again */
	if (snapshot->lightning != NULL)
		munmap(snapshot->lightning, c->state_bytes);
	c->n_snapshots--;
	c->snapshot_bytes -= c->state_bytes;
	free(snapshot);
}
