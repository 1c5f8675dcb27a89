/* walk.c - see walk.h. */
#include "walk.h"

#define FARTHEST 1500 /* an end that is worth walking to */

/* The states that bytes of each class lead to. */
typedef struct ways
{
	int32_t to[256]; /* [n] */
	uint8_t byte[256];
	int n;
	int nearest; /* of them, to an end */
} ways;

static bool
look_around(m1_automaton *a, int32_t state, ways *w)
{
	const m1_nfa *nfa = m1_automaton_nfa(a);
	const m1_state *s;

	*w = (ways){.nearest = -1};
	for (int c = 0; c < nfa->n_classes; c++)
	{
		const int32_t to = m1_automaton_step(a, state, nfa->byte_of[c]);

		if (to == M1_AUTOMATON_TOO_LARGE)
			return false;
		if (to == M1_AUTOMATON_DEAD)
			continue;
		if (w->nearest < 0 || m1_automaton_state(a, to)->shortest < m1_automaton_state(a, w->to[w->nearest])->shortest)
			w->nearest = w->n;
		w->byte[w->n] = nfa->byte_of[c];
		w->to[w->n++] = to;
	}
	s = m1_automaton_state(a, state);
	fuzz_check(s->accepting || w->n > 0, "state %d is a dead end", state);
	fuzz_check(s->accepting == (s->shortest == 0), "state %d is %d from an end", state, s->shortest);
	fuzz_check(s->accepting || m1_automaton_state(a, w->to[w->nearest])->shortest == s->shortest - 1,
			   "state %d is %d from an end, what follows it %d", state, s->shortest,
			   m1_automaton_state(a, w->to[w->nearest])->shortest);
	return true;
}

bool
walk_to_an_end(m1_automaton *a, fuzz_input *in, int most_by_chance, m1_buf *text)
{
	int32_t state = M1_AUTOMATON_START;
	int left = most_by_chance;
	ways w;

	text->len = 0;
	for (;;)
	{
		int chosen;

		if (!look_around(a, state, &w) || m1_automaton_state(a, state)->shortest > FARTHEST)
			return false;
		if (m1_automaton_state(a, state)->accepting && (w.n == 0 || left <= 0 || fuzz_random_below(in, 8) == 0))
			return m1_buf_cstr(text) != NULL;
		chosen = left-- > 0 ? (int) fuzz_random_below(in, (uint32_t) w.n) : w.nearest;
		m1_buf_append(text, &w.byte[chosen], 1);
		state = w.to[chosen];
	}
}
