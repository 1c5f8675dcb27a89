/*
 * token_mask.c - see token_mask.h.
 *
 * The walk over a trie takes one step of the automaton a node and leaves a subtree where the automaton dies. In a state
 * that goes on with any text at all, as inside a string, that would be nearly the whole vocabulary: there the plain
 * tokens are added as one set, after it has been shown for their lengths, not for each, that they fit.
 */
#include "grammar/token_mask.h"

#include <string.h>

#define WALK_STEPS 1024 /* between two looks at the work that is left */

/* ---- any text of n characters ---- */

static void
add_state(m1_level *l, int32_t state)
{
	if (state == M1_AUTOMATON_DEAD)
	{
		l->died = true;
		return;
	}
	for (int i = 0; i < l->n; i++)
		if (l->states[i] == state)
			return;
	if (state < 0 || l->n == M1_MAX_LEVEL_STATES)
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

/* Nothing comes of it, at least for now. */
static bool
is_given_up(const m1_level *l)
{
	return l->too_many || l->unknown;
}

/* All states that bytes of the range lead to from those of `from`: one byte of each class stands for it. */
static void
step_range(m1_automaton *a, const m1_level *from, const uint8_t range[2], m1_level *to)
{
	const m1_nfa *nfa = m1_automaton_nfa(a);

	to->n = 0;
	to->too_many |=
		!m1_automaton_goes_on(a, (int64_t) from->n * (nfa->class_of[range[1]] - nfa->class_of[range[0]] + 1));
	for (int c = nfa->class_of[range[0]]; c <= nfa->class_of[range[1]] && !is_given_up(to); c++)
	{
		for (int i = 0; i < from->n; i++)
			add_state(to, m1_automaton_step(a, from->states[i], nfa->byte_of[c]));
		to->unknown = m1_automaton_turn_is_over(a);
	}
}

/* All states after one more character of plain text. */
static void
step_character(m1_automaton *a, const m1_level *from, m1_level *to)
{
	*to = (m1_level){0};
	for (size_t s = 0; s < sizeof shapes / sizeof *shapes && !is_given_up(to); s++)
	{
		m1_level at = *from;

		at.died = false;
		for (int i = 0; i < shapes[s].n && !is_given_up(&at); i++)
		{
			m1_level next = {.died = at.died};

			step_range(a, &at, shapes[s].range[i], &next);
			at = next;
		}
		for (int i = 0; i < at.n; i++)
			add_state(to, at.states[i]);
		to->died |= at.died;
		to->too_many |= at.too_many;
		to->unknown |= at.unknown;
	}
}

static int32_t
farthest_of(const m1_automaton *a, const m1_level *l)
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
nothing_new(const m1_level *l, const m1_level *seen)
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

/* Takes one character more. false: t->length is what it comes to. */
static bool
try_longer(m1_mask_task *t, m1_automaton *a, const m1_level *next)
{
	int32_t far;

	if (next->n == 0 && !next->too_many)
		return false;
	if (next->too_many || next->died || (far = farthest_of(a, next)) > t->limit)
	{
		t->length = t->farthest = 0;
		return false;
	}
	if (far > t->farthest)
		t->farthest = far;
	if (nothing_new(next, &t->seen))
	{
		t->length = M1_PLAIN_MAX;
		return false;
	}
	for (int i = 0; i < next->n; i++)
		add_state(&t->seen, next->states[i]);
	t->at = *next;
	return ++t->length < M1_PLAIN_MAX;
}

/*
 * Finds t->length: the number of characters of which any plain text may follow, when no plain text that is longer may;
 * up to M1_PLAIN_MAX, which stands for more; 0 when it is not as simple as that. false: the turn was over. What it has
 * found out of the last character is known then, and not found out anew.
 */
static bool
find_plain_length(m1_mask_task *t, m1_automaton *a)
{
	m1_level next;

	do
	{
		step_character(a, &t->at, &next);
		if (next.unknown && !next.too_many)
			return false;
	} while (try_longer(t, a, &next));
	return true;
}

/* ---- the walk ---- */

static void
add_token(const m1_vocabulary *v, int32_t token, uint64_t *mask)
{
	for (int32_t id = token; id >= 0; id = v->same[id])
		m1_mask_add(mask, id);
}

/* The state after the next node's byte. */
static int32_t
step_node(m1_mask_task *t, m1_automaton *a, const m1_trie_node *n, m1_transitions *known, bool *over)
{
	int32_t to = known->next[(size_t) t->path[n->depth] * known->n_classes + known->class_of[n->byte]];

	if (to != M1_AUTOMATON_UNKNOWN)
		return to;
	to = m1_automaton_step(a, t->path[n->depth], n->byte);
	*known = m1_automaton_transitions(a);
	*over = m1_automaton_turn_is_over(a);
	return to;
}

static m1_mask_progress
walk(m1_mask_task *t, m1_automaton *a, const m1_vocabulary *v, uint64_t *mask)
{
	m1_transitions known = m1_automaton_transitions(a);
	bool over = false;
	int steps = 0;

	while (t->node < t->trie->n && !over)
	{
		const m1_trie_node *n = &t->trie->nodes[t->node];
		const int32_t to = step_node(t, a, n, &known, &over);

		if (to == M1_AUTOMATON_TOO_LARGE)
			return M1_MASK_FAILED;
		if (++steps % WALK_STEPS == 0)
		{
			if (!m1_automaton_goes_on(a, WALK_STEPS))
				return M1_MASK_FAILED;
			over |= m1_automaton_turn_is_over(a);
		}
		if (to == M1_AUTOMATON_DEAD)
		{
			t->node = n->skip;
			continue;
		}
		t->path[n->depth + 1] = to;
		if (n->token >= 0)
		{
			const int32_t distance = m1_automaton_state(a, to)->shortest;

			if (distance <= t->limit)
				add_token(v, n->token, mask);
			if (distance <= t->limit && distance > t->farthest)
				t->farthest = distance;
		}
		t->node++;
	}
	return t->node < t->trie->n ? M1_MASK_TURN_OVER : M1_MASK_DONE;
}

/* ---- turns ---- */

void
m1_mask_begin(m1_mask_task *t, int32_t state, int32_t limit)
{
	t->state = state;
	t->limit = limit;
	t->farthest = 0;
	t->walking = false;
	t->at = (m1_level){.states = {state}, .n = 1};
	t->seen = t->at;
	t->length = 0;
}

static void
begin_walk(m1_mask_task *t, const m1_vocabulary *v, uint64_t *mask)
{
	memcpy(mask, v->plain[t->length], (size_t) v->words * sizeof *mask);
	t->trie = t->length > 0 ? &v->rest : &v->all;
	t->node = 0;
	t->path[0] = t->state;
	t->walking = true;
}

m1_mask_progress
m1_mask_go_on(m1_mask_task *t, m1_automaton *a, const m1_vocabulary *v, uint64_t *mask)
{
	m1_mask_progress progress;

	if (!t->walking)
	{
		if (!find_plain_length(t, a))
			return M1_MASK_TURN_OVER;
		begin_walk(t, v, mask);
	}
	progress = walk(t, a, v, mask);
	if (progress == M1_MASK_DONE && m1_automaton_state(a, t->state)->accepting)
		m1_mask_add(mask, v->eos);
	return progress;
}
