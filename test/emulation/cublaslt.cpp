/* cublaslt.cpp - see cublasLt.h. Checks what the library checks, and multiplies by plain loops. */
#include "cublasLt.h"

#include <string.h>
#include <vector>

struct emulated_handle
{
	int device; /* the current one when it was made, as in the library */
};

struct emulated_preference
{
	size_t space = 0;
	uint32_t alignment[4] = {256, 256, 256, 256}; /* of a, b, c and d */
};

struct emulated_operation
{
	cublasOperation_t a;
};

struct emulated_layout
{
	cudaDataType_t type;
	uint64_t rows, cols;
	int64_t ld;
};

static float
element(const void *data, const emulated_layout *l, uint64_t row, uint64_t col)
{
	const size_t at = col * (size_t) l->ld + row;
	uint32_t bits;
	float x;

	if (l->type == CUDA_R_32F)
		return static_cast<const float *>(data)[at];
	bits = (uint32_t) static_cast<const uint16_t *>(data)[at] << 16;
	memcpy(&x, &bits, sizeof x);
	return x;
}

static bool
fits(const emulated_operation *o, const emulated_layout *a, const emulated_layout *b, const emulated_layout *d)
{
	const uint64_t inner = o->a == CUBLAS_OP_T ? a->rows : a->cols;
	const uint64_t rows = o->a == CUBLAS_OP_T ? a->cols : a->rows;

	/* alignment is what the tensor cores ask for */
	return inner == b->rows && rows == d->rows && b->cols == d->cols && a->type == b->type && d->type == CUDA_R_32F &&
		   a->ld >= (int64_t) a->rows && b->ld >= (int64_t) b->rows && d->ld >= (int64_t) d->rows &&
		   (a->type == CUDA_R_32F || (a->ld % 8 == 0 && b->ld % 8 == 0));
}

static bool
is_aligned(const void *matrix, uint64_t alignment)
{
	return reinterpret_cast<uintptr_t>(matrix) % alignment == 0;
}

static cublasStatus_t next_status = CUBLAS_STATUS_SUCCESS;
static bool knows_none;

extern "C" {
void
emulated_fail_next_product(cublasStatus_t status)
{
	next_status = status;
}

void
emulated_know_no_product(bool none)
{
	knows_none = none;
}

cublasStatus_t
cublasLtCreate(cublasLtHandle_t *handle)
{
	*handle = new emulated_handle();
	cudaGetDevice(&(*handle)->device);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtDestroy(cublasLtHandle_t handle)
{
	delete handle;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
	*preference = new emulated_preference();
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
	delete preference;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
									 cublasLtMatmulPreferenceAttributes_t attribute, const void *value, size_t size)
{
	const bool space = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;

	if (size != (space ? sizeof preference->space : sizeof preference->alignment[0]))
		return CUBLAS_STATUS_INVALID_VALUE;
	if (space)
		memcpy(&preference->space, value, size);
	else
		memcpy(&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *operation, cublasComputeType_t compute, cudaDataType_t scale)
{
	if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
		return CUBLAS_STATUS_NOT_SUPPORTED;
	*operation = new emulated_operation();
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation)
{
	delete operation;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, int attribute, const void *value, size_t size)
{
	if (attribute != CUBLASLT_MATMUL_DESC_TRANSA || size != sizeof operation->a)
		return CUBLAS_STATUS_INVALID_VALUE;
	memcpy(&operation->a, value, size);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows, uint64_t cols,
						   int64_t ld)
{
	*layout = new emulated_layout{type, rows, cols, ld};
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
	delete layout;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
							   cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
							   cublasLtMatmulPreference_t preference, int wanted,
							   cublasLtMatmulHeuristicResult_t *results, int *found)
{
	if (!fits(operation, a, b, d) || preference->space == 0 || wanted < 1)
		return CUBLAS_STATUS_INVALID_VALUE;
	memset(&results[0], 0, sizeof results[0]);
	/* an algorithm belongs to its shape */
	results[0].algo.data[0] = d->rows;
	results[0].algo.data[1] = d->cols;
	results[0].algo.data[2] = b->rows;
	for (int i = 0; i < 4; i++)
		results[0].algo.data[3 + i] = preference->alignment[i];
	*found = !knows_none;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
			   cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
			   const void *c, cublasLtMatrixLayout_t, void *d, cublasLtMatrixLayout_t d_layout,
			   const cublasLtMatmulAlgo_t *algorithm, void *, size_t, cudaStream_t stream)
{
	const emulated_layout la = *a_layout;
	const emulated_layout lb = *b_layout;
	const emulated_layout ld = *d_layout;
	const bool transposed = operation->a == CUBLAS_OP_T;
	const float scale = *static_cast<const float *>(alpha);
	const float keep = *static_cast<const float *>(beta);
	int device;

	if (next_status != CUBLAS_STATUS_SUCCESS)
	{
		const cublasStatus_t status = next_status;

		next_status = CUBLAS_STATUS_SUCCESS;
		return status;
	}
	cudaGetDevice(&device);
	if (handle->device != device || !fits(operation, a_layout, b_layout, d_layout) || c != d ||
		algorithm->data[0] != ld.rows || algorithm->data[1] != ld.cols || algorithm->data[2] != lb.rows ||
		!is_aligned(a, algorithm->data[3]) || !is_aligned(b, algorithm->data[4]) ||
		!is_aligned(c, algorithm->data[5]) || !is_aligned(d, algorithm->data[6]))
		return CUBLAS_STATUS_INVALID_VALUE;
	emulated_enqueue(stream,
					 [=]
					 {
						 std::vector<float> row(lb.rows);

						 for (uint64_t i = 0; i < ld.rows; i++)
						 {
							 for (uint64_t k = 0; k < lb.rows; k++)
								 row[k] = transposed ? element(a, &la, k, i) : element(a, &la, i, k);
							 for (uint64_t j = 0; j < ld.cols; j++)
							 {
								 float *to = static_cast<float *>(d) + j * (size_t) ld.ld + i;
								 float sum = 0.0f;

								 for (uint64_t k = 0; k < lb.rows; k++)
									 sum += row[k] * element(b, &lb, k, j);
								 *to = scale * sum + (keep != 0.0f ? keep * *to : 0.0f);
							 }
						 }
					 });
	return CUBLAS_STATUS_SUCCESS;
}

} // extern "C"
