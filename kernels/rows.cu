/*
 * rows.cu - operations on one row at a time: embedding, norms, gate, SiLU, bf16 copies.
 *
 * All are bound by memory: each value is read once and written once. A norm keeps
 * its row in shared memory between the sum of squares and the scaling.
 */
#include "weights.cuh"

#define ROW_THREADS 256
#define WIDE_THREADS 1024 /* of a norm's wide row: a few rows have no more blocks than that to wait for memory */
#define WIDE 2048

/* ---- embedding ---- */

template <m1k_type Type>
__global__ void
embed_rows(const uint8_t *table, size_t row_bytes, int cols, const int *tokens, float *out)
{
	const uint8_t *row = table + static_cast<size_t>(tokens[blockIdx.x]) * row_bytes;
	float *to = out + static_cast<size_t>(blockIdx.x) * cols;

	for (int k = threadIdx.x * 8; k < cols; k += blockDim.x * 8)
	{
		float w[8];

		m1k_weights<Type>::load(row, cols, k, w);
#pragma unroll
		for (int i = 0; i < 8; i++)
			to[k + i] = w[i];
	}
}

void
m1k_embed(const m1k_matrix *table, const int *tokens, int n, float *out, cudaStream_t stream)
{
	m1k_with_type(table->type,
				  [&](auto tag)
				  {
					  M1K_LAUNCH(embed_rows<decltype(tag)::value>, n, ROW_THREADS, 0, stream,
								 static_cast<const uint8_t *>(table->data), table->row_bytes, table->cols, tokens, out);
				  });
}

template <m1k_type Type>
__global__ void
expand_rows(const uint8_t *rows, size_t row_bytes, int cols, uint16_t *out)
{
	const uint8_t *row = rows + blockIdx.x * row_bytes;
	uint16_t *to = out + static_cast<size_t>(blockIdx.x) * cols;

	for (int k = threadIdx.x * 8; k < cols; k += blockDim.x * 8)
	{
		float w[8];

		m1k_weights<Type>::load(row, cols, k, w);
		*reinterpret_cast<uint4 *>(to + k) = m1k_bf16_eight(w, 1.0f);
	}
}

void
m1k_expand(const m1k_matrix *m, int row0, int rows, uint16_t *out, cudaStream_t stream)
{
	m1k_with_type(m->type,
				  [&](auto tag)
				  {
					  M1K_LAUNCH(expand_rows<decltype(tag)::value>, rows, ROW_THREADS, 0, stream,
								 static_cast<const uint8_t *>(m->data) + static_cast<size_t>(row0) * m->row_bytes,
								 m->row_bytes, m->cols, out);
				  });
}

/* ---- norms ---- */

/* By the width alone: the order of a row's sum does not depend on how many rows there are. */
static int
norm_threads(int width)
{
	return width < WIDE ? ROW_THREADS : WIDE_THREADS;
}

/* Writes out = kept * scale * weight (* sigmoid(gate)), and rounds a copy. */
template <bool Gated>
__device__ __forceinline__ void
write_normed(const float *kept, float scale, const float *weight, const float *gate, int width, float *out,
			 uint16_t *out_bf16)
{
	for (int i = threadIdx.x; i < width; i += blockDim.x)
	{
		float y = kept[i] * scale * weight[i];

		if (Gated)
			y *= m1k_sigmoid(gate[i]);
		out[i] = y;
		if (out_bf16 != nullptr)
			out_bf16[i] = m1k_bf16_of(y);
	}
}

__global__ void
__launch_bounds__(WIDE_THREADS) rms_norm_rows(m1k_norm p)
{
	M1K_DYNAMIC_SHARED(float, kept);
	const size_t at = static_cast<size_t>(blockIdx.x) * p.width;
	float squares = 0.0f;

	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
	{
		float x = p.residual[at + i];

		if (p.branch != nullptr)
			x = p.alpha * x + p.beta * p.branch[at + i];
		if (p.keep_sum != nullptr)
			p.keep_sum[at + i] = x;
		kept[i] = x;
		squares += x * x;
	}
	squares = m1k_block_sum(squares);
	write_normed<false>(kept, rsqrtf(squares / static_cast<float>(p.width) + p.eps), p.weight, nullptr, p.width,
						p.out + at, p.out_bf16 != nullptr ? p.out_bf16 + at : nullptr);
}

void
m1k_rms_norm(const m1k_norm *p, cudaStream_t stream)
{
	M1K_LAUNCH(rms_norm_rows, p->n, norm_threads(p->width), p->width * sizeof(float), stream, *p);
}

__global__ void
__launch_bounds__(WIDE_THREADS) gated_norm_rows(m1k_gate p)
{
	M1K_DYNAMIC_SHARED(float, kept);
	const size_t at = static_cast<size_t>(blockIdx.x) * p.width;
	float squares = 0.0f;

	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
	{
		kept[i] = p.x[at + i];
		squares += kept[i] * kept[i];
	}
	squares = m1k_block_sum(squares);
	if (p.squares != nullptr)
		squares = p.squares[blockIdx.x];
	write_normed<true>(kept,
					   rsqrtf(squares / static_cast<float>(p.squares != nullptr ? p.whole_width : p.width) + p.eps),
					   p.weight, p.gate + at, p.width, p.out + at, p.out_bf16 != nullptr ? p.out_bf16 + at : nullptr);
}

void
m1k_gated_norm(const m1k_gate *p, cudaStream_t stream)
{
	M1K_LAUNCH(gated_norm_rows, p->n, norm_threads(p->width), p->width * sizeof(float), stream, *p);
}

__global__ void
square_rows(const float *x, int width, float *out)
{
	const size_t at = static_cast<size_t>(blockIdx.x) * width;
	float squares = 0.0f;

	for (int i = threadIdx.x; i < width; i += blockDim.x)
		squares += x[at + i] * x[at + i];
	squares = m1k_block_sum(squares);
	if (threadIdx.x == 0)
		out[blockIdx.x] = squares;
}

void
m1k_row_squares(const float *x, int n, int width, float *out, cudaStream_t stream)
{
	M1K_LAUNCH(square_rows, n, ROW_THREADS, 0, stream, x, width, out);
}

/* ---- elementwise ---- */

__global__ void
add_parts(const float *x, int parts, size_t n, float *out)
{
	const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
	float sum = 0.0f;

	if (i >= n)
		return;
	for (int part = 0; part < parts; part++)
		sum += x[static_cast<size_t>(part) * n + i];
	out[i] = sum;
}

void
m1k_add_parts(const float *x, int parts, size_t n, float *out, cudaStream_t stream)
{
	M1K_LAUNCH(add_parts, m1k_pieces(n, ROW_THREADS), ROW_THREADS, 0, stream, x, parts, n, out);
}

__global__ void
join_parts(const float *x, int n, int width, float *out)
{
	const int i = blockIdx.x * blockDim.x + threadIdx.x;
	const size_t row = blockIdx.y;
	const size_t part = blockIdx.z;

	if (i < width)
		out[(row * gridDim.z + part) * width + i] = x[(part * n + row) * width + i];
}

void
m1k_join_parts(const float *x, int parts, int n, int width, float *out, cudaStream_t stream)
{
	M1K_LAUNCH(join_parts, dim3(m1k_pieces(width, ROW_THREADS), n, parts), ROW_THREADS, 0, stream, x, n, width, out);
}

__global__ void
silu_all(float *x, size_t n)
{
	const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;

	if (i < n)
		x[i] = m1k_silu_of(x[i]);
}

void
m1k_silu(float *x, size_t n, cudaStream_t stream)
{
	M1K_LAUNCH(silu_all, m1k_pieces(n, ROW_THREADS), ROW_THREADS, 0, stream, x, n);
}

__global__ void
silu_mul_all(const float *x, const float *y, size_t n, uint16_t *out)
{
	const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;

	if (i < n)
		out[i] = m1k_bf16_of(m1k_silu_of(x[i]) * y[i]);
}

void
m1k_silu_mul(const float *x, const float *y, size_t n, uint16_t *out, cudaStream_t stream)
{
	M1K_LAUNCH(silu_mul_all, m1k_pieces(n, ROW_THREADS), ROW_THREADS, 0, stream, x, y, n, out);
}

__global__ void
split_bf16(const float *x, size_t n, uint16_t *high, uint16_t *low, uint16_t *lowest)
{
	const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
	float rest;

	if (i >= n)
		return;
	high[i] = m1k_bf16_of(x[i]);
	if (low == nullptr)
		return;
	rest = x[i] - m1k_from_bf16(high[i]);
	low[i] = m1k_bf16_of(rest);
	if (lowest != nullptr)
		lowest[i] = m1k_bf16_of(rest - m1k_from_bf16(low[i]));
}

void
m1k_to_bf16(const float *x, size_t n, uint16_t *high, uint16_t *low, uint16_t *lowest, cudaStream_t stream)
{
	M1K_LAUNCH(split_bf16, m1k_pieces(n, ROW_THREADS), ROW_THREADS, 0, stream, x, n, high, low, lowest);
}
