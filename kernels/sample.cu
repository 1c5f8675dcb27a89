/*
 * sample.cu - from the logits of a row to its next token, as model/sampler.c defines it.
 *
 * Think of a row's tokens in the order of their weights, the lower id first among equals. top_k, top_p and the draw
 * itself all ask for the first token at which a running sum reaches a target: of tokens, or of their weights. It is
 * found without sorting, digit by digit of the token's place in that order, as a radix sort that follows one digit
 * only: count what falls on each digit, and go on within the digit where the target is reached.
 *
 * Weights are whole numbers of 2^-45 of the best token's: their sums do not depend on the order in which threads and
 * blocks add them, so that the same row gives the same token every time.
 */
#include "device.cuh"

#include <math.h>

#define THREADS 256
#define CHUNK 2048 /* tokens of one block: a row has enough of them for a device; sums of 16-bit parts fit in 32 bits */

#define WEIGHT_BITS 45		 /* and M1K_MAX_VOCAB of them still fit in 64 bits */
#define ONE_BITS 0x3f800000u /* 1.0f: no weight is larger */

/* A token's place: 30 bits of how far its weight is below 1, in steps of a float, then 20 bits of its id. */
#define DIGIT_BITS 10
#define WEIGHT_DIGITS 3
#define DIGITS 5
#define ID_BITS 20
#define OWN_BINS (M1K_SAMPLE_BINS / THREADS)

static_assert(M1K_SAMPLE_BINS == 1 << DIGIT_BITS, "a bin for each digit");
static_assert(M1K_MAX_VOCAB <= 1 << ID_BITS, "an id is two digits");

/* ---- numbers ---- */

/* Larger for larger x; NaN below all others, but above 0, which stands for no token. */
__device__ __forceinline__ unsigned
rank_of(float x)
{
	const unsigned bits = __float_as_uint(x == 0.0f ? 0.0f : x); /* the two zeros are equal */

	if (isnan(x))
		return 1;
	return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float
value_of(unsigned rank)
{
	return __uint_as_float(rank >> 31 ? rank & 0x7fffffffu : ~rank);
}

__device__ __forceinline__ unsigned
is_broken(float x)
{
	return (__float_as_uint(x) & 0x7f800000u) == 0x7f800000u;
}

/* As in model/sampler.c: 1 for the largest value, whatever it is, and never more; none for NaN. */
__device__ __forceinline__ float
weight_of(float x, float max, float temperature)
{
	return x == max ? 1.0f : x < max ? fminf(expf((x - max) / temperature), 1.0f) : 0.0f;
}

__device__ __forceinline__ unsigned long long
whole(float weight)
{
	return static_cast<unsigned long long>(weight * static_cast<float>(1ull << WEIGHT_BITS));
}

template <typename T>
__device__ __forceinline__ T
warp_max(T x)
{
#pragma unroll
	for (int lane = M1K_WARP / 2; lane > 0; lane /= 2)
	{
		const T other = __shfl_xor_sync(M1K_ALL, x, lane);

		x = other > x ? other : x;
	}
	return x;
}

/* ---- what all kernels look at ---- */

__device__ __forceinline__ bool
may_come(const m1k_sample &p, const m1k_draw &draw, int id)
{
	return draw.mask < 0 || (p.masks[static_cast<size_t>(draw.mask) * p.mask_words + id / 64] >> (id % 64) & 1) != 0;
}

__device__ __forceinline__ int
chunk_end(const m1k_sample &p)
{
	const int end = (blockIdx.x + 1) * CHUNK;

	return end < p.vocab ? end : p.vocab;
}

/* ---- the best token, and the sums ---- */

__global__ void
find_best(m1k_sample p)
{
	const m1k_draw draw = p.draws[blockIdx.y];
	unsigned long long best = 0;
	unsigned likeliest = 0;
	unsigned broken = 0;

	for (int id = blockIdx.x * CHUNK + threadIdx.x; id < chunk_end(p); id += THREADS)
	{
		const unsigned rank = rank_of(draw.logits[id]);
		/* the lower id wins a tie */
		const unsigned long long candidate = static_cast<unsigned long long>(rank) << 32 | (0xffffffffu - id);

		likeliest = rank > likeliest ? rank : likeliest;
		broken |= is_broken(draw.logits[id]);
		if (candidate > best && may_come(p, draw, id))
			best = candidate;
	}
	best = warp_max(best);
	likeliest = warp_max(likeliest);
	broken = warp_max(broken);
	if (threadIdx.x % M1K_WARP == 0)
	{
		atomicMax(&p.found[blockIdx.y].best, best);
		atomicMax(&p.found[blockIdx.y].likeliest, likeliest);
		if (broken != 0)
			atomicMax(&p.found[blockIdx.y].broken, broken);
	}
}

/* The weights of all tokens in the model's own distribution, and of those that may come at the row's temperature. */
__global__ void
add_up(m1k_sample p)
{
	const m1k_draw draw = p.draws[blockIdx.y];
	m1k_found *found = &p.found[blockIdx.y];
	const float likeliest = value_of(found->likeliest);
	const float best = value_of(static_cast<unsigned>(found->best >> 32));
	m1k_tally kept = {0, 0};
	unsigned long long all = 0;

	for (int id = blockIdx.x * CHUNK + threadIdx.x; id < chunk_end(p); id += THREADS)
	{
		all += whole(weight_of(draw.logits[id], likeliest, 1.0f));
		if (draw.temperature > 0.0f && may_come(p, draw, id))
		{
			const unsigned long long weight = whole(weight_of(draw.logits[id], best, draw.temperature));

			kept.weight += weight;
			kept.tokens += weight > 0;
		}
	}
	all = m1k_warp_sum(all);
	kept.weight = m1k_warp_sum(kept.weight);
	kept.tokens = m1k_warp_sum(kept.tokens);
	if (threadIdx.x % M1K_WARP == 0)
	{
		atomicAdd(&found->all, all);
		atomicAdd(&found->kept.weight, kept.weight);
		atomicAdd(&found->kept.tokens, kept.tokens);
	}
}

/* ---- finding a token ---- */

/* With the whole distribution there is nothing to cut, and the draw goes by ids, as on the CPU. */
__device__ __forceinline__ bool
by_id(const m1k_draw &draw, int stage)
{
	return stage == M1K_DRAW && draw.top_k == 0 && draw.top_p >= 1.0f;
}

__device__ __forceinline__ int
first_digit(const m1k_draw &draw, int stage)
{
	return by_id(draw, stage) ? WEIGHT_DIGITS : 0;
}

/* Tokens of no weight never come: a row that has no others is given its best. */
__device__ __forceinline__ bool
takes_part(const m1k_draw &draw, const m1k_found &found, int stage, int digit)
{
	if (draw.temperature <= 0.0f || found.kept.tokens == 0 || digit < first_digit(draw, stage))
		return false;
	if (stage == M1K_TOP_K)
		return draw.top_k > 0 && static_cast<unsigned long long>(draw.top_k) < found.kept.tokens;
	return stage == M1K_DRAW || draw.top_p < 1.0f;
}

/* The digits of a token's place up to this one. */
__device__ __forceinline__ unsigned long long
place_of(float weight, int id, bool ids_only, int digit)
{
	const unsigned below = ids_only ? 0 : ONE_BITS - __float_as_uint(weight);

	return (static_cast<unsigned long long>(below) << ID_BITS | static_cast<unsigned>(id)) >>
		   ((DIGITS - 1 - digit) * DIGIT_BITS);
}

/* Adds up, for each value of the digit, the tokens whose digits before it are those found so far. */
__global__ void
count_digit(m1k_sample p, int stage, int digit)
{
	__shared__ uint32_t tokens[M1K_SAMPLE_BINS];
	__shared__ uint32_t parts[3][M1K_SAMPLE_BINS]; /* of the weights, 16 bits each: the device adds 32 bits fast */
	const m1k_draw draw = p.draws[blockIdx.y];
	const m1k_found found = p.found[blockIdx.y];
	const float best = value_of(static_cast<unsigned>(found.best >> 32));
	const bool ids_only = by_id(draw, stage);
	const unsigned long long before = digit == first_digit(draw, stage) ? 0 : found.place;

	if (!takes_part(draw, found, stage, digit))
		return;
	for (int bin = threadIdx.x; bin < M1K_SAMPLE_BINS; bin += THREADS)
		tokens[bin] = parts[0][bin] = parts[1][bin] = parts[2][bin] = 0;
	__syncthreads();
	for (int id = blockIdx.x * CHUNK + threadIdx.x; id < chunk_end(p); id += THREADS)
	{
		const float weight = weight_of(draw.logits[id], best, draw.temperature);
		const unsigned long long units = whole(weight);
		const unsigned long long place = place_of(weight, id, ids_only, digit);
		const int bin = static_cast<int>(place % M1K_SAMPLE_BINS);

		if (units == 0 || place >> DIGIT_BITS != before || !may_come(p, draw, id))
			continue;
		atomicAdd(&tokens[bin], 1u);
		for (int i = 0; i < 3; i++)
			atomicAdd(&parts[i][bin], static_cast<uint32_t>(units >> 16 * i & 0xffff));
	}
	__syncthreads();
	for (int bin = threadIdx.x; bin < M1K_SAMPLE_BINS; bin += THREADS)
		if (tokens[bin] > 0)
		{
			m1k_tally *all = &p.bins[static_cast<size_t>(blockIdx.y) * M1K_SAMPLE_BINS + bin];

			atomicAdd(&all->tokens, static_cast<unsigned long long>(tokens[bin]));
			atomicAdd(&all->weight, parts[0][bin] + (static_cast<unsigned long long>(parts[1][bin]) << 16) +
										(static_cast<unsigned long long>(parts[2][bin]) << 32));
		}
}

__device__ __forceinline__ m1k_tally
plus(m1k_tally a, m1k_tally b)
{
	return {a.weight + b.weight, a.tokens + b.tokens};
}

/* At least 1, at most what there is. */
__device__ __forceinline__ unsigned long long
target_of(const m1k_draw &draw, const m1k_found &found, int stage)
{
	const double weight = static_cast<double>(found.kept.weight);
	unsigned long long target;

	if (stage == M1K_TOP_K)
		return static_cast<unsigned long long>(draw.top_k);
	if (stage == M1K_TOP_P)
		target = static_cast<unsigned long long>(ceil(static_cast<double>(draw.top_p) * weight));
	else
		target = static_cast<unsigned long long>(draw.uniform * weight) + 1; /* the first sum that is greater */
	return target < 1 ? 1 : target < found.kept.weight ? target : found.kept.weight;
}

/* The digit where the target is reached; after the last one, what is kept up to that token. */
__global__ void
narrow(m1k_sample p, int stage, int digit)
{
	__shared__ m1k_tally sums[THREADS];
	const m1k_draw draw = p.draws[blockIdx.x];
	const m1k_found found = p.found[blockIdx.x];
	const bool first = digit == first_digit(draw, stage);
	const unsigned long long target = first ? target_of(draw, found, stage) : found.target;
	m1k_found *to = &p.found[blockIdx.x];
	m1k_tally *bins = &p.bins[static_cast<size_t>(blockIdx.x) * M1K_SAMPLE_BINS + threadIdx.x * OWN_BINS];
	m1k_tally before = {0, 0};
	m1k_tally own = {0, 0};

	if (!takes_part(draw, found, stage, digit))
		return;
	for (int i = 0; i < OWN_BINS; i++)
		own = plus(own, bins[i]);
	sums[threadIdx.x] = own;
	__syncthreads();
	for (unsigned step = 1; step < THREADS; step *= 2)
	{
		const m1k_tally left = threadIdx.x >= step ? sums[threadIdx.x - step] : before;

		__syncthreads();
		sums[threadIdx.x] = plus(sums[threadIdx.x], left);
		__syncthreads();
	}
	if (threadIdx.x > 0)
		before = sums[threadIdx.x - 1];
	if (!first)
		before = plus(before, found.before);
	for (int i = 0; i < OWN_BINS; i++)
	{
		const m1k_tally after = plus(before, bins[i]);
		const unsigned long long reached = stage == M1K_TOP_K ? after.tokens : after.weight;
		const unsigned long long so_far = stage == M1K_TOP_K ? before.tokens : before.weight;

		if (so_far < target && reached >= target)
		{
			to->target = target;
			to->before = before;
			to->place = (first ? 0 : found.place) << DIGIT_BITS | (threadIdx.x * OWN_BINS + i);
			if (digit == DIGITS - 1)
				to->kept = after;
		}
		bins[i] = {0, 0};
		before = after;
	}
}

/* ---- the result ---- */

/* To where the host reads it; and wipes what the row was chosen by. */
__global__ void
write_picks(m1k_sample p)
{
	const int i = blockIdx.x * THREADS + threadIdx.x;

	if (i < p.n)
	{
		const m1k_draw draw = p.draws[i];
		const m1k_found found = p.found[i];
		int id = 0;

		if (draw.temperature > 0.0f && found.kept.tokens > 0)
			id = static_cast<int>(found.place & ((1u << ID_BITS) - 1));
		else if (found.best != 0)
			id = static_cast<int>(0xffffffffu - static_cast<unsigned>(found.best));
		p.picks[i].id = id;
		p.picks[i].probability =
			found.broken != 0 ? NAN
			: found.all == 0
				? 0.0f
				: static_cast<float>(static_cast<double>(weight_of(draw.logits[id], value_of(found.likeliest), 1.0f)) *
									 static_cast<double>(1ull << WEIGHT_BITS) / static_cast<double>(found.all));
		p.draws[i] = {};
		p.found[i] = {};
	}
}

void
m1k_sample_tokens(const m1k_sample *p, unsigned stages, cudaStream_t stream)
{
	const dim3 chunks(m1k_pieces(p->vocab, CHUNK), p->n);

	M1K_LAUNCH(find_best, chunks, THREADS, 0, stream, *p);
	M1K_LAUNCH(add_up, chunks, THREADS, 0, stream, *p);
	for (int stage = 0; stage < M1K_STAGES; stage++)
		for (int digit = 0; digit < DIGITS && (stages >> stage & 1) != 0; digit++)
		{
			M1K_LAUNCH(count_digit, chunks, THREADS, 0, stream, *p, stage, digit);
			M1K_LAUNCH(narrow, p->n, THREADS, 0, stream, *p, stage, digit);
		}
	M1K_LAUNCH(write_picks, m1k_pieces(p->n, THREADS), THREADS, 0, stream, *p);
}
