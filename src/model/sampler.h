/*
 * sampler.h - from logits to the next token.
 *
 * Random numbers come from a counter, not from a stream: draw number `step` of a
 * seed is the same whatever else the process does, so the same seed gives the same
 * text in any batch.
 */
#ifndef M1_MODEL_SAMPLER_H
#define M1_MODEL_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

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

typedef struct m1_sample
{
	int32_t id;
	float probability; /* of id in the model's own distribution, at temperature 1 over the whole vocabulary */
} m1_sample;

/*
 * Picks a token from the logits [vocab]. Ties go to the lower id. allowed: NULL, or a bit for each token (token id is
 * bit id % 64 of word id / 64): the others are left out before anything else is looked at.
 */
m1_sample m1_sampler_pick(m1_sampler *s, const m1_sampling *sampling, uint64_t step, const uint64_t *allowed,
						  const float *logits);

#endif
