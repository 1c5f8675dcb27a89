/*
 * cublasLt.h - the part of cuBLASLt that cuda_gemm.c uses, on the CPU: column-major
 * matrices with leading dimensions, a transposed left operand, fp32 sums. Found instead
 * of the real header in tests without a GPU.
 */
#ifndef EMULATED_CUBLASLT_H
#define EMULATED_CUBLASLT_H

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cublasStatus_t
{
	CUBLAS_STATUS_SUCCESS = 0,
	CUBLAS_STATUS_ALLOC_FAILED = 3,
	CUBLAS_STATUS_INVALID_VALUE = 7,
	CUBLAS_STATUS_NOT_SUPPORTED = 15,
} cublasStatus_t;

typedef enum cublasOperation_t
{
	CUBLAS_OP_N,
	CUBLAS_OP_T,
} cublasOperation_t;

typedef enum cudaDataType_t
{
	CUDA_R_32F = 0,
	CUDA_R_16BF = 14,
} cudaDataType_t;

typedef enum cublasComputeType_t
{
	CUBLAS_COMPUTE_32F = 68,
} cublasComputeType_t;

enum
{
	CUBLASLT_MATMUL_DESC_TRANSA = 3,
};

typedef enum cublasLtMatmulPreferenceAttributes_t
{
	CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
	CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
	CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6,
	CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7,
	CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8,
} cublasLtMatmulPreferenceAttributes_t;

typedef struct emulated_handle *cublasLtHandle_t;
typedef struct emulated_preference *cublasLtMatmulPreference_t;
typedef struct emulated_operation *cublasLtMatmulDesc_t;
typedef struct emulated_layout *cublasLtMatrixLayout_t;

typedef struct cublasLtMatmulAlgo_t
{
	uint64_t data[8];
} cublasLtMatmulAlgo_t;

typedef struct cublasLtMatmulHeuristicResult_t
{
	cublasLtMatmulAlgo_t algo;
} cublasLtMatmulHeuristicResult_t;

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle);
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle);
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference);
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference);
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
													cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
													size_t size);
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *operation, cublasComputeType_t compute,
										cudaDataType_t scale);
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation);
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, int attribute, const void *value,
											  size_t size);
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
										  uint64_t cols, int64_t ld);
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout);
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
											  cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
											  cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
											  cublasLtMatmulPreference_t preference, int wanted,
											  cublasLtMatmulHeuristicResult_t *results, int *found);
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
							  cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
							  const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
							  cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *space,
							  size_t space_bytes, cudaStream_t stream);

/* The emulation's own: what the next product answers instead of being made. */
void emulated_fail_next_product(cublasStatus_t status);
/* Nothing is found for any product from now on, or again. */
void emulated_know_no_product(bool none);

#ifdef __cplusplus
}
#endif

#endif
