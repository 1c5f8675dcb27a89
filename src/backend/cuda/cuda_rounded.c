/*
 * cuda_rounded.c - the bf16 copy of the rows that products read. Several products read the
 * same rows: the copy is made once, by the operation that writes them if it can, else by
 * the first product. Every operation tells here what it has written.
 */
#include "backend/cuda/cuda_internal.h"

size_t
m1b_cuda_widest(const m1b_geometry *g)
{
	const size_t heads = (size_t) g->heads * (size_t) g->head_dim;
	const size_t d = (size_t) g->hidden;

	return d > heads ? d : heads;
}

void
m1b_cuda_rounded_want(m1b_cuda *c, m1b_cuda_buffers *all)
{
	if (c->tensor_cores)
		m1b_cuda_want(all, &c->rounded.copy, (size_t) c->g.max_tokens * m1b_cuda_widest(&c->g),
					  sizeof *c->rounded.copy);
}

void
m1b_cuda_wrote(m1b_cuda *c, const float *out)
{
	if (c->rounded.of == out)
		c->rounded.of = NULL;
}

uint16_t *
m1b_cuda_wrote_rounded(m1b_cuda *c, const float *out, int n)
{
	m1b_cuda_wrote(c, out);
	if (!c->tensor_cores || n <= M1K_FEW_ROWS || n > c->g.max_tokens)
		return NULL;
	c->rounded.of = out;
	return c->rounded.copy;
}

const uint16_t *
m1b_cuda_rounded(m1b_cuda *c, const float *x, int n, int width)
{
	if (c->rounded.of != x)
	{
		m1k_to_bf16(x, (size_t) n * (size_t) width, c->rounded.copy, NULL, NULL, c->stream);
		c->rounded.of = x;
	}
	return c->rounded.copy;
}
