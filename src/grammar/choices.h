/*
 * choices.h - an answer that is one of several strings. For constraint.c, and for whoever scores them. A text of
 * choices has been found short enough by m1_constraint_compile before.
 */
#ifndef M1_GRAMMAR_CHOICES_H
#define M1_GRAMMAR_CHOICES_H

#include "grammar/nfa.h"

#define M1_MAX_CHOICES 10000

/*
 * The strings of a choice, from their JSON array: an array of n strings that the caller frees, with *n set. Each is
 * NUL-terminated, none is empty, no two are equal.
 */
m1_status m1_choices_parse(m1_slice text, char ***choices, size_t *n, m1_error *err);
void m1_choices_free(char **choices, size_t n);

/* Writes them in front of next. *longest: bytes of the longest one. */
m1_status m1_choices_compile(m1_nfa *nfa, m1_slice text, int32_t next, int32_t *start, int *longest, m1_error *err);

#endif
