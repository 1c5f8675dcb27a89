/*
 * constraints.h - the compiled constraints of one engine: statements over many rows ask for the same one again and
 * again, and find it and its masks ready.
 *
 * Any thread may ask. Least recently used first out; what goes is wiped as soon as no request uses it any more.
 */
#ifndef M1_ENGINE_CONSTRAINTS_H
#define M1_ENGINE_CONSTRAINTS_H

#include "grammar/constraint.h"
#include "wire/message.h"

typedef struct m1_constraints m1_constraints;

/* For the tokens of t, which must outlive it. NULL when memory ran out. */
m1_constraints *m1_constraints_create(const m1_tokenizer *t, int n_tokens);
void m1_constraints_free(m1_constraints *cs);

/* The constraint of g, which has one; *out is the caller's to release. */
m1_status m1_constraints_get(m1_constraints *cs, const m1w_generate *g, m1_work *work, m1_constraint **out,
							 m1_error *err);
/* There once m1_constraints_get has succeeded. */
const m1_vocabulary *m1_constraints_vocabulary(const m1_constraints *cs);

#endif
