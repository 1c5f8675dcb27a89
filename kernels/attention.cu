/*
 * attention.cu - softmax attention with grouped key/value heads, partial rotary
 * positions and paged K and V.
 *
 * Single tokens: a block takes one kv head and a range of one sequence's pages for
 * all query heads that share it, so that K and V are read once; ranges are merged
 * afterwards. Longer segments, on tensor cores: a block takes 128 rows (tokens times
 * query heads of one kv head) and walks through the pages with a running softmax.
 * How a token is computed does not depend on the rest of the batch.
 */
#include "tiles.cuh"

#include <math.h>

#define PAGE M1K_PAGE_TOKENS

/* ---- positions ---- */

__global__ void
rope_rows(const m1k_segment *segments, const int *segment_of, const float *inv_freq, int half, float *rope)
{
	const int t = blockIdx.x;
	const m1k_segment segment = segments[segment_of[t]];
	const float position = static_cast<float>(segment.start + t - segment.row);

	for (int j = threadIdx.x; j < half; j += blockDim.x)
	{
		float *to = rope + (static_cast<size_t>(t) * half + j) * 2;

		sincosf(position * inv_freq[j], to + 1, to);
	}
}

void
m1k_rope_table(const m1k_segment *segments, const int *segment_of, int n_tokens, const float *inv_freq, int half,
			   float *rope, cudaStream_t stream)
{
	if (half > 0)
		M1K_LAUNCH(rope_rows, n_tokens, 64, 0, stream, segments, segment_of, inv_freq, half, rope);
}

/* ---- pages ---- */

__device__ __forceinline__ float
read_kv(const float *at)
{
	return *at;
}

__device__ __forceinline__ float
read_kv(const uint16_t *at)
{
	return m1k_from_bf16(*at);
}

__device__ __forceinline__ void
write_kv(float *at, float x)
{
	*at = x;
}

__device__ __forceinline__ void
write_kv(uint16_t *at, float x)
{
	*at = m1k_bf16_of(x);
}

/* K (which = 0) or V (which = 1) of one kv head in one page: [PAGE, D] */
template <typename KV>
__device__ __forceinline__ KV *
page_of(const m1k_attention &p, int state, int page, int which, int kv_head)
{
	char *at = p.pages +
			   static_cast<size_t>(p.table[static_cast<size_t>(state) * p.table_stride + page]) * p.page_bytes +
			   p.slot_bytes;

	return reinterpret_cast<KV *>(at) + static_cast<size_t>(which * p.kv_heads + kv_head) * PAGE * p.head_dim;
}

/* Rotates one token's q heads in place; rotates its k on the way to its page, and copies v. */
template <typename KV>
__global__ void
append_tokens(m1k_attention p)
{
	const int t = blockIdx.x;
	const m1k_segment segment = p.segments[p.segment_of[t]];
	const int position = segment.start + t - segment.row;
	const int d = p.head_dim;
	const int half = p.rotary_dim / 2;
	const float *rope = p.rope + static_cast<size_t>(t) * half * 2;

	for (int i = threadIdx.x; i < p.heads * half; i += blockDim.x)
	{
		float *x = p.q + (static_cast<size_t>(t) * p.heads + i / half) * d + i % half;
		const float cosine = rope[i % half * 2];
		const float sine = rope[i % half * 2 + 1];
		const float a = x[0];
		const float b = x[half];

		x[0] = a * cosine - b * sine;
		x[half] = b * cosine + a * sine;
	}
	for (int i = threadIdx.x; i < p.kv_heads * d; i += blockDim.x)
	{
		const int head = i / d;
		const int j = i % d;
		const size_t from = (static_cast<size_t>(t) * p.kv_heads + head) * d;
		const size_t to = static_cast<size_t>(position % PAGE) * d + j;
		float x = p.k[from + j];

		if (j < half)
			x = x * rope[j * 2] - p.k[from + j + half] * rope[j * 2 + 1];
		else if (j < 2 * half)
			x = x * rope[(j - half) * 2] + p.k[from + j - half] * rope[(j - half) * 2 + 1];
		write_kv(page_of<KV>(p, segment.state, position / PAGE, 0, head) + to, x);
		write_kv(page_of<KV>(p, segment.state, position / PAGE, 1, head) + to, p.v[from + j]);
	}
}

/* ---- one token at a time ---- */

#define ROW_THREADS 128
#define MAX_D M1K_MAX_HEAD_DIM

/* Scores of this thread's key for every query head: two threads take half of the columns each. */
template <typename KV, int Group>
__device__ __forceinline__ void
score_keys(const KV *key, const float *q, int n, int d, int group, float (&weights)[Group][PAGE])
{
	const int at = threadIdx.x / 2;
	const int part = threadIdx.x % 2 * (d / 2);
	float score[Group] = {};

	if (at < n)
		for (int j = part; j < part + d / 2; j += 4)
		{
			float x[4];

#pragma unroll
			for (int i = 0; i < 4; i++)
				x[i] = read_kv(key + j + i);
#pragma unroll
			for (int h = 0; h < Group; h++)
				if (h < group)
				{
					const float4 y = *reinterpret_cast<const float4 *>(q + h * d + j);

					score[h] += x[0] * y.x + x[1] * y.y + x[2] * y.z + x[3] * y.w;
				}
		}
#pragma unroll
	for (int h = 0; h < Group; h++)
	{
		const float sum = score[h] + __shfl_xor_sync(M1K_ALL, score[h], 1);

		if (threadIdx.x % 2 == 0)
			weights[h][at] = at < n ? sum : -INFINITY;
	}
}

/*
 * Block (token, kv head, split). Two threads share a key when scores are made; two halves of the threads share the
 * keys when values are summed, each thread two columns.
 */
template <typename KV, int Group>
__global__ void
__launch_bounds__(ROW_THREADS) attend_tokens(m1k_attention p)
{
	__shared__ __align__(16) KV keys[PAGE * (MAX_D + 16 / sizeof(KV))];
	__shared__ __align__(16) float q[Group * MAX_D];
	__shared__ float weights[Group][PAGE];
	__shared__ float running_max[Group];
	__shared__ float running_sum[Group];
	__shared__ float rescale[Group];
	/* where tiles take the longer segments, one token of each segment will do */
	const int t = p.tensor_cores ? p.segments[blockIdx.x].row : static_cast<int>(blockIdx.x);
	const m1k_segment segment = p.segments[p.segment_of[t]];
	const int split = blockIdx.z;
	const int group = p.heads / p.kv_heads;
	const int d = p.head_dim;
	const int key_stride = d + 16 / static_cast<int>(sizeof(KV)); /* a shift of 16 bytes a key: no bank conflicts */
	const int splits = segment.n_tokens == 1 ? p.splits : 1;
	const int n_keys = segment.start + t - segment.row + 1;
	const int n_pages = (n_keys + PAGE - 1) / PAGE;
	const int per_split = (n_pages + splits - 1) / splits;
	const int first_page = split * per_split;
	const int end_page = first_page + per_split < n_pages ? first_page + per_split : n_pages;
	const int warp = threadIdx.x / M1K_WARP;
	const int lane = threadIdx.x % M1K_WARP;
	const int column = threadIdx.x % (MAX_D / 2) * 2;
	const int key_half = threadIdx.x / (MAX_D / 2);
	const float scale = rsqrtf(static_cast<float>(d));
	float acc[Group][2] = {};

	if (split >= splits || (p.tensor_cores && segment.n_tokens > 1)) /* the whole block */
		return;
	for (int i = threadIdx.x; i < group * d; i += ROW_THREADS)
		q[i] = scale * p.q[(static_cast<size_t>(t) * p.heads + blockIdx.y * group) * d + i];
	for (int h = threadIdx.x; h < group; h += ROW_THREADS)
	{
		running_max[h] = -INFINITY;
		running_sum[h] = 0.0f;
	}
	for (int page = first_page; page < end_page; page++)
	{
		const KV *k = page_of<KV>(p, segment.state, page, 0, blockIdx.y);
		const KV *v = page_of<KV>(p, segment.state, page, 1, blockIdx.y);
		const int n = n_keys - page * PAGE < PAGE ? n_keys - page * PAGE : PAGE;
		const int pieces = d * static_cast<int>(sizeof(KV)) / 16; /* of a key */

		__syncthreads();
		for (int i = threadIdx.x; i < n * pieces; i += ROW_THREADS)
			m1k_copy_async(reinterpret_cast<char *>(keys + i / pieces * key_stride) + i % pieces * 16,
						   reinterpret_cast<const char *>(k) + static_cast<size_t>(i) * 16, true);
		m1k_copy_commit();
		m1k_copy_wait<0>();
		__syncthreads();
		score_keys<KV, Group>(keys + threadIdx.x / 2 * key_stride, q, n, d, group, weights);
		__syncthreads();
		for (int h = warp; h < group; h += ROW_THREADS / M1K_WARP)
		{
			const float a = weights[h][lane];
			const float b = weights[h][lane + 32];
			const float before = running_max[h];
			const float max = fmaxf(before, m1k_warp_max(fmaxf(a, b)));
			const float ea = expf(a - max);
			const float eb = expf(b - max);
			const float sum = m1k_warp_sum(ea + eb);

			weights[h][lane] = ea;
			weights[h][lane + 32] = eb;
			__syncwarp();
			if (lane == 0)
			{
				rescale[h] = expf(before - max);
				running_sum[h] = running_sum[h] * rescale[h] + sum;
				running_max[h] = max;
			}
		}
		__syncthreads();
		if (column < d)
		{
#pragma unroll
			for (int h = 0; h < Group; h++)
				if (h < group)
				{
					acc[h][0] *= rescale[h];
					acc[h][1] *= rescale[h];
				}
			for (int key = key_half; key < n; key += 2)
			{
				const float x = read_kv(v + static_cast<size_t>(key) * d + column);
				const float y = read_kv(v + static_cast<size_t>(key) * d + column + 1);

#pragma unroll
				for (int h = 0; h < Group; h++)
					if (h < group)
					{
						acc[h][0] += weights[h][key] * x;
						acc[h][1] += weights[h][key] * y;
					}
			}
		}
	}
	/* the second half of the threads hands its sums to the first, where q was */
	__syncthreads();
#pragma unroll
	for (int h = 0; h < Group; h++)
		if (h < group && key_half == 1 && column < d)
		{
			q[h * d + column] = acc[h][0];
			q[h * d + column + 1] = acc[h][1];
		}
	__syncthreads();
#pragma unroll
	for (int h = 0; h < Group; h++)
		if (h < group && key_half == 0 && column < d)
		{
			const size_t head = blockIdx.y * group + h;
			const float x = acc[h][0] + q[h * d + column];
			const float y = acc[h][1] + q[h * d + column + 1];

			if (segment.n_tokens > 1)
			{
				float *out = p.out + (static_cast<size_t>(t) * p.heads + head) * d + column;

				out[0] = x / running_sum[h];
				out[1] = y / running_sum[h];
			}
			else
			{
				float *to =
					p.partial + ((p.segment_of[t] * static_cast<size_t>(p.heads) + head) * p.splits + split) * (d + 2);

				to[2 + column] = x;
				to[2 + column + 1] = y;
				if (column == 0)
				{
					to[0] = running_max[h];
					to[1] = running_sum[h];
				}
			}
		}
}

/* Merges the key ranges of single tokens: block (head, segment). */
__global__ void
merge_splits(m1k_attention p)
{
	const m1k_segment segment = p.segments[blockIdx.y];
	const int d = p.head_dim;
	const float *from = p.partial + (static_cast<size_t>(blockIdx.y) * p.heads + blockIdx.x) * p.splits * (d + 2);
	float *out = p.out + (static_cast<size_t>(segment.row) * p.heads + blockIdx.x) * d;
	float max = -INFINITY;
	float sum = 0.0f;

	if (segment.n_tokens != 1)
		return;
	for (int s = 0; s < p.splits; s++)
		max = fmaxf(max, from[s * (d + 2)]);
	for (int s = 0; s < p.splits; s++)
		sum += expf(from[s * (d + 2)] - max) * from[s * (d + 2) + 1];
	for (int j = threadIdx.x; j < d; j += blockDim.x)
	{
		float x = 0.0f;

		for (int s = 0; s < p.splits; s++)
			x += expf(from[s * (d + 2)] - max) * from[s * (d + 2) + 2 + j];
		out[j] = x / sum;
	}
}

/* ---- longer segments, tensor cores, head size 128 ---- */

#define D 128
#define TILE_ROWS 128
#define TILE_THREADS 256
#define CHUNKS (D / 8)

typedef struct tile_shared
{
	uint16_t q[TILE_ROWS * D];
	uint16_t k[2][PAGE * D];
	uint16_t v[2][PAGE * D];
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

__device__ __forceinline__ void
copy_page(const m1k_attention &p, int state, int page, uint16_t *k, uint16_t *v)
{
	const uint16_t *from_k = page_of<uint16_t>(p, state, page, 0, blockIdx.y);
	const uint16_t *from_v = page_of<uint16_t>(p, state, page, 1, blockIdx.y);

	for (int i = threadIdx.x; i < PAGE * CHUNKS; i += TILE_THREADS)
	{
		m1k_copy_async(m1k_piece<CHUNKS>(k, i / CHUNKS, i % CHUNKS), from_k + i * 8, true);
		m1k_copy_async(m1k_piece<CHUNKS>(v, i / CHUNKS, i % CHUNKS), from_v + i * 8, true);
	}
}

/* One page into the warp's 16 rows: scores, running softmax, values. A lane's rows are lane / 4 and lane / 4 + 8. */
__device__ __forceinline__ void
fold_page(uint16_t *k, uint16_t *v, const uint32_t (&q)[D / 16][4], const int (&last_key)[2], float (&max)[2],
		  float (&sum)[2], float (&out)[D / 8][4])
{
	const int lane = threadIdx.x % M1K_WARP;
	float scores[PAGE / 8][4] = {};

#pragma unroll
	for (int step = 0; step < D / 16; step++)
#pragma unroll
		for (int j = 0; j < PAGE / 8; j += 2)
		{
			uint32_t b[4];

			m1k_right<CHUNKS>(b, k, j * 8, step * 2);
			m1k_mma(scores[j], q[step], b[0], b[1]);
			m1k_mma(scores[j + 1], q[step], b[2], b[3]);
		}
#pragma unroll
	for (int r = 0; r < 2; r++)
	{
		float top = max[r];
		float total = 0.0f;
		float factor;

#pragma unroll
		for (int j = 0; j < PAGE / 8; j++)
#pragma unroll
			for (int c = 0; c < 2; c++)
			{
				float &x = scores[j][r * 2 + c];

				if (j * 8 + lane % 4 * 2 + c > last_key[r])
					x = -INFINITY;
				top = fmaxf(top, x);
			}
		top = fmaxf(top, __shfl_xor_sync(M1K_ALL, top, 1));
		top = fmaxf(top, __shfl_xor_sync(M1K_ALL, top, 2));
		/* every row sees its first page's first key, so top is finite */
		factor = exp2f(max[r] - top);
		max[r] = top;
#pragma unroll
		for (int j = 0; j < PAGE / 8; j++)
#pragma unroll
			for (int c = 0; c < 2; c++)
			{
				scores[j][r * 2 + c] = exp2f(scores[j][r * 2 + c] - top);
				total += scores[j][r * 2 + c];
			}
		/* the lanes' parts are added up at the end */
		sum[r] = sum[r] * factor + total;
#pragma unroll
		for (int j = 0; j < D / 8; j++)
		{
			out[j][r * 2] *= factor;
			out[j][r * 2 + 1] *= factor;
		}
	}
#pragma unroll
	for (int step = 0; step < PAGE / 16; step++)
	{
		const uint32_t a[4] = {m1k_bf16_pair(scores[2 * step][0], scores[2 * step][1]),
							   m1k_bf16_pair(scores[2 * step][2], scores[2 * step][3]),
							   m1k_bf16_pair(scores[2 * step + 1][0], scores[2 * step + 1][1]),
							   m1k_bf16_pair(scores[2 * step + 1][2], scores[2 * step + 1][3])};

#pragma unroll
		for (int j = 0; j < D / 8; j += 2)
		{
			uint32_t b[4];

			m1k_right_transposed<CHUNKS>(b, v, step * 16, j);
			m1k_mma(out[j], a, b[0], b[1]);
			m1k_mma(out[j + 1], a, b[2], b[3]);
		}
	}
}

__global__ void
__launch_bounds__(TILE_THREADS, 1) attend_tiles(m1k_attention p, int tokens_per_tile, int n_tiles)
{
	M1K_DYNAMIC_SHARED(tile_shared, s);
	const int group = p.heads / p.kv_heads;
	const int warp = threadIdx.x / M1K_WARP;
	const int lane = threadIdx.x % M1K_WARP;
	/* of exp2 */
	const float scale = rsqrtf(static_cast<float>(D)) * 1.44269504f;
	int segment_index, first;
	uint32_t q[D / 16][4];
	float out[D / 8][4] = {};
	float max[2] = {-INFINITY, -INFINITY};
	float sum[2] = {0.0f, 0.0f};
	int position[2];

	if (!find_tile(p, tokens_per_tile, n_tiles, &segment_index, &first)) /* the whole block */
		return;

	const m1k_segment segment = p.segments[segment_index];
	const int n_tokens = segment.n_tokens - first < tokens_per_tile ? segment.n_tokens - first : tokens_per_tile;
	const int rows = n_tokens * group;
	const float *q_from = p.q + (static_cast<size_t>(segment.row + first) * p.heads + blockIdx.y * group) * D;
	const int n_keys = segment.start + first + n_tokens;
	const int n_pages = (n_keys + PAGE - 1) / PAGE;

	copy_page(p, segment.state, 0, s->k[0], s->v[0]);
	m1k_copy_commit();
	for (int i = threadIdx.x; i < TILE_ROWS * CHUNKS; i += TILE_THREADS)
	{
		const int row = i / CHUNKS;
		const int chunk = i % CHUNKS;
		float x[8] = {};

		if (row < rows)
#pragma unroll
			for (int j = 0; j < 8; j++)
				x[j] = scale * q_from[(static_cast<size_t>(row / group) * p.heads + row % group) * D + chunk * 8 + j];
		*reinterpret_cast<uint4 *>(m1k_piece<CHUNKS>(s->q, row, chunk)) = make_uint4(
			m1k_bf16_pair(x[0], x[1]), m1k_bf16_pair(x[2], x[3]), m1k_bf16_pair(x[4], x[5]), m1k_bf16_pair(x[6], x[7]));
	}
	__syncthreads();
#pragma unroll
	for (int step = 0; step < D / 16; step++)
		m1k_left<CHUNKS>(q[step], s->q, warp * 16, step * 2);
		/* rows beyond the tile count as its first token's: they see a key, and are not written */
#pragma unroll
	for (int r = 0; r < 2; r++)
	{
		const int row = warp * 16 + lane / 4 + r * 8;

		position[r] = segment.start + first + (row < rows ? row / group : 0);
	}
	for (int page = 0; page < n_pages; page++)
	{
		const int last_key[2] = {position[0] - page * PAGE, position[1] - page * PAGE};

		m1k_copy_wait<0>();
		__syncthreads(); /* this page has come, and all are done with the one before */
		if (page + 1 < n_pages)
			copy_page(p, segment.state, page + 1, s->k[(page + 1) % 2], s->v[(page + 1) % 2]);
		m1k_copy_commit();
		fold_page(s->k[page % 2], s->v[page % 2], q, last_key, max, sum, out);
	}
#pragma unroll
	for (int r = 0; r < 2; r++)
	{
		const int row = warp * 16 + lane / 4 + r * 8;
		float *to =
			p.out +
			((static_cast<size_t>(segment.row + first) + row / group) * p.heads + blockIdx.y * group + row % group) * D;
		float total = sum[r];

		total += __shfl_xor_sync(M1K_ALL, total, 1);
		total += __shfl_xor_sync(M1K_ALL, total, 2);
		if (row < rows)
#pragma unroll
			for (int j = 0; j < D / 8; j++)
				*reinterpret_cast<float2 *>(to + j * 8 + lane % 4 * 2) =
					make_float2(out[j][r * 2] / total, out[j][r * 2 + 1] / total);
	}
}

/* ---- launching ---- */

template <typename KV>
static void
attend(const m1k_attention *p, cudaStream_t stream)
{
	const dim3 grid(p->tensor_cores ? p->n_segments : p->n_tokens, p->kv_heads, p->splits);

	M1K_LAUNCH(append_tokens<KV>, p->n_tokens, 256, 0, stream, *p);
	if (p->heads / p->kv_heads <= 8)
		M1K_LAUNCH((attend_tokens<KV, 8>), grid, ROW_THREADS, 0, stream, *p);
	else
		M1K_LAUNCH((attend_tokens<KV, M1K_MAX_GROUP>), grid, ROW_THREADS, 0, stream, *p);
	M1K_LAUNCH(merge_splits, dim3(p->heads, p->n_segments), 128, 0, stream, *p);
}

void
m1k_softmax_attention(const m1k_attention *given, cudaStream_t stream)
{
	m1k_attention p = *given;

	p.tensor_cores = p.tensor_cores && p.kv_bf16 && p.head_dim == D && !p.one_each;
	if (p.kv_bf16)
		attend<uint16_t>(&p, stream);
	else
		attend<float>(&p, stream);
	if (p.tensor_cores)
	{
		const int tokens_per_tile = TILE_ROWS / (p.heads / p.kv_heads);
		/* whole tiles, and one broken one a segment */
		const int n_tiles = p.n_tokens / tokens_per_tile + p.n_segments;

		M1K_LAUNCH(attend_tiles, dim3(n_tiles, p.kv_heads), TILE_THREADS, sizeof(tile_shared), stream, p,
				   tokens_per_tile, n_tiles);
	}
}

cudaError_t
m1k_attention_prepare(int head_dim)
{
	if (head_dim != D)
		return cudaSuccess;
	return cudaFuncSetAttribute(attend_tiles, cudaFuncAttributeMaxDynamicSharedMemorySize,
								static_cast<int>(sizeof(tile_shared)));
}
