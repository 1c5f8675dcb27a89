/*
 * cuda_internal.h - what the CUDA backend knows of one GPU. Nobody else includes it, but for tests that look into its
 * memory. Each member belongs to one file, whose header tells more.
 */
#ifndef M1_BACKEND_CUDA_CUDA_INTERNAL_H
#define M1_BACKEND_CUDA_CUDA_INTERNAL_H

#include <cuda_runtime.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_attention.h"
#include "backend/cuda/cuda_error.h"
#include "backend/cuda/cuda_experts.h"
#include "backend/cuda/cuda_gemm.h"
#include "backend/cuda/cuda_graphs.h"
#include "backend/cuda/cuda_learn.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/cuda_nccl.h"
#include "backend/cuda/cuda_product.h"
#include "backend/cuda/cuda_rounded.h"
#include "backend/cuda/cuda_sample.h"
#include "backend/cuda/cuda_state.h"
#include "backend/cuda/cuda_step.h"
#include "backend/cuda/cuda_weights.h"
#include "base/pool.h"
#include "kernels/m1k.h"

struct m1b_cuda
{
	m1b_backend base; /* first, so that the two pointers convert */
	m1b_geometry g;	  /* of this rank's part */
	int device;
	int rank, ranks;   /* one GPU alone is rank 0 of 1 */
	bool tensor_cores; /* bf16 operands where there are many rows; not for all-F32 checkpoints */
	cudaStream_t stream;

	/* for people */
	char description[128];
	char gpu_name[81];
	double gpu_gb;
	void (*log)(void *context, const char *line);
	void *log_context;

	m1b_cuda_failure failure;
	m1b_cuda_plan plan;
	m1b_cuda_arena arena;			/* weights, activations, work */
	struct m1b_cuda_loader *loader; /* cuda_weights.c; until the first step */
	m1b_cuda_pool pool;
	m1b_cuda_step step;
	m1b_cuda_graphs graphs;
	m1b_cuda_attention_memory attention;
	m1b_cuda_rounded_rows rounded;
	m1b_cuda_products products;
	m1b_cuda_routed routed;
	m1b_cuda_expert_lanes experts;
	m1b_cuda_sampling sampling;
	m1b_cuda_peers peers;
	m1b_cuda_learn learn;
	struct m1b_cuda_gemm *gemm;
	void *gemm_space;
};

static inline m1b_cuda *
m1b_cuda_of(m1b_backend *b)
{
	return (m1b_cuda *) b;
}

/* Opens one device as a rank of several. */
m1_status m1b_cuda_open_rank(const m1b_cuda_options *options, int rank, m1b_cuda **out, m1_error *err);
/* Configures it in two: the plan, which allocates nothing and may be given fewer pages, and the rest. */
m1_status m1b_cuda_plan_memory(m1b_cuda *c, const m1b_geometry *g, m1_error *err);
m1_status m1b_cuda_allocate(m1b_cuda *c, m1_pool *loading, m1_error *err);
void m1b_cuda_close(m1b_backend *b);

#endif
