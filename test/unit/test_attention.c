/*
 * test_attention.c - softmax attention over KV pages of both types, by every instruction set, against plain arithmetic
 * in double: exact for what the pages hold, and within bf16's precision of what was put into them; also from a
 * snapshot.
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"

#define KV 2
#define GROUP 3 /* query heads per kv head */
#define HEADS (KV * GROUP)
#define D 20 /* not a multiple of any vector width */
#define MAX_TOKENS 300
#define EXACT 1e-5
/*
 * keys and values are off by 2^-9 of themselves: a score of D products by less than 2^-9 sqrt(D) / 3, a value by 2^-9
 */
#define ROUNDED (4 * 0x1p-9)

typedef struct tokens
{
	float q[MAX_TOKENS * HEADS * D];
	float k[MAX_TOKENS * KV * D];
	float v[MAX_TOKENS * KV * D];
} tokens;

/* The nearest number of eight significant bits, from the middle the even one. */
static double
nearest_bf16(double x)
{
	int exponent;
	const double fraction = frexp(x, &exponent);

	return ldexp(nearbyint(ldexp(fraction, 8)), exponent - 8);
}

static double
as_is(double x)
{
	return x;
}

/* out[t] = softmax(q_t K / sqrt(D)) V over the tokens up to t, with keys and values as pages store them */
static void
reference(const tokens *x, double (*stored)(double), double *out)
{
	for (int t = 0; t < MAX_TOKENS; t++)
		for (int h = 0; h < HEADS; h++, out += D)
		{
			double sum = 0;

			memset(out, 0, D * sizeof *out);
			for (int s = 0; s <= t; s++)
			{
				const size_t at = ((size_t) s * KV + (size_t) (h / GROUP)) * D;
				double score = 0;

				for (int i = 0; i < D; i++)
					score += x->q[(t * HEADS + h) * D + i] * stored(x->k[at + (size_t) i]);
				score = exp(score / sqrt(D));
				sum += score;
				for (int i = 0; i < D; i++)
					out[i] += score * stored(x->v[at + (size_t) i]);
			}
			for (int i = 0; i < D; i++)
				out[i] /= sum;
		}
}

static m1b_backend *
open_backend(const char *isa, bool f32_pages)
{
	m1b_backend *b;
	m1_error err;
	/* no rotation, so that what is stored is what was given */
	m1b_geometry g = {.heads = HEADS,
					  .kv_heads = KV,
					  .head_dim = D,
					  .rotary_dim = 0,
					  .rope_theta = 1e4f,
					  .softmax_layers = 1,
					  .max_context = MAX_TOKENS,
					  .max_states = 2,
					  .max_tokens = MAX_TOKENS,
					  .max_moe_pairs = 1,
					  .expert_width = 1,
					  .hidden = 1,
					  .experts = 1,
					  .snapshot_bytes = (size_t) 1 << 20,
					  .integer_experts = !f32_pages};

	if (m1b_cpu_open(2, isa, &b, &err) != M1_OK)
		return NULL; /* this processor lacks the instruction set */
	assert_ok(b->ops->configure(b, &g, &err));
	return b;
}

/* Feeds tokens [from, to) in chunks of a size. */
static void
feed(m1b_backend *b, m1b_state *state, const tokens *all, int from, int to, int chunk, float *out)
{
	tokens *x = malloc(sizeof *x); /* queries and keys are rotated in place */

	assert_non_null(x);
	*x = *all;
	for (int at = from; at < to; at += chunk)
	{
		m1b_segment segment = {.state = state, .start = at, .n_tokens = chunk < to - at ? chunk : to - at};
		m1b_batch batch = {.n_tokens = segment.n_tokens, .segments = &segment, .n_segments = 1};

		b->ops->begin(b, &batch);
		b->ops->attention(b, &(m1b_attention){.batch = &batch,
											  .q = x->q + at * HEADS * D,
											  .k = x->k + at * KV * D,
											  .v = x->v + at * KV * D,
											  .out = out + at * HEADS * D});
	}
	free(x);
}

static void
assert_within(const float *got, const double *want, double tolerance, const char *what)
{
	for (int i = 0; i < MAX_TOKENS * HEADS * D; i++)
		if (!(fabs(got[i] - want[i]) <= tolerance))
			fail_msg("%s: element %d is %.9g instead of %.9g", what, i, got[i], want[i]);
}

/* All tokens in chunks; then half of them, a snapshot, and the rest by a sequence that starts from it. */
static void
check(m1b_backend *b, const tokens *x, int chunk, const double *stored, const double *given, const char *what)
{
	const int half = MAX_TOKENS / 2 / chunk * chunk; /* in the middle of a page, most often */
	float *out = malloc(2 * sizeof x->q);
	float *again = out + MAX_TOKENS * HEADS * D;
	m1b_state *state = b->ops->state_acquire(b, MAX_TOKENS);
	m1b_snapshot *snapshot;

	assert_true(out != NULL && state != NULL);
	feed(b, state, x, 0, half, chunk, out);
	memcpy(again, out, sizeof x->q);
	snapshot = b->ops->snapshot_take(b, state, half, M1B_SHARED);
	assert_non_null(snapshot);
	feed(b, state, x, half, MAX_TOKENS, chunk, out);
	assert_within(out, stored, EXACT, what);
	assert_within(out, given, ROUNDED, what);
	b->ops->state_release(b, state);

	state = b->ops->state_acquire_from(b, MAX_TOKENS, snapshot);
	assert_non_null(state);
	b->ops->snapshot_release(b, snapshot);
	feed(b, state, x, half, MAX_TOKENS, chunk, again);
	assert_memory_equal(again, out, sizeof x->q);
	b->ops->state_release(b, state);
	free(out);
}

static void
test_pages(void **state)
{
	static const char *const isas[] = {"portable", "avx2", "avx512", "avx512vnni"};
	static const int chunks[] = {1, 7, 16, 100};
	tokens *x = malloc(sizeof *x);
	double *given = malloc(MAX_TOKENS * HEADS * D * sizeof *given);
	double *rounded = malloc(MAX_TOKENS * HEADS * D * sizeof *rounded);
	uint64_t seed = 11;

	(void) state;
	assert_true(x != NULL && given != NULL && rounded != NULL);
	for (size_t i = 0; i < sizeof *x / sizeof(float); i++)
		((float *) x)[i] = test_random_float(&seed);
	reference(x, as_is, given);
	reference(x, nearest_bf16, rounded);
	for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
		for (int f32 = 0; f32 < 2; f32++)
		{
			m1b_backend *b = open_backend(isas[i], f32);

			for (size_t c = 0; b != NULL && c < sizeof chunks / sizeof *chunks; c++)
				check(b, x, chunks[c], f32 ? given : rounded, given, isas[i]);
			if (b != NULL)
				b->ops->close(b);
		}
	free(x);
	free(given);
	free(rounded);
}

/* A value that is not a number does not become one: here rounding would make it infinite. */
static void
test_not_a_number(void **state)
{
	m1b_backend *b = open_backend(NULL, false);
	m1b_state *sequence = b->ops->state_acquire(b, MAX_TOKENS);
	tokens *x = calloc(1, sizeof *x);
	float *out = malloc(sizeof x->q);
	const uint32_t low_mantissa = 0x7f800001;

	(void) state;
	assert_true(x != NULL && out != NULL);
	memcpy(&x->v[70 * KV * D], &low_mantissa, sizeof low_mantissa);
	feed(b, sequence, x, 0, 80, 1, out);
	assert_true(out[69 * HEADS * D] == 0.0f);
	assert_true(isnan(out[70 * HEADS * D]) && isnan(out[79 * HEADS * D]));
	b->ops->state_release(b, sequence);
	b->ops->close(b);
	free(x);
	free(out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_not_a_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
