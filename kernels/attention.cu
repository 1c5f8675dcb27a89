/*
 * attention.cu - softmax attention with grouped key/value heads, partial rotary
 * positions and paged K and V: positions, what is written to pages, and attention in
 * fp32 for any head size and type of page; attention_tiles.cu has the tensor cores.
 *
 * In fp32, a block takes one token, one kv head and a range of pages for all query heads
 * that share it. How a token is computed does not depend on the rest of the batch.
 */
#include "attention.cuh"

#include <math.h>

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

/* ---- any tokens, one at a time, in fp32 ---- */

#define ROW_THREADS 128
#define MAX_D M1K_MAX_HEAD_DIM

/* What a block is for: a token, and the pages of its keys that the block takes. */
struct token_range
{
	int token;
	m1k_segment segment;
	int n_keys; /* of the token, in all pages */
	int first_page;
	int end_page;
};

/* A block's shared memory: a page's keys, and for each query head what is known of the pages so far. */
template <typename KV, int Group> struct token_memory
{
	__align__(16) KV keys[PAGE * (MAX_D + 16 / sizeof(KV))];
	__align__(16) float q[Group * MAX_D]; /* [group, D]; in the end, sums of the second half of the threads */
	float weights[Group][PAGE];
	float running_max[Group];
	float running_sum[Group];
	float rescale[Group]; /* what sums so far are to be multiplied with */
};

/* Elements from one key to the next: a shift of 16 bytes a key, so that there are no bank conflicts. */
template <typename KV>
__device__ __forceinline__ int
key_stride(int d)
{
	return d + 16 / static_cast<int>(sizeof(KV));
}

/* Where values are summed: the first of a thread's two columns, and its half of the keys. */
__device__ __forceinline__ int
own_column()
{
	return threadIdx.x % (MAX_D / 2) * 2;
}

__device__ __forceinline__ int
own_half()
{
	return threadIdx.x / (MAX_D / 2);
}

__device__ __forceinline__ token_range
range_of_block(const m1k_attention &p, bool single)
{
	token_range r;

	r.token = single ? p.segments[blockIdx.x].row : static_cast<int>(blockIdx.x);
	r.segment = p.segments[p.segment_of[r.token]];
	r.n_keys = r.segment.start + r.token - r.segment.row + 1;

	const int n_pages = pages_for(r.n_keys);
	const int range = single ? range_pages(p, n_pages) : n_pages;

	r.first_page = blockIdx.z * range;
	r.end_page = r.first_page + range < n_pages ? r.first_page + range : n_pages;
	return r;
}

/* The token's query heads, scaled for scores that are powers of two; nothing is known of any page. */
template <typename KV, int Group>
__device__ __forceinline__ void
load_queries(const m1k_attention &p, int token, token_memory<KV, Group> &m)
{
	const int group = p.heads / p.kv_heads;
	const int d = p.head_dim;
	const float scale = rsqrtf(static_cast<float>(d)) * LOG2_E;

	for (int i = threadIdx.x; i < group * d; i += ROW_THREADS)
		m.q[i] = scale * p.q[(static_cast<size_t>(token) * p.heads + blockIdx.y * group) * d + i];
	for (int h = threadIdx.x; h < group; h += ROW_THREADS)
	{
		m.running_max[h] = -INFINITY;
		m.running_sum[h] = 0.0f;
	}
}

/* The n keys of a page, and waits for this thread's part of them. */
template <typename KV>
__device__ __forceinline__ void
load_keys(const KV *k, int n, int d, KV *keys)
{
	const int pieces = d * static_cast<int>(sizeof(KV)) / 16; /* of a key */

	for (int i = threadIdx.x; i < n * pieces; i += ROW_THREADS)
		m1k_copy_async(reinterpret_cast<char *>(keys + i / pieces * key_stride<KV>(d)) + i % pieces * 16,
					   reinterpret_cast<const char *>(k) + static_cast<size_t>(i) * 16, true);
	m1k_copy_commit();
	m1k_copy_wait<0>();
}

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

/* Scores become weights, relative to the largest score so far: a warp takes a query head. */
template <int Group>
__device__ __forceinline__ void
weigh_keys(int group, float (&weights)[Group][PAGE], float *running_max, float *running_sum, float *rescale)
{
	const int lane = threadIdx.x % M1K_WARP;

	for (int h = threadIdx.x / M1K_WARP; h < group; h += ROW_THREADS / M1K_WARP)
	{
		const float a = weights[h][lane];
		const float b = weights[h][lane + 32];
		const float before = running_max[h];
		const float max = fmaxf(before, m1k_warp_max(fmaxf(a, b)));
		const float ea = m1k_exp2(a - max);
		const float eb = m1k_exp2(b - max);
		const float sum = m1k_warp_sum(ea + eb);

		weights[h][lane] = ea;
		weights[h][lane + 32] = eb;
		__syncwarp();
		if (lane == 0)
		{
			rescale[h] = m1k_exp2(before - max);
			running_sum[h] = running_sum[h] * rescale[h] + sum;
			running_max[h] = max;
		}
	}
}

/* sums = sums of the pages so far, rescaled, plus this page's n values by their weights: this thread's part. */
template <typename KV, int Group>
__device__ __forceinline__ void
add_values(const KV *v, int n, int d, int group, const float (&weights)[Group][PAGE], const float *rescale,
		   float (&sums)[Group][2])
{
	const int column = own_column();

	if (column >= d)
		return;
#pragma unroll
	for (int h = 0; h < Group; h++)
		if (h < group)
		{
			sums[h][0] *= rescale[h];
			sums[h][1] *= rescale[h];
		}
	for (int key = own_half(); key < n; key += 2)
	{
		const float x = read_kv(v + static_cast<size_t>(key) * d + column);
		const float y = read_kv(v + static_cast<size_t>(key) * d + column + 1);

#pragma unroll
		for (int h = 0; h < Group; h++)
			if (h < group)
			{
				sums[h][0] += weights[h][key] * x;
				sums[h][1] += weights[h][key] * y;
			}
	}
}

/* Two columns of one query head: what the token gets of its values, or what the range does, for merge_ranges. */
__device__ __forceinline__ void
write_columns(const m1k_attention &p, bool single, int token, int head, int column, float x, float y, float max,
			  float sum)
{
	if (!single)
	{
		float *out = p.out + (static_cast<size_t>(token) * p.heads + head) * p.head_dim + column;

		out[0] = x / sum;
		out[1] = y / sum;
	}
	else
	{
		float *to = partial_of(p, p.segment_of[token], head, blockIdx.z);

		to[2 + column] = x;
		to[2 + column + 1] = y;
		if (column == 0)
		{
			to[0] = max;
			to[1] = sum;
		}
	}
}

/* The second half of the threads hands its sums to the first, where q was; the first adds its own, and writes. */
template <typename KV, int Group>
__device__ __forceinline__ void
write_sums(const m1k_attention &p, bool single, int token, const float (&sums)[Group][2], token_memory<KV, Group> &m)
{
	const int group = p.heads / p.kv_heads;
	const int d = p.head_dim;
	const int column = own_column();

	__syncthreads();
#pragma unroll
	for (int h = 0; h < Group; h++)
		if (h < group && own_half() == 1 && column < d)
		{
			m.q[h * d + column] = sums[h][0];
			m.q[h * d + column + 1] = sums[h][1];
		}
	__syncthreads();
#pragma unroll
	for (int h = 0; h < Group; h++)
		if (h < group && own_half() == 0 && column < d)
			write_columns(p, single, token, blockIdx.y * group + h, column, sums[h][0] + m.q[h * d + column],
						  sums[h][1] + m.q[h * d + column + 1], m.running_max[h], m.running_sum[h]);
}

/*
 * Block (token, kv head, split). Two threads share a key when scores are made; two halves of the threads share the
 * keys when values are summed, each thread two columns. `single`: the tokens are those of the segments that have one,
 * and their keys are split; otherwise, those of the others.
 */
template <typename KV, int Group>
__global__ void
__launch_bounds__(ROW_THREADS) attend_tokens(m1k_attention p, bool single)
{
	__shared__ token_memory<KV, Group> m;
	const token_range r = range_of_block(p, single);
	const int group = p.heads / p.kv_heads;
	const int d = p.head_dim;
	float sums[Group][2] = {};

	if (single != (r.segment.n_tokens == 1) || r.first_page >= r.end_page) /* the whole block */
		return;
	load_queries(p, r.token, m);
	for (int page = r.first_page; page < r.end_page; page++)
	{
		const KV *k = page_of<KV>(p, r.segment.state, page, 0, blockIdx.y);
		const KV *v = page_of<KV>(p, r.segment.state, page, 1, blockIdx.y);
		const int n = r.n_keys - page * PAGE < PAGE ? r.n_keys - page * PAGE : PAGE;

		__syncthreads();
		load_keys(k, n, d, m.keys);
		__syncthreads();
		score_keys<KV, Group>(m.keys + threadIdx.x / 2 * key_stride<KV>(d), m.q, n, d, group, m.weights);
		__syncthreads();
		weigh_keys(group, m.weights, m.running_max, m.running_sum, m.rescale);
		__syncthreads();
		add_values(v, n, d, group, m.weights, m.rescale, sums);
	}
	write_sums(p, single, r.token, sums, m);
}

/* Merges the ranges of single tokens: block (head, segment). */
__global__ void
merge_ranges(m1k_attention p)
{
	__shared__ float maxima[M1K_MAX_SPLITS];
	__shared__ float sums[M1K_MAX_SPLITS];
	const m1k_segment segment = p.segments[blockIdx.y];
	const int d = p.head_dim;
	const int n_pages = pages_for(segment.start + 1);
	const int range = range_pages(p, n_pages);
	const int ranges = (n_pages + range - 1) / range;
	const float *from = partial_of(p, blockIdx.y, blockIdx.x, 0);
	float *out = p.out + (static_cast<size_t>(segment.row) * p.heads + blockIdx.x) * d;
	float max = -INFINITY;
	float sum = 0.0f;

	if (segment.n_tokens != 1) /* the whole block */
		return;
	for (int s = threadIdx.x; s < ranges; s += blockDim.x)
	{
		maxima[s] = from[s * PARTIAL(d)];
		sums[s] = from[s * PARTIAL(d) + 1];
	}
	__syncthreads();
	for (int s = 0; s < ranges; s++)
		max = fmaxf(max, maxima[s]);
	for (int s = 0; s < ranges; s++)
		sum += m1k_exp2(maxima[s] - max) * sums[s];
	for (int j = threadIdx.x; j < d; j += blockDim.x)
	{
		float x = 0.0f;

#pragma unroll 8
		for (int s = 0; s < ranges; s++)
			x += m1k_exp2(maxima[s] - max) * from[s * PARTIAL(d) + 2 + j];
		out[j] = x / sum;
	}
}

/* ---- launching ---- */

template <typename KV>
static void
append(const m1k_attention *p, cudaStream_t stream)
{
	M1K_LAUNCH(append_tokens<KV>, p->n_tokens, 256, 0, stream, *p);
}

template <typename KV>
static void
attend(const m1k_attention *p, bool single, cudaStream_t stream)
{
	const dim3 grid = single ? dim3(p->n_segments, p->kv_heads, p->splits) : dim3(p->n_tokens, p->kv_heads);

	if (p->heads / p->kv_heads <= 8)
		M1K_LAUNCH((attend_tokens<KV, 8>), grid, ROW_THREADS, 0, stream, *p, single);
	else
		M1K_LAUNCH((attend_tokens<KV, M1K_MAX_GROUP>), grid, ROW_THREADS, 0, stream, *p, single);
}

/* In fp32 whatever the pages hold. */
static void
attend_exactly(const m1k_attention *p, bool single, cudaStream_t stream)
{
	p->kv_bf16 ? attend<uint16_t>(p, single, stream) : attend<float>(p, single, stream);
}

void
m1k_softmax_attention(const m1k_attention *p, cudaStream_t stream)
{
	const bool tiles = m1k_tiles_suit(p);

	p->kv_bf16 ? append<uint16_t>(p, stream) : append<float>(p, stream);
	/* single tokens, then the others: each skips the other's segments */
	tiles ? m1k_attend_steps(p, stream) : attend_exactly(p, true, stream);
	if (!p->one_each)
		tiles ? m1k_attend_tiles(p, stream) : attend_exactly(p, false, stream);
	M1K_LAUNCH(merge_ranges, dim3(p->heads, p->n_segments), 128, 0, stream, *p);
}
