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
	const char *doing;	 /* what failed */
	const char *library; /* whose failure it is, when not CUDA's own */
	char says[128];		 /* why, when it is a library's */
} m1b_cuda_failure;

/* Keeps the first failure. */
void m1b_cuda_note(m1b_cuda *c, cudaError_t error, const char *doing);
/* The same of a library, which says why by what follows; error is the one of CUDA that comes nearest. */
void m1b_cuda_note_library(m1b_cuda *c, const char *library, cudaError_t error, const char *doing, const char *format,
						   ...) __attribute__((format(printf, 5, 6)));
/* Looks whether launching succeeded. */
void m1b_cuda_launched(m1b_cuda *c, const char *doing);
bool m1b_cuda_failed(const m1b_cuda *c);
/* The kept failure as an error, M1_OK when there is none. */
m1_status m1b_cuda_status(const m1b_cuda *c, m1_error *err);
/* Any CUDA error as one of ours. */
m1_status m1b_cuda_error(cudaError_t error, const char *doing, m1_error *err);

#endif
