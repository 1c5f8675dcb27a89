/*
 * bpe.c - see bpe.h. Symbols form a linked list, candidate merges a heap; a candidate whose symbols have changed since
 * it was pushed is skipped when popped.
 */
#include "text/bpe.h"

#include <stdlib.h>

#include "base/block.h"

typedef struct merge
{
	int32_t left, right;
	int32_t id;
} merge;

#define NO_MERGE (-1)
#define LOOK_EACH 4096 /* symbols or merges, whether they are still wanted */

struct m1_bpe
{
	size_t mask;	/* of the table: its capacity, a power of two, less 1 */
	int32_t *table; /* ranks by the hash of the pair, or NO_MERGE */
	size_t n;
	merge merges[]; /* by rank */
};

typedef struct symbol
{
	int32_t id;			/* -1 once merged into its left neighbour */
	int32_t prev, next; /* -1 at the ends */
} symbol;

/* The rank of a merge, then its left symbol: the lower number goes first. A long word has many, so they are small. */
typedef uint64_t candidate;

static candidate
candidate_of(int32_t rank, int32_t at)
{
	return (uint64_t) (uint32_t) rank << 32 | (uint32_t) at;
}

m1_bpe *
m1_bpe_create(size_t n)
{
	size_t cap = 16;
	m1_bpe *bpe;

	while (cap < 2 * n)
		cap *= 2;
	bpe = malloc(sizeof *bpe + n * sizeof *bpe->merges);
	if (bpe == NULL)
		return NULL;
	bpe->mask = cap - 1;
	bpe->n = 0;
	if ((bpe->table = malloc(cap * sizeof *bpe->table)) == NULL)
	{
		free(bpe);
		return NULL;
	}
	for (size_t i = 0; i < cap; i++)
		bpe->table[i] = NO_MERGE;
	return bpe;
}

void
m1_bpe_free(m1_bpe *bpe)
{
	if (bpe != NULL)
		free(bpe->table);
	free(bpe);
}

static bool
joins(const merge *m, int32_t left, int32_t right)
{
	return m->left == left && m->right == right;
}

/* The slot of a pair, or the empty slot where it would go. */
static size_t
slot_of(const m1_bpe *bpe, int32_t left, int32_t right)
{
	uint64_t h = ((uint64_t) (uint32_t) left << 32 | (uint32_t) right) * 0x9e3779b97f4a7c15u;
	size_t i = (size_t) (h >> 32) & bpe->mask;

	while (bpe->table[i] != NO_MERGE && !joins(&bpe->merges[bpe->table[i]], left, right))
		i = (i + 1) & bpe->mask;
	return i;
}

bool
m1_bpe_add(m1_bpe *bpe, int32_t rank, int32_t left, int32_t right, int32_t id)
{
	const size_t slot = slot_of(bpe, left, right);

	if (bpe->table[slot] != NO_MERGE)
		return false;
	bpe->table[slot] = rank;
	bpe->merges[rank] = (merge){left, right, id};
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
	for (size_t i = 0; i < bpe->n; i++)
	{
		pairs[i][0] = bpe->merges[i].left;
		pairs[i][1] = bpe->merges[i].right;
	}
}

static size_t
symbol_bytes(size_t n)
{
	return n * sizeof(symbol);
}

/* n - 1 candidates at first, and at most two more for each of n - 1 merges */
static size_t
heap_bytes(size_t n)
{
	return 3 * n * sizeof(candidate);
}

void
m1_bpe_space_free(m1_bpe_space *space)
{
	m1_block_free(space->symbols, symbol_bytes(space->cap));
	m1_block_free(space->heap, heap_bytes(space->cap));
	*space = (m1_bpe_space){0};
}

static bool
reserve_space(m1_bpe_space *space, size_t n)
{
	size_t cap = space->cap == 0 ? 256 : space->cap;

	if (n <= space->cap)
		return true;
	while (cap < n)
		cap *= 2;
	m1_bpe_space_free(space);
	space->cap = cap;
	space->symbols = m1_block_create(symbol_bytes(cap));
	space->heap = m1_block_create(heap_bytes(cap));
	if (space->symbols != NULL && space->heap != NULL)
		return true;
	m1_bpe_space_free(space);
	return false;
}

static void
heap_push(candidate *heap, size_t *n, candidate c)
{
	size_t i = (*n)++;

	while (i > 0 && c < heap[(i - 1) / 2])
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
		if (child + 1 < *n && heap[child + 1] < heap[child])
			child++;
		if (heap[child] >= last)
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = last;
	return top;
}

/* One pre-token on its way. */
typedef struct word
{
	const m1_bpe *bpe;
	symbol *symbols;
	size_t n; /* symbols that have not been merged into others */
	candidate *heap;
	size_t n_heap;
	m1_work *work;
	size_t looked; /* symbols and merges so far */
} word;

/* Before each symbol, going in or out, and each merge. */
static bool
goes_on(word *w)
{
	return ++w->looked % LOOK_EACH != 0 || m1_work_goes_on(w->work, 0);
}

/* Pushes the merge of symbol `at` with its right neighbour, if there is one. */
static void
consider(word *w, int32_t at)
{
	const symbol *s = w->symbols;
	int32_t rank;

	if (at < 0 || s[at].next < 0)
		return;
	rank = w->bpe->table[slot_of(w->bpe, s[at].id, s[s[at].next].id)];
	if (rank != NO_MERGE)
		heap_push(w->heap, &w->n_heap, candidate_of(rank, at));
}

/* The symbols, each with the merge of the one before it and itself. */
static bool
begin(word *w, const int32_t byte_id[256], m1_slice bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
	{
		if (!goes_on(w))
			return false;
		w->symbols[i] = (symbol){byte_id[(unsigned char) bytes.data[i]], (int32_t) i - 1, -1};
		if (i > 0)
		{
			w->symbols[i - 1].next = (int32_t) i;
			consider(w, (int32_t) i - 1);
		}
	}
	return true;
}

/* Does what the candidate says, if its symbols are still those that it was pushed for. */
static void
merge_at(word *w, candidate c)
{
	const merge *m = &w->bpe->merges[c >> 32];
	const int32_t at = (int32_t) (c & UINT32_MAX);
	symbol *s = w->symbols;
	symbol *left = &s[at];
	const int32_t gone = left->next;

	if (gone < 0 || !joins(m, left->id, s[gone].id))
		return;
	left->id = m->id;
	left->next = s[gone].next;
	s[gone].id = -1;
	w->n--;
	if (left->next >= 0)
		s[left->next].prev = at;
	consider(w, left->prev);
	consider(w, at);
}

static bool
merge_all(word *w)
{
	while (w->n_heap > 0)
	{
		if (!goes_on(w))
			return false;
		merge_at(w, heap_pop(w->heap, &w->n_heap));
	}
	return true;
}

static bool
append_all(word *w, m1_ids *out)
{
	if (!m1_ids_reserve(out, w->n))
		return false;
	for (int32_t i = w->n > 0 ? 0 : -1; i >= 0; i = w->symbols[i].next)
		if (!goes_on(w) || !m1_ids_push(out, w->symbols[i].id))
			return false;
	return true;
}

bool
m1_bpe_apply(const m1_bpe *bpe, const int32_t byte_id[256], m1_slice bytes, m1_bpe_space *space, m1_work *work,
			 m1_ids *out)
{
	word w = {.bpe = bpe, .n = bytes.len, .work = work};

	if (bytes.len > INT32_MAX / 4 || !reserve_space(space, bytes.len))
		return false;
	w.symbols = space->symbols;
	w.heap = space->heap;
	return begin(&w, byte_id, bytes) && merge_all(&w) && append_all(&w, out);
}
