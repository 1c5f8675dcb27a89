/*
 * automaton.h - the deterministic automaton of an nfa, made as it is needed: a state is the set of places the nfa may
 * be at, each with the calls it will return from.
 *
 * Every state can still reach an end: places that cannot are left out, and so are those from which nothing may follow
 * that may not follow from another one, too, because that one is in the same place with more repetitions left. Belongs
 * to one constraint, under whose lock it is used; states are numbers that stay valid until m1_automaton_compact. Memory
 * grows when a state is met for the first time only.
 */
#ifndef M1_GRAMMAR_AUTOMATON_H
#define M1_GRAMMAR_AUTOMATON_H

#include "grammar/nfa.h"

#define M1_AUTOMATON_DEAD (-1)		/* no text goes on like this */
#define M1_AUTOMATON_TOO_LARGE (-2) /* more states or work than it may have, or memory ran out */
#define M1_AUTOMATON_START 0

/* A place in the nfa: a node that reads a byte, and the calls to return from. */
typedef struct m1_place
{
	int32_t node;
	int32_t shape; /* of the stack */
	int32_t stack;
} m1_place;

typedef struct m1_state
{
	uint32_t first, n; /* its places */
	int32_t shortest;  /* bytes to an end, at least */
	bool accepting;	   /* an end itself */
	uint64_t *mask;	   /* constraint.c's: the tokens that may follow, or NULL */
	int32_t farthest;  /* with mask: see m1_token_mask */
} m1_state;

typedef struct m1_automaton m1_automaton;

/* The nfa must outlive it. NULL when it is too large from the start. */
m1_automaton *m1_automaton_create(const m1_nfa *nfa);
void m1_automaton_free(m1_automaton *a);

/*
 * Bounds what is done from now on to so many units, a step that is known being one and a place of a new state
 * M1_PLACE_WORK. After `turn` of them it is time for whoever can stop in the middle to let others go on; of a turn,
 * which is to be short by the clock, a place takes M1_PLACE_TURN. Without a call there is no bound.
 */
#define M1_PLACE_WORK 8
#define M1_PLACE_TURN 64
void m1_automaton_allow(m1_automaton *a, int64_t units, int64_t turn);
/* Before so many are done by the caller. false: they are not to be. */
bool m1_automaton_goes_on(m1_automaton *a, int64_t units);
bool m1_automaton_turn_is_over(const m1_automaton *a);
/* What is left of them; below 0 when they were not enough. */
int64_t m1_automaton_left(const m1_automaton *a);
/* The same of the turn. */
int64_t m1_automaton_left_of_turn(const m1_automaton *a);

/* The state after one more byte, or M1_AUTOMATON_DEAD or _TOO_LARGE. */
int32_t m1_automaton_step(m1_automaton *a, int32_t state, uint8_t byte);

/* The transitions that are known, for walks that take hundreds of thousands of steps. Valid until the next step. */
typedef struct m1_transitions
{
	const int32_t *next; /* [states, n_classes]; M1_AUTOMATON_UNKNOWN: ask m1_automaton_step */
	const uint8_t *class_of;
	size_t n_classes;
} m1_transitions;

#define M1_AUTOMATON_UNKNOWN (-3)

m1_transitions m1_automaton_transitions(const m1_automaton *a);

/* The places of a state, of which there are m1_state.n. Valid until the next step. */
const m1_place *m1_automaton_places(const m1_automaton *a, int32_t state);
/* The node that the call on top of a stack returns to, and the stack below it; false for the empty stack. */
bool m1_automaton_return(const m1_automaton *a, int32_t stack, int32_t *node, int32_t *below);

/* Valid until the next step. */
m1_state *m1_automaton_state(const m1_automaton *a, int32_t state);

const m1_nfa *m1_automaton_nfa(const m1_automaton *a);
/* What the states take. */
size_t m1_automaton_bytes(const m1_automaton *a);
int32_t m1_automaton_states(const m1_automaton *a);

/*
 * Forgets every state but the start and those that *roots[0 .. n) name, which get new numbers. Masks must have been
 * freed. false when memory ran out: the automaton is then as before.
 */
bool m1_automaton_compact(m1_automaton *a, int32_t **roots, size_t n);

#endif
