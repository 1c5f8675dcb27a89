/*
 * test_lightning.c - lightning attention: the fp64 scalar recurrence, block prefill and one-token
 * decode agree, for lengths around block boundaries, any split into chunks and any decay.
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"

#define HEADS 3
#define D 20 /* not a multiple of any vector width */
#define MAX_TOKENS 1024

static const float decays[HEADS] = {0.917f, 0.004f, 1e-6f};

/* o_t = q_t S_t, S_t = e^-lambda S_(t-1) + k_t^T v_t, in double */
static void
reference(const float *qkv, int n, double *out)
{
	for (int h = 0; h < HEADS; h++)
	{
		double s[D][D] = {{0}};

		for (int t = 0; t < n; t++)
		{
			const float *q = qkv + ((size_t) t * HEADS + (size_t) h) * 3 * D;
			const float *k = q + D;
			const float *v = q + 2 * D;
			double *o = out + ((size_t) t * HEADS + (size_t) h) * D;

			memset(o, 0, D * sizeof *o);
			for (int i = 0; i < D; i++)
				for (int j = 0; j < D; j++)
				{
					s[i][j] = exp(-(double) decays[h]) * s[i][j] + (double) k[i] * v[j];
					o[j] += q[i] * s[i][j];
				}
		}
	}
}

static m1b_backend *
open_backend(const char *isa)
{
	m1b_backend *b;
	m1_error err;
	m1b_geometry g = {.heads = HEADS,
					  .kv_heads = 1,
					  .head_dim = D,
					  .rotary_dim = 0,
					  .rope_theta = 1e4f,
					  .lightning_layers = 1,
					  .softmax_layers = 0,
					  .max_context = MAX_TOKENS,
					  .max_states = 2,
					  .max_tokens = MAX_TOKENS,
					  .max_moe_pairs = MAX_TOKENS,
					  .expert_width = 1,
					  .hidden = 1,
					  .experts = 1};

	if (m1b_cpu_open(2, isa, &b, &err) != M1_OK)
		return NULL; /* this processor lacks the instruction set */
	assert_ok(b->ops->configure(b, &g, &err));
	return b;
}

/* Runs n tokens in chunks of the given size (0: growing chunks 1, 2, 3, ...) from a fresh state. */
static void
run_chunked(m1b_backend *b, const float *qkv, int n, int chunk, float *out)
{
	m1b_state *state = b->ops->state_acquire(b, n);
	int grown = 0;

	assert_non_null(state);
	for (int at = 0; at < n;)
	{
		int size = chunk > 0 ? chunk : ++grown;
		m1b_segment segment = {.state = state, .start = at};
		m1b_batch batch = {.segments = &segment, .n_segments = 1};
		m1b_lightning p = {.batch = &batch,
						   .decay = decays,
						   .qkv = qkv + (size_t) at * HEADS * 3 * D,
						   .out = out + (size_t) at * HEADS * D};

		size = size < n - at ? size : n - at;
		batch.n_tokens = segment.n_tokens = size;
		b->ops->lightning(b, &p);
		at += size;
	}
	b->ops->state_release(b, state);
}

static void
assert_agrees(const float *got, const double *want, int n, int chunk, const char *isa)
{
	for (int i = 0; i < n * HEADS * D; i++)
		if (!(fabs(got[i] - want[i]) <= 2e-4 + 1e-5 * fabs(want[i])))
			fail_msg("%s, %d tokens in chunks of %d: element %d is %.9g instead of %.9g", isa, n, chunk, i, got[i],
					 want[i]);
}

static void
test_prefill_and_decode_agree(void **test_state)
{
	static const int lengths[] = {1, 255, 256, 257, 511, 513, 1000};
	static const int chunks[] = {1, 2, 63, 64, 65, 256, 1000, 0};
	static const char *const isas[] = {"portable", "avx2", "avx512"};
	float *qkv = malloc(sizeof *qkv * MAX_TOKENS * HEADS * 3 * D);
	float *out = malloc(sizeof *out * MAX_TOKENS * HEADS * D);
	double *want = malloc(sizeof *want * MAX_TOKENS * HEADS * D);
	uint64_t seed = 42;

	(void) test_state;
	for (size_t i = 0; i < (size_t) MAX_TOKENS * HEADS * 3 * D; i++)
		qkv[i] = 0.5f * test_random_float(&seed);
	reference(qkv, MAX_TOKENS, want);
	for (size_t s = 0; s < sizeof isas / sizeof *isas; s++)
	{
		m1b_backend *b = open_backend(isas[s]);

		for (size_t i = 0; b != NULL && i < sizeof lengths / sizeof *lengths; i++)
			for (size_t j = 0; j < sizeof chunks / sizeof *chunks; j++)
			{
				memset(out, 0xff, sizeof *out * MAX_TOKENS * HEADS * D);
				run_chunked(b, qkv, lengths[i], chunks[j], out);
				assert_agrees(out, want, lengths[i], chunks[j], isas[s]);
			}
		if (b != NULL)
			b->ops->close(b);
	}
	free(qkv);
	free(out);
	free(want);
}

/* A released state is wiped: the next sequence starts from zero, not from somebody else's text. */
static void
test_released_state_is_zero(void **test_state)
{
	m1b_backend *b = open_backend(NULL);
	float qkv[HEADS * 3 * D];
	float first[HEADS * D];
	float again[HEADS * D];
	uint64_t seed = 7;

	(void) test_state;
	for (size_t i = 0; i < HEADS * 3 * D; i++)
		qkv[i] = test_random_float(&seed);
	run_chunked(b, qkv, 1, 1, first);
	run_chunked(b, qkv, 1, 1, again);
	assert_memory_equal(first, again, sizeof first);
	b->ops->close(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prefill_and_decode_agree),
		cmocka_unit_test(test_released_state_is_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
