/*
 * cuda_gemm.h - products by cuBLASLt. It knows nothing of the backend.
 */
#ifndef M1_BACKEND_CUDA_CUDA_GEMM_H
#define M1_BACKEND_CUDA_CUDA_GEMM_H

#include <cuda_runtime.h>

#include "kernels/m1k.h"
#include "base/status.h"

struct m1b_cuda_gemm;

#define M1B_CUDA_GEMM_SPACE ((size_t) 32 << 20)

/* out = x times the transpose of weight. */
typedef struct m1b_cuda_multiply
{
	m1k_matrix weight; /* [rows, cols], F32 or BF16 */
	const void *x;	   /* [n, cols], of the weight's type */
	int n;
	float *out;		/* n rows of `rows` floats */
	int out_stride; /* floats from one row to the next */
	int space;		/* number of a work space that no other stream uses: 0 for m1b_cuda.stream */
	cudaStream_t stream;
} m1b_cuda_multiply;

/* space: device memory, M1B_CUDA_GEMM_SPACE bytes for each of the work spaces' numbers. */
m1_status m1b_cuda_gemm_create(void *space, struct m1b_cuda_gemm **out, m1_error *err);
void m1b_cuda_gemm_free(struct m1b_cuda_gemm *gemm);
/*
 * cuBLAS's status, and CUDA's error that comes nearest to it: cudaErrorNotSupported where the library has nothing for
 * such a product, and nothing is done.
 */
cudaError_t m1b_cuda_gemm(struct m1b_cuda_gemm *gemm, const m1b_cuda_multiply *p, int *said);

#endif
