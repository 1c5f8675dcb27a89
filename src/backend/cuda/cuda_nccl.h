/*
 * cuda_nccl.h - what several GPUs exchange.
 *
 * With several GPUs there is one m1b_cuda for each, a rank: it has its part of the heads,
 * of every expert's inner width and of the vocabulary, and everything else like the others.
 * Its operations add up with the others' what each has a part of, and exchange the parts
 * of the logits, so that all have the same rows. All ranks lay out their arenas alike and
 * count states, pages and snapshots alike.
 */
#ifndef M1_BACKEND_CUDA_CUDA_NCCL_H
#define M1_BACKEND_CUDA_CUDA_NCCL_H

#include <cuda_runtime.h>
#include <stdbool.h>

#include "backend/cuda/cuda_memory.h"

typedef struct m1b_cuda m1b_cuda;

#define M1B_CUDA_MAX_GPUS 16

/* One GPU alone has nothing of it. */
typedef struct m1b_cuda_peers
{
	struct ncclComm *comm;
	float *squares; /* [max_tokens] of the inner norm's rows */
	float *parts;	/* [ranks][M1K_FEW_ROWS, d]: what few rows are on each rank */
	float *slices;	/* [ranks][max_states, vocab / ranks]: each rank's columns of the logits */
} m1b_cuda_peers;

void m1b_cuda_peers_want(m1b_cuda *c, m1b_cuda_buffers *all);
m1_status m1b_cuda_comms_create(m1b_cuda *const *ranks, int n, m1_error *err);
/* Ends what waits for other ranks when `abort`. All ranks are to be called; no graph may be left that uses it. */
void m1b_cuda_comm_free(m1b_cuda *c, bool abort);
/*
 * For whoever waits for a GPU since `begin` (m1_now_ms) by asking again and again, because its peers may have failed:
 * whether `state`, the answer to a query, means to go on waiting. Failures are noted: the query's, the communicator's,
 * and that it takes too long.
 */
bool m1b_cuda_keep_waiting(m1b_cuda *c, cudaError_t state, double begin);
/*
 * x [n, width] becomes the sum over all ranks, the same bits on each. Up to M1K_FEW_ROWS rows a row's bits do not
 * depend on the others. Nothing happens on a GPU that is alone.
 */
void m1b_cuda_sum(m1b_cuda *c, float *x, int n, int width);
/* out [n, ranks * width] = the n rows of `width` columns that each rank has at m1b_cuda_own_slice, side by side. */
void m1b_cuda_join(m1b_cuda *c, int n, int width, float *out);
float *m1b_cuda_own_slice(const m1b_cuda *c, int n, int width);

#endif
