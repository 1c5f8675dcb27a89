/*
 * pages.h - who holds which KV page: states, snapshots, or nobody. Numbers only; where
 * pages are and what is in them is each backend's own.
 *
 * Pages for a whole sequence are reserved when its state is acquired: a step never runs
 * out midway. A page belongs to all states and snapshots that hold it. Only the page at
 * a sequence's end is ever written to, and only full pages are shared, so a shared page
 * is never written to. At any time n_unreserved + what all states have reserved =
 * n_free, and n_free + pages with holders = n_pages. Step thread only.
 */
#ifndef M1_BACKEND_PAGES_H
#define M1_BACKEND_PAGES_H

#include "backend/backend.h"

#define M1B_PAGE_TOKENS 64 /* tokens of one KV page */

/* Who holds a page. */
typedef struct m1b_page_use
{
	int holders;   /* states and snapshots; 0 = free */
	int snapshots; /* of the holders, M1B_SHARED ones: others count like the states that they belong to */
} m1b_page_use;

typedef struct m1b_pages
{
	int n_pages;
	int sequence_pages; /* of n_pages, what kv_bytes pays for; the rest is for snapshots. A bound for one sequence */
	size_t page_bytes;
	size_t state_bytes; /* of a snapshot, besides its pages */
	m1b_page_use *use;	/* [n_pages] */
	int *free_pages;	/* stack */
	int n_free;
	int n_unreserved; /* free pages that no state has a claim on: n_free less what states have reserved */
	/* M1B_SHARED snapshots */
	int n_snapshot_pages; /* pages that only they hold */
	int n_snapshots;
	size_t snapshot_bytes;				   /* of all; a page that several share counts once */
	void (*wipe)(void *backend, int page); /* makes a page zeros: it has no holder any more */
	void (*copy)(void *backend, int to, int from);
	void *backend;
} m1b_pages;

/* The pages of one state. */
typedef struct m1b_page_list
{
	int *pages;	  /* page numbers, in order of position; room for sequence_pages */
	int n_pages;  /* pages in use */
	int reserved; /* pages this state may still take without asking */
} m1b_page_list;

static inline int
m1b_pages_for(int n_tokens)
{
	return (n_tokens + M1B_PAGE_TOKENS - 1) / M1B_PAGE_TOKENS;
}

/*
 * p's sizes, functions and backend are set; allocates the rest. false when memory runs out. m1b_pages_free is safe
 * then.
 */
bool m1b_pages_create(m1b_pages *p);
void m1b_pages_free(m1b_pages *p);
m1b_memory m1b_pages_memory(const m1b_pages *p);

/* Reserves pages for n_tokens. false when there are too few. */
bool m1b_pages_reserve(m1b_pages *p, m1b_page_list *list, int n_tokens);
/* The same, beginning with the pages of a snapshot: the list shares the full ones, and has a copy of a partial one. */
bool m1b_pages_reserve_from(m1b_pages *p, m1b_page_list *list, int n_tokens, const int *pages, int n_pages,
							bool partial);
/* Makes sure that pages for positions [0, n_tokens) are there; cannot fail within the reservation. */
void m1b_pages_extend(m1b_pages *p, m1b_page_list *list, int n_tokens);
/* Gives back what is reserved beyond n_tokens. */
void m1b_pages_trim(m1b_pages *p, m1b_page_list *list, int n_tokens);
void m1b_pages_release(m1b_pages *p, m1b_page_list *list);

/* A state has pages only as far as softmax layers have filled them. */
int m1b_pages_held(const m1b_page_list *list, int n_tokens);
/* See m1b_ops.snapshot_cost. */
size_t m1b_pages_snapshot_cost(const m1b_pages *p, const m1b_page_list *list, int n_tokens);
/*
 * The pages of a snapshot: the list's full ones, shared, and a copy of the last when *partial. false when there is no
 * page for that. pages has room for m1b_pages_held().
 */
bool m1b_pages_snapshot(m1b_pages *p, const m1b_page_list *list, int n_tokens, m1b_account account, int *pages,
						bool *partial);
void m1b_pages_snapshot_release(m1b_pages *p, m1b_account account, const int *pages, int n);

#endif
