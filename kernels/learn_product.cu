/*
 * learn_product.cu - products in fp32 for learning: x W^T, dy W and dy^T x, of one matrix or of each expert's.
 *
 * A block makes a tile of 64 x 64 sums from pieces of both operands in shared memory, 16 deep; a thread has 4 x 4 of
 * them. A sum runs along k from its beginning to its end, whatever else there is: bits do not depend on m and n, nor,
 * where c is added to, on how k is cut into calls. Weights of any type are read as they are stored.
 *
 * This is the plain way. On Hopper, weights would come by TMA two stages ahead, and bf16 parts of both operands that
 * add up to fp32 (as those of the head do) would go through wgmma, in the same order of k.
 */
#include "learn.cuh"
#include "weights.cuh"

#define TILE 64
#define DEPTH 16
#define THREADS 256
#define OWN 4 /* rows and columns of a thread */
#define STRIDE (TILE + 4)

/* What b is. */
enum form
{
	FLOATS,		   /* b[k, j] */
	WEIGHT,		   /* w[k, j] */
	WEIGHT_BY_ROWS /* w[j, k] */
};

/* Where a block works: rows and depth of its expert. */
struct place
{
	int expert;
	int row0, end_row;
	int k0, end_k;
};

/* false: there is nothing for this block. */
__device__ __forceinline__ bool
find_place(const m1k_multiply &p, place *at)
{
	int tile = blockIdx.y;

	*at = {static_cast<int>(blockIdx.z), tile * TILE, p.m, 0, p.k};
	if (p.grouped == M1K_GROUPED_DEPTH)
	{
		at->k0 = p.group[at->expert];
		at->end_k = p.group[at->expert + 1];
		return at->k0 < at->end_k;
	}
	if (p.grouped == M1K_UNGROUPED)
		return true;
	for (int e = 0; e < p.experts; e++)
	{
		const int n = p.group[e + 1] - p.group[e];
		const int tiles = (n + TILE - 1) / TILE;

		if (tile < tiles)
		{
			at->expert = e;
			at->row0 = p.group[e] + tile * TILE;
			at->end_row = p.group[e + 1];
			return true;
		}
		tile -= tiles;
	}
	return false;
}

/* a's piece, transposed: [DEPTH, TILE]. Threads that follow each other read what lies side by side. */
__device__ __forceinline__ void
load_a(const m1k_multiply &p, const place &at, int k0, float *a)
{
	for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS)
	{
		const int r = p.a_row == 1 ? i % TILE : i / DEPTH;
		const int k = p.a_row == 1 ? i / TILE : i % DEPTH;
		const bool valid = at.row0 + r < at.end_row && k0 + k < at.end_k;

		a[k * STRIDE + r] = valid ? p.a[(at.row0 + r) * p.a_row + (k0 + k) * p.a_col] : 0.0f;
	}
}

/* b's piece: [DEPTH, TILE] */
template <m1k_type Type, form Form>
__device__ __forceinline__ void
load_b(const m1k_multiply &p, const place &at, int k0, int column0, float *b)
{
	if (Form == FLOATS)
	{
		for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS)
		{
			const int k = k0 + i / TILE;
			const int j = column0 + i % TILE;

			b[i / TILE * STRIDE + i % TILE] = k < at.end_k && j < p.n ? p.b[static_cast<size_t>(k) * p.n + j] : 0.0f;
		}
		return;
	}
	/* eight weights of a row each */
	const void *data = p.grouped == M1K_GROUPED_ROWS ? p.weights[at.expert] : p.weight.data;
	const int chunks = Form == WEIGHT ? TILE / 8 : DEPTH / 8;

	for (int i = threadIdx.x; i < TILE * DEPTH / 8; i += THREADS)
	{
		const int row = i / chunks;
		const int chunk = i % chunks * 8;
		const int w_row = (Form == WEIGHT ? k0 : column0) + row;
		const int w_col = (Form == WEIGHT ? column0 : k0) + chunk;
		float w[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};

		if (w_row < p.weight.rows && w_col < p.weight.cols)
			m1k_weights<Type>::load(static_cast<const uint8_t *>(data) + w_row * p.weight.row_bytes, p.weight.cols,
									w_col, w);
#pragma unroll
		for (int j = 0; j < 8; j++)
			if (Form == WEIGHT)
				b[row * STRIDE + chunk + j] = w[j];
			else
				b[(chunk + j) * STRIDE + row] = w[j];
	}
}

__device__ __forceinline__ void
multiply_add(const float *a, const float *b, float (&sums)[OWN][OWN])
{
	const float4 x = *reinterpret_cast<const float4 *>(a);
	const float4 y = *reinterpret_cast<const float4 *>(b);
	const float xs[OWN] = {x.x, x.y, x.z, x.w};
	const float ys[OWN] = {y.x, y.y, y.z, y.w};

#pragma unroll
	for (int i = 0; i < OWN; i++)
#pragma unroll
		for (int j = 0; j < OWN; j++)
			sums[i][j] += xs[i] * ys[j];
}

/* Calls f(sum, where it is in c) for those of this thread that there are. */
template <typename F>
__device__ __forceinline__ void
each_sum(const m1k_multiply &p, const place &at, int row0, int column0, float (&sums)[OWN][OWN], F f)
{
	float *c = p.grouped == M1K_GROUPED_DEPTH ? p.sums[at.expert] : p.c;

#pragma unroll
	for (int i = 0; i < OWN; i++)
#pragma unroll
		for (int j = 0; j < OWN; j++)
			if (row0 + i < at.end_row && column0 + j < p.n)
				f(sums[i][j], c + static_cast<size_t>(row0 + i) * p.n + column0 + j);
}

template <m1k_type Type, form Form>
__global__ void
__launch_bounds__(THREADS) multiply_tile(const __grid_constant__ m1k_multiply p)
{
	__shared__ __align__(16) float a[DEPTH * STRIDE];
	__shared__ __align__(16) float b[DEPTH * STRIDE];
	const int own_row = threadIdx.x / (TILE / OWN) * OWN;
	const int own_column = threadIdx.x % (TILE / OWN) * OWN;
	const int column0 = blockIdx.x * TILE;
	float sums[OWN][OWN] = {};
	place at;

	if (!find_place(p, &at)) /* the whole block */
		return;
	if (p.add)
		each_sum(p, at, at.row0 + own_row, column0 + own_column, sums, [](float &sum, const float *c) { sum = *c; });
	for (int k0 = at.k0; k0 < at.end_k; k0 += DEPTH)
	{
		const int depth = at.end_k - k0 < DEPTH ? at.end_k - k0 : DEPTH;

		__syncthreads();
		load_a(p, at, k0, a);
		load_b<Type, Form>(p, at, k0, column0, b);
		__syncthreads();
		if (depth == DEPTH)
#pragma unroll
			for (int k = 0; k < DEPTH; k++)
				multiply_add(a + k * STRIDE + own_row, b + k * STRIDE + own_column, sums);
		else
			for (int k = 0; k < depth; k++)
				multiply_add(a + k * STRIDE + own_row, b + k * STRIDE + own_column, sums);
	}
	each_sum(p, at, at.row0 + own_row, column0 + own_column, sums, [](float &sum, float *c) { *c = sum; });
}

template <m1k_type Type, form Form>
static void
launch(const m1k_multiply *p, cudaStream_t stream)
{
	/* of each expert's rows, one tile may be broken */
	const int rows = m1k_pieces(p->m, TILE) + (p->grouped == M1K_GROUPED_ROWS ? p->experts : 0);
	const dim3 grid(m1k_pieces(p->n, TILE), rows, p->grouped == M1K_GROUPED_DEPTH ? p->experts : 1);

	M1K_LAUNCH((multiply_tile<Type, Form>), grid, THREADS, 0, stream, *p);
}

void
m1k_learn_multiply(const m1k_multiply *p, cudaStream_t stream)
{
	if (p->b != nullptr)
		return launch<M1K_F32, FLOATS>(p, stream);
	m1k_with_type(p->weight.type,
				  [&](auto tag)
				  {
					  constexpr m1k_type type = decltype(tag)::value;

					  p->transposed ? launch<type, WEIGHT_BY_ROWS>(p, stream) : launch<type, WEIGHT>(p, stream);
				  });
}
