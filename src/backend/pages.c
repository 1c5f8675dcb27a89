/* pages.c - see pages.h. */
#include "backend/pages.h"

#include <stdlib.h>

bool
m1b_pages_create(m1b_pages *p)
{
	p->use = calloc((size_t) p->n_pages, sizeof *p->use);
	p->free_pages = calloc((size_t) p->n_pages, sizeof *p->free_pages);
	if (p->use == NULL || p->free_pages == NULL)
		return false;
	for (int i = 0; i < p->n_pages; i++)
		p->free_pages[i] = p->n_pages - 1 - i;
	p->n_free = p->n_unreserved = p->n_pages;
	return true;
}

void
m1b_pages_free(m1b_pages *p)
{
	free(p->use);
	free(p->free_pages);
}

m1b_memory
m1b_pages_memory(const m1b_pages *p)
{
	return (m1b_memory){
		.page_tokens = M1B_PAGE_TOKENS,
		.page_bytes = p->page_bytes,
		.pages = p->sequence_pages,
		.free_pages = p->n_unreserved,
		.snapshot_pages = p->n_snapshot_pages,
		.snapshots = p->n_snapshots,
		.snapshot_bytes = p->snapshot_bytes,
	};
}

/* ---- holders ---- */

static bool
only_snapshots(const m1b_page_use *use)
{
	return use->holders > 0 && use->holders == use->snapshots;
}

/* Adds or takes away (n = 1 or -1) a holder, and keeps the counts. */
static void
count_holder(m1b_pages *p, int page, int n, bool is_snapshot)
{
	m1b_page_use *use = &p->use[page];
	const m1b_page_use before = *use;

	use->holders += n;
	use->snapshots += is_snapshot ? n : 0;
	p->n_snapshot_pages += only_snapshots(use) - only_snapshots(&before);
	if (before.snapshots == 0 && use->snapshots > 0)
		p->snapshot_bytes += p->page_bytes;
	else if (before.snapshots > 0 && use->snapshots == 0)
		p->snapshot_bytes -= p->page_bytes;
}

/* A free page for one holder; the caller has made sure that there is one that it may have. */
static int
take_page(m1b_pages *p, bool is_snapshot)
{
	int page = p->free_pages[--p->n_free];

	count_holder(p, page, 1, is_snapshot);
	return page;
}

static void
leave_page(m1b_pages *p, int page, bool is_snapshot)
{
	count_holder(p, page, -1, is_snapshot);
	if (p->use[page].holders > 0)
		return;
	p->wipe(p->backend, page);
	p->free_pages[p->n_free++] = page;
	p->n_unreserved++;
}

/* ---- states ---- */

/* Pages for n_tokens, but for `shared` ones that the list will be given. */
static bool
reserve(m1b_pages *p, m1b_page_list *list, int n_tokens, int shared)
{
	const int pages = m1b_pages_for(n_tokens) - shared;

	if (pages > p->n_unreserved || m1b_pages_for(n_tokens) > p->sequence_pages)
		return false;
	list->n_pages = 0;
	list->reserved = pages;
	p->n_unreserved -= pages;
	return true;
}

bool
m1b_pages_reserve(m1b_pages *p, m1b_page_list *list, int n_tokens)
{
	return reserve(p, list, n_tokens, 0);
}

bool
m1b_pages_reserve_from(m1b_pages *p, m1b_page_list *list, int n_tokens, const int *pages, int n_pages, bool partial)
{
	const int full = n_pages - partial;

	if (!reserve(p, list, n_tokens, full))
		return false;
	for (; list->n_pages < full; list->n_pages++)
	{
		list->pages[list->n_pages] = pages[list->n_pages];
		count_holder(p, pages[list->n_pages], 1, false);
	}
	if (partial)
	{
		m1b_pages_extend(p, list, n_pages * M1B_PAGE_TOKENS);
		p->copy(p->backend, list->pages[full], pages[full]);
	}
	return true;
}

void
m1b_pages_extend(m1b_pages *p, m1b_page_list *list, int n_tokens)
{
	while (list->n_pages < m1b_pages_for(n_tokens))
	{
		list->pages[list->n_pages++] = take_page(p, false);
		list->reserved--;
	}
}

void
m1b_pages_trim(m1b_pages *p, m1b_page_list *list, int n_tokens)
{
	const int needed = m1b_pages_for(n_tokens) > list->n_pages ? m1b_pages_for(n_tokens) - list->n_pages : 0;

	if (needed >= list->reserved)
		return;
	p->n_unreserved += list->reserved - needed;
	list->reserved = needed;
}

void
m1b_pages_release(m1b_pages *p, m1b_page_list *list)
{
	for (int i = 0; i < list->n_pages; i++)
		leave_page(p, list->pages[i], false);
	p->n_unreserved += list->reserved;
	list->n_pages = list->reserved = 0;
}

/* ---- snapshots ---- */

int
m1b_pages_held(const m1b_page_list *list, int n_tokens)
{
	return list->n_pages < m1b_pages_for(n_tokens) ? list->n_pages : m1b_pages_for(n_tokens);
}

size_t
m1b_pages_snapshot_cost(const m1b_pages *p, const m1b_page_list *list, int n_tokens)
{
	size_t pages = (size_t) m1b_pages_for(n_tokens);

	if (list != NULL)
	{
		pages = (size_t) m1b_pages_held(list, n_tokens);
		for (int i = 0; i < list->n_pages && i < n_tokens / M1B_PAGE_TOKENS; i++)
			if (p->use[list->pages[i]].snapshots > 0)
				pages--; /* counted already */
	}
	return p->state_bytes + pages * p->page_bytes;
}

static void
count_snapshot(m1b_pages *p, m1b_account account, int n)
{
	if (account != M1B_SHARED)
		return;
	p->n_snapshots += n;
	p->snapshot_bytes += n > 0 ? p->state_bytes : -p->state_bytes;
}

bool
m1b_pages_snapshot(m1b_pages *p, const m1b_page_list *list, int n_tokens, m1b_account account, int *pages,
				   bool *partial)
{
	const int held = m1b_pages_held(list, n_tokens);
	const int full = n_tokens / M1B_PAGE_TOKENS < held ? n_tokens / M1B_PAGE_TOKENS : held;

	if (held - full > p->n_unreserved)
		return false;
	for (int i = 0; i < full; i++)
	{
		pages[i] = list->pages[i];
		count_holder(p, pages[i], 1, account == M1B_SHARED);
	}
	*partial = held > full;
	if (*partial)
	{
		/* the sequence goes on writing to its last page: the snapshot has a copy */
		pages[full] = take_page(p, account == M1B_SHARED);
		p->n_unreserved--;
		p->copy(p->backend, pages[full], list->pages[full]);
	}
	count_snapshot(p, account, 1);
	return true;
}

void
m1b_pages_snapshot_release(m1b_pages *p, m1b_account account, const int *pages, int n)
{
	for (int i = 0; i < n; i++)
		leave_page(p, pages[i], account == M1B_SHARED);
	count_snapshot(p, account, -1);
}
