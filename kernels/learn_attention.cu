/*
 * learn_attention.cu - softmax attention over the rows of a batch and its gradient, in fp32.
 *
 * Keys and values are the batch's own: there are no pages. A block takes 32 queries of a head and goes through the keys
 * that they see, 32 at a time; the rows' log-sums are kept. Backward, probabilities are made again from scores and
 * log-sums: once for blocks of queries, which add up dq, and once for blocks of keys, which add up dk and dv over all
 * queries and heads that see them, in order.
 *
 * On Hopper, scores and sums would go through wgmma in bf16 parts, and dq be made by the blocks of keys, too, with an
 * order of additions that a counter keeps, as FlashAttention's deterministic backward pass does.
 */
#include "learn.cuh"

#include <math.h>

#define TILE M1K_LEARN_TILE
#define THREADS 128
#define MOST (M1K_MAX_HEAD_DIM / 4) /* columns of a thread when four share a row */
#define SCORES (TILE + 1)			/* from one row of scores to the next */

/* A thread makes scores of two rows and four columns, 8 apart; then four threads share a row. */
#define SCORE_ROW (static_cast<int>(threadIdx.x) / 8 * 2)
#define SCORE_COLUMN (static_cast<int>(threadIdx.x) % 8)
#define OWN_ROW (static_cast<int>(threadIdx.x) / 4)
#define OWN_COLUMN (static_cast<int>(threadIdx.x) % 4)

/* ---- positions ---- */

__global__ void
rotate_rows(float *x, int heads, int d, const float *rope, int half, float sign)
{
	const size_t t = blockIdx.x;

	for (int i = threadIdx.x; i < heads * half; i += blockDim.x)
	{
		float *at = x + (t * heads + i / half) * d + i % half;
		const float cosine = rope[(t * half + i % half) * 2];
		const float sine = sign * rope[(t * half + i % half) * 2 + 1];
		const float a = at[0];
		const float b = at[half];

		at[0] = a * cosine - b * sine;
		at[half] = b * cosine + a * sine;
	}
}

void
m1k_learn_rotate(float *x, int n_rows, int heads, int head_dim, const float *rope, int half, float sign,
				 cudaStream_t stream)
{
	if (half > 0)
		M1K_LAUNCH(rotate_rows, n_rows, THREADS, 0, stream, x, heads, head_dim, rope, half, sign);
}

/* ---- tiles ---- */

/* n rows of one head, from `row` on, [TILE, d + 1]; the rest is zeros. */
__device__ __forceinline__ void
load_rows(const float *x, int row, int n, int heads, int head, int d, float *to)
{
	for (int i = threadIdx.x; i < TILE * d; i += THREADS)
	{
		const int r = i / d;

		to[r * (d + 1) + i % d] = r < n ? x[(static_cast<size_t>(row + r) * heads + head) * d + i % d] : 0.0f;
	}
}

/* out[i][j] = row SCORE_ROW + i of x times row SCORE_COLUMN + 8 j of y */
__device__ __forceinline__ void
multiply_rows(const float *x, const float *y, int d, float (&out)[2][4])
{
#pragma unroll
	for (int i = 0; i < 2; i++)
#pragma unroll
		for (int j = 0; j < 4; j++)
			out[i][j] = 0.0f;
	for (int c = 0; c < d; c++)
#pragma unroll
		for (int i = 0; i < 2; i++)
#pragma unroll
			for (int j = 0; j < 4; j++)
				out[i][j] += x[(SCORE_ROW + i) * (d + 1) + c] * y[(SCORE_COLUMN + 8 * j) * (d + 1) + c];
}

/* Which of the tile's pairs count: queries and keys that there are, the key not later than the query. */
struct pairs
{
	int query_row, n_queries;
	int key_row, n_keys;
};

__device__ __forceinline__ bool
counts(const pairs &p, int query, int key)
{
	return query < p.n_queries && key < p.n_keys && p.key_row + key <= p.query_row + query;
}

/* sums += weights of a row, [TILE] with this step from one to the next, times the rows of x [TILE, d + 1] */
__device__ __forceinline__ void
add_weighted(const float *weights, int step, const float *x, int d, float (&sums)[MOST])
{
	for (int r = 0; r < TILE; r++)
	{
		const float w = weights[r * step];

#pragma unroll
		for (int j = 0; j < MOST; j++)
			if (j * 4 < d)
				sums[j] += w * x[r * (d + 1) + OWN_COLUMN + j * 4];
	}
}

__device__ __forceinline__ void
write_row(float *to, float factor, int d, const float (&sums)[MOST])
{
#pragma unroll
	for (int j = 0; j < MOST; j++)
		if (j * 4 < d)
			to[OWN_COLUMN + j * 4] = factor * sums[j];
}

/* Calls f(first key row, how many) for the tiles of keys that the queries see: the parent's, then their span's own. */
template <typename F>
__device__ __forceinline__ void
each_key_tile(const m1k_query_tile &tile, F f)
{
	for (int first = 0; first < tile.parent_n; first += TILE)
		f(tile.parent_row + first, tile.parent_n - first < TILE ? tile.parent_n - first : TILE);
	for (int row = tile.span_row; row < tile.row + tile.n; row += TILE)
		f(row, tile.row + tile.n - row < TILE ? tile.row + tile.n - row : TILE);
}

__device__ __forceinline__ size_t
head_row(const m1k_attend &p, int row, int head)
{
	return static_cast<size_t>(row) * p.heads + head;
}

/* ---- forward ---- */

static int
forward_shared(int d)
{
	return static_cast<int>(sizeof(float)) * (3 * TILE * (d + 1) + TILE * SCORES);
}

/* Block (tile of queries, head). */
__global__ void
__launch_bounds__(THREADS) attend_queries(m1k_attend p)
{
	M1K_DYNAMIC_SHARED(float, shared);
	const m1k_query_tile tile = p.query_tiles[blockIdx.x];
	const int head = blockIdx.y;
	const int kv_head = head / (p.heads / p.kv_heads);
	const int d = p.head_dim;
	const float scale = rsqrtf(static_cast<float>(d));
	float *q = shared;
	float *k = q + TILE * (d + 1);
	float *v = k + TILE * (d + 1);
	float *scores = v + TILE * (d + 1);
	float *own = scores + OWN_ROW * SCORES;
	float sums[MOST] = {};
	float max = -INFINITY; /* of the scores of this thread's row */
	float total = 0.0f;

	load_rows(p.q, tile.row, tile.n, p.heads, head, d, q);
	each_key_tile(tile,
				  [&](int key_row, int n)
				  {
					  const pairs in = {tile.row, tile.n, key_row, n};
					  float made[2][4];
					  float best = max;

					  __syncthreads();
					  load_rows(p.k, key_row, n, p.kv_heads, kv_head, d, k);
					  load_rows(p.v, key_row, n, p.kv_heads, kv_head, d, v);
					  __syncthreads();
					  multiply_rows(q, k, d, made);
#pragma unroll
					  for (int i = 0; i < 2; i++)
#pragma unroll
						  for (int j = 0; j < 4; j++)
							  scores[(SCORE_ROW + i) * SCORES + SCORE_COLUMN + 8 * j] =
								  counts(in, SCORE_ROW + i, SCORE_COLUMN + 8 * j) ? scale * made[i][j] : -INFINITY;
					  __syncthreads();
					  for (int key = 0; key < TILE; key++)
						  best = fmaxf(best, own[key]);
					  __syncthreads(); /* all four have read the row */

					  /* rows that there are not have no key at all */
					  const float base = best == -INFINITY ? 0.0f : best;
					  const float rescale = expf(max - base);

					  for (int key = OWN_COLUMN; key < TILE; key += 4)
						  own[key] = expf(own[key] - base);
					  __syncthreads();
					  max = best;
					  total *= rescale;
					  for (int key = 0; key < TILE; key++)
						  total += own[key];
#pragma unroll
					  for (int j = 0; j < MOST; j++)
						  sums[j] *= rescale;
					  add_weighted(own, 1, v, d, sums);
				  });
	if (OWN_ROW >= tile.n)
		return;
	write_row(p.out + head_row(p, tile.row + OWN_ROW, head) * d, 1.0f / total, d, sums);
	if (OWN_COLUMN == 0)
		p.lse[head_row(p, tile.row + OWN_ROW, head)] = max + logf(total);
}

void
m1k_learn_attend(const m1k_attend *p, cudaStream_t stream)
{
	M1K_LAUNCH(attend_queries, dim3(p->n_query_tiles, p->heads), THREADS, forward_shared(p->head_dim), stream, *p);
}

/* ---- backward ---- */

__global__ void
along_rows(m1k_attend p)
{
	const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
	float sum = 0.0f;

	if (at >= static_cast<size_t>(p.n_rows) * p.heads)
		return;
	for (int i = 0; i < p.head_dim; i++)
		sum += p.dout[at * p.head_dim + i] * p.out[at * p.head_dim + i];
	p.along[at] = sum;
}

/* Four tiles of rows, and scores and their gradients. */
struct back_memory
{
	float *q, *k, *v, *dout;
	float *weights, *ds; /* [TILE, SCORES]: query, key */
};

static int
back_shared(int d)
{
	return static_cast<int>(sizeof(float)) * (4 * TILE * (d + 1) + 2 * TILE * SCORES);
}

__device__ __forceinline__ back_memory
lay_out(float *shared, int d)
{
	back_memory m;

	m.q = shared;
	m.k = m.q + TILE * (d + 1);
	m.v = m.k + TILE * (d + 1);
	m.dout = m.v + TILE * (d + 1);
	m.weights = m.dout + TILE * (d + 1);
	m.ds = m.weights + TILE * SCORES;
	return m;
}

/* weights = exp(score - lse), ds = weights (dout v - dout o) / sqrt(d); both 0 for pairs that do not count. */
__device__ __forceinline__ void
score_gradients(const m1k_attend &p, const pairs &in, int head, const back_memory &m)
{
	const int d = p.head_dim;
	const float scale = rsqrtf(static_cast<float>(d));
	float scores[2][4];
	float values[2][4];

	multiply_rows(m.q, m.k, d, scores);
	multiply_rows(m.dout, m.v, d, values);
#pragma unroll
	for (int i = 0; i < 2; i++)
#pragma unroll
		for (int j = 0; j < 4; j++)
		{
			const int query = SCORE_ROW + i;
			const int key = SCORE_COLUMN + 8 * j;
			float weight = 0.0f;
			float ds = 0.0f;

			if (counts(in, query, key))
			{
				const size_t row = head_row(p, in.query_row + query, head);

				weight = expf(scale * scores[i][j] - p.lse[row]);
				ds = scale * weight * (values[i][j] - p.along[row]);
			}
			m.weights[query * SCORES + key] = weight;
			m.ds[query * SCORES + key] = ds;
		}
}

/* Block (tile of queries, head): dq. */
__global__ void
__launch_bounds__(THREADS) queries_back(m1k_attend p)
{
	M1K_DYNAMIC_SHARED(float, shared);
	const m1k_query_tile tile = p.query_tiles[blockIdx.x];
	const int head = blockIdx.y;
	const int kv_head = head / (p.heads / p.kv_heads);
	const int d = p.head_dim;
	const back_memory m = lay_out(shared, d);
	float sums[MOST] = {};

	load_rows(p.q, tile.row, tile.n, p.heads, head, d, m.q);
	load_rows(p.dout, tile.row, tile.n, p.heads, head, d, m.dout);
	each_key_tile(tile,
				  [&](int key_row, int n)
				  {
					  __syncthreads();
					  load_rows(p.k, key_row, n, p.kv_heads, kv_head, d, m.k);
					  load_rows(p.v, key_row, n, p.kv_heads, kv_head, d, m.v);
					  __syncthreads();
					  score_gradients(p, {tile.row, tile.n, key_row, n}, head, m);
					  __syncthreads();
					  add_weighted(m.ds + OWN_ROW * SCORES, 1, m.k, d, sums);
				  });
	if (OWN_ROW < tile.n)
		write_row(p.dq + head_row(p, tile.row + OWN_ROW, head) * d, 1.0f, d, sums);
}

/* Block (tile of keys, kv head): dk and dv. */
__global__ void
__launch_bounds__(THREADS) keys_back(m1k_attend p)
{
	M1K_DYNAMIC_SHARED(float, shared);
	const m1k_key_tile tile = p.key_tiles[blockIdx.x];
	const int kv_head = blockIdx.y;
	const int group = p.heads / p.kv_heads;
	const int d = p.head_dim;
	const back_memory m = lay_out(shared, d);
	float dk[MOST] = {};
	float dv[MOST] = {};

	load_rows(p.k, tile.row, tile.n, p.kv_heads, kv_head, d, m.k);
	load_rows(p.v, tile.row, tile.n, p.kv_heads, kv_head, d, m.v);
	for (int row = tile.row; row < tile.end_row; row += TILE)
		for (int head = kv_head * group; head < (kv_head + 1) * group; head++)
		{
			const int n = tile.end_row - row < TILE ? tile.end_row - row : TILE;

			__syncthreads();
			load_rows(p.q, row, n, p.heads, head, d, m.q);
			load_rows(p.dout, row, n, p.heads, head, d, m.dout);
			__syncthreads();
			score_gradients(p, {row, n, tile.row, tile.n}, head, m);
			__syncthreads();
			add_weighted(m.ds + OWN_ROW, SCORES, m.q, d, dk);
			add_weighted(m.weights + OWN_ROW, SCORES, m.dout, d, dv);
		}
	if (OWN_ROW < tile.n)
	{
		const size_t at = (static_cast<size_t>(tile.row + OWN_ROW) * p.kv_heads + kv_head) * d;

		write_row(p.dk + at, 1.0f, d, dk);
		write_row(p.dv + at, 1.0f, d, dv);
	}
}

void
m1k_learn_attend_back(const m1k_attend *p, cudaStream_t stream)
{
	const int shared = back_shared(p->head_dim);
	const size_t rows = static_cast<size_t>(p->n_rows) * p->heads;

	M1K_LAUNCH(along_rows, m1k_pieces(rows, THREADS), THREADS, 0, stream, *p);
	M1K_LAUNCH(queries_back, dim3(p->n_query_tiles, p->heads), THREADS, shared, stream, *p);
	M1K_LAUNCH(keys_back, dim3(p->n_key_tiles, p->kv_heads), THREADS, shared, stream, *p);
}

cudaError_t
m1k_learn_prepare(void)
{
	const int forward = forward_shared(M1K_MAX_HEAD_DIM);
	const int back = back_shared(M1K_MAX_HEAD_DIM);
	cudaError_t status = cudaFuncSetAttribute(attend_queries, cudaFuncAttributeMaxDynamicSharedMemorySize, forward);

	if (status == cudaSuccess)
		status = cudaFuncSetAttribute(queries_back, cudaFuncAttributeMaxDynamicSharedMemorySize, back);
	if (status == cudaSuccess)
		status = cudaFuncSetAttribute(keys_back, cudaFuncAttributeMaxDynamicSharedMemorySize, back);
	return status;
}
