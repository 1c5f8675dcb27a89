/*
 * moe.cu - routing: which experts a token goes to, the pairs of token and expert
 * sorted by expert, and the weighted sum of what comes back.
 *
 * Sorting is one block's work: pairs are few. Within an expert they stay in token
 * order, so that every run sorts alike.
 */
#include "device.cuh"

#include <math.h>

#define CHOOSE_WARPS 4
#define MAX_SORT_WARPS 32

/* A warp takes one token: the top_k best experts, best first, the lower number winning a tie. */
__global__ void
choose_experts(const float *scores, int n, int experts, int top_k, int *choice, float *weight)
{
	const int t = blockIdx.x * CHOOSE_WARPS + threadIdx.x / M1K_WARP;
	const int lane = threadIdx.x % M1K_WARP;
	const float *s = scores + static_cast<size_t>(t) * experts;
	/* bit j: expert lane + 32 j is taken; M1K_MAX_EXPERTS is four bits */
	unsigned taken = 0;
	float best = 0.0f;
	float total = 0.0f;

	if (t >= n) /* a whole warp */
		return;
	for (int rank = 0; rank < top_k; rank++)
	{
		float top = -INFINITY;
		int pick = experts;
		float w;

		for (int e = lane; e < experts; e += M1K_WARP)
			if (!(taken >> e / M1K_WARP & 1) && (pick == experts || s[e] > top))
			{
				top = s[e];
				pick = e;
			}
#pragma unroll
		for (int other = M1K_WARP / 2; other > 0; other /= 2)
		{
			const float their_top = __shfl_xor_sync(M1K_ALL, top, other);
			const int their_pick = __shfl_xor_sync(M1K_ALL, pick, other);

			if (their_pick < experts && (pick == experts || their_top > top || (their_top == top && their_pick < pick)))
			{
				top = their_top;
				pick = their_pick;
			}
		}
		if (pick % M1K_WARP == lane)
			taken |= 1u << pick / M1K_WARP;
		if (rank == 0)
			best = top;
		w = expf(top - best);
		total += w;
		if (lane == 0)
		{
			choice[static_cast<size_t>(t) * top_k + rank] = pick;
			weight[static_cast<size_t>(t) * top_k + rank] = w;
		}
	}
	__syncwarp();
	for (int rank = lane; rank < top_k; rank += M1K_WARP)
		weight[static_cast<size_t>(t) * top_k + rank] /= total;
}

/* One block sorts all pairs; each warp takes some of the experts and looks through all choices twice. */
__global__ void
__launch_bounds__(MAX_SORT_WARPS *M1K_WARP) sort_pairs(const int *choice, int pairs, int experts, int top_k, int tile,
													   int *group, int *tiles, int *place, int *token)
{
	__shared__ int count[M1K_MAX_EXPERTS];
	__shared__ int first[M1K_MAX_EXPERTS];
	const int warp = threadIdx.x / M1K_WARP;
	const int warps = blockDim.x / M1K_WARP;
	const int lane = threadIdx.x % M1K_WARP;

	for (int e = warp; e < experts; e += warps)
	{
		int n = 0;

		for (int i = 0; i < pairs; i += M1K_WARP)
			n += __popc(__ballot_sync(M1K_ALL, i + lane < pairs && choice[i + lane] == e));
		if (lane == 0)
			count[e] = n;
	}
	__syncthreads();
	if (threadIdx.x == 0)
	{
		int places = 0;
		int n_tiles = 0;

		for (int e = 0; e < experts; e++)
		{
			group[e] = first[e] = places;
			tiles[e] = n_tiles;
			places += count[e];
			n_tiles += (count[e] + tile - 1) / tile;
		}
		group[experts] = places;
		tiles[experts] = n_tiles;
	}
	__syncthreads();
	for (int e = warp; e < experts; e += warps)
	{
		int next = first[e];

		for (int i = 0; i < pairs; i += M1K_WARP)
		{
			const bool mine = i + lane < pairs && choice[i + lane] == e;
			const unsigned all = __ballot_sync(M1K_ALL, mine);

			if (mine)
			{
				const int at = next + __popc(all & ((1u << lane) - 1));

				place[i + lane] = at;
				token[at] = (i + lane) / top_k;
			}
			next += __popc(all);
		}
	}
}

void
m1k_route_tokens(const m1k_route *p, cudaStream_t stream)
{
	const int warps = p->experts < MAX_SORT_WARPS ? p->experts : MAX_SORT_WARPS;

	M1K_LAUNCH(choose_experts, m1k_pieces(p->n, CHOOSE_WARPS), CHOOSE_WARPS * M1K_WARP, 0, stream, p->scores, p->n,
			   p->experts, p->top_k, p->choice, p->weight);
	M1K_LAUNCH(sort_pairs, 1, warps * M1K_WARP, 0, stream, p->choice, p->n * p->top_k, p->experts, p->top_k, p->tile,
			   p->group, p->tiles, p->place, p->token);
}

__global__ void
gather_rows(const uint16_t *x, const int *token, int width, uint16_t *out)
{
	const uint4 *from = reinterpret_cast<const uint4 *>(x + static_cast<size_t>(token[blockIdx.x]) * width);
	uint4 *to = reinterpret_cast<uint4 *>(out + static_cast<size_t>(blockIdx.x) * width);

	for (int i = threadIdx.x; i < width / 8; i += blockDim.x)
		to[i] = from[i];
}

void
m1k_gather(const uint16_t *x, const int *token, int n, int width, uint16_t *out, cudaStream_t stream)
{
	M1K_LAUNCH(gather_rows, n, 256, 0, stream, x, token, width, out);
}

__global__ void
combine_rows(const float *y, const int *place, const float *weight, int top_k, int width, float *out)
{
	const int t = blockIdx.x;

	for (int i = threadIdx.x; i < width; i += blockDim.x)
	{
		float sum = 0.0f;

		for (int rank = 0; rank < top_k; rank++)
		{
			const int pair = t * top_k + rank;

			sum += weight[pair] * y[static_cast<size_t>(place[pair]) * width + i];
		}
		out[static_cast<size_t>(t) * width + i] = sum;
	}
}

void
m1k_combine(const float *y, const int *place, const float *weight, int n, int top_k, int width, float *out,
			cudaStream_t stream)
{
	M1K_LAUNCH(combine_rows, n, 256, 0, stream, y, place, weight, top_k, width, out);
}
