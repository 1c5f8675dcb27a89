/*
 * bpe.c - see bpe.h. Symbols form a linked list, candidate merges a heap; a
 * candidate whose symbols have changed since it was pushed is skipped when popped.
 */
#define _DEFAULT_SOURCE /* explicit_bzero */
#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

typedef struct merge
{
	int32_t left, right; /* left < 0: empty */
	int32_t rank;
	int32_t id;
} merge;

struct m1_bpe
{
	size_t mask; /* capacity - 1, a power of two */
	size_t n;	 /* merges */
	merge table[];
};

typedef struct symbol
{
	int32_t id;			/* -1 once merged into its left neighbour */
	int32_t prev, next; /* -1 at the ends */
} symbol;

typedef struct candidate
{
	int32_t rank;
	int32_t at;			 /* left symbol */
	int32_t left, right; /* the ids it was pushed for */
	int32_t id;
} candidate;

m1_bpe *
m1_bpe_create(size_t n)
{
	size_t cap = 16;
	m1_bpe *bpe;

	while (cap < 2 * n)
		cap *= 2;
	bpe = malloc(sizeof *bpe + cap * sizeof *bpe->table);
	if (bpe == NULL)
		return NULL;
	bpe->mask = cap - 1;
	bpe->n = 0;
	for (size_t i = 0; i < cap; i++)
		bpe->table[i].left = -1;
	return bpe;
}

void
m1_bpe_free(m1_bpe *bpe)
{
	free(bpe);
}

/* The slot of a pair, or the empty slot where it would go. */
static size_t
slot_of(const m1_bpe *bpe, int32_t left, int32_t right)
{
	uint64_t h = ((uint64_t) (uint32_t) left << 32 | (uint32_t) right) * 0x9e3779b97f4a7c15u;
	size_t i = (size_t) (h >> 32) & bpe->mask;

	while (bpe->table[i].left >= 0 && (bpe->table[i].left != left || bpe->table[i].right != right))
		i = (i + 1) & bpe->mask;
	return i;
}

bool
m1_bpe_add(m1_bpe *bpe, int32_t rank, int32_t left, int32_t right, int32_t id)
{
	merge *m = &bpe->table[slot_of(bpe, left, right)];

	if (m->left >= 0)
		return false;
	*m = (merge){left, right, rank, id};
	bpe->n++;
	return true;
}

size_t
m1_bpe_count(const m1_bpe *bpe)
{
	return bpe->n;
}

void
m1_bpe_list(const m1_bpe *bpe, int32_t (*pairs)[2])
{
	for (size_t i = 0; i <= bpe->mask; i++)
		if (bpe->table[i].left >= 0)
		{
			pairs[bpe->table[i].rank][0] = bpe->table[i].left;
			pairs[bpe->table[i].rank][1] = bpe->table[i].right;
		}
}

/* n - 1 candidates at first, and at most two more for each of n - 1 merges */
static size_t
heap_bytes(size_t n)
{
	return 3 * n * sizeof(candidate);
}

void
m1_bpe_work_free(m1_bpe_work *work)
{
	if (work->cap > 0)
	{
		explicit_bzero(work->symbols, work->cap * sizeof(symbol));
		explicit_bzero(work->heap, heap_bytes(work->cap));
	}
	free(work->symbols);
	free(work->heap);
	memset(work, 0, sizeof *work);
}

static bool
reserve_work(m1_bpe_work *work, size_t n)
{
	size_t cap = work->cap == 0 ? 256 : work->cap;

	if (n <= work->cap)
		return true;
	while (cap < n)
		cap *= 2;
	m1_bpe_work_free(work);
	work->symbols = malloc(cap * sizeof(symbol));
	work->heap = malloc(heap_bytes(cap));
	if (work->symbols == NULL || work->heap == NULL)
		return false;
	work->cap = cap;
	return true;
}

static bool
before(const candidate *a, const candidate *b)
{
	return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void
heap_push(candidate *heap, size_t *n, candidate c)
{
	size_t i = (*n)++;

	while (i > 0 && before(&c, &heap[(i - 1) / 2]))
	{
		heap[i] = heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap[i] = c;
}

static candidate
heap_pop(candidate *heap, size_t *n)
{
	candidate top = heap[0];
	candidate last = heap[--(*n)];
	size_t i = 0;

	for (;;)
	{
		size_t child = 2 * i + 1;

		if (child >= *n)
			break;
		if (child + 1 < *n && before(&heap[child + 1], &heap[child]))
			child++;
		if (!before(&heap[child], &last))
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = last;
	return top;
}

/* Pushes the merge of symbol `at` with its right neighbour, if there is one. */
static void
consider(const m1_bpe *bpe, const symbol *s, int32_t at, candidate *heap, size_t *n)
{
	const merge *m;

	if (at < 0 || s[at].next < 0)
		return;
	m = &bpe->table[slot_of(bpe, s[at].id, s[s[at].next].id)];
	if (m->left >= 0)
		heap_push(heap, n, (candidate){m->rank, at, m->left, m->right, m->id});
}

bool
m1_bpe_apply(const m1_bpe *bpe, const int32_t *ids, size_t n, m1_bpe_work *work, m1_ids *out)
{
	symbol *s;
	candidate *heap;
	size_t n_heap = 0;

	if (n > INT32_MAX / 4 || !reserve_work(work, n))
		return false;
	s = work->symbols;
	heap = work->heap;
	for (size_t i = 0; i < n; i++)
		s[i] = (symbol){ids[i], (int32_t) i - 1, i + 1 < n ? (int32_t) i + 1 : -1};
	for (size_t i = 0; i + 1 < n; i++)
		consider(bpe, s, (int32_t) i, heap, &n_heap);
	while (n_heap > 0)
	{
		candidate c = heap_pop(heap, &n_heap);
		symbol *left = &s[c.at];
		int32_t gone = left->next;

		if (left->id != c.left || gone < 0 || s[gone].id != c.right)
			continue;
		left->id = c.id;
		left->next = s[gone].next;
		s[gone].id = -1;
		if (left->next >= 0)
			s[left->next].prev = c.at;
		consider(bpe, s, left->prev, heap, &n_heap);
		consider(bpe, s, c.at, heap, &n_heap);
	}
	for (int32_t i = n > 0 ? 0 : -1; i >= 0; i = s[i].next)
		if (!m1_ids_push(out, s[i].id))
			return false;
	return true;
}
