/*
 * token_mask.h - which tokens may come next: those whose bytes the automaton can read from a state and still reach an
 * end afterwards.
 *
 * Called under the lock of the constraint that the automaton belongs to.
 */
#ifndef M1_GRAMMAR_TOKEN_MASK_H
#define M1_GRAMMAR_TOKEN_MASK_H

#include "grammar/automaton.h"
#include "grammar/vocabulary.h"

#define M1_NO_LIMIT M1_NFA_NEVER

/*
 * Fills mask [v->words] for the state; the end of turn is among the tokens where the state is an end. Tokens after
 * which the end is more than `limit` bytes away are left out. *farthest: the greatest distance from an end after any of
 * the tokens, at least (or M1_NO_LIMIT where it was not worth finding out). false when memory ran out, or the work that
 * the automaton was allowed.
 */
bool m1_token_mask(m1_automaton *a, const m1_vocabulary *v, int32_t state, int32_t limit, uint64_t *mask,
				   int32_t *farthest);

#endif
