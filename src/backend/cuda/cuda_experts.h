/*
 * cuda_experts.h - experts with many tokens each, by cuBLASLt.
 */
#ifndef M1_BACKEND_CUDA_CUDA_EXPERTS_H
#define M1_BACKEND_CUDA_CUDA_EXPERTS_H

#include <cuda_runtime.h>
#include <stdint.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"

typedef struct m1b_cuda m1b_cuda;

#define M1B_CUDA_LANES 4 /* experts that are multiplied side by side */

/* A stream for some of the experts, with work space of its own. */
typedef struct m1b_cuda_lane
{
	cudaStream_t stream;
	cudaEvent_t done;
	float *gate, *up; /* rows of a piece, F each */
} m1b_cuda_lane;

/* Nothing of it is there where no batch has tokens enough. */
typedef struct m1b_cuda_expert_lanes
{
	m1b_cuda_lane lanes[M1B_CUDA_LANES];
	uint16_t *gathered;				 /* [max_moe_pairs, d] rows of x by place */
	int *host_group;				 /* [E + 1], pinned */
	cudaEvent_t routed, is_gathered; /* host_group, and gathered, are there */
} m1b_cuda_expert_lanes;

/* Whether batches of this size and these weights can come that cuda_experts.c is for. */
bool m1b_cuda_experts_planned(const m1b_geometry *g);
void m1b_cuda_experts_want(m1b_cuda *c, m1b_cuda_buffers *all);
m1_status m1b_cuda_experts_create(m1b_cuda *c, m1_error *err);
void m1b_cuda_experts_free(m1b_cuda *c);
bool m1b_cuda_experts_suit(const m1b_cuda *c, const m1b_moe *p);
/* c->routed.out = w2 (silu(w1 x) * w3 x) for all places, once the tokens are routed. */
void m1b_cuda_experts(m1b_cuda *c, const m1b_moe *p);

#endif
