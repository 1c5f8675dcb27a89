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

#define M1_MAX_LEVEL_STATES 24 /* different states after so many characters of text: beyond, the walk is as good */

/* States after some number of characters, each once. */
typedef struct m1_level
{
	int32_t states[M1_MAX_LEVEL_STATES];
	int n;
	bool died;	   /* some text has no state */
	bool too_many; /* or memory ran out: nothing is known */
	bool unknown;  /* the turn was over before all was known */
} m1_level;

/*
 * A mask that is being worked out, in as many turns as it takes. The automaton keeps its states meanwhile: nothing is
 * compacted.
 */
typedef struct m1_mask_task
{
	int32_t state;
	int32_t limit;
	int32_t farthest;
	bool walking;						 /* what is known without a walk is in the mask */
	m1_level at;						 /* after `length` characters of plain text */
	m1_level seen;						 /* after up to so many */
	int length;							 /* or of which any plain text may follow, when that is known */
	const m1_trie *trie;				 /* that is walked through */
	int32_t node;						 /* the next one of it */
	int32_t path[M1_TRIE_MAX_DEPTH + 1]; /* states after the bytes that lead there */
} m1_mask_task;

typedef enum m1_mask_progress
{
	M1_MASK_DONE,
	M1_MASK_TURN_OVER, /* it goes on in the next */
	M1_MASK_FAILED,	   /* memory ran out, or the work that the automaton was allowed */
} m1_mask_progress;

/* A mask for the state, without tokens after which the end is more than `limit` bytes away. */
void m1_mask_begin(m1_mask_task *t, int32_t state, int32_t limit);
/*
 * Works on mask [v->words], the same each time, which in the end has the tokens that may follow; the end of turn is
 * among them where the state is an end. t->farthest is then the greatest distance from an end after any of them, at
 * least (or M1_NO_LIMIT where it was not worth finding out).
 */
m1_mask_progress m1_mask_go_on(m1_mask_task *t, m1_automaton *a, const m1_vocabulary *v, uint64_t *mask);

#endif
