/*
 * moe.cu - routing: which experts a token goes to, the pairs of token and expert
 * sorted by expert, and the weighted sum of what comes back.
 *
 * Sorting is one block's work: pairs are few. Within an expert they stay in token
 * order, so that every run sorts alike. Where tokens are few, too, that block chooses
 * for them first.
 */
#include "device.cuh"

#include <math.h>

#define CHOOSE_WARPS 4
#define MAX_SORT_WARPS 32
#define FEW_TOKENS 64
#define READ_AHEAD 8

/* A warp's work for one token: the top_k best experts, best first, the lower number winning a tie. */
__device__ __forceinline__ void
choose_for(const m1k_route &p, int t)
{
	const int lane = threadIdx.x % M1K_WARP;
	const float *s = p.scores + static_cast<size_t>(t) * p.experts;
	int *choice = p.choice + static_cast<size_t>(t) * p.top_k;
	float *weight = p.weight + static_cast<size_t>(t) * p.top_k;
	/* bit j: expert lane + 32 j is taken; M1K_MAX_EXPERTS is four bits */
	unsigned taken = 0;
	float best = 0.0f;
	float total = 0.0f;

	for (int rank = 0; rank < p.top_k; rank++)
	{
		float top = -INFINITY;
		int pick = p.experts;
		float w;

		for (int e = lane; e < p.experts; e += M1K_WARP)
			if (!(taken >> e / M1K_WARP & 1) && (pick == p.experts || s[e] > top))
			{
				top = s[e];
				pick = e;
			}
#pragma unroll
		for (int other = M1K_WARP / 2; other > 0; other /= 2)
		{
			const float their_top = __shfl_xor_sync(M1K_ALL, top, other);
			const int their_pick = __shfl_xor_sync(M1K_ALL, pick, other);

			if (their_pick < p.experts &&
				(pick == p.experts || their_top > top || (their_top == top && their_pick < pick)))
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
			choice[rank] = pick;
			weight[rank] = w;
		}
	}
	__syncwarp();
	for (int rank = lane; rank < p.top_k; rank += M1K_WARP)
		weight[rank] /= total;
}

__global__ void
choose_experts(const __grid_constant__ m1k_route p)
{
	const int t = blockIdx.x * CHOOSE_WARPS + threadIdx.x / M1K_WARP;

	if (t < p.n) /* a whole warp */
		choose_for(p, t);
}

/*
 * Calls f(pair, whether it is expert e's, those of the warp's pairs that are) for 32 pairs at a time, a lane each. A
 * few times 32 are read before the first is looked at: one block alone waits for memory.
 */
template <typename F>
__device__ __forceinline__ void
each_pair(const m1k_route &p, int pairs, int e, F f)
{
	const int lane = threadIdx.x % M1K_WARP;

	for (int i = lane; i - lane < pairs; i += READ_AHEAD * M1K_WARP)
	{
		int choice[READ_AHEAD];

#pragma unroll
		for (int j = 0; j < READ_AHEAD; j++)
			choice[j] = i + j * M1K_WARP < pairs ? p.choice[i + j * M1K_WARP] : p.experts;
#pragma unroll
		for (int j = 0; j < READ_AHEAD; j++)
			f(i + j * M1K_WARP, choice[j] == e, __ballot_sync(M1K_ALL, choice[j] == e));
	}
}

/* One block sorts all pairs; each warp takes some of the experts and looks through all choices twice. */
__global__ void
__launch_bounds__(MAX_SORT_WARPS *M1K_WARP, 1) sort_pairs(const __grid_constant__ m1k_route p, bool choose)
{
	__shared__ int count[M1K_MAX_EXPERTS];
	__shared__ int first[M1K_MAX_EXPERTS];
	const int warp = threadIdx.x / M1K_WARP;
	const int warps = blockDim.x / M1K_WARP;
	const int lane = threadIdx.x % M1K_WARP;
	const int pairs = p.n * p.top_k;

	for (int t = warp; choose && t < p.n; t += warps)
		choose_for(p, t);
	__syncthreads();
	for (int e = warp; e < p.experts; e += warps)
	{
		int n = 0;

		each_pair(p, pairs, e, [&](int, bool, unsigned all) { n += __popc(all); });
		if (lane == 0)
			count[e] = n;
	}
	__syncthreads();
	if (threadIdx.x == 0)
	{
		int places = 0;
		int n_tiles = 0;

		for (int e = 0; e < p.experts; e++)
		{
			p.group[e] = first[e] = places;
			p.tiles[e] = n_tiles;
			places += count[e];
			n_tiles += (count[e] + p.tile - 1) / p.tile;
		}
		p.group[p.experts] = places;
		p.tiles[p.experts] = n_tiles;
	}
	__syncthreads();
	for (int e = warp; e < p.experts; e += warps)
	{
		int next = first[e];

		each_pair(p, pairs, e,
				  [&](int pair, bool mine, unsigned all)
				  {
					  if (mine)
					  {
						  const int at = next + __popc(all & ((1u << lane) - 1));

						  p.place[pair] = at;
						  p.token[at] = pair / p.top_k;
					  }
					  next += __popc(all);
				  });
	}
}

static void
launch_sort(const m1k_route *p, bool choose, cudaStream_t stream)
{
	const int warps = p->experts < MAX_SORT_WARPS ? p->experts : MAX_SORT_WARPS;

	M1K_LAUNCH(sort_pairs, 1, warps * M1K_WARP, 0, stream, *p, choose);
}

void
m1k_route_tokens(const m1k_route *p, cudaStream_t stream)
{
	const bool few = p->n <= FEW_TOKENS;

	if (!few)
		M1K_LAUNCH(choose_experts, m1k_pieces(p->n, CHOOSE_WARPS), CHOOSE_WARPS * M1K_WARP, 0, stream, *p);
	launch_sort(p, few, stream);
}

void
m1k_sort_chosen(const m1k_route *p, cudaStream_t stream)
{
	launch_sort(p, false, stream);
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
