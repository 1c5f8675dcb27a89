/*
 * lightning.cu - linear attention with exponential decay: one token at a time, and
 * blocks of tokens.
 *
 * With 1-based position p in a block of m tokens:
 *   o_p = e^(-lp) q_p S + sum_{r <= p} e^(-l(p-r)) (q_p k_r) v_r
 *   S   = e^(-lm) S + sum_r e^(-l(m-r)) k_r^T v_r
 * Decays are powers of exponent differences, which cannot overflow. S is fp32 and is
 * read and written once, however many tokens there are: a thread block owns some
 * columns of one head's state and walks through the tokens in order.
 */
#include "tiles.cuh"

#define THREADS 256
#define STEP_COLUMNS 32 /* of the state, per thread block */

/* ---- one token ---- */

__global__ void
__launch_bounds__(THREADS) lightning_step(m1k_lightning p)
{
	__shared__ float q[M1K_MAX_HEAD_DIM];
	__shared__ float k[M1K_MAX_HEAD_DIM];
	__shared__ float4 sums[THREADS / M1K_WARP][STEP_COLUMNS / 4];
	const m1k_segment segment = p.segments[blockIdx.z];
	const int h = blockIdx.x;
	const int d = p.head_dim;
	const int lane = threadIdx.x % (STEP_COLUMNS / 4);
	const int group = threadIdx.x / (STEP_COLUMNS / 4);
	const int column = blockIdx.y * STEP_COLUMNS + lane * 4;
	const float *qkv = p.qkv + (static_cast<size_t>(segment.row) * p.heads + h) * 3 * d;
	float *state = p.states + segment.state * p.state_stride + static_cast<size_t>(h) * d * d + column;
	const float decay = expf(-p.decay[h]);
	float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

	if (segment.n_tokens != 1) /* the whole block */
		return;
	for (int i = threadIdx.x; i < d; i += THREADS)
	{
		q[i] = qkv[i];
		k[i] = qkv[d + i];
	}
	__syncthreads();
	if (column < d)
	{
		const float4 v = *reinterpret_cast<const float4 *>(qkv + 2 * d + column);

#pragma unroll 4
		for (int i = group; i < d; i += THREADS / (STEP_COLUMNS / 4))
		{
			float4 *at = reinterpret_cast<float4 *>(state + static_cast<size_t>(i) * d);
			float4 s = *at;

			s.x = decay * s.x + k[i] * v.x;
			s.y = decay * s.y + k[i] * v.y;
			s.z = decay * s.z + k[i] * v.z;
			s.w = decay * s.w + k[i] * v.w;
			*at = s;
			o.x += q[i] * s.x;
			o.y += q[i] * s.y;
			o.z += q[i] * s.z;
			o.w += q[i] * s.w;
		}
	}
#pragma unroll
	for (int other = STEP_COLUMNS / 4; other < M1K_WARP; other *= 2)
	{
		o.x += __shfl_xor_sync(M1K_ALL, o.x, other);
		o.y += __shfl_xor_sync(M1K_ALL, o.y, other);
		o.z += __shfl_xor_sync(M1K_ALL, o.z, other);
		o.w += __shfl_xor_sync(M1K_ALL, o.w, other);
	}
	if (threadIdx.x % M1K_WARP < STEP_COLUMNS / 4)
		sums[threadIdx.x / M1K_WARP][lane] = o;
	__syncthreads();
	if (threadIdx.x < STEP_COLUMNS && blockIdx.y * STEP_COLUMNS + threadIdx.x < static_cast<unsigned>(d))
	{
		float total = 0.0f;

		for (int w = 0; w < THREADS / M1K_WARP; w++)
			total += reinterpret_cast<const float *>(sums[w])[threadIdx.x];
		p.out[(static_cast<size_t>(segment.row) * p.heads + h) * d + blockIdx.y * STEP_COLUMNS + threadIdx.x] = total;
	}
}

/* ---- blocks of tokens, fp32, any head size ---- */

#define EXACT_TOKENS 32
#define EXACT_COLUMNS 32

static int
exact_shared(int d)
{
	/* S and v slices, q and k, scores, decays */
	return static_cast<int>(sizeof(float)) * (d * EXACT_COLUMNS + EXACT_TOKENS * EXACT_COLUMNS + 2 * EXACT_TOKENS * d +
											  EXACT_TOKENS * EXACT_TOKENS + EXACT_TOKENS + 1);
}

__global__ void
__launch_bounds__(THREADS) lightning_blocks_exact(m1k_lightning p)
{
	M1K_DYNAMIC_SHARED(float, shared);
	const m1k_segment segment = p.segments[blockIdx.z];
	const int h = blockIdx.x;
	const int d = p.head_dim;
	const int column0 = blockIdx.y * EXACT_COLUMNS;
	const int columns = d - column0 < EXACT_COLUMNS ? d - column0 : EXACT_COLUMNS;
	float *s = shared;									 /* [D, columns] */
	float *v = s + d * EXACT_COLUMNS;					 /* [tokens, columns] */
	float *q = v + EXACT_TOKENS * EXACT_COLUMNS;		 /* [tokens, D] */
	float *k = q + EXACT_TOKENS * d;					 /* [tokens, D] */
	float *scores = k + EXACT_TOKENS * d;				 /* [tokens, tokens] */
	float *decay = scores + EXACT_TOKENS * EXACT_TOKENS; /* [tokens + 1] */
	float *state = p.states + segment.state * p.state_stride + static_cast<size_t>(h) * d * d + column0;

	if (segment.n_tokens == 1) /* lightning_step's */
		return;
	for (int i = threadIdx.x; i <= EXACT_TOKENS; i += THREADS)
		decay[i] = expf(-p.decay[h] * static_cast<float>(i));
	for (int i = threadIdx.x; i < d * columns; i += THREADS)
		s[i / columns * EXACT_COLUMNS + i % columns] = state[static_cast<size_t>(i / columns) * d + i % columns];
	for (int t0 = 0; t0 < segment.n_tokens; t0 += EXACT_TOKENS)
	{
		const int m = segment.n_tokens - t0 < EXACT_TOKENS ? segment.n_tokens - t0 : EXACT_TOKENS;
		const size_t row0 = static_cast<size_t>(segment.row) + t0;

		__syncthreads();
		for (int i = threadIdx.x; i < m * d; i += THREADS)
		{
			const float *from = p.qkv + ((row0 + i / d) * p.heads + h) * 3 * d;

			q[i] = from[i % d];
			k[i] = from[d + i % d];
		}
		for (int i = threadIdx.x; i < m * columns; i += THREADS)
			v[i / columns * EXACT_COLUMNS + i % columns] =
				p.qkv[((row0 + i / columns) * p.heads + h) * 3 * d + 2 * d + column0 + i % columns];
		__syncthreads();
		for (int i = threadIdx.x; i < m * m; i += THREADS)
		{
			const int a = i / m;
			const int b = i % m;
			float score = 0.0f;

			if (b <= a)
			{
				for (int j = 0; j < d; j++)
					score += q[a * d + j] * k[b * d + j];
				score *= decay[a - b];
			}
			scores[a * EXACT_TOKENS + b] = score;
		}
		__syncthreads();
		for (int i = threadIdx.x; i < m * columns; i += THREADS)
		{
			const int a = i / columns;
			const int c = i % columns;
			float carried = 0.0f;
			float own = 0.0f;

			for (int j = 0; j < d; j++)
				carried += q[a * d + j] * s[j * EXACT_COLUMNS + c];
			for (int b = 0; b <= a; b++)
				own += scores[a * EXACT_TOKENS + b] * v[b * EXACT_COLUMNS + c];
			p.out[((row0 + a) * p.heads + h) * d + column0 + c] = decay[a + 1] * carried + own;
		}
		__syncthreads();
		for (int i = threadIdx.x; i < d * columns; i += THREADS)
		{
			const int j = i / columns;
			const int c = i % columns;
			float sum = 0.0f;

			for (int b = 0; b < m; b++)
				sum += decay[m - 1 - b] * k[b * d + j] * v[b * EXACT_COLUMNS + c];
			s[j * EXACT_COLUMNS + c] = decay[m] * s[j * EXACT_COLUMNS + c] + sum;
		}
	}
	__syncthreads();
	for (int i = threadIdx.x; i < d * columns; i += THREADS)
		state[static_cast<size_t>(i / columns) * d + i % columns] = s[i / columns * EXACT_COLUMNS + i % columns];
}

/* ---- blocks of tokens, tensor cores, head size 128 ---- */

#define D 128
#define TOKENS 64  /* of a block */
#define COLUMNS 64 /* of the state, per thread block */

/*
 * Shared memory: q, k and v as they come, copied while the block before is computed; then rounded. v is kept twice: as
 * it is, and weighted with the decay to the block's end. The state's columns live in registers as sums of m1k_mma, 16
 * rows a warp; a rounded copy is the right operand of q S.
 */
typedef struct lightning_shared
{
	float raw_q[TOKENS * D];
	float raw_k[TOKENS * D];
	float raw_v[TOKENS * COLUMNS];
	uint16_t q[TOKENS * D];
	uint16_t k[TOKENS * D];
	uint16_t v[TOKENS * COLUMNS];
	uint16_t weighted_v[TOKENS * COLUMNS];
	uint16_t scores[TOKENS * TOKENS];
	uint16_t state[D * COLUMNS];
	float decay[TOKENS + 1];
} lightning_shared;

/* Starts copying Width floats of each of m tokens. */
template <int Width>
__device__ __forceinline__ void
copy_rows(float *to, const float *from, size_t stride, int m)
{
	for (int i = threadIdx.x; i < TOKENS * (Width / 4); i += THREADS)
	{
		const int t = i / (Width / 4);
		const int at = i % (Width / 4) * 4;

		m1k_copy_async(to + t * Width + at, from + (t < m ? t * stride : 0) + at, t < m);
	}
}

__device__ __forceinline__ void
copy_block(const m1k_lightning &p, lightning_shared *s, const float *from, int column0, int m)
{
	const size_t stride = static_cast<size_t>(p.heads) * 3 * D;

	copy_rows<D>(s->raw_q, from, stride, m);
	copy_rows<D>(s->raw_k, from + D, stride, m);
	copy_rows<COLUMNS>(s->raw_v, from + 2 * D + column0, stride, m);
}

__device__ __forceinline__ void
round_block(lightning_shared *s, int m)
{
	for (int i = threadIdx.x; i < TOKENS * (D / 8); i += THREADS)
	{
		const int t = i / (D / 8);
		const int chunk = i % (D / 8);

		*reinterpret_cast<uint4 *>(m1k_piece<D / 8>(s->q, t, chunk)) =
			m1k_bf16_eight(s->raw_q + t * D + chunk * 8, 1.0f);
		*reinterpret_cast<uint4 *>(m1k_piece<D / 8>(s->k, t, chunk)) =
			m1k_bf16_eight(s->raw_k + t * D + chunk * 8, 1.0f);
	}
	for (int i = threadIdx.x; i < TOKENS * (COLUMNS / 8); i += THREADS)
	{
		const int t = i / (COLUMNS / 8);
		const int chunk = i % (COLUMNS / 8);
		const float *from = s->raw_v + t * COLUMNS + chunk * 8;
		const float weight = t < m ? s->decay[m - 1 - t] : 0.0f;

		*reinterpret_cast<uint4 *>(m1k_piece<COLUMNS / 8>(s->v, t, chunk)) = m1k_bf16_eight(from, 1.0f);
		*reinterpret_cast<uint4 *>(m1k_piece<COLUMNS / 8>(s->weighted_v, t, chunk)) = m1k_bf16_eight(from, weight);
	}
}

/* Scores of 16 x 32 pairs a warp, decayed and masked, rounded into shared memory. */
__device__ __forceinline__ void
score_block(lightning_shared *s, int row0, int half)
{
	const int lane = threadIdx.x % M1K_WARP;
	float acc[4][4] = {};

#pragma unroll
	for (int step = 0; step < D / 16; step++)
	{
		uint32_t a[4];

		m1k_left<D / 8>(a, s->q, row0, step * 2);
#pragma unroll
		for (int j = 0; j < 4; j += 2)
		{
			uint32_t b[4];

			m1k_right<D / 8>(b, s->k, half * 32 + j * 8, step * 2);
			m1k_mma(acc[j], a, b[0], b[1]);
			m1k_mma(acc[j + 1], a, b[2], b[3]);
		}
	}
#pragma unroll
	for (int j = 0; j < 4; j++)
#pragma unroll
		for (int c = 0; c < 4; c += 2)
		{
			const int row = row0 + lane / 4 + c / 2 * 8;
			const int column = half * 32 + j * 8 + lane % 4 * 2;
			const float x = column <= row ? acc[j][c] * s->decay[row - column] : 0.0f;
			const float y = column + 1 <= row ? acc[j][c + 1] * s->decay[row - column - 1] : 0.0f;

			*reinterpret_cast<uint32_t *>(m1k_piece<TOKENS / 8>(s->scores, row, column / 8) + column % 8) =
				m1k_bf16_pair(x, y);
		}
}

/*
 * acc += 16 rows of one tile times 32 columns, from chunk0 * 8 on, of another; sums run along 16 * Steps of its rows.
 */
template <int Steps>
__device__ __forceinline__ void
add_product(float (&acc)[4][4], uint16_t *left, int row0, uint16_t *right, int chunk0)
{
#pragma unroll
	for (int step = 0; step < Steps; step++)
	{
		uint32_t a[4];

		m1k_left<Steps * 2>(a, left, row0, step * 2);
#pragma unroll
		for (int j = 0; j < 4; j += 2)
		{
			uint32_t b[4];

			m1k_right_transposed<COLUMNS / 8>(b, right, step * 16, chunk0 + j);
			m1k_mma(acc[j], a, b[0], b[1]);
			m1k_mma(acc[j + 1], a, b[2], b[3]);
		}
	}
}

/* Outputs of 16 tokens x 32 columns a warp. */
__device__ __forceinline__ void
output_block(const m1k_lightning &p, lightning_shared *s, int row0, int half, int m, float *out)
{
	const int lane = threadIdx.x % M1K_WARP;
	float acc[4][4] = {};

	add_product<D / 16>(acc, s->q, row0, s->state, half * 4);
#pragma unroll
	for (int j = 0; j < 4; j++)
#pragma unroll
		for (int c = 0; c < 4; c++)
			acc[j][c] *= s->decay[row0 + lane / 4 + c / 2 * 8 + 1];
	add_product<TOKENS / 16>(acc, s->scores, row0, s->v, half * 4);
#pragma unroll
	for (int j = 0; j < 4; j++)
#pragma unroll
		for (int c = 0; c < 4; c += 2)
		{
			const int row = row0 + lane / 4 + c / 2 * 8;
			const int column = half * 32 + j * 8 + lane % 4 * 2;

			if (row < m)
				*reinterpret_cast<float2 *>(out + static_cast<size_t>(row) * p.heads * D + column) =
					make_float2(acc[j][c], acc[j][c + 1]);
		}
}

/* The warp's 16 rows of the state: decayed over the block, plus k^T v. */
__device__ __forceinline__ void
advance_state(lightning_shared *s, int warp, int m, float (&state)[COLUMNS / 8][4])
{
	const float decay = s->decay[m];

#pragma unroll
	for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
		for (int c = 0; c < 4; c++)
			state[j][c] *= decay;
#pragma unroll
	for (int step = 0; step < TOKENS / 16; step++)
	{
		uint32_t a[4];

		m1k_left_transposed<D / 8>(a, s->k, step * 16, warp * 2);
#pragma unroll
		for (int j = 0; j < COLUMNS / 8; j += 2)
		{
			uint32_t b[4];

			m1k_right_transposed<COLUMNS / 8>(b, s->weighted_v, step * 16, j);
			m1k_mma(state[j], a, b[0], b[1]);
			m1k_mma(state[j + 1], a, b[2], b[3]);
		}
	}
}

/* Calls f(row, column, first of a pair) for the warp's part of the state. */
template <typename F>
__device__ __forceinline__ void
each_state_pair(int warp, F f)
{
	const int lane = threadIdx.x % M1K_WARP;

#pragma unroll
	for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
		for (int c = 0; c < 4; c += 2)
			f(warp * 16 + lane / 4 + c / 2 * 8, j * 8 + lane % 4 * 2, j, c);
}

__global__ void
__launch_bounds__(THREADS, 1) lightning_blocks(m1k_lightning p)
{
	M1K_DYNAMIC_SHARED(lightning_shared, s);
	const m1k_segment segment = p.segments[blockIdx.z];
	const int h = blockIdx.x;
	const int column0 = blockIdx.y * COLUMNS;
	const int warp = threadIdx.x / M1K_WARP;
	const float *qkv = p.qkv + (static_cast<size_t>(segment.row) * p.heads + h) * 3 * D;
	float *out = p.out + (static_cast<size_t>(segment.row) * p.heads + h) * D + column0;
	float *saved = p.states + segment.state * p.state_stride + static_cast<size_t>(h) * D * D + column0;
	float state[COLUMNS / 8][4];

	if (segment.n_tokens == 1) /* lightning_step's */
		return;
	copy_block(p, s, qkv, column0, segment.n_tokens < TOKENS ? segment.n_tokens : TOKENS);
	m1k_copy_commit();
	for (int i = threadIdx.x; i <= TOKENS; i += THREADS)
		s->decay[i] = expf(-p.decay[h] * static_cast<float>(i));
	each_state_pair(warp,
					[&](int row, int column, int j, int c)
					{
						const float2 x = *reinterpret_cast<const float2 *>(saved + row * D + column);

						state[j][c] = x.x;
						state[j][c + 1] = x.y;
					});
	for (int t0 = 0; t0 < segment.n_tokens; t0 += TOKENS)
	{
		const int left = segment.n_tokens - t0;
		const int m = left < TOKENS ? left : TOKENS;

		m1k_copy_wait<0>();
		__syncthreads(); /* the block has come, and all are done with the one before */
		round_block(s, m);
		each_state_pair(warp,
						[&](int row, int column, int j, int c)
						{
							*reinterpret_cast<uint32_t *>(m1k_piece<COLUMNS / 8>(s->state, row, column / 8) +
														  column % 8) = m1k_bf16_pair(state[j][c], state[j][c + 1]);
						});
		__syncthreads();
		if (left > TOKENS)
			copy_block(p, s, qkv + static_cast<size_t>(t0 + TOKENS) * p.heads * 3 * D, column0,
					   left - TOKENS < TOKENS ? left - TOKENS : TOKENS);
		m1k_copy_commit();
		score_block(s, warp / 2 * 16, warp % 2);
		__syncthreads();
		output_block(p, s, warp / 2 * 16, warp % 2, m, out + static_cast<size_t>(t0) * p.heads * D);
		advance_state(s, warp, m, state);
	}
	each_state_pair(
		warp, [&](int row, int column, int j, int c)
		{ *reinterpret_cast<float2 *>(saved + row * D + column) = make_float2(state[j][c], state[j][c + 1]); });
}

/* ---- launching ---- */

void
m1k_lightning_attention(const m1k_lightning *p, cudaStream_t stream)
{
	const dim3 step_grid(p->heads, m1k_pieces(p->head_dim, STEP_COLUMNS), p->n_segments);

	/* each skips the other's segments */
	M1K_LAUNCH(lightning_step, step_grid, THREADS, 0, stream, *p);
	if (p->one_each)
		return;
	if (p->tensor_cores && p->head_dim == D)
		M1K_LAUNCH(lightning_blocks, dim3(p->heads, D / COLUMNS, p->n_segments), THREADS, sizeof(lightning_shared),
				   stream, *p);
	else
		M1K_LAUNCH(lightning_blocks_exact, dim3(p->heads, m1k_pieces(p->head_dim, EXACT_COLUMNS), p->n_segments),
				   THREADS, exact_shared(p->head_dim), stream, *p);
}

cudaError_t
m1k_lightning_prepare(void)
{
	/* for all head sizes: it holds for all backends of the process */
	cudaError_t status = cudaFuncSetAttribute(lightning_blocks_exact, cudaFuncAttributeMaxDynamicSharedMemorySize,
											  exact_shared(M1K_MAX_HEAD_DIM));

	if (status == cudaSuccess)
		status = cudaFuncSetAttribute(lightning_blocks, cudaFuncAttributeMaxDynamicSharedMemorySize,
									  static_cast<int>(sizeof(lightning_shared)));
	return status;
}
