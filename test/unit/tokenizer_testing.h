/*
 * tokenizer_testing.h - what tests share that read or write texts: the bundled model's tokenizer, for the time of a group.
 */
#ifndef M1_TEST_TOKENIZER_TESTING_H
#define M1_TEST_TOKENIZER_TESTING_H

#include "testing.h"

#include "text/tokenizer.h"

#define NANO "models/m1-nano"
#define VOCAB 1600

static m1_tokenizer *tokenizer;

static inline int
open_tokenizer(void **state)
{
	m1_error err;

	(void) state;
	assert_ok(m1_tokenizer_open(NANO, VOCAB, &tokenizer, &err));
	return 0;
}

static inline int
close_tokenizer(void **state)
{
	(void) state;
	m1_tokenizer_close(tokenizer);
	return 0;
}

#endif
