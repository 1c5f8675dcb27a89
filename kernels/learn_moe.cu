/*
 * learn_moe.cu - router and experts with what their gradients need, but for the products. A pair of token and rank has
 * a place among the rows that are sorted by expert; what is kept lies by pairs, what products read by places.
 */
#include "learn.cuh"

#include <math.h>

#define THREADS 256

/* ---- routing ---- */

/* The top_k best experts, best first, the lower number winning a tie: as choose_experts of moe.cu. */
__device__ __forceinline__ void
choose(const float *scores, int experts, int top_k, int *choice)
{
	for (int rank = 0; rank < top_k; rank++)
	{
		int pick = -1;

		for (int e = 0; e < experts; e++)
		{
			bool taken = false;

			for (int r = 0; r < rank; r++)
				taken = taken || choice[r] == e;
			if (!taken && (pick < 0 || scores[e] > scores[pick]))
				pick = e;
		}
		choice[rank] = pick;
	}
}

/* A thread's row. */
__global__ void
choose_and_weigh(const __grid_constant__ m1k_route p, int replay)
{
	const int t = blockIdx.x * blockDim.x + threadIdx.x;

	if (t >= p.n)
		return;

	const float *scores = p.scores + static_cast<size_t>(t) * p.experts;
	int *choice = p.choice + static_cast<size_t>(t) * p.top_k;
	float *weight = p.weight + static_cast<size_t>(t) * p.top_k;
	float best = -INFINITY;
	float total = 0.0f;

	if (!replay || choice[0] < 0)
		choose(scores, p.experts, p.top_k, choice);
	for (int rank = 0; rank < p.top_k; rank++)
		best = fmaxf(best, scores[choice[rank]]);
	for (int rank = 0; rank < p.top_k; rank++)
		total += weight[rank] = expf(scores[choice[rank]] - best);
	for (int rank = 0; rank < p.top_k; rank++)
		weight[rank] /= total;
}

void
m1k_learn_route(const m1k_route *p, int replay, cudaStream_t stream)
{
	M1K_LAUNCH(choose_and_weigh, m1k_pieces(p->n, M1K_WARP), M1K_WARP, 0, stream, *p, replay);
	m1k_sort_chosen(p, stream);
}

/* ---- between the products: a block's pair ---- */

__global__ void
hidden_pairs(m1k_moe_learn p)
{
	const size_t pair = static_cast<size_t>(blockIdx.x) * p.width;
	const size_t at = static_cast<size_t>(p.place[blockIdx.x]) * p.width;

	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
	{
		const float gate = p.gate[at + i];
		const float up = p.up[at + i];

		p.kept_gate[pair + i] = gate;
		p.kept_up[pair + i] = up;
		p.hidden[at + i] = m1k_silu_of(gate) * up;
	}
}

void
m1k_learn_hidden(const m1k_moe_learn *p, cudaStream_t stream)
{
	M1K_LAUNCH(hidden_pairs, p->n * p->top_k, THREADS, 0, stream, *p);
}

__global__ void
hidden_pairs_again(m1k_moe_learn p)
{
	const size_t pair = static_cast<size_t>(blockIdx.x) * p.width;
	const size_t at = static_cast<size_t>(p.place[blockIdx.x]) * p.width;

	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
		p.hidden[at + i] = m1k_silu_of(p.kept_gate[pair + i]) * p.kept_up[pair + i];
}

void
m1k_learn_hidden_again(const m1k_moe_learn *p, cudaStream_t stream)
{
	M1K_LAUNCH(hidden_pairs_again, p->n * p->top_k, THREADS, 0, stream, *p);
}

__global__ void
hidden_back_pairs(m1k_moe_learn p)
{
	const size_t pair = static_cast<size_t>(blockIdx.x) * p.width;
	const size_t at = static_cast<size_t>(p.place[blockIdx.x]) * p.width;
	const float weight = p.weight[blockIdx.x];
	float kappa = 0.0f;

	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
		kappa += p.back[at + i] * p.hidden[at + i];
	kappa = m1k_block_sum(kappa);
	if (threadIdx.x == 0)
		p.kappa[blockIdx.x] = kappa;
	for (int i = threadIdx.x; i < p.width; i += blockDim.x)
	{
		const float gate = p.kept_gate[pair + i];
		const float du = p.back[at + i] * weight;

		p.hidden[at + i] *= weight;
		p.gate[at + i] = du * p.kept_up[pair + i] * m1k_silu_slope(gate);
		p.up[at + i] = du * m1k_silu_of(gate);
	}
}

void
m1k_learn_hidden_back(const m1k_moe_learn *p, cudaStream_t stream)
{
	M1K_LAUNCH(hidden_back_pairs, p->n * p->top_k, THREADS, 0, stream, *p);
}

/* ---- rows ---- */

/* p (dp - sum_j p_j dp_j), what the auxiliary loss gives the logit of expert e. */
__device__ __forceinline__ float
balance_of(const m1k_moe_learn &p, int t, int e)
{
	const float *logits = p.logits + static_cast<size_t>(t) * p.experts;
	float best = logits[0];
	float total = 0.0f;
	float mean = 0.0f;

	for (int other = 1; other < p.experts; other++)
		best = fmaxf(best, logits[other]);
	for (int other = 0; other < p.experts; other++)
	{
		const float x = expf(logits[other] - best);

		total += x;
		mean += x * p.balance[other];
	}
	return p.copies[t] * (expf(logits[e] - best) / total) * (p.balance[e] - mean / total);
}

/* w_k (kappa_k - sum_j w_j kappa_j) where the expert was chosen, and what the auxiliary loss adds. */
__device__ __forceinline__ float
router_gradient(const m1k_moe_learn &p, int t, int e)
{
	const size_t first = static_cast<size_t>(t) * p.top_k;
	float mean = 0.0f;
	float sum = 0.0f;

	for (int rank = 0; rank < p.top_k; rank++)
		mean += p.weight[first + rank] * p.kappa[first + rank];
	for (int rank = 0; rank < p.top_k; rank++)
		if (p.choice[first + rank] == e)
			sum = p.weight[first + rank] * (p.kappa[first + rank] - mean);
	return p.balance != nullptr ? sum + balance_of(p, t, e) : sum;
}

__global__ void
combine_pairs(m1k_moe_learn p)
{
	const int t = blockIdx.x;
	const int *place = p.place + static_cast<size_t>(t) * p.top_k;

	for (int e = threadIdx.x; e < p.experts; e += blockDim.x)
		p.dlogits[static_cast<size_t>(t) * p.experts + e] = router_gradient(p, t, e);
	for (int i = threadIdx.x; i < p.d; i += blockDim.x)
	{
		float sum = 0.0f;

		for (int rank = 0; rank < p.top_k; rank++)
			sum += p.dx[static_cast<size_t>(place[rank]) * p.d + i];
		p.out[static_cast<size_t>(t) * p.d + i] = sum;
	}
}

void
m1k_learn_combine(const m1k_moe_learn *p, cudaStream_t stream)
{
	M1K_LAUNCH(combine_pairs, p->n, THREADS, 0, stream, *p);
}
