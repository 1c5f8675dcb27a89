/*
 * test_product.c - the linear layer and the experts of the CPU backend with quantized weights, against the same weights
 * as floats: as exact as 8-bit activations allow, and for the head as exact as the weights.
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"

#define COLS 256
#define ROWS 70
#define EXPERTS 3
#define TOKENS 13
#define TOP_K 2

static const m1b_dtype types[] = {M1B_Q8_0, M1B_Q4_0, M1B_Q4_K, M1B_Q5_K, M1B_Q6_K};

/* A stored matrix of random blocks with scales that keep the weights near 1 / sqrt(COLS), and the same as floats. */
typedef struct twin
{
	uint8_t *stored;
	float *floats;
	m1b_matrix quantized;
	m1b_matrix plain;
} twin;

/* Whether the bytes must stay. */
static bool
load(m1b_backend *b, const void *host, m1b_dtype type, m1b_use use, int rows, int cols, m1b_matrix *out)
{
	const m1b_stored_matrix p = {.host = host, .type = type, .use = use, .rows = rows, .cols = cols};
	bool borrowed;
	m1_error err;

	assert_ok(b->ops->matrix(b, &p, out, &borrowed, &err));
	return borrowed;
}

static twin
make_twin(m1b_backend *b, m1b_dtype type, m1b_use use, int rows, int cols, uint64_t *seed)
{
	static const float scales[] = {
		[M1B_Q8_0] = 1e-3f, [M1B_Q4_0] = 1e-2f, [M1B_Q4_K] = 3e-4f, [M1B_Q5_K] = 1e-4f, [M1B_Q6_K] = 2e-5f};
	const size_t n = (size_t) rows * (size_t) cols;
	const uint16_t scale = m1b_float_to_half(scales[type]);
	const uint16_t min = m1b_float_to_half(scales[type] * (type == M1B_Q4_K ? 7.5f : 15.5f));
	twin w = {.stored = malloc(m1b_bytes(type, n)), .floats = malloc(n * sizeof(float))};

	assert_true(w.stored != NULL && w.floats != NULL);
	for (size_t i = 0; i < m1b_bytes(type, n); i++)
		w.stored[i] = (uint8_t) test_random(seed);
	for (size_t at = 0; at < m1b_bytes(type, n); at += m1b_block_bytes(type))
	{
		memcpy(w.stored + at + (type == M1B_Q6_K ? 208 : 0), &scale, sizeof scale);
		if (type == M1B_Q4_K || type == M1B_Q5_K)
			memcpy(w.stored + at + 2, &min, sizeof min);
	}
	m1b_dequantize(type, w.stored, n, w.floats);
	assert_true(load(b, w.stored, type, use, rows, cols, &w.quantized) == (use == M1B_USE_ROWS));
	assert_true(load(b, w.floats, M1B_F32, use, rows, cols, &w.plain));
	if (use != M1B_USE_ROWS) /* the backend has its own copy */
		memset(w.stored, 0xee, m1b_bytes(type, n));
	return w;
}

static void
free_twin(twin *w)
{
	free(w->stored);
	free(w->floats);
}

static m1b_backend *
open_backend(void)
{
	m1b_geometry g = {.heads = 1,
					  .kv_heads = 1,
					  .head_dim = COLS,
					  .lightning_layers = 1,
					  .max_context = 64,
					  .max_states = 2,
					  .max_tokens = TOKENS,
					  .max_moe_pairs = TOKENS * TOP_K,
					  .expert_width = 512,
					  .hidden = COLS,
					  .experts = EXPERTS};
	m1b_backend *b;
	m1_error err;

	assert_ok(m1b_cpu_open(2, NULL, &b, &err));
	assert_ok(b->ops->configure(b, &g, &err));
	return b;
}

/* Three products of one input, the middle one with weights as floats. */
static void
check_linear(m1b_dtype type, m1b_use use, double tolerance)
{
	uint64_t seed = 5;
	m1b_backend *b = open_backend();
	twin w[3];
	float *x = test_random_floats(&seed, TOKENS * COLS);
	float got[3][TOKENS * ROWS];
	float want[3][TOKENS * ROWS];
	m1b_linear p = {.x = x, .n = TOKENS, .n_products = 3};

	for (int i = 0; i < 3; i++)
	{
		w[i] = make_twin(b, type, use, ROWS - 16 * i, COLS, &seed);
		p.products[i] = (m1b_product){i == 1 ? &w[i].plain : &w[i].quantized, i == 0 ? M1B_SILU : M1B_NONE, got[i]};
	}
	b->ops->linear(b, &p);
	for (int i = 0; i < 3; i++)
	{
		p.products[i].weight = &w[i].plain;
		p.products[i].out = want[i];
	}
	b->ops->linear(b, &p);
	for (int i = 0; i < 3; i++)
	{
		const double error = test_distance(got[i], want[i], TOKENS * (size_t) (ROWS - 16 * i));

		if (i == 1 ? error != 0 : !(error < tolerance))
			fail_msg("%s, product %d: error %g", m1b_dtype_name(type), i, error);
	}
	b->ops->close(b);
	free(x);
	for (int i = 0; i < 3; i++)
		free_twin(&w[i]);
}

static void
test_linear(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		check_linear(types[i], M1B_USE_PRODUCT, 0.01);
}

static void
test_head(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		check_linear(types[i], M1B_USE_HEAD, 5e-5);
}

static void
test_rows_are_looked_up(void **state)
{
	uint64_t seed = 9;
	m1b_backend *b = open_backend();
	const int32_t tokens[] = {0, ROWS - 1, 7};
	float out[3 * COLS];

	(void) state;
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
	{
		twin w = make_twin(b, types[i], M1B_USE_ROWS, ROWS, COLS, &seed);

		b->ops->embed(b, &(m1b_embed){.table = &w.quantized, .tokens = tokens, .n = 3, .out = out});
		for (int t = 0; t < 3; t++)
			assert_memory_equal(out + t * COLS, w.floats + tokens[t] * COLS, COLS * sizeof(float));
		free_twin(&w);
	}
	b->ops->close(b);
}

/* w1 and w3 may be of different types; w3 may even be of floats. */
static void
test_experts(void **state)
{
	uint64_t seed = 13;

	(void) state;
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
	{
		m1b_backend *b = open_backend();
		twin w1[EXPERTS], w2[EXPERTS], w3[EXPERTS];
		m1b_matrix q1[EXPERTS], q2[EXPERTS], q3[EXPERTS], f1[EXPERTS], f2[EXPERTS], f3[EXPERTS];
		float *router_weights = test_random_floats(&seed, EXPERTS * COLS);
		float *x = test_random_floats(&seed, TOKENS * COLS);
		float got[TOKENS * COLS];
		float want[TOKENS * COLS];
		m1b_matrix router;
		m1b_moe moe = {.router = &router, .experts = EXPERTS, .top_k = TOP_K, .x = x, .n = TOKENS};

		load(b, router_weights, M1B_F32, M1B_USE_PRODUCT, EXPERTS, COLS, &router);
		for (int e = 0; e < EXPERTS; e++)
		{
			w1[e] = make_twin(b, types[i], M1B_USE_PRODUCT, 512, COLS, &seed);
			w3[e] = make_twin(b, M1B_Q8_0, M1B_USE_PRODUCT, 512, COLS, &seed);
			w2[e] = make_twin(b, types[i], M1B_USE_PRODUCT, COLS, 512, &seed);
			q1[e] = w1[e].quantized;
			q2[e] = w2[e].quantized;
			q3[e] = i == 0 ? w3[e].plain : w3[e].quantized;
			f1[e] = w1[e].plain;
			f2[e] = w2[e].plain;
			f3[e] = w3[e].plain;
		}
		moe.w1 = q1, moe.w2 = q2, moe.w3 = q3, moe.out = got;
		b->ops->moe(b, &moe);
		moe.w1 = f1, moe.w2 = f2, moe.w3 = f3, moe.out = want;
		b->ops->moe(b, &moe);
		if (!(test_distance(got, want, TOKENS * COLS) < 0.02))
			fail_msg("%s: error %g", m1b_dtype_name(types[i]), test_distance(got, want, TOKENS * COLS));
		for (int e = 0; e < EXPERTS; e++)
		{
			free_twin(&w1[e]);
			free_twin(&w2[e]);
			free_twin(&w3[e]);
		}
		free(router_weights);
		free(x);
		b->ops->close(b);
	}
}

static void
test_impossible_width(void **state)
{
	m1b_backend *b = open_backend();
	const uint8_t stored[1024] = {0};
	const m1b_stored_matrix p = {.host = stored, .type = M1B_Q4_K, .use = M1B_USE_PRODUCT, .rows = 1, .cols = 128};
	m1b_matrix out;
	bool borrowed;
	m1_error err;

	(void) state;
	assert_int_equal(b->ops->matrix(b, &p, &out, &borrowed, &err), M1_E_CORRUPT);
	b->ops->close(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linear),
		cmocka_unit_test(test_head),
		cmocka_unit_test(test_rows_are_looked_up),
		cmocka_unit_test(test_experts),
		cmocka_unit_test(test_impossible_width),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
