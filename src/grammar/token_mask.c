/*
 * token_mask.c - see token_mask.h.
 *
 * The walk over a trie takes one step of the automaton a node and leaves a subtree where the automaton dies. In a state
 * that goes on with any text at all, as inside a string, that would be nearly the whole vocabulary: there the plain
 * tokens are added as one set, after it has been shown for their lengths, not for each, that they fit.
 */
#include "grammar/token_mask.h"

#include <string.h>

#define WALK_STEPS 1024		/* between two looks at the work that is left */
#define MAX_LEVEL_STATES 24 /* different states after so many characters of text: beyond, the walk is as good */

/* ---- any text of n characters ---- */

/* States after some number of characters, each once. */
typedef struct level
{
	int32_t states[MAX_LEVEL_STATES];
	int n;
	bool died;	   /* some text has no state */
	bool too_many; /* or memory ran out: nothing is known */
} level;

static void
add_state(level *l, int32_t state)
{
	if (state == M1_AUTOMATON_DEAD)
	{
		l->died = true;
		return;
	}
	for (int i = 0; i < l->n; i++)
		if (l->states[i] == state)
			return;
	if (state < 0 || l->n == MAX_LEVEL_STATES)
		l->too_many = true;
	else
		l->states[l->n++] = state;
}

/* How the characters of plain text are made of bytes: ranges that follow each other. */
static const struct shape
{
	int n;
	uint8_t range[4][2];
} shapes[] = {
	{1, {{0x20, 0x21}}},
	{1, {{0x23, 0x5B}}},
	{1, {{0x5D, 0x7F}}},
	{2, {{0xC2, 0xDF}, {0x80, 0xBF}}},
	{3, {{0xE0, 0xE0}, {0xA0, 0xBF}, {0x80, 0xBF}}},
	{3, {{0xE1, 0xEC}, {0x80, 0xBF}, {0x80, 0xBF}}},
	{3, {{0xED, 0xED}, {0x80, 0x9F}, {0x80, 0xBF}}},
	{3, {{0xEE, 0xEF}, {0x80, 0xBF}, {0x80, 0xBF}}},
	{4, {{0xF0, 0xF0}, {0x90, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}},
	{4, {{0xF1, 0xF3}, {0x80, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}},
	{4, {{0xF4, 0xF4}, {0x80, 0x8F}, {0x80, 0xBF}, {0x80, 0xBF}}},
};

/* All states that bytes of the range lead to from those of `from`: one byte of each class stands for it. */
static void
step_range(m1_automaton *a, const level *from, const uint8_t range[2], level *to)
{
	const m1_nfa *nfa = m1_automaton_nfa(a);

	to->n = 0;
	to->too_many |=
		!m1_automaton_goes_on(a, (int64_t) from->n * (nfa->class_of[range[1]] - nfa->class_of[range[0]] + 1));
	for (int c = nfa->class_of[range[0]]; c <= nfa->class_of[range[1]] && !to->too_many; c++)
		for (int i = 0; i < from->n; i++)
			add_state(to, m1_automaton_step(a, from->states[i], nfa->byte_of[c]));
}

/* All states after one more character of plain text. */
static void
step_character(m1_automaton *a, const level *from, level *to)
{
	*to = (level){0};
	for (size_t s = 0; s < sizeof shapes / sizeof *shapes && !to->too_many; s++)
	{
		level at = *from;

		at.died = false;
		for (int i = 0; i < shapes[s].n && !at.too_many; i++)
		{
			level next = {.died = at.died};

			step_range(a, &at, shapes[s].range[i], &next);
			at = next;
		}
		for (int i = 0; i < at.n; i++)
			add_state(to, at.states[i]);
		to->died |= at.died;
		to->too_many |= at.too_many;
	}
}

static int32_t
farthest_of(const m1_automaton *a, const level *l)
{
	int32_t farthest = 0;

	for (int i = 0; i < l->n; i++)
	{
		int32_t d = m1_automaton_state(a, l->states[i])->shortest;

		if (d > farthest)
			farthest = d;
	}
	return farthest;
}

/* Every state of l is a state of one of the earlier levels' union. */
static bool
nothing_new(const level *l, const level *seen)
{
	for (int i = 0; i < l->n; i++)
	{
		bool found = false;

		for (int j = 0; j < seen->n && !found; j++)
			found = l->states[i] == seen->states[j];
		if (!found)
			return false;
	}
	return true;
}

/*
 * The number of characters of which any plain text may follow, when no plain text that is longer may; up to
 * M1_PLAIN_MAX, which stands for more. 0 when it is not as simple as that.
 */
static int
plain_length(m1_automaton *a, int32_t state, int32_t limit, int32_t *farthest)
{
	level at = {.states = {state}, .n = 1};
	level seen = at;

	for (int length = 0; length < M1_PLAIN_MAX; length++)
	{
		level next;
		int32_t far;

		step_character(a, &at, &next);
		if (next.too_many)
			return 0;
		if (next.n == 0)
			return length;
		far = farthest_of(a, &next);
		if (next.died || far > limit)
			return 0;
		if (far > *farthest)
			*farthest = far;
		if (nothing_new(&next, &seen))
			return M1_PLAIN_MAX;
		for (int i = 0; i < next.n; i++)
			add_state(&seen, next.states[i]);
		at = next;
	}
	return M1_PLAIN_MAX;
}

/* ---- the walk ---- */

static void
add_token(const m1_vocabulary *v, int32_t token, uint64_t *mask)
{
	for (int32_t id = token; id >= 0; id = v->same[id])
		m1_mask_add(mask, id);
}

static bool
walk(m1_automaton *a, const m1_vocabulary *v, const m1_trie *trie, int32_t state, int32_t limit, uint64_t *mask,
	 int32_t *farthest)
{
	int32_t states[M1_TRIE_MAX_DEPTH + 1]; /* after so many bytes */
	m1_transitions t = m1_automaton_transitions(a);
	int32_t i = 0;
	int steps = 0;

	states[0] = state;
	while (i < trie->n)
	{
		if (++steps % WALK_STEPS == 0 && !m1_automaton_goes_on(a, WALK_STEPS))
			return false;
		const m1_trie_node *n = &trie->nodes[i];
		int32_t to = t.next[(size_t) states[n->depth] * t.n_classes + t.class_of[n->byte]];

		if (to == M1_AUTOMATON_UNKNOWN)
		{
			to = m1_automaton_step(a, states[n->depth], n->byte);
			t = m1_automaton_transitions(a);
		}
		if (to == M1_AUTOMATON_TOO_LARGE)
			return false;
		if (to == M1_AUTOMATON_DEAD)
		{
			i = n->skip;
			continue;
		}
		states[n->depth + 1] = to;
		if (n->token >= 0)
		{
			const int32_t distance = m1_automaton_state(a, to)->shortest;

			if (distance <= limit)
				add_token(v, n->token, mask);
			if (distance <= limit && distance > *farthest)
				*farthest = distance;
		}
		i++;
	}
	return true;
}

bool
m1_token_mask(m1_automaton *a, const m1_vocabulary *v, int32_t state, int32_t limit, uint64_t *mask, int32_t *farthest)
{
	int length;
	bool ok;

	*farthest = 0;
	length = plain_length(a, state, limit, farthest);
	if (length == 0)
		*farthest = 0;
	memcpy(mask, v->plain[length], (size_t) v->words * sizeof *mask);
	ok = walk(a, v, length > 0 ? &v->rest : &v->all, state, limit, mask, farthest);
	if (m1_automaton_state(a, state)->accepting)
		m1_mask_add(mask, v->eos);
	return ok;
}
