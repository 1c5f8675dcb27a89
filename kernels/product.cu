/*
 * product.cu - rows of activations times weight matrices: one matrix, or one per
 * expert with the rows sorted by expert.
 *
 * Few rows: a warp owns a few weight rows and streams them past up to eight rows of
 * x; the weights' bytes are the time. Many rows: a block owns 128 weight rows and a
 * tile of places, and multiplies on tensor cores with weights as the left operand,
 * so that a tile may be as narrow as 16 places. Tiles never cross experts and there
 * are no padded rows: a tile's missing places are not read.
 *
 * Each output is summed in an order that depends on its row alone.
 */
#include <type_traits>

#include "tiles.cuh"
#include "weights.cuh"

/* ---- where a block works ---- */

typedef struct m1k_where
{
	int expert;
	int first; /* place */
	int n;	   /* places of the tile */
	int row_block;
} m1k_where;

/*
 * Blocks are numbered expert by expert; within one, all tiles of a block of weight rows come one after the other, so
 * that an expert's weights and activations pass through the cache once. false: there is nothing left for this block.
 */
__device__ __forceinline__ bool
find_work(const m1k_product &p, int tile, int row_blocks, m1k_where *w)
{
	int block = blockIdx.x;
	int tiles, first, end;

	if (p.experts == 1)
	{
		w->expert = 0;
		tiles = (p.n + tile - 1) / tile;
		first = 0;
		end = p.n;
	}
	else
	{
		int low = 0;
		int high = p.experts;

		if (block >= p.tiles[p.experts] * row_blocks)
			return false;
		while (high - low > 1)
		{
			const int middle = (low + high) / 2;

			if (p.tiles[middle] * row_blocks <= block)
				low = middle;
			else
				high = middle;
		}
		w->expert = low;
		block -= p.tiles[low] * row_blocks;
		tiles = p.tiles[low + 1] - p.tiles[low];
		first = p.group[low];
		end = p.group[low + 1];
	}
	w->row_block = block / tiles;
	w->first = first + block % tiles * tile;
	w->n = end - w->first < tile ? end - w->first : tile;
	return true;
}

/* The grid that find_work divides: no more tiles than whole ones and one broken one an expert. */
static int
product_grid(const m1k_product *p, int tile, int row_blocks)
{
	return row_blocks *
		   (p->experts == 1 ? m1k_pieces(p->n, tile) : p->n / tile + (p->experts < p->n ? p->experts : p->n));
}

__device__ __forceinline__ int
x_row_of(const m1k_product &p, int place)
{
	return p.x_row != nullptr ? p.x_row[place] : place;
}

__device__ __forceinline__ void
write_out(const m1k_product &p, int place, int row, float y)
{
	const size_t at = static_cast<size_t>(place) * p.rows + row;

	if (p.scale_out)
		y *= p.out != nullptr ? p.out[at] : m1k_from_bf16(p.out_bf16[at]);
	if (p.out != nullptr)
		p.out[at] = y;
	if (p.out_bf16 != nullptr)
		p.out_bf16[at] = m1k_bf16_of(y);
}

/* ---- few rows ---- */

#define FEW_WARPS 4
#define FEW_ROWS 2 /* of a warp: with more, eight places do not fit the registers */
/*
 * The warps of a block share the rows of a matrix that has so few, and so long ones: else a few blocks would take long.
 */
#define SHARED_ROWS 256
#define SHARED_COLS (FEW_WARPS * M1K_WARP * 8)

/*
 * acc[r][t] = row r of w times x[t], as far as the warp has it: it takes every warps-th run of columns, from the
 * `warp`th.
 */
template <m1k_type Type, int N, int R>
__device__ __forceinline__ void
stream_rows(const m1k_product &p, const uint8_t *const (&w)[R], const float *const (&x)[N], int warp, int warps,
			float (&acc)[R][N])
{
#pragma unroll
	for (int r = 0; r < R; r++)
#pragma unroll
		for (int t = 0; t < N; t++)
			acc[r][t] = 0.0f;
/* pieces of a row on their way at once: where they are short, and cost few registers, there are more */
#pragma unroll(N > 1 ? 1 : Type == M1K_Q8_0 || Type == M1K_F8_E4M3 ? 4 : 2)
	for (int k = (warp * M1K_WARP + static_cast<int>(threadIdx.x % M1K_WARP)) * 8; k < p.cols;
		 k += warps * M1K_WARP * 8)
	{
		float weights[R][8];

#pragma unroll
		for (int r = 0; r < R; r++)
			m1k_weights<Type>::load(w[r], p.cols, k, weights[r]);
#pragma unroll
		for (int t = 0; t < N; t++)
		{
			const float4 a = *reinterpret_cast<const float4 *>(x[t] + k);
			const float4 b = *reinterpret_cast<const float4 *>(x[t] + k + 4);
			const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};

#pragma unroll
			for (int r = 0; r < R; r++)
#pragma unroll
				for (int i = 0; i < 8; i++)
					acc[r][t] = fmaf(weights[r][i], v[i], acc[r][t]);
		}
	}
#pragma unroll
	for (int r = 0; r < R; r++)
#pragma unroll
		for (int t = 0; t < N; t++)
			acc[r][t] = m1k_warp_sum(acc[r][t]);
}

/* Adds up what the block's warps have of the same sums. */
template <int N, int R>
__device__ __forceinline__ void
add_warps(float (&acc)[R][N])
{
	__shared__ float parts[FEW_WARPS][R * N];
	const int warp = threadIdx.x / M1K_WARP;

	if (threadIdx.x % M1K_WARP == 0)
#pragma unroll
		for (int i = 0; i < R * N; i++)
			parts[warp][i] = acc[i / N][i % N];
	__syncthreads();
#pragma unroll
	for (int i = 0; i < R * N; i++)
	{
		acc[i / N][i % N] = 0.0f;
		for (int other = 0; other < FEW_WARPS; other++)
			acc[i / N][i % N] += parts[other][i];
	}
}

/* R rows of the matrix for the tile's places, of which there are at most N. Shared: the block's warps share them. */
template <m1k_type Type, int N, int R, bool Times, bool Shared = false>
__device__ __forceinline__ void
few_tile(const m1k_product &p, const m1k_where &where, int row0)
{
	const int warp = Shared ? static_cast<int>(threadIdx.x) / M1K_WARP : 0;
	const int warps = Shared ? FEW_WARPS : 1;
	const uint8_t *w = static_cast<const uint8_t *>(p.w[where.expert]);
	const float *x[N];
	const uint8_t *rows[R];
	float acc[R][N];

#pragma unroll
	for (int t = 0; t < N; t++)
	{
		/* a missing place reads the first one again, from the cache */
		const int place = where.first + (t < where.n ? t : 0);

		x[t] = p.x + static_cast<size_t>(x_row_of(p, place)) * p.cols;
	}
#pragma unroll
	for (int r = 0; r < R; r++)
		rows[r] = w + static_cast<size_t>(row0 + r < p.rows ? row0 + r : row0) * p.row_bytes;
	stream_rows<Type, N, R>(p, rows, x, warp, warps, acc);
	if (Shared)
		add_warps<N, R>(acc);
	if (Times)
	{
		const uint8_t *times = static_cast<const uint8_t *>(p.times[where.expert]);
		float factor[R][N];

#pragma unroll
		for (int r = 0; r < R; r++)
			rows[r] = times + static_cast<size_t>(row0 + r < p.rows ? row0 + r : row0) * p.row_bytes;
		stream_rows<Type, N, R>(p, rows, x, warp, warps, factor);
#pragma unroll
		for (int r = 0; r < R; r++)
#pragma unroll
			for (int t = 0; t < N; t++)
				acc[r][t] = m1k_silu_of(acc[r][t]) * factor[r][t];
	}
	/* every lane holds every sum: lane i writes the i-th */
#pragma unroll
	for (int r = 0; r < R; r++)
#pragma unroll
		for (int t = 0; t < N; t++)
			if (static_cast<int>(threadIdx.x % M1K_WARP) == r * N + t && t < where.n && row0 + r < p.rows && warp == 0)
				write_out(p, where.first + t, row0 + r, p.silu ? m1k_silu_of(acc[r][t]) : acc[r][t]);
}

/*
 * Single: the tile is one place, which the launcher knows; the kernel then needs fewer registers. With more places, the
 * compiler would rather spill some of Q5_K's than have less than five blocks on a multiprocessor.
 */
template <m1k_type Type, bool Single, bool Times>
__global__ void
__launch_bounds__(FEW_WARPS *M1K_WARP, Type == M1K_Q5_K && !Single ? 4 : 0)
	few_rows(const __grid_constant__ m1k_product p)
{
	const int row_blocks = (p.rows + FEW_WARPS * FEW_ROWS - 1) / (FEW_WARPS * FEW_ROWS);
	m1k_where where;
	int row0;

	if (!find_work(p, Single ? 1 : M1K_FEW_ROWS, row_blocks, &where))
		return;
	row0 = (where.row_block * FEW_WARPS + static_cast<int>(threadIdx.x) / M1K_WARP) * FEW_ROWS;
	if (row0 >= p.rows) /* a whole warp */
		return;
	if (Single || where.n == 1)
		few_tile<Type, 1, FEW_ROWS, Times>(p, where, row0);
	else if (where.n == 2)
		few_tile<Type, 2, FEW_ROWS, Times>(p, where, row0);
	else if (where.n <= 4)
		few_tile<Type, 4, FEW_ROWS, Times>(p, where, row0);
	else
		few_tile<Type, 8, FEW_ROWS, Times>(p, where, row0);
}

template <m1k_type Type, bool Single, bool Times>
static void
launch_few(const m1k_product *p, cudaStream_t stream)
{
	const int grid = product_grid(p, Single ? 1 : M1K_FEW_ROWS, m1k_pieces(p->rows, FEW_WARPS * FEW_ROWS));

	M1K_LAUNCH((few_rows<Type, Single, Times>), grid, FEW_WARPS * M1K_WARP, 0, stream, *p);
}

/*
 * The same for a plain product with a matrix of few rows. All of these come one after the other for a tile's places,
 * which would not stay in the cache where they are many.
 */
template <m1k_type Type>
__global__ void
__launch_bounds__(FEW_WARPS *M1K_WARP) few_shared_rows(const __grid_constant__ m1k_product p)
{
	const int first = blockIdx.y * M1K_FEW_ROWS;
	const int n = p.n - first < M1K_FEW_ROWS ? p.n - first : M1K_FEW_ROWS;
	const m1k_where where = {0, first, n, static_cast<int>(blockIdx.x)};

	if (where.n == 1)
		few_tile<Type, 1, FEW_ROWS, false, true>(p, where, where.row_block * FEW_ROWS);
	else
		few_tile<Type, 8, FEW_ROWS, false, true>(p, where, where.row_block * FEW_ROWS);
}

template <m1k_type Type>
static void
launch_shared(const m1k_product *p, cudaStream_t stream)
{
	const dim3 grid(m1k_pieces(p->rows, FEW_ROWS), m1k_pieces(p->n, M1K_FEW_ROWS));

	M1K_LAUNCH(few_shared_rows<Type>, grid, FEW_WARPS * M1K_WARP, 0, stream, *p);
}

/* Routers are few rows, long, and not quantized. */
static bool
shares_rows(const m1k_product *p)
{
	return p->rows <= SHARED_ROWS && p->cols >= SHARED_COLS && p->experts == 1 && p->times[0] == nullptr &&
		   (p->type == M1K_F32 || p->type == M1K_F16 || p->type == M1K_BF16);
}

void
m1k_product_few(const m1k_product *p, cudaStream_t stream)
{
	const bool single = p->one_each;
	const bool times = p->times[0] != nullptr;

	if (shares_rows(p))
		return p->type == M1K_F32	? launch_shared<M1K_F32>(p, stream)
			   : p->type == M1K_F16 ? launch_shared<M1K_F16>(p, stream)
									: launch_shared<M1K_BF16>(p, stream);
	m1k_with_type(p->type,
				  [&](auto tag)
				  {
					  constexpr m1k_type type = decltype(tag)::value;

					  if (single)
						  times ? launch_few<type, true, true>(p, stream) : launch_few<type, true, false>(p, stream);
					  else
						  times ? launch_few<type, false, true>(p, stream) : launch_few<type, false, false>(p, stream);
				  });
}

/* ---- many rows ---- */

#define MANY_ROWS 128 /* weight rows of a block; with `times`, 64 of each matrix */
#define MANY_DEPTH 64 /* columns of a stage */
#define MANY_THREADS 256
#define STAGES 3
#define CHUNKS (MANY_DEPTH / 8) /* 16-byte pieces of a stage's row */

/* The weight row behind row r of the block's left operand; each warp's 32 rows hold 16 of w and 16 of times. */
template <bool Times>
__device__ __forceinline__ int
weight_row(int row_block, int r)
{
	return Times ? row_block * (MANY_ROWS / 2) + r / 32 * 16 + r % 16 : row_block * MANY_ROWS + r;
}

template <m1k_type Type, bool Times>
__device__ __forceinline__ void
load_weights_stage(const m1k_product &p, const m1k_where &where, int k0, uint16_t *stage)
{
	for (int i = threadIdx.x; i < MANY_ROWS * CHUNKS; i += MANY_THREADS)
	{
		const int r = i / CHUNKS;
		const int chunk = i % CHUNKS;
		const int k = k0 + chunk * 8;
		const int row = weight_row<Times>(where.row_block, r);
		const bool valid = row < p.rows && k < p.cols;
		const void *matrix = Times && r % 32 >= 16 ? p.times[where.expert] : p.w[where.expert];
		const uint8_t *from = static_cast<const uint8_t *>(matrix) + static_cast<size_t>(valid ? row : 0) * p.row_bytes;
		uint16_t *to = m1k_piece<CHUNKS>(stage, r, chunk);

		if (Type == M1K_BF16)
			m1k_copy_async(to, from + (valid ? k * 2 : 0), valid);
		else
		{
			float w[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};

			if (valid)
				m1k_weights<Type>::load(from, p.cols, k, w);
			*reinterpret_cast<uint4 *>(to) = m1k_bf16_eight(w, 1.0f);
		}
	}
}

template <int Tile>
__device__ __forceinline__ void
load_x_stage(const m1k_product &p, const m1k_where &where, int k0, uint16_t *stage)
{
	for (int i = threadIdx.x; i < Tile * CHUNKS; i += MANY_THREADS)
	{
		const int t = i / CHUNKS;
		const int chunk = i % CHUNKS;
		const int k = k0 + chunk * 8;
		const bool valid = t < where.n && k < p.cols;
		const uint16_t *from =
			valid ? p.x_bf16 + static_cast<size_t>(x_row_of(p, where.first + t)) * p.cols + k : p.x_bf16;

		m1k_copy_async(m1k_piece<CHUNKS>(stage, t, chunk), from, valid);
	}
}

/* One stage: each of 4 x 2 warps multiplies its 32 weight rows by its half of the tile. */
template <int Tile>
__device__ __forceinline__ void
multiply_stage(uint16_t *weights, uint16_t *x, float (&acc)[2][Tile / 16][4])
{
	const int lane = threadIdx.x % M1K_WARP;
	const int warp_row = threadIdx.x / M1K_WARP / 2 * 32;
	const int warp_place = threadIdx.x / M1K_WARP % 2 * (Tile / 2);

#pragma unroll
	for (int step = 0; step < MANY_DEPTH / 16; step++)
	{
		uint32_t a[2][4];

#pragma unroll
		for (int i = 0; i < 2; i++)
			m1k_left<CHUNKS>(a[i], weights, warp_row + i * 16, step * 2);
#pragma unroll
		for (int j = 0; j < Tile / 16; j += 2)
		{
			/* pieces: columns 0-7 and 8-15 of places j * 8 ..., then of the next eight places */
			const bool both = Tile / 16 > 1;
			const int place = warp_place + j * 8 + (both ? lane / 16 * 8 : 0) + lane % 8;
			uint32_t b[4];

			m1k_load_matrices(b, m1k_piece<CHUNKS>(x, place, step * 2 + lane / 8 % 2));
#pragma unroll
			for (int i = 0; i < 2; i++)
			{
				m1k_mma(acc[i][j], a[i], b[0], b[1]);
				if (both)
					m1k_mma(acc[i][j + (both ? 1 : 0)], a[i], b[2], b[3]);
			}
		}
	}
}

template <int Tile, bool Times>
__device__ __forceinline__ void
write_tile(const m1k_product &p, const m1k_where &where, const float (&acc)[2][Tile / 16][4])
{
	const int lane = threadIdx.x % M1K_WARP;
	const int warp_row = threadIdx.x / M1K_WARP / 2 * 32;
	const int warp_place = threadIdx.x / M1K_WARP % 2 * (Tile / 2);

#pragma unroll
	for (int i = 0; i < (Times ? 1 : 2); i++)
#pragma unroll
		for (int j = 0; j < Tile / 16; j++)
#pragma unroll
			for (int c = 0; c < 4; c++)
			{
				const int row = weight_row<Times>(where.row_block, warp_row + i * 16 + lane / 4 + c / 2 * 8);
				const int t = warp_place + j * 8 + lane % 4 * 2 + c % 2;
				float y = acc[i][j][c];

				if (row >= p.rows || t >= where.n)
					continue;
				if (Times)
					y = m1k_silu_of(y) * acc[1][j][c];
				else if (p.silu)
					y = m1k_silu_of(y);
				write_out(p, where.first + t, row, y);
			}
}

template <m1k_type Type, int Tile, bool Times>
__global__ void
__launch_bounds__(MANY_THREADS, 1) many_rows(const __grid_constant__ m1k_product p)
{
	M1K_DYNAMIC_SHARED(uint16_t, shared);
	constexpr int stage_size = (MANY_ROWS + Tile) * MANY_DEPTH;
	const int per_block = Times ? MANY_ROWS / 2 : MANY_ROWS;
	const int steps = (p.cols + MANY_DEPTH - 1) / MANY_DEPTH;
	float acc[2][Tile / 16][4];
	m1k_where where;

	if (!find_work(p, Tile, (p.rows + per_block - 1) / per_block, &where))
		return;
#pragma unroll
	for (int i = 0; i < 2; i++)
#pragma unroll
		for (int j = 0; j < Tile / 16; j++)
#pragma unroll
			for (int c = 0; c < 4; c++)
				acc[i][j][c] = 0.0f;
	for (int s = 0; s < STAGES - 1; s++)
	{
		if (s < steps)
		{
			load_weights_stage<Type, Times>(p, where, s * MANY_DEPTH, shared + s * stage_size);
			load_x_stage<Tile>(p, where, s * MANY_DEPTH, shared + s * stage_size + MANY_ROWS * MANY_DEPTH);
		}
		m1k_copy_commit();
	}
	for (int step = 0; step < steps; step++)
	{
		const int ahead = step + STAGES - 1;
		uint16_t *now = shared + step % STAGES * stage_size;
		uint16_t *next = shared + ahead % STAGES * stage_size;

		m1k_copy_wait<STAGES - 2>();
		__syncthreads(); /* this stage has come, and all are done with the one that is filled next */
		if (ahead < steps)
		{
			load_weights_stage<Type, Times>(p, where, ahead * MANY_DEPTH, next);
			load_x_stage<Tile>(p, where, ahead * MANY_DEPTH, next + MANY_ROWS * MANY_DEPTH);
		}
		m1k_copy_commit();
		multiply_stage<Tile>(now, now + MANY_ROWS * MANY_DEPTH, acc);
	}
	write_tile<Tile, Times>(p, where, acc);
}

static constexpr int
many_shared(int tile)
{
	return STAGES * (MANY_ROWS + tile) * MANY_DEPTH * static_cast<int>(sizeof(uint16_t));
}

/* Calls f with the tile's width as a compile-time value. */
template <typename F>
static void
with_tile(int tile, F f)
{
	if (tile == 16)
		f(std::integral_constant<int, 16>());
	else if (tile == 64)
		f(std::integral_constant<int, 64>());
	else
		f(std::integral_constant<int, 128>());
}

int
m1k_product_tile(int n, int experts)
{
	const int mean = n / experts;

	return mean <= 16 ? 16 : mean <= 96 ? 64 : 128;
}

template <m1k_type Type>
static void
launch_many(const m1k_product *p, cudaStream_t stream)
{
	const bool times = p->times[0] != nullptr;
	const int tile = m1k_product_tile(p->n, p->experts);
	const int grid = product_grid(p, tile, m1k_pieces(p->rows, times ? MANY_ROWS / 2 : MANY_ROWS));

	with_tile(tile,
			  [&](auto width)
			  {
				  constexpr int Tile = decltype(width)::value;

				  if (times)
					  M1K_LAUNCH((many_rows<Type, Tile, true>), grid, MANY_THREADS, many_shared(Tile), stream, *p);
				  else
					  M1K_LAUNCH((many_rows<Type, Tile, false>), grid, MANY_THREADS, many_shared(Tile), stream, *p);
			  });
}

void
m1k_product_many(const m1k_product *p, cudaStream_t stream)
{
	m1k_with_type(p->type, [&](auto tag) { launch_many<decltype(tag)::value>(p, stream); });
}

template <m1k_type Type, int Tile>
static cudaError_t
allow_shared(void)
{
	const cudaError_t status = cudaFuncSetAttribute(many_rows<Type, Tile, true>,
													cudaFuncAttributeMaxDynamicSharedMemorySize, many_shared(Tile));

	return status != cudaSuccess ? status
								 : cudaFuncSetAttribute(many_rows<Type, Tile, false>,
														cudaFuncAttributeMaxDynamicSharedMemorySize, many_shared(Tile));
}

template <m1k_type Type>
static bool
allow_type(cudaError_t *status)
{
	return (*status = allow_shared<Type, 16>()) == cudaSuccess && (*status = allow_shared<Type, 64>()) == cudaSuccess &&
		   (*status = allow_shared<Type, 128>()) == cudaSuccess;
}

cudaError_t
m1k_product_prepare(void)
{
	cudaError_t status;

	(void) (allow_type<M1K_F32>(&status) && allow_type<M1K_F16>(&status) && allow_type<M1K_BF16>(&status) &&
			allow_type<M1K_Q8_0>(&status) && allow_type<M1K_Q4_0>(&status) && allow_type<M1K_Q4_K>(&status) &&
			allow_type<M1K_Q5_K>(&status) && allow_type<M1K_Q6_K>(&status) && allow_type<M1K_F8_E4M3>(&status));
	return status;
}
