/*
 * constraint_testing.h - what the tests of constraints share: the bundled model's vocabulary, and a mask over it from
 * which tokens are drawn.
 */
#ifndef M1_TEST_CONSTRAINT_TESTING_H
#define M1_TEST_CONSTRAINT_TESTING_H

#include "tokenizer_testing.h"

#include <stdlib.h>

#include "grammar/constraint.h"
#include "grammar/token_mask.h"

static m1_vocabulary *vocabulary;
static uint64_t *mask;

static inline int
count_allowed(void)
{
	int n = 0;

	for (int i = 0; i < vocabulary->n_tokens; i++)
		n += m1_mask_has(mask, i);
	return n;
}

/* The mask, which allows something, is the caller's to fill. */
static inline int32_t
pick_allowed(uint64_t *random)
{
	int n = (int) (test_random(random) % (uint32_t) count_allowed());

	for (int32_t i = 0;; i++)
		if (m1_mask_has(mask, i) && n-- == 0)
			return i;
}

static inline int
open_vocabulary(void **state)
{
	m1_error err;

	open_tokenizer(state);
	assert_ok(m1_vocabulary_create(tokenizer, VOCAB, &vocabulary, &err));
	mask = calloc((size_t) vocabulary->words, sizeof *mask);
	return mask == NULL;
}

static inline int
close_vocabulary(void **state)
{
	free(mask);
	m1_vocabulary_free(vocabulary);
	return close_tokenizer(state);
}

#endif
