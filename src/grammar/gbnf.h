/*
 * gbnf.h - what may follow a state of an automaton, as a grammar in the notation that llama.cpp calls GBNF and that
 * vLLM and SGLang read as EBNF: for servers that mask tokens themselves.
 *
 * constraint.c calls it, under the lock of the automaton.
 */
#ifndef M1_GRAMMAR_GBNF_H
#define M1_GRAMMAR_GBNF_H

#include "grammar/automaton.h"

#define M1_GBNF_MAX_BYTES (4 << 20)

/*
 * Appends the grammar, whose rule is "root". It is made of characters, so the state must be between two of them, and
 * bytes that are no UTF-8 are left out. How deep rules may nest is not in it. M1_E_UNSUPPORTED when it is too long, or
 * the state is inside a character.
 */
m1_status m1_gbnf_write(const m1_automaton *a, int32_t state, m1_buf *out, m1_error *err);

#endif
