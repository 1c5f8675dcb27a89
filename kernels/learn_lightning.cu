/*
 * learn_lightning.cu - linear attention with decay over the rows of a batch, forward and backward by one kernel.
 *
 * With o_p = sum_(r <= p) e^(-l(p-r)) (q_p k_r) v_r, the gradients are sums of the same kind:
 *   dq_p = sum_(r <= p) e^(-l(p-r)) (do_p v_r) k_r      q, k, v <- do, v, k; the state is S^T
 *   dk_r = sum_(p >= r) e^(-l(p-r)) (v_r do_p) q_p      q, k, v <- v, do, q, from the last row to the first
 *   dv_r = sum_(p >= r) e^(-l(p-r)) (k_r q_p) do_p      q, k, v <- k, q, do, from the last row to the first
 * A block of threads owns some columns of one head's state and goes through its rows in blocks of 16, as
 * lightning_blocks_exact does: within a block by scores, between blocks by the state.
 *
 * dq goes from kept state to kept state, so that these run side by side; the two reverse sweeps are as long as a
 * sequence. On Hopper, the products of a block would go through wgmma in bf16 parts, as lightning_blocks' do in bf16.
 */
#include "learn.cuh"

#define THREADS 256
#define TOKENS 16
#define COLUMNS 32

/* What a block of threads has in shared memory. */
struct sweep_memory
{
	float *s;	   /* [D, COLUMNS] */
	float *v;	   /* [TOKENS, COLUMNS] */
	float *q, *k;  /* [TOKENS, D + 1] */
	float *scores; /* [TOKENS, TOKENS] */
	float *decay;  /* [TOKENS + 1] */
};

static int
sweep_shared(int d)
{
	return static_cast<int>(sizeof(float)) *
		   (d * COLUMNS + TOKENS * COLUMNS + 2 * TOKENS * (d + 1) + TOKENS * TOKENS + TOKENS + 1);
}

__device__ __forceinline__ sweep_memory
lay_out(float *shared, int d)
{
	sweep_memory m;

	m.s = shared;
	m.v = m.s + d * COLUMNS;
	m.q = m.v + TOKENS * COLUMNS;
	m.k = m.q + TOKENS * (d + 1);
	m.scores = m.k + TOKENS * (d + 1);
	m.decay = m.scores + TOKENS * TOKENS;
	return m;
}

/* Calls f(row of the state, column of the block, the place in s) for each number of the block's part of a state. */
template <typename F>
__device__ __forceinline__ void
each_of_state(int d, int columns, F f)
{
	for (int i = threadIdx.x; i < d * columns; i += THREADS)
		f(i / columns, i % columns, i / columns * COLUMNS + i % columns);
}

__device__ __forceinline__ size_t
state_at(const m1k_sweep &p, int number)
{
	return (static_cast<size_t>(number) * p.heads + blockIdx.x) * p.head_dim * p.head_dim;
}

__device__ __forceinline__ void
begin_state(const m1k_sweep &p, const m1k_sweep_item &item, int column0, int columns, float *s)
{
	const int d = p.head_dim;

	each_of_state(d, columns,
				  [&](int row, int column, int at)
				  {
					  const size_t place = p.from_transposed ? static_cast<size_t>(column0 + column) * d + row
															 : static_cast<size_t>(row) * d + column0 + column;
					  float sum = 0.0f;

					  for (int i = 0; i < item.n_from; i++)
						  sum += p.from_states[state_at(p, item.from + i) + place];
					  s[at] = sum;
				  });
}

__device__ __forceinline__ void
leave_state(const m1k_sweep &p, int number, int column0, int columns, const float *s)
{
	const int d = p.head_dim;
	float *to = p.to_states + state_at(p, number);

	each_of_state(d, columns,
				  [&](int row, int column, int at) { to[static_cast<size_t>(row) * d + column0 + column] = s[at]; });
}

/* Row number t of those that are gone through. */
__device__ __forceinline__ size_t
row_of(const m1k_sweep &p, const m1k_sweep_item &item, int t)
{
	return static_cast<size_t>(item.row + (p.reverse ? item.n - 1 - t : t)) * p.heads + blockIdx.x;
}

__device__ __forceinline__ void
load_tokens(const m1k_sweep &p, const m1k_sweep_item &item, int t0, int m, int column0, int columns,
			const sweep_memory &to)
{
	const int d = p.head_dim;

	for (int i = threadIdx.x; i < m * d; i += THREADS)
	{
		const size_t row = row_of(p, item, t0 + i / d);

		to.q[i / d * (d + 1) + i % d] = p.q[row * p.q_unit + i % d];
		to.k[i / d * (d + 1) + i % d] = p.k[row * p.k_unit + i % d];
	}
	for (int i = threadIdx.x; i < m * columns; i += THREADS)
		to.v[i / columns * COLUMNS + i % columns] =
			p.v[row_of(p, item, t0 + i / columns) * p.v_unit + column0 + i % columns];
}

__device__ __forceinline__ void
score_tokens(int m, int d, const sweep_memory &s)
{
	for (int i = threadIdx.x; i < m * m; i += THREADS)
	{
		const int a = i / m;
		const int b = i % m;
		float score = 0.0f;

		for (int j = 0; b <= a && j < d; j++)
			score += s.q[a * (d + 1) + j] * s.k[b * (d + 1) + j];
		s.scores[a * TOKENS + b] = b <= a ? score * s.decay[a - b] : 0.0f;
	}
}

__device__ __forceinline__ void
write_tokens(const m1k_sweep &p, const m1k_sweep_item &item, int t0, int m, int column0, int columns,
			 const sweep_memory &s)
{
	const int d = p.head_dim;

	for (int i = threadIdx.x; i < m * columns; i += THREADS)
	{
		const int a = i / columns;
		const int c = i % columns;
		float carried = 0.0f;
		float own = 0.0f;

		for (int j = 0; j < d; j++)
			carried += s.q[a * (d + 1) + j] * s.s[j * COLUMNS + c];
		for (int b = 0; b <= a; b++)
			own += s.scores[a * TOKENS + b] * s.v[b * COLUMNS + c];
		p.out[row_of(p, item, t0 + a) * p.out_unit + column0 + c] = s.decay[a + 1] * carried + own;
	}
}

__device__ __forceinline__ void
advance_state(int m, int d, int columns, const sweep_memory &s)
{
	each_of_state(d, columns,
				  [&](int row, int column, int at)
				  {
					  float sum = 0.0f;

					  for (int b = 0; b < m; b++)
						  sum += s.decay[m - 1 - b] * s.k[b * (d + 1) + row] * s.v[b * COLUMNS + column];
					  s.s[at] = s.decay[m] * s.s[at] + sum;
				  });
}

/* Block (head, columns, item). */
__global__ void
__launch_bounds__(THREADS) sweep_rows(m1k_sweep p)
{
	M1K_DYNAMIC_SHARED(float, shared);
	const m1k_sweep_item item = p.items[blockIdx.z];
	const int d = p.head_dim;
	const int column0 = blockIdx.y * COLUMNS;
	const int columns = d - column0 < COLUMNS ? d - column0 : COLUMNS;
	const sweep_memory s = lay_out(shared, d);

	for (int i = threadIdx.x; i <= TOKENS; i += THREADS)
		s.decay[i] = expf(-p.decay[blockIdx.x] * static_cast<float>(i));
	begin_state(p, item, column0, columns, s.s);
	for (int t0 = 0; t0 < item.n; t0 += TOKENS)
	{
		const int m = item.n - t0 < TOKENS ? item.n - t0 : TOKENS;

		__syncthreads();
		if (item.keep >= 0 && t0 > 0 && t0 % M1K_SWEEP_KEPT == 0)
			leave_state(p, item.keep + t0 / M1K_SWEEP_KEPT - 1, column0, columns, s.s);
		load_tokens(p, item, t0, m, column0, columns, s);
		__syncthreads();
		score_tokens(m, d, s);
		__syncthreads();
		write_tokens(p, item, t0, m, column0, columns, s);
		__syncthreads();
		advance_state(m, d, columns, s);
	}
	if (item.end >= 0)
		leave_state(p, item.end, column0, columns, s.s); /* by the threads that have advanced it */
}

void
m1k_learn_sweep(const m1k_sweep *p, cudaStream_t stream)
{
	M1K_LAUNCH(sweep_rows, dim3(p->heads, m1k_pieces(p->head_dim, COLUMNS), p->n_items), THREADS,
			   sweep_shared(p->head_dim), stream, *p);
}
