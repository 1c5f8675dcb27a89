/*
 * attention_tiles.cu - softmax attention on tensor cores, for head size 128 and bf16
 * pages: segments of many tokens, and single ones.
 *
 * Both fold pages into rows of queries with a running softmax; the query heads of one
 * kv head are rows of the same tile, so that K and V are read once for all of them. A
 * long segment is divided by tokens: each warp has 32 rows and sees all keys. A single
 * token has at most 16 rows: each warp sees a quarter of every page, and the warps are
 * merged at the end.
 */
#include <math.h>

#include "attention.cuh"
#include "tiles.cuh"

#define D 128
#define CHUNKS (D / 8)
#define WARPS 4
#define THREADS (WARPS * M1K_WARP)

/* ---- pages ---- */

typedef struct page_stages
{
	uint16_t k[2][PAGE * D];
	uint16_t v[2][PAGE * D];
} page_stages;

__device__ __forceinline__ void
copy_page(const m1k_attention &p, int state, int page, page_stages *to)
{
	const uint16_t *k = page_of<uint16_t>(p, state, page, 0, blockIdx.y);
	const uint16_t *v = page_of<uint16_t>(p, state, page, 1, blockIdx.y);

	for (int i = threadIdx.x; i < PAGE * CHUNKS; i += THREADS)
	{
		m1k_copy_async(m1k_piece<CHUNKS>(to->k[page % 2], i / CHUNKS, i % CHUNKS), k + i * 8, true);
		m1k_copy_async(m1k_piece<CHUNKS>(to->v[page % 2], i / CHUNKS, i % CHUNKS), v + i * 8, true);
	}
}

/* Calls fold(page, k, v) for each page of [first, end), while the next is on its way. */
template <typename F>
__device__ __forceinline__ void
each_page(const m1k_attention &p, int state, int first, int end, page_stages *stages, F fold)
{
	copy_page(p, state, first, stages);
	m1k_copy_commit();
	for (int page = first; page < end; page++)
	{
		m1k_copy_wait<0>();
		__syncthreads(); /* this page has come, and all are done with the one before */
		if (page + 1 < end)
			copy_page(p, state, page + 1, stages);
		m1k_copy_commit();
		fold(page, stages->k[page % 2], stages->v[page % 2]);
	}
}

/* ---- rows ---- */

/* Rows of a tile: the query heads of one kv head, token by token; scaled for m1k_exp2. Those that are missing are 0. */
__device__ __forceinline__ void
load_queries(const m1k_attention &p, int token, int rows, int all_rows, uint16_t *q)
{
	const int group = p.heads / p.kv_heads;
	const float scale = rsqrtf(static_cast<float>(D)) * LOG2_E;
	const float *from = p.q + (static_cast<size_t>(token) * p.heads + blockIdx.y * group) * D;

	for (int i = threadIdx.x; i < all_rows * CHUNKS; i += THREADS)
	{
		const int row = i / CHUNKS;
		const int chunk = i % CHUNKS;
		float x[8] = {};

		if (row < rows)
#pragma unroll
			for (int j = 0; j < 8; j++)
				x[j] = from[(static_cast<size_t>(row / group) * p.heads + row % group) * D + chunk * 8 + j];
		*reinterpret_cast<uint4 *>(m1k_piece<CHUNKS>(q, row, chunk)) = m1k_bf16_eight(x, scale);
	}
}

/* A warp's 16 rows so far; a lane's rows are lane / 4 and lane / 4 + 8. */
typedef struct softmax_rows
{
	float max[2];
	float sum[2]; /* of this lane's columns */
	float out[D / 8][4];
} softmax_rows;

__device__ __forceinline__ void
clear(softmax_rows *rows)
{
#pragma unroll
	for (int r = 0; r < 2; r++)
	{
		rows->max[r] = -INFINITY;
		rows->sum[r] = 0.0f;
	}
#pragma unroll
	for (int j = 0; j < D / 8; j++)
#pragma unroll
		for (int c = 0; c < 4; c++)
			rows->out[j][c] = 0.0f;
}

/* The sum over a row's four lanes. */
__device__ __forceinline__ float
row_sum(float x)
{
	x += __shfl_xor_sync(M1K_ALL, x, 1);
	return x + __shfl_xor_sync(M1K_ALL, x, 2);
}

/* Keys of a row beyond its last one do not count. */
template <int Keys>
__device__ __forceinline__ void
mask_scores(float (&scores)[Keys / 8][4], int r, int last_key)
{
	const int column = threadIdx.x % 4 * 2;

#pragma unroll
	for (int j = 0; j < Keys / 8; j++)
#pragma unroll
		for (int c = 0; c < 2; c++)
			if (j * 8 + column + c > last_key)
				scores[j][r * 2 + c] = -INFINITY;
}

/*
 * Scores become weights, rounded as a left operand; what the rows hold is scaled down to the new maximum. Each row has
 * seen a key that counts.
 */
template <int Keys>
__device__ __forceinline__ void
weigh_scores(const float (&scores)[Keys / 8][4], softmax_rows *rows, uint32_t (&weights)[Keys / 16][4])
{
#pragma unroll
	for (int r = 0; r < 2; r++)
	{
		float top = rows->max[r];
		float total = 0.0f;
		float factor;

#pragma unroll
		for (int j = 0; j < Keys / 8; j++)
			top = fmaxf(top, fmaxf(scores[j][r * 2], scores[j][r * 2 + 1]));
		top = fmaxf(top, __shfl_xor_sync(M1K_ALL, top, 1));
		top = fmaxf(top, __shfl_xor_sync(M1K_ALL, top, 2));
		factor = m1k_exp2(rows->max[r] - top);
		rows->max[r] = top;
#pragma unroll
		for (int j = 0; j < Keys / 8; j++)
		{
			const float x = m1k_exp2(scores[j][r * 2] - top);
			const float y = m1k_exp2(scores[j][r * 2 + 1] - top);

			weights[j / 2][j % 2 * 2 + r] = m1k_bf16_pair(x, y);
			total += x + y;
		}
		rows->sum[r] = rows->sum[r] * factor + total;
#pragma unroll
		for (int j = 0; j < D / 8; j++)
		{
			rows->out[j][r * 2] *= factor;
			rows->out[j][r * 2 + 1] *= factor;
		}
	}
}

/*
 * Folds Keys keys, whose K and V begin at k and v, into the warp's rows: 16 * Blocks of them, from q on. last_key(i,
 * r): the last that row r of this lane's in block i may see; asked where any row may not see all, which is `masked`.
 */
template <int Blocks, int Keys, typename F>
__device__ __forceinline__ void
fold_keys(uint16_t *q, uint16_t *k, uint16_t *v, bool masked, F last_key, softmax_rows (&rows)[Blocks])
{
	float scores[Blocks][Keys / 8][4] = {};
	uint32_t weights[Blocks][Keys / 16][4];

#pragma unroll
	for (int step = 0; step < D / 16; step++)
	{
		uint32_t a[Blocks][4];

#pragma unroll
		for (int i = 0; i < Blocks; i++)
			m1k_left<CHUNKS>(a[i], q, i * 16, step * 2);
#pragma unroll
		for (int j = 0; j < Keys / 8; j += 2)
		{
			uint32_t b[4];

			m1k_right<CHUNKS>(b, k, j * 8, step * 2);
#pragma unroll
			for (int i = 0; i < Blocks; i++)
			{
				m1k_mma(scores[i][j], a[i], b[0], b[1]);
				m1k_mma(scores[i][j + 1], a[i], b[2], b[3]);
			}
		}
	}
#pragma unroll
	for (int i = 0; i < Blocks; i++)
	{
		if (masked)
		{
			mask_scores<Keys>(scores[i], 0, last_key(i, 0));
			mask_scores<Keys>(scores[i], 1, last_key(i, 1));
		}
		weigh_scores<Keys>(scores[i], &rows[i], weights[i]);
	}
#pragma unroll
	for (int step = 0; step < Keys / 16; step++)
#pragma unroll
		for (int j = 0; j < D / 8; j += 2)
		{
			uint32_t b[4];

			m1k_right_transposed<CHUNKS>(b, v, step * 16, j);
#pragma unroll
			for (int i = 0; i < Blocks; i++)
			{
				m1k_mma(rows[i].out[j], weights[i][step], b[0], b[1]);
				m1k_mma(rows[i].out[j + 1], weights[i][step], b[2], b[3]);
			}
		}
}

/* ---- segments of many tokens ---- */

#define BLOCKS 2	 /* of 16 rows, of a warp: fewer, and reading K and V from shared memory would be the limit */
#define TILE_KEYS 32 /* that are folded at once: with more, the registers do not suffice */
#define WARP_ROWS (BLOCKS * 16)
#define TILE_ROWS (WARPS * WARP_ROWS)

typedef struct tile_shared
{
	uint16_t q[TILE_ROWS * D];
	page_stages pages;
} tile_shared;

/* The tile this block takes: tiles are numbered through the segments; the last, which see most keys, come first. */
__device__ __forceinline__ bool
find_tile(const m1k_attention &p, int tokens_per_tile, int n_tiles, int *segment, int *first)
{
	int tile = n_tiles - 1 - static_cast<int>(blockIdx.x);

	for (int s = 0; s < p.n_segments; s++)
	{
		const int n = p.segments[s].n_tokens;
		const int tiles = n > 1 ? (n + tokens_per_tile - 1) / tokens_per_tile : 0;

		if (tile < tiles)
		{
			*segment = s;
			*first = tile * tokens_per_tile;
			return true;
		}
		tile -= tiles;
	}
	return false;
}

/* Row 16 i + lane / 4 + 8 r of the warp, of the tile. */
__device__ __forceinline__ int
tile_row(int i, int r)
{
	return threadIdx.x / M1K_WARP * WARP_ROWS + i * 16 + threadIdx.x % M1K_WARP / 4 + r * 8;
}

__device__ __forceinline__ void
write_rows(const m1k_attention &p, int token, int n_rows, const softmax_rows (&rows)[BLOCKS])
{
	const int group = p.heads / p.kv_heads;

#pragma unroll
	for (int i = 0; i < BLOCKS; i++)
#pragma unroll
		for (int r = 0; r < 2; r++)
		{
			const int row = tile_row(i, r);
			const size_t head = (static_cast<size_t>(token) + row / group) * p.heads + blockIdx.y * group + row % group;
			const float total = row_sum(rows[i].sum[r]);

			if (row < n_rows)
#pragma unroll
				for (int j = 0; j < D / 8; j++)
					*reinterpret_cast<float2 *>(p.out + head * D + j * 8 + threadIdx.x % 4 * 2) =
						make_float2(rows[i].out[j][r * 2] / total, rows[i].out[j][r * 2 + 1] / total);
		}
}

__global__ void
__launch_bounds__(THREADS, 2) attend_tiles(m1k_attention p, int tokens_per_tile, int n_tiles)
{
	M1K_DYNAMIC_SHARED(tile_shared, s);
	const int group = p.heads / p.kv_heads;
	int segment_index, first;
	softmax_rows rows[BLOCKS];

	if (!find_tile(p, tokens_per_tile, n_tiles, &segment_index, &first)) /* the whole block */
		return;

	const m1k_segment segment = p.segments[segment_index];
	const int n_tokens = segment.n_tokens - first < tokens_per_tile ? segment.n_tokens - first : tokens_per_tile;
	const int n_rows = n_tokens * group;
	const int start = segment.start + first;

	load_queries(p, segment.row + first, n_rows, TILE_ROWS, s->q);
#pragma unroll
	for (int i = 0; i < BLOCKS; i++)
		clear(&rows[i]);
	each_page(p, segment.state, 0, pages_for(start + n_tokens), &s->pages,
			  [&](int page, uint16_t *k, uint16_t *v)
			  {
#pragma unroll 1
				  for (int key = 0; key < PAGE; key += TILE_KEYS)
				  {
					  const int position = page * PAGE + key;
					  const auto last_key = [&](int i, int r)
					  {
						  const int row = tile_row(i, r);

						  /* missing rows count as the first token's: they see a key, and are not written */
						  return start + (row < n_rows ? row / group : 0) - position;
					  };

					  fold_keys<BLOCKS, TILE_KEYS>(s->q + threadIdx.x / M1K_WARP * WARP_ROWS * D, k + key * D,
												   v + key * D, start < position + TILE_KEYS - 1, last_key, rows);
				  }
			  });
	write_rows(p, segment.row + first, n_rows, rows);
}

void
m1k_attend_tiles(const m1k_attention *p, cudaStream_t stream)
{
	const int tokens_per_tile = TILE_ROWS / (p->heads / p->kv_heads);
	/* whole tiles, and one broken one a segment */
	const int n_tiles = p->n_tokens / tokens_per_tile + p->n_segments;

	M1K_LAUNCH(attend_tiles, dim3(n_tiles, p->kv_heads), THREADS, sizeof(tile_shared), stream, *p, tokens_per_tile,
			   n_tiles);
}

/* ---- single tokens ---- */

#define WARP_KEYS (PAGE / WARPS)

static_assert(THREADS == D, "a thread has a column");

typedef struct step_shared
{
	uint16_t q[M1K_MAX_GROUP * D];
	float max[WARPS][M1K_MAX_GROUP];
	float sum[WARPS][M1K_MAX_GROUP];
	union
	{
		page_stages pages;
		float out[WARPS][M1K_MAX_GROUP][D]; /* once there are no more pages */
	};
} step_shared;

/* Each warp lays its rows open for the others. */
__device__ __forceinline__ void
share_rows(step_shared *s, const softmax_rows &rows)
{
	const int warp = threadIdx.x / M1K_WARP;
	const int lane = threadIdx.x % M1K_WARP;

	__syncthreads(); /* all are done with the pages */
#pragma unroll
	for (int r = 0; r < 2; r++)
	{
		const int row = lane / 4 + r * 8;
		const float sum = row_sum(rows.sum[r]);

		if (lane % 4 == 0)
		{
			s->max[warp][row] = rows.max[r];
			s->sum[warp][row] = sum;
		}
#pragma unroll
		for (int j = 0; j < D / 8; j++)
			*reinterpret_cast<float2 *>(&s->out[warp][row][j * 8 + lane % 4 * 2]) =
				make_float2(rows.out[j][r * 2], rows.out[j][r * 2 + 1]);
	}
	__syncthreads();
}

/* The sums of all warps: a thread has a column of every row. */
__device__ __forceinline__ void
write_partial(const m1k_attention &p, const step_shared *s, int group)
{
	for (int row = 0; row < group; row++)
	{
		float *to = partial_of(p, blockIdx.x, blockIdx.y * group + row, blockIdx.z);
		float max = -INFINITY;
		float sum = 0.0f;
		float out = 0.0f;

#pragma unroll
		for (int w = 0; w < WARPS; w++)
			max = fmaxf(max, s->max[w][row]);
#pragma unroll
		for (int w = 0; w < WARPS; w++)
		{
			/* 0 for a warp whose quarter of the pages had no keys */
			const float factor = m1k_exp2(s->max[w][row] - max);

			sum += factor * s->sum[w][row];
			out += factor * s->out[w][row][threadIdx.x];
		}
		to[2 + threadIdx.x] = out;
		if (threadIdx.x == 0)
		{
			to[0] = max;
			to[1] = sum;
		}
	}
}

/* Block (segment, kv head, range of pages). */
__global__ void
__launch_bounds__(THREADS, 3) attend_steps(m1k_attention p)
{
	M1K_DYNAMIC_SHARED(step_shared, s);
	const m1k_segment segment = p.segments[blockIdx.x];
	const int group = p.heads / p.kv_heads;
	const int last = segment.start;
	const int n_pages = pages_for(last + 1);
	const int first = blockIdx.z * range_pages(p, n_pages);
	const int end = first + range_pages(p, n_pages) < n_pages ? first + range_pages(p, n_pages) : n_pages;
	const int warp_key = threadIdx.x / M1K_WARP * WARP_KEYS;
	softmax_rows rows[1];

	if (segment.n_tokens != 1 || first >= n_pages) /* the whole block */
		return;
	load_queries(p, segment.row, group, M1K_MAX_GROUP, s->q);
	clear(rows);
	each_page(p, segment.state, first, end, &s->pages,
			  [&](int page, uint16_t *k, uint16_t *v)
			  {
				  const int last_key = last - page * PAGE - warp_key;

				  if (last_key >= 0) /* the whole warp */
					  fold_keys<1, WARP_KEYS>(
						  s->q, k + warp_key * D, v + warp_key * D, last_key < WARP_KEYS - 1,
						  [&](int, int) { return last_key; }, rows);
			  });
	share_rows(s, rows[0]);
	write_partial(p, s, group);
}

void
m1k_attend_steps(const m1k_attention *p, cudaStream_t stream)
{
	M1K_LAUNCH(attend_steps, dim3(p->n_segments, p->kv_heads, p->splits), THREADS, sizeof(step_shared), stream, *p);
}

/* ---- life ---- */

bool
m1k_tiles_suit(const m1k_attention *p)
{
	return p->kv_bf16 && p->head_dim == D;
}

cudaError_t
m1k_attention_prepare(void)
{
	const cudaError_t status = cudaFuncSetAttribute(attend_tiles, cudaFuncAttributeMaxDynamicSharedMemorySize,
													static_cast<int>(sizeof(tile_shared)));

	return status != cudaSuccess ? status
								 : cudaFuncSetAttribute(attend_steps, cudaFuncAttributeMaxDynamicSharedMemorySize,
														static_cast<int>(sizeof(step_shared)));
}
