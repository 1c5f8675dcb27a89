/*
 * cuda_step.h - a step: its batch on the device, its layers, its end.
 */
#ifndef M1_BACKEND_CUDA_CUDA_STEP_H
#define M1_BACKEND_CUDA_CUDA_STEP_H

#include <cuda_runtime.h>

#include "kernels/m1k.h"
#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"

typedef struct m1b_cuda m1b_cuda;

/* The batch, on the device and as pinned copies that are rewritten once `uploaded` has happened. */
typedef struct m1b_cuda_step
{
	int *tokens, *host_tokens;			   /* [max_tokens] */
	int *segment_of, *host_segment_of;	   /* [max_tokens] */
	m1k_segment *segments, *host_segments; /* [max_states] */
	cudaEvent_t uploaded;
	const m1b_batch *batch;
	bool one_each; /* all segments are one token long */
} m1b_cuda_step;

void m1b_cuda_step_want(m1b_cuda *c, m1b_cuda_buffers *all);
m1_status m1b_cuda_step_create(m1b_cuda *c, m1_error *err);
void m1b_cuda_step_free(m1b_cuda *c);
bool m1b_cuda_begin(m1b_backend *b, const m1b_batch *batch);
bool m1b_cuda_end(m1b_backend *b);
/* Before the layers of a step, and again before those that could not be recorded. */
void m1b_cuda_start_layers(m1b_cuda *c);
m1_status m1b_cuda_read(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err);

#endif
