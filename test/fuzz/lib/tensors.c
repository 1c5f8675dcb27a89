/* tensors.c - see tensors.h. */
#include "tensors.h"

#include <string.h>

/* A tensor that lies outside of its file ends the process here, or belongs to another one. */
static void
read_all(const m1_tensor *t)
{
	volatile unsigned sum = 0;

	for (size_t i = 0; i < t->bytes; i++)
		sum = sum + ((const unsigned char *) t->data)[i];
}

void
check_tensors(const m1_checkpoint *c, size_t bytes)
{
	size_t all = 0;

	for (size_t i = 0; i < m1_checkpoint_tensors(c); i++)
	{
		const m1_tensor *t = m1_checkpoint_tensor(c, i);

		fuzz_check(t->dims >= 0 && t->dims <= M1_MAX_DIMS && t->file != NULL, "tensor \"%s\"", t->name);
		for (int d = 0; d < t->dims; d++)
			fuzz_check(t->shape[d] >= 0, "tensor \"%s\" has %lld rows", t->name, (long long) t->shape[d]);
		fuzz_check(m1_checkpoint_find(c, t->name) == t, "tensor \"%s\" is not found", t->name);
		fuzz_check(i == 0 || strcmp(t[-1].name, t->name) < 0, "tensor \"%s\" is out of order", t->name);
		read_all(t);
		all += t->bytes;
	}
	fuzz_check(all <= bytes, "tensors of %zu bytes in files of %zu", all, bytes);
}
