/*
 * learn_rows.cu - gradients of what is done row by row, of the distribution over the vocabulary, and the optimizer.
 *
 * All are bound by memory. A sum over rows is a thread's, which goes through them in order; a warp's threads have
 * columns side by side.
 */
#include "learn.cuh"
#include "weights.cuh"

#include <math.h>

#define THREADS 256

__device__ __forceinline__ size_t
own_element()
{
	return static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

/* ---- elements ---- */

__global__ void
add_all(const float *x, const float *y, float alpha, float beta, size_t n, float *out)
{
	const size_t i = own_element();

	if (i < n)
		out[i] = y != nullptr ? alpha * x[i] + beta * y[i] : alpha * x[i];
}

void
m1k_learn_sum(const float *x, const float *y, float alpha, float beta, size_t n, float *out, cudaStream_t stream)
{
	M1K_LAUNCH(add_all, m1k_pieces(n, THREADS), THREADS, 0, stream, x, y, alpha, beta, n, out);
}

__global__ void
silu_all(const float *z, const float *dy, size_t n, float *out)
{
	const size_t i = own_element();

	if (i < n)
		out[i] = dy != nullptr ? dy[i] * m1k_silu_slope(z[i]) : m1k_silu_of(z[i]);
}

void
m1k_learn_silu(const float *z, const float *dy, size_t n, float *out, cudaStream_t stream)
{
	M1K_LAUNCH(silu_all, m1k_pieces(n, THREADS), THREADS, 0, stream, z, dy, n, out);
}

template <m1k_type Type>
__global__ void
widen_rows(m1k_matrix m, float *out)
{
	const uint8_t *row = static_cast<const uint8_t *>(m.data) + blockIdx.x * m.row_bytes;
	float *to = out + static_cast<size_t>(blockIdx.x) * m.cols;

	for (int k = threadIdx.x * 8; k < m.cols; k += blockDim.x * 8)
	{
		float w[8];

		m1k_weights<Type>::load(row, m.cols, k, w);
#pragma unroll
		for (int i = 0; i < 8; i++)
			to[k + i] = w[i];
	}
}

void
m1k_learn_widen(const m1k_matrix *m, float *out, cudaStream_t stream)
{
	m1k_with_type(m->type, [&](auto tag)
				  { M1K_LAUNCH(widen_rows<decltype(tag)::value>, m->rows, THREADS, 0, stream, *m, out); });
}

/* ---- rows from and to other rows ---- */

__global__ void
gather_rows(const float *from, const int *rows, int width, float *to)
{
	const float *row = from + static_cast<size_t>(rows[blockIdx.x]) * width;

	for (int i = threadIdx.x; i < width; i += blockDim.x)
		to[static_cast<size_t>(blockIdx.x) * width + i] = row[i];
}

void
m1k_learn_gather(const float *from, const int *rows, int n, int width, float *to, cudaStream_t stream)
{
	M1K_LAUNCH(gather_rows, n, THREADS, 0, stream, from, rows, width, to);
}

__global__ void
scatter_columns(const float *from, const int *rows, int n, int width, float *to)
{
	const size_t column = own_element();

	if (column >= static_cast<size_t>(width))
		return;
	for (int i = 0; i < n; i++)
		to[static_cast<size_t>(rows[i]) * width + column] += from[static_cast<size_t>(i) * width + column];
}

void
m1k_learn_scatter(const float *from, const int *rows, int n, int width, float *to, cudaStream_t stream)
{
	M1K_LAUNCH(scatter_columns, m1k_pieces(width, M1K_WARP), M1K_WARP, 0, stream, from, rows, n, width, to);
}

/* ---- norms ---- */

__device__ __forceinline__ float
rho_of(float squares, int width, float eps)
{
	return 1.0f / sqrtf(squares / static_cast<float>(width) + eps);
}

/* With u = dy * weight: dx = rho (u - x rho^2 mean(u * x)). */
__global__ void
norm_back_rows(m1k_norm_back p)
{
	const size_t at = static_cast<size_t>(blockIdx.x) * p.width;
	float squares = 0.0f;
	float along = 0.0f;

	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
	{
		const float x = p.x[at + i];

		squares += x * x;
		along += p.dy[at + i] * p.weight[i] * x;
	}
	squares = m1k_block_sum(squares);
	along = m1k_block_sum(along);

	const float rho = rho_of(squares, p.width, p.eps);
	const float minus = rho * rho * (along / static_cast<float>(p.width));

	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
		p.dx[at + i] = rho * (p.dy[at + i] * p.weight[i] - p.x[at + i] * minus);
	if (threadIdx.x == 0)
		p.rho[blockIdx.x] = rho;
}

__global__ void
norm_back_columns(m1k_norm_back p)
{
	const size_t column = own_element();
	float sum;

	if (column >= static_cast<size_t>(p.width))
		return;
	sum = p.dweight[column];
#pragma unroll 8
	for (int t = 0; t < p.n; t++)
	{
		const size_t at = static_cast<size_t>(t) * p.width + column;

		sum += p.dy[at] * p.x[at] * p.rho[t];
	}
	p.dweight[column] = sum;
}

void
m1k_learn_norm_back(const m1k_norm_back *p, cudaStream_t stream)
{
	M1K_LAUNCH(norm_back_rows, p->n, THREADS, 0, stream, *p);
	if (p->dweight != nullptr)
		M1K_LAUNCH(norm_back_columns, m1k_pieces(p->width, M1K_WARP), M1K_WARP, 0, stream, *p);
}

__global__ void
gate_back_rows(m1k_norm_back p, const float *gate, float *dy, float *dgate)
{
	const size_t at = static_cast<size_t>(blockIdx.x) * p.width;
	float squares = 0.0f;

	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
		squares += p.x[at + i] * p.x[at + i];

	const float rho = rho_of(m1k_block_sum(squares), p.width, p.eps);

	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
	{
		const float s = m1k_sigmoid(gate[at + i]);
		const float du = dy[at + i] * s;

		dgate[at + i] = du * (p.x[at + i] * rho * p.weight[i]) * (1.0f - s);
		dy[at + i] = du;
	}
}

void
m1k_learn_gate_back(const m1k_norm_back *p, const float *gate, float *dy, float *dgate, cudaStream_t stream)
{
	M1K_LAUNCH(gate_back_rows, p->n, THREADS, 0, stream, *p, gate, dy, dgate);
}

/* ---- the distribution over the vocabulary ---- */

__device__ __forceinline__ float
block_max(float x)
{
	__shared__ float maxima[M1K_WARP];
	const int lane = threadIdx.x % M1K_WARP;

	x = m1k_warp_max(x);
	__syncthreads();
	if (lane == 0)
		maxima[threadIdx.x / M1K_WARP] = x;
	__syncthreads();
	return m1k_warp_max(lane < static_cast<int>(blockDim.x) / M1K_WARP ? maxima[lane] : -INFINITY);
}

/* NULL: all are. */
__device__ __forceinline__ bool
is_possible(const uint64_t *mask, int v)
{
	return mask == nullptr || (mask[v / 64] >> (v % 64) & 1) != 0;
}

__global__ void
__launch_bounds__(THREADS) predict_rows(m1k_predict p)
{
	float *logits = p.logits + static_cast<size_t>(blockIdx.x) * p.vocab;
	const int number = p.mask_of[blockIdx.x];
	const uint64_t *mask = number >= 0 ? p.masks + static_cast<size_t>(number) * p.mask_words : nullptr;
	const float scale = 1.0f / p.temperature;
	const float target = logits[p.targets[blockIdx.x]] * scale;
	float max = -INFINITY;
	float sum = 0.0f;
	float weighted = 0.0f;

	for (int v = threadIdx.x; v < p.vocab; v += THREADS)
		if (is_possible(mask, v))
			max = fmaxf(max, logits[v] * scale);
	max = block_max(max); /* and all have read their target */
	for (int v = threadIdx.x; v < p.vocab; v += THREADS)
	{
		const float above = logits[v] * scale - max;
		const float e = is_possible(mask, v) ? expf(above) : 0.0f;

		logits[v] = e;
		sum += e;
		weighted += e > 0.0f ? e * above : e; /* what is no number stays none */
	}
	sum = m1k_block_sum(sum);
	weighted = m1k_block_sum(weighted);
	if (threadIdx.x == 0)
	{
		p.sum[blockIdx.x] = sum;
		p.logprob[blockIdx.x] = target - max - logf(sum);
		p.entropy[blockIdx.x] = logf(sum) - weighted / sum;
	}
}

void
m1k_learn_predict(const m1k_predict *p, cudaStream_t stream)
{
	M1K_LAUNCH(predict_rows, p->n, THREADS, 0, stream, *p);
}

/* dz = coefficient (softmax - onehot) / temperature */
__global__ void
predict_back_rows(m1k_predict p, const float *coefficient)
{
	float *logits = p.logits + static_cast<size_t>(blockIdx.x) * p.vocab;
	const float factor = coefficient[blockIdx.x] / p.temperature;
	const float scale = factor / p.sum[blockIdx.x];
	const int target = p.targets[blockIdx.x];

	for (int v = threadIdx.x; v < p.vocab; v += blockDim.x)
		logits[v] = factor == 0.0f ? 0.0f : logits[v] * scale - (v == target ? factor : 0.0f);
}

void
m1k_learn_predict_back(const m1k_predict *p, const float *coefficient, cudaStream_t stream)
{
	M1K_LAUNCH(predict_back_rows, p->n, THREADS, 0, stream, *p, coefficient);
}

/* ---- the optimizer ---- */

/* In double, in a tree that is always the same. */
__device__ __forceinline__ double
block_sum(double x)
{
	__shared__ double sums[M1K_WARP];
	const int lane = threadIdx.x % M1K_WARP;

	x = m1k_warp_sum(x);
	if (lane == 0)
		sums[threadIdx.x / M1K_WARP] = x;
	__syncthreads();
	return m1k_warp_sum(lane < static_cast<int>(blockDim.x) / M1K_WARP ? sums[lane] : 0.0);
}

__global__ void
square_pieces(const float *x, size_t n, double *sums)
{
	double sum = 0.0;

	for (size_t i = own_element(); i < n; i += static_cast<size_t>(gridDim.x) * blockDim.x)
		sum += static_cast<double>(x[i]) * x[i];
	sum = block_sum(sum);
	if (threadIdx.x == 0)
		sums[blockIdx.x] = sum;
}

__global__ void
add_pieces(const double *sums, int n, double *out)
{
	double sum = 0.0;

	for (int i = threadIdx.x; i < n; i += blockDim.x)
		sum += sums[i];
	sum = block_sum(sum);
	if (threadIdx.x == 0)
		*out = sum;
}

void
m1k_learn_squares(const float *x, size_t n, double *sums, double *out, cudaStream_t stream)
{
	const int blocks = n < static_cast<size_t>(M1K_SQUARE_SUMS) * THREADS ? m1k_pieces(n, THREADS) : M1K_SQUARE_SUMS;

	M1K_LAUNCH(square_pieces, blocks, THREADS, 0, stream, x, n, sums);
	M1K_LAUNCH(add_pieces, 1, THREADS, 0, stream, sums, blocks, out);
}

__global__ void
adamw_all(m1k_adamw p)
{
	const size_t i = own_element();

	if (i >= p.n)
		return;

	const float g = p.gradient[i] * p.scale;
	const float m = p.beta1 * p.m[i] + (1.0f - p.beta1) * g;
	const float v = p.beta2 * p.v[i] + (1.0f - p.beta2) * g * g;

	p.m[i] = m;
	p.v[i] = v;
	p.value[i] -= p.decay * p.value[i] + p.rate * (m / p.correction1) / (sqrtf(v / p.correction2) + p.eps);
}

void
m1k_learn_adamw(const m1k_adamw *p, cudaStream_t stream)
{
	M1K_LAUNCH(adamw_all, m1k_pieces(p->n, THREADS), THREADS, 0, stream, *p);
}
