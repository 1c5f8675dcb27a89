/*
 * cuda_sample.h - the next tokens, from logits that stay on the device.
 */
#ifndef M1_BACKEND_CUDA_CUDA_SAMPLE_H
#define M1_BACKEND_CUDA_CUDA_SAMPLE_H

#include "kernels/m1k.h"
#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"

typedef struct m1b_cuda m1b_cuda;

/* See m1k_sample; host_ is pinned, and all is wiped after each use. */
typedef struct m1b_cuda_sampling
{
	m1k_draw *draws, *host_draws; /* [max_states] */
	m1k_pick *host_picks;		  /* [max_states] */
	uint64_t *masks, *host_masks; /* [max_states, mask_words] */
	int mask_words;
	/* zeros between two uses */
	m1k_found *found; /* [max_states] */
	m1k_tally *bins;  /* [max_states, M1K_SAMPLE_BINS] */
} m1b_cuda_sampling;

void m1b_cuda_sample_want(m1b_cuda *c, m1b_cuda_buffers *all);
m1_status m1b_cuda_sample_create(m1b_cuda *c, m1_error *err);
void m1b_cuda_sample_free(m1b_cuda *c);
m1_status m1b_cuda_sample(m1b_backend *b, const m1b_sample *p, m1_error *err);

#endif
