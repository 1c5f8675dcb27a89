/*
 * cuda_rounded.h - the bf16 copy of the rows that products read.
 */
#ifndef M1_BACKEND_CUDA_CUDA_ROUNDED_H
#define M1_BACKEND_CUDA_CUDA_ROUNDED_H

#include <stdint.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"

typedef struct m1b_cuda m1b_cuda;

typedef struct m1b_cuda_rounded_rows
{
	uint16_t *copy;	 /* [max_tokens, the longer of d and H * D] */
	const float *of; /* the rows it is a copy of; NULL = none */
} m1b_cuda_rounded_rows;

/* Values of the longest rows that products read. */
size_t m1b_cuda_widest(const m1b_geometry *g);
void m1b_cuda_rounded_want(m1b_cuda *c, m1b_cuda_buffers *all);
/* An operation has written floats there: a bf16 copy of what was there before is no longer one. */
void m1b_cuda_wrote(m1b_cuda *c, const float *out);
/*
 * Where an operation that writes n * width floats to `out` should put a bf16 copy, or NULL: of more rows than a step
 * has, which are a training's, there is none.
 */
uint16_t *m1b_cuda_wrote_rounded(m1b_cuda *c, const float *out, int n);
/* x in bf16: as the operation that wrote it left it, or made now. */
const uint16_t *m1b_cuda_rounded(m1b_cuda *c, const float *x, int n, int width);

#endif
