/*
 * cuda_weights.h - weights and constants on their way to the device.
 */
#ifndef M1_BACKEND_CUDA_CUDA_WEIGHTS_H
#define M1_BACKEND_CUDA_CUDA_WEIGHTS_H

#include "kernels/m1k.h"
#include "backend/backend.h"
#include "base/pool.h"

typedef struct m1b_cuda m1b_cuda;

/* With a pool of its own when `pool` is NULL. */
m1_status m1b_cuda_loader_create(m1b_cuda *c, m1_pool *pool, m1_error *err);
/* Waits until all weights are there and frees what loading needed. */
void m1b_cuda_loader_finish(m1b_cuda *c);
m1_status m1b_cuda_matrix(m1b_backend *b, const m1b_stored_matrix *p, m1b_matrix *out, bool *borrowed, m1_error *err);
float *m1b_cuda_scratch(m1b_backend *b, size_t n, const float *host);
/* A matrix as the kernels want it described. */
m1k_matrix m1b_cuda_kernel_matrix(const m1b_matrix *m);

#endif
