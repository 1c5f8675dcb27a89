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
 * keys when values are summed, each thread two columns. `single`: the tokens are those of the segments that have one,
 * and their keys are split; otherwise, those of the others.
 */
template <typename KV, int Group>
__global__ void
__launch_bounds__(ROW_THREADS) attend_tokens(m1k_attention p, bool single)
{
	__shared__ __align__(16) KV keys[PAGE * (MAX_D + 16 / sizeof(KV))];
	__shared__ __align__(16) float q[Group * MAX_D];
	__shared__ float weights[Group][PAGE];
	__shared__ float running_max[Group];
	__shared__ float running_sum[Group];
	__shared__ float rescale[Group];
	const int t = single ? p.segments[blockIdx.x].row : static_cast<int>(blockIdx.x);
	const m1k_segment segment = p.segments[p.segment_of[t]];
	const int group = p.heads / p.kv_heads;
	const int d = p.head_dim;
	const int key_stride = d + 16 / static_cast<int>(sizeof(KV)); /* a shift of 16 bytes a key: no bank conflicts */
	const int n_keys = segment.start + t - segment.row + 1;
	const int n_pages = pages_for(n_keys);
	const int range = single ? range_pages(p, n_pages) : n_pages;
	const int first_page = blockIdx.z * range;
	const int end_page = first_page + range < n_pages ? first_page + range : n_pages;
	const int warp = threadIdx.x / M1K_WARP;
	const int lane = threadIdx.x % M1K_WARP;
	const int column = threadIdx.x % (MAX_D / 2) * 2;
	const int key_half = threadIdx.x / (MAX_D / 2);
	const float scale = rsqrtf(static_cast<float>(d)) * LOG2_E;
	float acc[Group][2] = {};

	if (single != (segment.n_tokens == 1) || first_page >= n_pages) /* the whole block */
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

			if (!single)
			{
				float *out = p.out + (static_cast<size_t>(t) * p.heads + head) * d + column;

				out[0] = x / running_sum[h];
				out[1] = y / running_sum[h];
			}
			else
			{
				float *to = partial_of(p, p.segment_of[t], static_cast<int>(head), blockIdx.z);

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
