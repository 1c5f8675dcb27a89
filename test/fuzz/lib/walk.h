/*
 * walk.h - walks through an automaton, byte by byte, as a model that may write anything that is allowed would.
 */
#ifndef M1_FUZZ_WALK_H
#define M1_FUZZ_WALK_H

#include "fuzz.h"
#include "grammar/automaton.h"

/*
 * Some bytes by chance, then the shortest way to an end; what was read is in text. Checks on the way that no state is a
 * dead end and that each tells how far the end is. false when the automaton became too large, or the end is too far.
 */
bool walk_to_an_end(m1_automaton *a, fuzz_input *in, int most_by_chance, m1_buf *text);

#endif
