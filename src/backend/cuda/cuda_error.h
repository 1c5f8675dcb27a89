/*
 * cuda_error.h - the first failure of the device.
 *
 * A CUDA error is kept until m1b_ops.read, which reports it; what is launched after it has
 * no effect. The engine process ends then: a device that failed once is not trusted again.
 */
#ifndef M1_BACKEND_CUDA_CUDA_ERROR_H
#define M1_BACKEND_CUDA_CUDA_ERROR_H

#include <cuda_runtime.h>
#include <stdbool.h>

#include "base/status.h"

typedef struct m1b_cuda m1b_cuda;

typedef struct m1b_cuda_failure
{
	cudaError_t error;
	const char *doing;	   /* what failed */
	const char *nccl_says; /* why, when it was NCCL that failed */
} m1b_cuda_failure;

/* Keeps the first failure. */
void m1b_cuda_note(m1b_cuda *c, cudaError_t error, const char *doing);
/* Looks whether launching succeeded. */
void m1b_cuda_launched(m1b_cuda *c, const char *doing);
bool m1b_cuda_failed(const m1b_cuda *c);
/* The kept failure as an error, M1_OK when there is none. */
m1_status m1b_cuda_status(const m1b_cuda *c, m1_error *err);
/* Any CUDA error as one of ours. */
m1_status m1b_cuda_error(cudaError_t error, const char *doing, m1_error *err);

#endif
