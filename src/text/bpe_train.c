/*
 * bpe_train.c - see bpe_train.h.
 *
 * The different words lie one after the other as a row of symbols, each with its neighbours' places. A pair knows how
 * often it occurs, words counted as often as they were added, and at which places; a heap finds the most frequent one.
 * A merge visits the places of its pair only, so that its work is what it changes. Counts in the heap may be out of
 * date: they are compared when they come to the top.
 */
#include "text/bpe_train.h"

#include <stdlib.h>
#include <string.h>

#include "base/sort.h"

#define BYTES 256
#define FEWEST 2			/* a pair that occurs once teaches nothing */
#define NOWHERE UINT32_MAX	/* no place, no node, no pair */
#define PROGRESS_EVERY 1024 /* merges */

/* ---- different strings of bytes, with their numbers ---- */

typedef struct strings
{
	m1_buf bytes;
	size_t *begins; /* [cap + 1] */
	uint32_t n;
	uint32_t cap;
	uint32_t *slots; /* [mask + 1]: a number, or NOWHERE */
	size_t mask;
} strings;

static void
free_strings(strings *s)
{
	m1_buf_free(&s->bytes);
	free(s->begins);
	free(s->slots);
}

static m1_slice
string_at(const strings *s, uint32_t i)
{
	return (m1_slice){s->bytes.data + s->begins[i], s->begins[i + 1] - s->begins[i]};
}

static uint32_t *
find_slot(const strings *s, m1_slice wanted)
{
	uint64_t h = 0xcbf29ce484222325u;
	size_t i;

	for (size_t k = 0; k < wanted.len; k++)
		h = (h ^ (unsigned char) wanted.data[k]) * 0x100000001b3u;
	for (i = (size_t) (h ^ h >> 29) & s->mask; s->slots[i] != NOWHERE; i = (i + 1) & s->mask)
	{
		const m1_slice there = string_at(s, s->slots[i]);

		if (there.len == wanted.len && memcmp(there.data, wanted.data, wanted.len) == 0)
			break;
	}
	return &s->slots[i];
}

/* Twice the room; the slots are filled anew. */
static bool
grow_strings(strings *s)
{
	const uint32_t cap = s->cap == 0 ? 1024 : 2 * s->cap;
	size_t *begins = cap < NOWHERE / 4 ? realloc(s->begins, ((size_t) cap + 1) * sizeof *begins) : NULL;
	uint32_t *slots = malloc(2 * (size_t) cap * sizeof *slots);

	if (begins != NULL)
		s->begins = begins;
	if (begins == NULL || slots == NULL)
	{
		free(slots);
		return false;
	}
	memset(slots, 0xff, 2 * (size_t) cap * sizeof *slots);
	free(s->slots);
	s->slots = slots;
	s->mask = 2 * (size_t) cap - 1;
	s->cap = cap;
	s->begins[0] = 0;
	for (uint32_t i = 0; i < s->n; i++)
		*find_slot(s, string_at(s, i)) = i;
	return true;
}

/* The string's number, which is s->n - 1 if it is new; NOWHERE when memory ran out. bytes may be the string's own. */
static uint32_t
number_of(strings *s, m1_slice bytes)
{
	uint32_t *slot;

	if (s->n == s->cap && !grow_strings(s))
		return NOWHERE;
	slot = find_slot(s, bytes);
	if (*slot == NOWHERE)
	{
		if (!m1_buf_append(&s->bytes, bytes.data, bytes.len))
			return NOWHERE;
		*slot = s->n++;
		s->begins[s->n] = s->bytes.len;
	}
	return *slot;
}

/* ---- words ---- */

struct m1_bpe_trainer
{
	strings words;
	int64_t *counts; /* [cap_counts] of words */
	uint32_t cap_counts;
};

m1_bpe_trainer *
m1_bpe_trainer_create(void)
{
	return calloc(1, sizeof(m1_bpe_trainer));
}

void
m1_bpe_trainer_free(m1_bpe_trainer *t)
{
	if (t == NULL)
		return;
	free_strings(&t->words);
	free(t->counts);
	free(t);
}

bool
m1_bpe_trainer_add(m1_bpe_trainer *t, m1_slice word)
{
	const uint32_t before = t->words.n;
	const uint32_t i = number_of(&t->words, word);

	if (i == NOWHERE)
		return false;
	if (t->words.cap > t->cap_counts)
	{
		int64_t *grown = realloc(t->counts, t->words.cap * sizeof *grown);

		if (grown == NULL)
			return false;
		t->counts = grown;
		t->cap_counts = t->words.cap;
	}
	t->counts[i] = i == before ? 1 : t->counts[i] + 1;
	return true;
}

/* ---- learning ---- */

typedef struct symbol
{
	int32_t id; /* -1: has become a part of the one before */
	uint32_t word;
	uint32_t before, after; /* places, or NOWHERE */
} symbol;

typedef struct pair
{
	int32_t left, right;
	int64_t count;
	uint32_t places; /* the first node */
	bool merged;	 /* it is among the merges */
	bool raised;	 /* occurs more often than the heap knows */
} pair;

/* A place of a pair. It may be out of date: then other symbols are there. */
typedef struct node
{
	uint32_t place; /* of the left one */
	uint32_t next;
} node;

typedef struct candidate
{
	int64_t count;
	uint32_t pair;
} candidate;

typedef struct learner
{
	const int64_t *counts; /* of words */
	strings tokens;
	int32_t (*merges)[2];
	int n_merges, cap_merges;

	symbol *symbols;
	uint32_t n_symbols;

	pair *pairs;
	uint32_t n_pairs, cap_pairs;
	uint32_t *slots; /* [mask + 1] of pairs, by their ids */
	size_t mask;
	uint32_t *raised; /* [cap_pairs] those that occur more often after this merge */
	uint32_t n_raised;

	node *nodes;
	uint32_t n_nodes, cap_nodes;
	uint32_t free_nodes;

	candidate *heap;
	size_t n_heap, cap_heap;

	uint32_t *places; /* of the pair that is merged */
	uint32_t n_places, cap_places;
} learner;

/* Room for one more element of an array of 32-bit size. false when memory ran out. */
static bool
grow(void **array, size_t size, uint32_t n, uint32_t *cap)
{
	const uint32_t more = *cap == 0 ? 1024 : 2 * *cap;
	void *grown;

	if (n < *cap)
		return true;
	if (*cap > NOWHERE / 4 || (grown = realloc(*array, more * size)) == NULL)
		return false;
	*array = grown;
	*cap = more;
	return true;
}

/* ---- the heap ---- */

/* Whether a is to be merged before b. */
static bool
precedes(const learner *l, candidate a, candidate b)
{
	const pair *x = &l->pairs[a.pair];
	const pair *y = &l->pairs[b.pair];

	if (a.count != b.count)
		return a.count > b.count;
	return x->left != y->left ? x->left < y->left : x->right < y->right;
}

static bool
push(learner *l, candidate c)
{
	size_t i = l->n_heap;

	if (l->n_heap == l->cap_heap)
	{
		const size_t cap = l->cap_heap == 0 ? 1024 : 2 * l->cap_heap;
		candidate *grown = realloc(l->heap, cap * sizeof *grown);

		if (grown == NULL)
			return false;
		l->heap = grown;
		l->cap_heap = cap;
	}
	for (l->n_heap++; i > 0 && precedes(l, c, l->heap[(i - 1) / 2]); i = (i - 1) / 2)
		l->heap[i] = l->heap[(i - 1) / 2];
	l->heap[i] = c;
	return true;
}

static candidate
pop(learner *l)
{
	const candidate top = l->heap[0];
	const candidate last = l->heap[--l->n_heap];
	size_t i = 0;

	for (size_t child; (child = 2 * i + 1) < l->n_heap; i = child)
	{
		if (child + 1 < l->n_heap && precedes(l, l->heap[child + 1], l->heap[child]))
			child++;
		if (!precedes(l, l->heap[child], last))
			break;
		l->heap[i] = l->heap[child];
	}
	l->heap[i] = last;
	return top;
}

/* ---- pairs ---- */

static uint32_t *
pair_slot(const learner *l, int32_t left, int32_t right)
{
	uint64_t h = ((uint64_t) (uint32_t) left << 32 | (uint32_t) right) * 0x9E3779B97F4A7C15u;
	size_t i;

	for (i = (size_t) (h ^ h >> 32) & l->mask; l->slots[i] != NOWHERE; i = (i + 1) & l->mask)
		if (l->pairs[l->slots[i]].left == left && l->pairs[l->slots[i]].right == right)
			break;
	return &l->slots[i];
}

static bool
grow_pairs(learner *l)
{
	const uint32_t cap = l->cap_pairs;
	uint32_t *raised;
	uint32_t *slots;

	if (!grow((void **) &l->pairs, sizeof *l->pairs, l->n_pairs, &l->cap_pairs))
		return false;
	if (l->cap_pairs == cap)
		return true;
	raised = realloc(l->raised, l->cap_pairs * sizeof *raised);
	slots = malloc(2 * (size_t) l->cap_pairs * sizeof *slots);
	if (raised != NULL)
		l->raised = raised;
	if (raised == NULL || slots == NULL)
	{
		free(slots);
		return false;
	}
	memset(slots, 0xff, 2 * (size_t) l->cap_pairs * sizeof *slots);
	free(l->slots);
	l->slots = slots;
	l->mask = 2 * (size_t) l->cap_pairs - 1;
	for (uint32_t i = 0; i < l->n_pairs; i++)
		*pair_slot(l, l->pairs[i].left, l->pairs[i].right) = i;
	return true;
}

static uint32_t
take_node(learner *l)
{
	const uint32_t i = l->free_nodes;

	if (i != NOWHERE)
	{
		l->free_nodes = l->nodes[i].next;
		return i;
	}
	return grow((void **) &l->nodes, sizeof *l->nodes, l->n_nodes, &l->cap_nodes) ? l->n_nodes++ : NOWHERE;
}

/* The pair that begins at a place is there now. */
static bool
add_pair(learner *l, uint32_t place)
{
	const symbol *s = &l->symbols[place];
	const int32_t right = l->symbols[s->after].id;
	const uint32_t at = take_node(l);
	uint32_t *slot;
	pair *p;

	if (at == NOWHERE || !grow_pairs(l))
		return false;
	slot = pair_slot(l, s->id, right);
	if (*slot == NOWHERE)
	{
		*slot = l->n_pairs;
		l->pairs[l->n_pairs++] = (pair){.left = s->id, .right = right, .places = NOWHERE};
	}
	p = &l->pairs[*slot];
	p->count += l->counts[s->word];
	l->nodes[at] = (node){place, p->places};
	p->places = at;
	if (!p->raised)
		l->raised[l->n_raised++] = *slot;
	p->raised = true;
	return true;
}

/* The pair that begins at a place is no longer there; its node stays until the pair is merged. */
static void
drop_pair(learner *l, uint32_t place)
{
	const symbol *s = &l->symbols[place];

	l->pairs[*pair_slot(l, s->id, l->symbols[s->after].id)].count -= l->counts[s->word];
}

static bool
push_raised(learner *l)
{
	while (l->n_raised > 0)
	{
		const uint32_t i = l->raised[--l->n_raised];

		l->pairs[i].raised = false;
		if (l->pairs[i].count >= FEWEST && !push(l, (candidate){l->pairs[i].count, i}))
			return false;
	}
	return true;
}

/* ---- one merge ---- */

static int
ascending(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *) a;
	const uint32_t y = *(const uint32_t *) b;

	return x < y ? -1 : x > y;
}

/* In order, because in "aaa" the pair to the left is the one that is joined; the nodes are free again. */
static bool
take_places(learner *l, pair *p)
{
	l->n_places = 0;
	for (uint32_t i = p->places, next; i != NOWHERE; i = next)
	{
		if (!grow((void **) &l->places, sizeof *l->places, l->n_places, &l->cap_places))
			return false;
		next = l->nodes[i].next;
		l->places[l->n_places++] = l->nodes[i].place;
		l->nodes[i].next = l->free_nodes;
		l->free_nodes = i;
	}
	p->places = NOWHERE;
	m1_sort(l->places, l->n_places, sizeof *l->places, ascending);
	return true;
}

/* Joins the symbol at a place and the one after it. */
static bool
join(learner *l, uint32_t place, int32_t id)
{
	symbol *s = &l->symbols[place];
	symbol *gone = &l->symbols[s->after];

	if (s->before != NOWHERE)
		drop_pair(l, s->before);
	if (gone->after != NOWHERE)
		drop_pair(l, s->after);
	drop_pair(l, place);
	s->id = id;
	s->after = gone->after;
	gone->id = -1;
	if (s->after != NOWHERE)
		l->symbols[s->after].before = place;
	return (s->before == NOWHERE || add_pair(l, s->before)) && (s->after == NOWHERE || add_pair(l, place));
}

/* The id of what a pair makes, or -1 when memory ran out. */
static int32_t
joined_id(learner *l, int32_t left, int32_t right)
{
	const m1_slice a = string_at(&l->tokens, (uint32_t) left);
	const m1_slice b = string_at(&l->tokens, (uint32_t) right);
	m1_buf both = {0};
	uint32_t id = NOWHERE;

	m1_buf_append(&both, a.data, a.len);
	if (m1_buf_append(&both, b.data, b.len))
		id = number_of(&l->tokens, (m1_slice){both.data, both.len});
	m1_buf_free(&both);
	return id != NOWHERE ? (int32_t) id : -1;
}

static bool
record(learner *l, pair *p)
{
	if (l->n_merges == l->cap_merges)
	{
		const int cap = l->cap_merges == 0 ? 1024 : 2 * l->cap_merges;
		int32_t(*grown)[2] = realloc(l->merges, (size_t) cap * sizeof *grown);

		if (grown == NULL)
			return false;
		l->merges = grown;
		l->cap_merges = cap;
	}
	l->merges[l->n_merges][0] = p->left;
	l->merges[l->n_merges++][1] = p->right;
	p->merged = true;
	return true;
}

/* A pair that has been merged may come again, when another merge has made one of its halves: it is no new merge. */
static bool
merge(learner *l, uint32_t which)
{
	pair *p = &l->pairs[which];
	const int32_t left = p->left;
	const int32_t right = p->right;
	const int32_t id = joined_id(l, left, right);

	if (id < 0 || (!p->merged && !record(l, p)) || !take_places(l, p))
		return false;
	for (uint32_t i = 0; i < l->n_places; i++)
	{
		const symbol *s = &l->symbols[l->places[i]];

		if (s->id == left && s->after != NOWHERE && l->symbols[s->after].id == right && !join(l, l->places[i], id))
			return false;
	}
	return push_raised(l);
}

/* ---- all of it ---- */

static bool
begin(learner *l, const m1_bpe_trainer *t)
{
	const strings *words = &t->words;

	l->counts = t->counts;
	l->free_nodes = NOWHERE;
	for (int b = 0; b < BYTES; b++)
	{
		const char byte = (char) b;

		if (number_of(&l->tokens, (m1_slice){&byte, 1}) == NOWHERE)
			return false;
	}
	if (words->bytes.len >= NOWHERE || (l->symbols = malloc((words->bytes.len + 1) * sizeof *l->symbols)) == NULL)
		return false;
	for (uint32_t w = 0; w < words->n; w++)
		for (size_t i = words->begins[w]; i < words->begins[w + 1]; i++)
			l->symbols[l->n_symbols++] = (symbol){
				.id = (unsigned char) words->bytes.data[i],
				.word = w,
				.before = i > words->begins[w] ? (uint32_t) i - 1 : NOWHERE,
				.after = i + 1 < words->begins[w + 1] ? (uint32_t) i + 1 : NOWHERE,
			};
	for (uint32_t i = 0; i < l->n_symbols; i++)
		if (l->symbols[i].after != NOWHERE && !add_pair(l, i))
			return false;
	return push_raised(l);
}

/* The most frequent pair, or NOWHERE. */
static bool
choose(learner *l, uint32_t *which)
{
	*which = NOWHERE;
	while (l->n_heap > 0)
	{
		const candidate top = pop(l);
		const int64_t count = l->pairs[top.pair].count;

		if (count == top.count)
		{
			*which = top.pair;
			return true;
		}
		if (count >= FEWEST && count < top.count && !push(l, (candidate){count, top.pair}))
			return false;
	}
	return true;
}

static m1_status
learn(learner *l, uint32_t tokens, m1_bpe_progress progress, void *context, m1_error *err)
{
	for (uint32_t n = 0; l->tokens.n < tokens; n++)
	{
		uint32_t which;

		if (n % PROGRESS_EVERY == 0 && progress != NULL && !progress(context, (int) l->tokens.n, (int) tokens))
			return m1_fail(err, M1_E_CANCELLED, "cancelled: no tokenizer was written");
		if (!choose(l, &which))
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for pairs of tokens");
		if (which == NOWHERE)
			break;
		if (!merge(l, which))
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for pairs of tokens");
	}
	if (progress != NULL)
		progress(context, (int) l->tokens.n, (int) l->tokens.n);
	return M1_OK;
}

static void
free_learner(learner *l)
{
	free_strings(&l->tokens);
	free(l->merges);
	free(l->symbols);
	free(l->pairs);
	free(l->slots);
	free(l->raised);
	free(l->nodes);
	free(l->heap);
	free(l->places);
}

m1_status
m1_bpe_trainer_learn(m1_bpe_trainer *t, int tokens, m1_bpe_progress progress, void *context, m1_bpe_learned *out,
					 m1_error *err)
{
	learner l = {0};
	m1_status status;

	*out = (m1_bpe_learned){0};
	if (begin(&l, t))
		status = learn(&l, (uint32_t) tokens, progress, context, err);
	else
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for %zu bytes of words", t->words.bytes.len);
	if (status == M1_OK)
	{
		*out = (m1_bpe_learned){(int) l.tokens.n, l.tokens.bytes, l.tokens.begins, l.n_merges, l.merges};
		l.tokens.bytes = (m1_buf){0};
		l.tokens.begins = NULL;
		l.merges = NULL;
	}
	free_learner(&l);
	return status;
}

void
m1_bpe_learned_free(m1_bpe_learned *learned)
{
	m1_buf_free(&learned->bytes);
	free(learned->begins);
	free(learned->pairs);
	*learned = (m1_bpe_learned){0};
}

m1_slice
m1_bpe_learned_token(const m1_bpe_learned *learned, int32_t id)
{
	const size_t begin = learned->begins[id];

	return (m1_slice){learned->bytes.data + begin, learned->begins[id + 1] - begin};
}
