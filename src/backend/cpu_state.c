/*
 * cpu_state.c - the memory of sequences: fixed-size lightning states and paged KV.
 *
 * Both pools are address space only until they are touched, so resident memory
 * follows the tokens in use; what a sequence gives back is returned to the system
 * at once, which also wipes it. Pages for a whole sequence are reserved when its
 * state is acquired: a step never runs out midway.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MADV_DONTNEED */
#include "backend/cpu_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* How many pages the pool has: the budget, or enough for every state's whole context. */
static size_t
pool_pages(const m1b_cpu *c)
{
	size_t whole = (size_t) pages_for(c->g.max_context) * (size_t) c->g.max_states;
	size_t pages = c->g.kv_bytes == 0 ? whole : c->g.kv_bytes / c->page_bytes;

	return pages < whole ? pages : whole;
}

m1_status
m1b_cpu_states_configure(m1b_cpu *c, m1_error *err)
{
	const m1b_geometry *g = &c->g;
	size_t system_page = (size_t) sysconf(_SC_PAGESIZE);
	size_t dd = (size_t) g->head_dim * (size_t) g->head_dim;
	size_t pages;

	c->state_bytes = round_up((size_t) g->lightning_layers * (size_t) g->heads * dd * sizeof(float), system_page);
	c->page_bytes = round_up((size_t) g->softmax_layers * 2 * (size_t) g->kv_heads * M1B_PAGE_TOKENS *
								 (size_t) g->head_dim * sizeof(float),
							 system_page);
	/* A model without softmax layers still counts pages, of the smallest size, so that admission stays one rule. */
	if (c->page_bytes == 0)
		c->page_bytes = system_page;
	pages = pool_pages(c);
	if (pages < (size_t) pages_for(g->max_context) || pages > INT32_MAX)
	{
		m1_fail(err, M1_E_NO_MEMORY, "the KV cache does not hold one context of %d tokens", g->max_context);
		m1_error_detail(err, "It has room for %zu pages of %d tokens, %zu bytes each.", pages, M1B_PAGE_TOKENS,
						c->page_bytes);
		m1_error_hint(err, "Lower max_context.");
		return M1_E_NO_MEMORY;
	}
	c->n_pages = (int) pages;
	c->states = calloc((size_t) g->max_states, sizeof *c->states);
	c->free_pages = calloc(pages, sizeof *c->free_pages);
	c->page_memory = reserve_address_space(pages * c->page_bytes);
	if (c->state_bytes > 0)
		c->state_memory = reserve_address_space((size_t) g->max_states * c->state_bytes);
	if (c->states == NULL || c->free_pages == NULL || c->page_memory == NULL ||
		(c->state_bytes > 0 && c->state_memory == NULL))
	{
		m1_fail(err, M1_E_NO_MEMORY, "could not reserve address space for %d sequences", g->max_states);
		m1_error_detail(err, "%zu bytes of state each and %zu KV pages of %zu bytes.", c->state_bytes, pages,
						c->page_bytes);
		m1_error_hint(err, "Lower max_requests or max_context.");
		return M1_E_NO_MEMORY;
	}
	for (int i = 0; i < c->n_pages; i++)
		c->free_pages[i] = c->n_pages - 1 - i;
	c->n_free = c->n_unreserved = c->n_pages;
	for (int i = 0; i < g->max_states; i++)
	{
		m1b_state *s = &c->states[i];

		s->lightning = (float *) (void *) (c->state_memory + (size_t) i * c->state_bytes);
		s->pages = calloc((size_t) pages_for(g->max_context), sizeof *s->pages);
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
	if (c->page_memory != NULL)
		munmap(c->page_memory, (size_t) c->n_pages * c->page_bytes);
	if (c->state_memory != NULL)
		munmap(c->state_memory, (size_t) c->g.max_states * c->state_bytes);
}

m1b_state *
m1b_cpu_state_acquire(m1b_backend *b, int n_tokens)
{
	m1b_cpu *c = m1b_cpu_of(b);
	int pages = pages_for(n_tokens);

	if (pages > c->n_unreserved || n_tokens > c->g.max_context)
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

void
m1b_cpu_state_release(m1b_backend *b, m1b_state *s)
{
	m1b_cpu *c = m1b_cpu_of(b);

	/* MADV_DONTNEED gives zeroed memory at the next touch: the state starts from zero, and the text is gone. */
	if (c->state_bytes > 0 && madvise(s->lightning, c->state_bytes, MADV_DONTNEED) != 0)
		memset(s->lightning, 0, c->state_bytes);
	for (int i = 0; i < s->n_pages; i++)
	{
		char *page = c->page_memory + (size_t) s->pages[i] * c->page_bytes;

		if (madvise(page, c->page_bytes, MADV_DONTNEED) != 0)
			memset(page, 0, c->page_bytes);
		c->free_pages[c->n_free++] = s->pages[i];
	}
	c->n_unreserved += s->n_pages + s->reserved;
	s->n_pages = s->reserved = 0;
	s->used = false;
}

void
m1b_cpu_state_extend(m1b_cpu *c, m1b_state *s, int n_tokens)
{
	while (s->n_pages < pages_for(n_tokens))
	{
		s->pages[s->n_pages++] = c->free_pages[--c->n_free];
		s->reserved--;
	}
}

float *
m1b_cpu_page(const m1b_cpu *c, const m1b_state *s, int page, int slot, int which, int kv_head)
{
	size_t head_floats = (size_t) M1B_PAGE_TOKENS * (size_t) c->g.head_dim;
	size_t at = (((size_t) slot * 2 + (size_t) which) * (size_t) c->g.kv_heads + (size_t) kv_head) * head_floats;

	return (float *) (void *) (c->page_memory + (size_t) s->pages[page] * c->page_bytes) + at;
}
