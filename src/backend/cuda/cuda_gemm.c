/*
 * cuda_gemm.c - products by cuBLASLt, for many rows of 16- and 32-bit floats.
 *
 * cuBLAS counts columns first. A row-major weight [rows, cols] is there a matrix of
 * cols x rows, taken transposed; x [n, cols] is cols x n, and out [n, rows] is rows x n.
 * The algorithm that cuBLASLt proposes for a shape is kept: asking takes longer than
 * launching. Used by the step thread only; products on different streams use different work spaces.
 */
#include "backend/cuda/cuda_internal.h"

#include <cublasLt.h>
#include <stdlib.h>

/* Bytes: what cuBLASLt takes for granted unless it is told, and what all operands and all results have. */
#define ALIGNED 256
#define OPERAND_ALIGNMENT M1K_ROW_ALIGNMENT
#define RESULT_ALIGNMENT sizeof(float)
#define CACHE_ENTRIES 4096 /* the numbers of tokens that come to experts are many */

typedef struct shape
{
	m1k_type type;
	int rows, cols, n;
	size_t row_bytes;
	int out_stride;
	bool aligned; /* all matrices, to ALIGNED */
} shape;

typedef struct cached
{
	shape shape;
	bool valid;
	bool supported;
	cublasLtMatmulAlgo_t algorithm;
} cached;

struct m1b_cuda_gemm
{
	cublasLtHandle_t handle;
	cublasLtMatmulPreference_t preferences[2]; /* for matrices that are not aligned, and for those that are */
	cublasLtMatmulDesc_t operation;
	char *space; /* device memory, M1B_CUDA_GEMM_SPACE bytes for each space number */
	cached cache[CACHE_ENTRIES];
};

typedef struct layouts
{
	cublasLtMatrixLayout_t w, x, out;
} layouts;

static m1_status
failed(cublasStatus_t status, m1_error *err)
{
	m1_fail(err, M1_E_DEVICE, "could not start cuBLASLt");
	m1_error_detail(err, "cuBLAS status %d.", (int) status);
	return M1_E_DEVICE;
}

static cublasStatus_t
create_preference(uint32_t operands, uint32_t result, cublasLtMatmulPreference_t *out)
{
	const struct
	{
		cublasLtMatmulPreferenceAttributes_t name;
		uint32_t bytes;
	} alignments[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, operands},
					  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, operands},
					  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, result},
					  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, result}};
	const size_t bytes = M1B_CUDA_GEMM_SPACE;
	cublasStatus_t status = cublasLtMatmulPreferenceCreate(out);

	if (status == CUBLAS_STATUS_SUCCESS)
		status =
			cublasLtMatmulPreferenceSetAttribute(*out, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
	for (size_t i = 0; i < sizeof alignments / sizeof *alignments && status == CUBLAS_STATUS_SUCCESS; i++)
		status = cublasLtMatmulPreferenceSetAttribute(*out, alignments[i].name, &alignments[i].bytes,
													  sizeof alignments[i].bytes);
	return status;
}

m1_status
m1b_cuda_gemm_create(void *space, struct m1b_cuda_gemm **out, m1_error *err)
{
	const cublasOperation_t transpose = CUBLAS_OP_T;
	struct m1b_cuda_gemm *g = calloc(1, sizeof *g);
	cublasStatus_t status;

	*out = g;
	if (g == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the CUDA backend");
	g->space = space;
	if ((status = cublasLtCreate(&g->handle)) != CUBLAS_STATUS_SUCCESS ||
		(status = create_preference(OPERAND_ALIGNMENT, RESULT_ALIGNMENT, &g->preferences[false])) !=
			CUBLAS_STATUS_SUCCESS ||
		(status = create_preference(ALIGNED, ALIGNED, &g->preferences[true])) != CUBLAS_STATUS_SUCCESS ||
		(status = cublasLtMatmulDescCreate(&g->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F)) != CUBLAS_STATUS_SUCCESS ||
		(status = cublasLtMatmulDescSetAttribute(g->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
												 sizeof transpose)) != CUBLAS_STATUS_SUCCESS)
		return failed(status, err);
	return M1_OK;
}

void
m1b_cuda_gemm_free(struct m1b_cuda_gemm *g)
{
	if (g == NULL)
		return;
	if (g->operation != NULL)
		cublasLtMatmulDescDestroy(g->operation);
	for (int i = 0; i < 2; i++)
		if (g->preferences[i] != NULL)
			cublasLtMatmulPreferenceDestroy(g->preferences[i]);
	if (g->handle != NULL)
		cublasLtDestroy(g->handle);
	free(g);
}

static bool
same_shape(const shape *a, const shape *b)
{
	return a->type == b->type && a->rows == b->rows && a->cols == b->cols && a->n == b->n &&
		   a->row_bytes == b->row_bytes && a->out_stride == b->out_stride && a->aligned == b->aligned;
}

static cached *
entry_of(struct m1b_cuda_gemm *g, const shape *s)
{
	uint32_t hash = (uint32_t) s->rows * 2654435761u ^ (uint32_t) s->cols * 40503u ^ (uint32_t) s->n * 2246822519u ^
					(uint32_t) s->type;

	hash ^= hash >> 15;
	return &g->cache[hash % CACHE_ENTRIES];
}

/* The proposed algorithm for the shape, asked for once. */
static cublasStatus_t
find_algorithm(struct m1b_cuda_gemm *g, const shape *s, const layouts *l, cached **out)
{
	cached *entry = entry_of(g, s);
	cublasLtMatmulHeuristicResult_t result;
	cublasStatus_t status;
	int found = 0;

	*out = entry;
	if (entry->valid && same_shape(&entry->shape, s))
		return entry->supported ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
	status = cublasLtMatmulAlgoGetHeuristic(g->handle, g->operation, l->w, l->x, l->out, l->out,
											g->preferences[s->aligned], 1, &result, &found);
	if (status == CUBLAS_STATUS_SUCCESS && found == 0)
		status = CUBLAS_STATUS_NOT_SUPPORTED;
	if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_NOT_SUPPORTED)
		return status;
	*entry = (cached){.shape = *s, .valid = true, .supported = status == CUBLAS_STATUS_SUCCESS};
	if (entry->supported)
		entry->algorithm = result.algo;
	return status;
}

static void
destroy_layouts(layouts *l)
{
	if (l->w != NULL)
		cublasLtMatrixLayoutDestroy(l->w);
	if (l->x != NULL)
		cublasLtMatrixLayoutDestroy(l->x);
	if (l->out != NULL)
		cublasLtMatrixLayoutDestroy(l->out);
}

static bool
is_aligned(const void *matrix)
{
	return (uintptr_t) matrix % ALIGNED == 0;
}

static cudaError_t
error_of(cublasStatus_t status)
{
	if (status == CUBLAS_STATUS_SUCCESS)
		return cudaSuccess;
	if (status == CUBLAS_STATUS_NOT_SUPPORTED)
		return cudaErrorNotSupported;
	return status == CUBLAS_STATUS_ALLOC_FAILED ? cudaErrorMemoryAllocation : cudaErrorUnknown;
}

cudaError_t
m1b_cuda_gemm(struct m1b_cuda_gemm *g, const m1b_cuda_multiply *p, int *said)
{
	const m1k_matrix *w = &p->weight;
	const cudaDataType_t type = w->type == M1K_F32 ? CUDA_R_32F : CUDA_R_16BF;
	const size_t element = w->type == M1K_F32 ? sizeof(float) : sizeof(uint16_t);
	const shape s = {.type = w->type,
					 .rows = w->rows,
					 .cols = w->cols,
					 .n = p->n,
					 .row_bytes = w->row_bytes,
					 .out_stride = p->out_stride,
					 .aligned = is_aligned(w->data) && is_aligned(p->x) && is_aligned(p->out)};
	const float one = 1.0f;
	const float beta = 0.0f;
	char *space = g->space + (size_t) p->space * M1B_CUDA_GEMM_SPACE;
	layouts l = {NULL, NULL, NULL};
	cached *entry;
	cublasStatus_t status;

	if ((status = cublasLtMatrixLayoutCreate(&l.w, type, (uint64_t) w->cols, (uint64_t) w->rows,
											 (int64_t) (w->row_bytes / element))) == CUBLAS_STATUS_SUCCESS &&
		(status = cublasLtMatrixLayoutCreate(&l.x, type, (uint64_t) w->cols, (uint64_t) p->n, w->cols)) ==
			CUBLAS_STATUS_SUCCESS &&
		(status = cublasLtMatrixLayoutCreate(&l.out, CUDA_R_32F, (uint64_t) w->rows, (uint64_t) p->n, p->out_stride)) ==
			CUBLAS_STATUS_SUCCESS &&
		(status = find_algorithm(g, &s, &l, &entry)) == CUBLAS_STATUS_SUCCESS)
		status = cublasLtMatmul(g->handle, g->operation, &one, w->data, l.w, p->x, l.x, &beta, p->out, l.out, p->out,
								l.out, &entry->algorithm, space, M1B_CUDA_GEMM_SPACE, p->stream);
	destroy_layouts(&l);
	*said = (int) status;
	return error_of(status);
}
