/* sampler.c - see sampler.h. */
#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/sort.h"

typedef struct candidate
{
	float weight; /* unnormalised probability */
	int32_t id;
} candidate;

struct m1_sampler
{
	int vocab;
	uint64_t *alive;	   /* a bit for each token; NULL = all */
	candidate *candidates; /* [vocab] */
};

m1_status
m1_sampler_create(int vocab, const bool *alive, m1_sampler **out, m1_error *err)
{
	m1_sampler *s = calloc(1, sizeof *s);

	*out = NULL;
	if (s == NULL || (s->candidates = calloc((size_t) vocab, sizeof *s->candidates)) == NULL ||
		(alive != NULL && (s->alive = calloc(((size_t) vocab + 63) / 64, sizeof *s->alive)) == NULL))
	{
		m1_sampler_free(s);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the sampler");
	}
	s->vocab = vocab;
	for (int32_t i = 0; i < vocab && alive != NULL; i++)
		s->alive[i >> 6] |= (uint64_t) alive[i] << (i & 63);
	*out = s;
	return M1_OK;
}

void
m1_sampler_free(m1_sampler *s)
{
	if (s == NULL)
		return;
	free(s->alive);
	free(s->candidates);
	free(s);
}

m1_status
m1_sampling_check(const m1_sampling *s, m1_error *err)
{
	if (!(s->temperature >= 0.0f && s->temperature <= 100.0f))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "temperature must be between 0 and 100");
	if (!(s->top_p > 0.0f && s->top_p <= 1.0f))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "top_p must be above 0 and at most 1");
	if (s->top_k < 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "top_k must not be negative");
	return M1_OK;
}

/* Likelier first; the lower id first among equals, so that the order is total. */
static int
by_weight(const void *a, const void *b)
{
	const candidate *x = a;
	const candidate *y = b;

	if (x->weight != y->weight)
		return x->weight > y->weight ? -1 : 1;
	return x->id < y->id ? -1 : 1;
}

static bool
has(const uint64_t *set, int32_t id)
{
	return set == NULL || (set[id >> 6] >> (id & 63) & 1) != 0;
}

static bool
may_come(const m1_sampler *s, const uint64_t *allowed, int32_t id)
{
	return has(s->alive, id) && has(allowed, id);
}

/* NaN is below every number. */
static bool
is_greater(float x, float y)
{
	return x > y || (isnan(y) && !isnan(x));
}

static int32_t
best_token(const m1_sampler *s, const uint64_t *allowed, const float *logits)
{
	int32_t best = -1;

	for (int32_t i = 0; i < s->vocab; i++)
		if (may_come(s, allowed, i) && (best < 0 || is_greater(logits[i], logits[best])))
			best = i;
	return best < 0 ? 0 : best;
}

/* Of max, which no other is greater than, it is 1 even where that is infinite. */
static float
weight_of(float logit, float max, float temperature)
{
	if (logit == max)
		return 1.0f;
	return logit < max ? expf((logit - max) / temperature) : 0.0f;
}

static double
total_weight(const candidate *c, int n)
{
	double total = 0.0;

	for (int i = 0; i < n; i++)
		total += c[i].weight;
	return total;
}

/*
 * Moves the candidates that can be in the nucleus to the front, sorted, and returns their number.
 * The tail far below the maximum is almost all of a large vocabulary and is not worth sorting: it is left
 * out when what remains holds `needed` of the weight, or top_k tokens, by itself.
 */
static int
sort_head(candidate *c, int n, float max_weight, double needed, int top_k)
{
	for (float cut = 1e-3f; cut > 1e-9f; cut *= 1e-3f)
	{
		int kept = 0;
		double weight = 0.0;

		for (int i = 0; i < n; i++)
			if (c[i].weight >= cut * max_weight)
			{
				candidate moved = c[i];

				c[i] = c[kept];
				c[kept++] = moved;
				weight += moved.weight;
			}
		if (top_k > 0 ? kept >= top_k : weight >= needed)
		{
			m1_sort(c, (size_t) kept, sizeof *c, by_weight);
			return kept;
		}
	}
	m1_sort(c, (size_t) n, sizeof *c, by_weight);
	return n;
}

/* How many of the sorted candidates remain after top_k, then top_p of what top_k left: at least one. */
static int
nucleus(const candidate *c, int n, double needed, const m1_sampling *p)
{
	double sum = 0.0;
	int kept = 0;

	if (p->top_k > 0)
	{
		n = n > p->top_k ? p->top_k : n;
		needed = (double) p->top_p * total_weight(c, n);
	}
	while (kept < n)
	{
		sum += c[kept++].weight;
		if (sum >= needed)
			break;
	}
	return kept;
}

static int32_t
draw(const candidate *c, int n, double u)
{
	double target = u * total_weight(c, n);
	double sum = 0.0;

	for (int i = 0; i < n; i++)
	{
		sum += c[i].weight;
		if (sum > target)
			return c[i].id;
	}
	return c[n - 1].id;
}

/* best: the likeliest that may come */
static int32_t
sample_token(m1_sampler *s, const m1_sampling *p, uint64_t number, const uint64_t *allowed, const float *logits,
			 int32_t best)
{
	candidate *c = s->candidates;
	const double u = m1_random_uniform(p->seed, number);
	double total;
	int n = 0;

	for (int32_t i = 0; i < s->vocab; i++)
		if (may_come(s, allowed, i))
			c[n++] = (candidate){.weight = weight_of(logits[i], logits[best], p->temperature), .id = i};
	total = total_weight(c, n);
	if (!(total > 0.0)) /* nothing but NaN, or nothing at all */
		return best;
	/* With the whole distribution there is nothing to cut, and id order serves as well as any. */
	if (p->top_p >= 1.0f && p->top_k == 0)
		return draw(c, n, u);
	n = sort_head(c, n, 1.0f, (double) p->top_p * total, p->top_k);
	return draw(c, nucleus(c, n, (double) p->top_p * total, p), u);
}

/* In the model's own distribution, whatever may come. */
static float
probability_of(const m1_sampler *s, const float *logits, int32_t id)
{
	float max = logits[0];
	double sum = 0.0;

	for (int32_t i = 1; i < s->vocab; i++)
		max = is_greater(logits[i], max) ? logits[i] : max;
	for (int32_t i = 0; i < s->vocab; i++)
		sum += weight_of(logits[i], max, 1.0f);
	return sum > 0.0 ? (float) (weight_of(logits[id], max, 1.0f) / sum) : 0.0f;
}

m1b_pick
m1_sampler_pick(m1_sampler *s, const m1_sampling *p, uint64_t number, const uint64_t *allowed, const float *logits)
{
	int32_t id = best_token(s, allowed, logits);

	if (p->temperature > 0.0f)
		id = sample_token(s, p, number, allowed, logits, id);
	if (!m1_logits_are_finite(logits, s->vocab))
		return (m1b_pick){.id = id, .probability = NAN};
	return (m1b_pick){.id = id, .probability = probability_of(s, logits, id)};
}

/* By the bits, without a branch: a few numbers at a time, for a fraction of what choosing takes. */
bool
m1_logits_are_finite(const float *logits, int n)
{
	const uint32_t exponent = 0x7f800000u;
	uint32_t broken = 0;

	for (int i = 0; i < n; i++)
	{
		uint32_t bits;

		memcpy(&bits, &logits[i], sizeof bits);
		broken |= (bits & exponent) == exponent;
	}
	return broken == 0;
}

m1b_draw
m1_sampler_draw(const m1_sampler *s, const m1_sampling *p, uint64_t number, const uint64_t *allowed, int row)
{
	return (m1b_draw){
		.row = row,
		.temperature = p->temperature,
		.top_p = p->top_p,
		.top_k = p->top_k,
		.uniform = m1_random_uniform(p->seed, number),
		.allowed = allowed != NULL ? allowed : s->alive,
	};
}

float
m1_logprob_of(const float *logits, int vocab, float temperature, const uint64_t *allowed, int32_t id)
{
	const double t = temperature > 0.0f ? (double) temperature : 1.0;
	double sum = 0.0;

	for (int i = 0; i < vocab; i++)
		if (allowed == NULL || (allowed[i / 64] >> i % 64 & 1) != 0)
			sum += exp(((double) logits[i] - (double) logits[id]) / t);
	return (float) -log(sum); /* cppcheck-suppress invalidFunctionArg ; the token itself is in it */
}
