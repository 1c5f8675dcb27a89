/*
 * cuda_rounded.c - the bf16 copy of the rows that products read. Several products read the
 * same rows: the copy is made once, by the operation that writes them if it can, else by
 * the first product. Every operation tells here what it has written.
 */
#include "backend/cuda/cuda_internal.h"

void
m1b_cuda_wrote(m1b_cuda *c, const float *out)
{
	if (c->rounded_from == out)
		c->rounded_from = NULL;
}

uint16_t *
m1b_cuda_wrote_rounded(m1b_cuda *c, const float *out, int n)
{
	m1b_cuda_wrote(c, out);
	if (!c->tensor_cores || n <= M1K_FEW_ROWS)
		return NULL;
	c->rounded_from = out;
	return c->rounded;
}

const uint16_t *
m1b_cuda_rounded(m1b_cuda *c, const float *x, int n, int width)
{
	if (c->rounded_from != x)
	{
		m1k_to_bf16(x, (size_t) n * (size_t) width, c->rounded, NULL, NULL, c->stream);
		c->rounded_from = x;
	}
	return c->rounded;
}
