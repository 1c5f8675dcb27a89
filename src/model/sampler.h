/*
 * sampler.h - from logits to the next token.
 *
 * Random numbers come from a counter, not from a stream: draw `number` of a seed is the same whatever else the process
 * does, so the same seed gives the same text in any batch.
 */
#ifndef M1_MODEL_SAMPLER_H
#define M1_MODEL_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/status.h"

typedef struct m1_sampling
{
	float temperature; /* 0 = greedy */
	float top_p;	   /* (0, 1]: the smallest set of likeliest tokens with this much probability */
	int top_k;		   /* 0 = off */
	uint64_t seed;
} m1_sampling;

typedef struct m1_sampler m1_sampler; /* work space, and the set of tokens that may be sampled */

/* alive[vocab]: ids that may be sampled; NULL = all. Copied. */
m1_status m1_sampler_create(int vocab, const bool *alive, m1_sampler **out, m1_error *err);
void m1_sampler_free(m1_sampler *s);

/* M1_E_INVALID_ARGUMENT names the value that is out of range. */
m1_status m1_sampling_check(const m1_sampling *sampling, m1_error *err);

/*
 * Picks a token from the logits [vocab]. allowed: NULL, or a bit for each token (token id is bit id % 64 of word
 * id / 64): the others are left out before anything else is looked at, as are those that are not alive.
 *
 * A token's weight is exp((logit - best) / temperature); NaN has none. Tokens are taken in the order of their weights,
 * the lower id first among equals: the first top_k; of these, as few as have top_p of their weight together; of these,
 * the first one at which the sum of weights exceeds the uniform random number's share of it. With neither top_k nor
 * top_p they are taken in the order of ids. At temperature 0 the first of all comes.
 */
m1b_pick m1_sampler_pick(m1_sampler *s, const m1_sampling *sampling, uint64_t number, const uint64_t *allowed,
						 const float *logits);

/*
 * The natural logarithm of a token's probability at a temperature (0 counts as 1): over the vocabulary, or what allowed
 * leaves of it. Tokens that are not alive count among the former, as they do where gradients are made.
 */
float m1_logprob_of(const float *logits, int vocab, float temperature, const uint64_t *allowed, int32_t id);

/* Whether all of logits [n] are numbers: those of a broken model are not, and whatever is picked then means nothing. */
bool m1_logits_are_finite(const float *logits, int n);

/*
 * The same question to a backend, which gives the same answer but for rounding: about row `row` of its logits. allowed,
 * when not NULL, has only tokens that are alive. The draw points into it, or into the sampler.
 */
m1b_draw m1_sampler_draw(const m1_sampler *s, const m1_sampling *sampling, uint64_t number, const uint64_t *allowed,
						 int row);

#endif
