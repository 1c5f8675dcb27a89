/* nano.c - see nano.h. */
#include "nano.h"

const m1_tokenizer *
nano_tokenizer(void)
{
	static m1_tokenizer *t;
	m1_error err;

	if (t == NULL)
		fuzz_check(m1_tokenizer_open(NANO, NANO_ROWS, &t, &err) == M1_OK, "%s", err.message);
	return t;
}
