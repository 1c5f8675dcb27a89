/*
 * test_cuda.c - the CUDA backend against plain arithmetic and against the CPU backend: every kind
 * of product, attention of both kinds in prefill and decode, experts, and what happens when memory
 * or the device fails.
 *
 * Without a GPU, kernels run as emulated threads in an order that changes from block to block. Each
 * operation is run twice, and must give the same bits: what depends on the order is a race. Outputs
 * start as NaN.
 */
#include "cuda_testing.h"

#include <cublasLt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_internal.h"
#include "blocks/blocks.h"
#include "kernels/m1k.h"

static uint64_t seed = 20260711;

static float *
random_floats(size_t n, float scale)
{
	float *x = malloc((n + 1) * sizeof *x);

	assert_non_null(x);
	for (size_t i = 0; i < n; i++)
		x[i] = scale * test_random_float(&seed);
	return x;
}

static float *
not_numbers(size_t n)
{
	float *x = malloc((n + 1) * sizeof *x);

	assert_non_null(x);
	memset(x, 0xff, n * sizeof *x);
	return x;
}

/* ---- backends ---- */

static m1b_geometry
geometry(int heads, int kv_heads, int head_dim, bool f32)
{
	return (m1b_geometry){.heads = heads,
						  .kv_heads = kv_heads,
						  .head_dim = head_dim,
						  .rotary_dim = head_dim / 2,
						  .rope_theta = 1e4f,
						  .lightning_layers = 2,
						  .softmax_layers = 2,
						  .max_context = 512,
						  .max_states = 12,
						  .max_tokens = 300,
						  .max_moe_pairs = 600,
						  .expert_width = 136,
						  .hidden = 256,
						  .experts = 5,
						  .weight_bytes = (size_t) 4 << 20,
						  .weight_matrices = 16,
						  .scratch_bytes = (size_t) 16 << 20,
						  .f32_weights = f32};
}

static m1b_backend *
open_cuda(const m1b_geometry *g)
{
	const m1b_cuda_options options = {.log = NULL};
	m1b_backend *b;
	m1_error err;

	assert_ok(m1b_cuda_open(&options, &b, &err));
	assert_ok(b->ops->configure(b, g, &err));
	return b;
}

static m1b_backend *
open_cpu(const m1b_geometry *g)
{
	m1b_backend *b;
	m1_error err;

	assert_ok(m1b_cpu_open(1, "portable", &b, &err));
	assert_ok(b->ops->configure(b, g, &err));
	return b;
}

static float *
put(m1b_backend *b, const float *host, size_t n)
{
	float *device = b->ops->scratch(b, n, host);

	assert_non_null(device);
	return device;
}

static float *
poisoned(m1b_backend *b, size_t n)
{
	float *host = not_numbers(n);
	float *device = put(b, host, n);

	free(host);
	return device;
}

static float *
fetch(m1b_backend *b, const float *device, size_t n)
{
	float *host = not_numbers(n);
	m1_error err;

	assert_ok(b->ops->read(b, device, n, host, &err));
	return host;
}

static void
assert_same(m1b_backend *b, const float *first, const float *second, size_t n, const char *what)
{
	float *x = fetch(b, first, n);
	float *y = fetch(b, second, n);

	if (memcmp(x, y, n * sizeof *x) != 0)
		fail_msg("%s: two runs differ", what);
	free(x);
	free(y);
}

/* ---- weights ---- */

/* Random weights of a type: random bytes, with scales that are small numbers. */
static uint8_t *
random_weights(m1b_dtype type, size_t n)
{
	const size_t block = m1b_block_bytes(type);
	const size_t bytes = m1b_bytes(type, n);
	uint8_t *w = malloc(bytes + 1);

	assert_non_null(w);
	for (size_t i = 0; i < bytes; i++)
		w[i] = (uint8_t) test_random(&seed);
	for (size_t at = 0; at < bytes; at += block)
	{
		const float x = test_random_float(&seed);
		const uint16_t scale = m1b_float_to_half(0.01f * x);
		uint32_t bits;

		memcpy(&bits, &x, sizeof bits);
		if (type == M1B_F32)
			memcpy(w + at, &x, 4);
		else if (type == M1B_BF16)
			memcpy(w + at, (uint8_t *) &bits + 2, 2);
		else if (type == M1B_F16)
			memcpy(w + at, &(uint16_t){m1b_float_to_half(x)}, 2);
		else if (type == M1B_F8_E4M3)
		{
			const float small = 0.01f * x;

			memcpy(w + at, &small, 4);
			for (size_t i = 4; i < block; i++)
				w[at + i] ^= (w[at + i] & 0x7f) == 0x7f; /* no NaN */
		}
		else if (type == M1B_Q6_K)
			memcpy(w + at + 208, &scale, 2);
		else
			memcpy(w + at, &scale, 2);
		if (type == M1B_Q4_K || type == M1B_Q5_K)
			memcpy(w + at + 2, &scale, 2);
	}
	return w;
}

static m1b_matrix
load(m1b_backend *b, const uint8_t *w, m1b_dtype type, m1b_use use, int rows, int cols)
{
	const m1b_stored_matrix p = {.host = w, .type = type, .use = use, .rows = rows, .cols = cols};
	m1b_matrix m;
	m1_error err;
	bool borrowed;

	assert_ok(b->ops->matrix(b, &p, &m, &borrowed, &err));
	return m;
}

/* out [n, rows] = x [n, cols] times the weights, in double */
static void
multiply(const uint8_t *w, m1b_dtype type, int rows, int cols, const float *x, int n, float *out)
{
	float *row = malloc((size_t) cols * sizeof *row);

	assert_non_null(row);
	for (int r = 0; r < rows; r++)
	{
		m1b_dequantize(type, w + m1b_bytes(type, (size_t) r * (size_t) cols), (size_t) cols, row);
		for (int t = 0; t < n; t++)
		{
			double sum = 0;

			for (int k = 0; k < cols; k++)
				sum += (double) row[k] * x[t * cols + k];
			out[t * rows + r] = (float) sum;
		}
	}
	free(row);
}

static float
silu(float x)
{
	return x / (1.0f + expf(-x));
}

/* ---- products ---- */

/* n rows of x times [rows, cols]. */
static void
check_linear_in(bool f32, m1b_dtype type, m1b_use use, int n, int rows, int cols, m1b_activation activation,
				double tolerance)
{
	m1b_geometry g = geometry(2, 1, 16, f32);
	const size_t outs = (size_t) n * (size_t) rows;
	m1b_backend *b;
	uint8_t *w = random_weights(type, (size_t) rows * (size_t) cols);
	float *x = random_floats((size_t) n * (size_t) cols, 1.0f);
	float *want = not_numbers(outs);
	float *got;
	m1b_matrix m;
	m1b_linear p;
	char what[100];

	g.max_tokens = n > g.max_tokens ? n : g.max_tokens;
	g.vocab = use == M1B_USE_HEAD ? rows : 0;
	g.scratch_bytes += 2 * outs * sizeof(float);
	b = open_cuda(&g);
	m = load(b, w, type, use, rows, cols);
	p = (m1b_linear){.x = put(b, x, (size_t) n * (size_t) cols),
					 .n = n,
					 .products = {{&m, activation, poisoned(b, outs)}, {&m, activation, poisoned(b, outs)}},
					 .n_products = 2};
	snprintf(what, sizeof what, "%d rows times %s [%d, %d]", n, m1b_dtype_name(type), rows, cols);
	multiply(w, type, rows, cols, x, n, want);
	if (activation == M1B_SILU)
		for (size_t i = 0; i < outs; i++)
			want[i] = silu(want[i]);
	b->ops->linear(b, &p);
	got = fetch(b, p.products[0].out, outs);
	assert_near(got, want, outs, tolerance, what);
	assert_same(b, p.products[0].out, p.products[1].out, outs, what);
	free(got);
	free(want);
	free(x);
	free(w);
	b->ops->close(b);
}

static void
check_linear(m1b_dtype type, m1b_use use, int n, int rows, int cols, m1b_activation activation, double tolerance)
{
	check_linear_in(type == M1B_F32, type, use, n, rows, cols, activation, tolerance);
}

/* Where the experts are F32, other matrices keep activations in fp32, too. */
static void
test_fp32_throughout(void **state)
{
	(void) state;
	for (int type = M1B_F32; type <= M1B_F8_E4M3; type++)
		check_linear_in(true, (m1b_dtype) type, M1B_USE_PRODUCT, 21, 37, 256, M1B_SILU, EXACT);
}

static void
test_linear(void **state)
{
	static const int few[] = {1, 2, 3, 7, 8};
	static const int many[] = {9, 40, 97, 130};

	(void) state;
	for (int type = M1B_F32; type <= M1B_F8_E4M3; type++)
	{
		const int cols = m1b_block_weights((m1b_dtype) type) > 32 ? 512 : 96;

		for (size_t i = 0; i < sizeof few / sizeof *few; i++)
			check_linear((m1b_dtype) type, M1B_USE_PRODUCT, few[i], 37, cols, i % 2 ? M1B_SILU : M1B_NONE, EXACT);
		for (size_t i = 0; i < sizeof many / sizeof *many; i++)
			check_linear((m1b_dtype) type, M1B_USE_PRODUCT, many[i], 131, cols, i % 2 ? M1B_SILU : M1B_NONE,
						 type == M1B_F32 ? EXACT : ROUNDED);
		/* the head keeps fp32's precision however many rows there are */
		check_linear((m1b_dtype) type, M1B_USE_HEAD, 11, 70, cols, M1B_NONE, EXACT);
		check_linear((m1b_dtype) type, M1B_USE_HEAD, 29, 70, cols, M1B_NONE, EXACT); /* more than requests at once */
	}
	/* few rows, so long that the warps of a block share them */
	for (int type = M1B_F32; type <= M1B_BF16; type++)
		for (size_t i = 0; i < sizeof few / sizeof *few; i++)
			check_linear((m1b_dtype) type, M1B_USE_PRODUCT, few[i], 3, 2048 + 8, i % 2 ? M1B_SILU : M1B_NONE, EXACT);
	check_linear_in(true, M1B_BF16, M1B_USE_PRODUCT, 21, 5, 2048 + 8, M1B_NONE, EXACT);
	check_linear(M1B_Q8_0, M1B_USE_PRODUCT, 20, 3, 256 + 32, M1B_NONE, ROUNDED);
	/* quantized weights that the library takes as bf16, in one go and in two */
	check_linear(M1B_Q4_K, M1B_USE_PRODUCT, 513, 33, 256, M1B_SILU, ROUNDED);
	check_linear(M1B_Q8_0, M1B_USE_PRODUCT, 512, 4096 + 40, 32, M1B_NONE, ROUNDED);
}

/* A row's result, up to the number of rows that go together, is the same bits whatever its neighbours are. */
static void
check_rows_are_independent(int rows, int cols)
{
	const m1b_geometry g = geometry(2, 1, 16, false);
	m1b_backend *b = open_cuda(&g);
	uint8_t *w = random_weights(M1B_BF16, (size_t) (rows * cols));
	float *x = random_floats((size_t) (8 * cols), 1.0f);
	m1b_matrix m = load(b, w, M1B_BF16, M1B_USE_PRODUCT, rows, cols);
	float *device_x = put(b, x, (size_t) (8 * cols));
	float *together = poisoned(b, (size_t) (8 * rows));
	float *alone = poisoned(b, (size_t) (8 * rows));

	b->ops->linear(b, &(m1b_linear){.x = device_x, .n = 8, .products = {{&m, M1B_NONE, together}}, .n_products = 1});
	for (int t = 0; t < 8; t++)
		b->ops->linear(
			b, &(m1b_linear){
				   .x = device_x + t * cols, .n = 1, .products = {{&m, M1B_NONE, alone + t * rows}}, .n_products = 1});
	assert_same(b, together, alone, (size_t) (8 * rows), "rows alone and together");
	free(w);
	free(x);
	b->ops->close(b);
}

static void
test_rows_are_independent(void **state)
{
	(void) state;
	check_rows_are_independent(50, 64);
	check_rows_are_independent(5, 1032);
}

/* ---- rows ---- */

static void
test_norm_and_gate(void **state)
{
	static const int widths[] = {1, 33, 256, 300, 2048 + 8};

	(void) state;
	for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
		for (int variant = 0; variant < 4; variant++)
		{
			const m1b_geometry g = geometry(2, 1, 16, variant % 2);
			const int n = 11;
			const int width = widths[i];
			const size_t all = (size_t) n * (size_t) width;
			float *x = random_floats(all, 3.0f);
			float *y = random_floats(all, 3.0f);
			float *weight = random_floats((size_t) width, 1.0f);
			float *out[2][3];

			for (int device = 0; device < 2; device++)
			{
				m1b_backend *b = device ? open_cuda(&g) : open_cpu(&g);
				m1b_norm norm = {.residual = put(b, x, all),
								 .branch = variant < 2 ? put(b, y, all) : NULL,
								 .alpha = 0.7f,
								 .beta = 1.3f,
								 .keep_sum = poisoned(b, all),
								 .weight = put(b, weight, (size_t) width),
								 .eps = 1e-5f,
								 .n = n,
								 .width = width,
								 .out = poisoned(b, all)};
				m1b_gate gate = {.x = put(b, y, all),
								 .gate = norm.residual,
								 .weight = norm.weight,
								 .eps = 1e-6f,
								 .n = n,
								 .width = width};

				gate.out = (float *) gate.x; /* in place */
				b->ops->norm(b, &norm);
				b->ops->gate(b, &gate);
				out[device][0] = fetch(b, norm.out, all);
				out[device][1] = fetch(b, norm.keep_sum, all);
				out[device][2] = fetch(b, gate.out, all);
				b->ops->close(b);
			}
			for (int j = 0; j < 3; j++)
			{
				assert_near(out[1][j], out[0][j], all, EXACT, "norm and gate");
				free(out[0][j]);
				free(out[1][j]);
			}
			free(x);
			free(y);
			free(weight);
		}
}

static void
test_embed(void **state)
{
	const int32_t tokens[5] = {4, 0, 9, 9, 3};
	m1b_segment segment = {.n_tokens = 5};
	m1b_batch batch = {.tokens = tokens, .n_tokens = 5, .segments = &segment, .n_segments = 1};

	(void) state;
	for (int type = M1B_F32; type <= M1B_F8_E4M3; type++)
	{
		const m1b_geometry g = geometry(2, 1, 16, false);
		m1b_backend *b = open_cuda(&g);
		uint8_t *w = random_weights((m1b_dtype) type, 10 * 256);
		m1b_matrix m = load(b, w, (m1b_dtype) type, M1B_USE_ROWS, 10, 256);
		float *out = poisoned(b, 5 * 256);
		float *want = not_numbers(5 * 256);
		float *got;

		segment.state = b->ops->state_acquire(b, 5);
		b->ops->begin(b, &batch);
		b->ops->embed(b, &(m1b_embed){.table = &m, .tokens = tokens, .n = 5, .out = out});
		b->ops->end(b);
		got = fetch(b, out, 5 * 256);
		for (int t = 0; t < 5; t++)
			m1b_dequantize((m1b_dtype) type, w + m1b_bytes((m1b_dtype) type, (size_t) tokens[t] * 256), 256,
						   want + t * 256);
		assert_near(got, want, 5 * 256, 1e-6, m1b_dtype_name((m1b_dtype) type));
		free(w);
		free(got);
		free(want);
		b->ops->close(b);
	}
}

/* ---- attention ---- */

#define SEQUENCES 3
#define STEPS 7

/*
 * Tokens that each sequence is given in each step, and positions that it leaves out after them: their keys are zeros.
 */
typedef struct schedule
{
	int tokens[STEPS][SEQUENCES];
	int left_out;
} schedule;

/* chunks of odd sizes, single tokens, and both side by side */
static const schedule short_steps = {
	.tokens = {{63, 1, 0}, {1, 1, 130}, {65, 2, 1}, {1, 1, 1}, {1, 129, 0}, {1, 1, 1}, {2, 1, 64}}};
/* single tokens, and some others, with so many positions before them that their keys are divided */
static const schedule far_steps = {
	.tokens = {{1, 1, 70}, {30, 1, 1}, {1, 1, 0}, {1, 1, 1}, {1, 0, 40}, {1, 1, 1}, {1, 0, 0}}, .left_out = 150};

typedef enum attention_kind
{
	LIGHTNING,
	SOFTMAX,
} attention_kind;

static size_t
step_tokens(const schedule *todo, int step)
{
	size_t n = 0;

	for (int s = 0; s < SEQUENCES; s++)
		n += (size_t) todo->tokens[step][s];
	return n;
}

static size_t
all_tokens(const schedule *todo)
{
	size_t n = 0;

	for (int step = 0; step < STEPS; step++)
		n += step_tokens(todo, step);
	return n;
}

/* Runs the schedule on one backend, layer 1 of 2; the inputs are the same each time. Returns all outputs. */
static float *
run_schedule(m1b_backend *b, const m1b_geometry *g, attention_kind kind, const schedule *todo, const float *input)
{
	const size_t total = all_tokens(todo);
	const size_t in = (size_t) (kind == LIGHTNING ? 3 * g->heads : g->heads + 2 * g->kv_heads) * (size_t) g->head_dim;
	const size_t out = (size_t) (g->heads * g->head_dim);
	const float decays[4] = {0.917f, 0.3f, 0.01f, 1e-6f};
	float *decay = put(b, decays, 4);
	float *device_in = put(b, input, total * in);
	float *device_out = poisoned(b, total * out);
	m1b_state *states[SEQUENCES];
	int position[SEQUENCES] = {0};
	size_t at = 0;

	for (int s = 0; s < SEQUENCES; s++)
		assert_non_null(states[s] = b->ops->state_acquire(b, g->max_context));
	for (int step = 0; step < STEPS; step++)
	{
		const int *tokens = todo->tokens[step];
		m1b_segment segments[SEQUENCES];
		m1b_batch batch = {.segments = segments, .n_tokens = (int) step_tokens(todo, step)};
		float *x = device_in + at * in;
		int row = 0;

		for (int s = 0; s < SEQUENCES; s++)
			if (tokens[s] > 0)
			{
				segments[batch.n_segments++] =
					(m1b_segment){.state = states[s], .start = position[s], .n_tokens = tokens[s], .row = row};
				position[s] += tokens[s] + todo->left_out;
				row += tokens[s];
			}
		assert_false(b->ops->begin(b, &batch));
		if (kind == LIGHTNING)
			b->ops->lightning(
				b,
				&(m1b_lightning){.batch = &batch, .slot = 1, .decay = decay, .qkv = x, .out = device_out + at * out});
		else
		{
			const size_t q = (size_t) batch.n_tokens * out;
			const size_t kv = (size_t) batch.n_tokens * (size_t) (g->kv_heads * g->head_dim);

			b->ops->attention(
				b, &(m1b_attention){
					   .batch = &batch, .slot = 1, .q = x, .k = x + q, .v = x + q + kv, .out = device_out + at * out});
		}
		b->ops->end(b);
		at += (size_t) batch.n_tokens;
	}
	for (int s = 0; s < SEQUENCES; s++)
		b->ops->state_release(b, states[s]);
	return fetch(b, device_out, total * out);
}

static void
check_schedule(attention_kind kind, const schedule *todo, int heads, int kv_heads, int head_dim, bool f32,
			   double tolerance)
{
	m1b_geometry g = geometry(heads, kv_heads, head_dim, f32);
	const size_t in = (size_t) (kind == LIGHTNING ? 3 * heads : heads + 2 * kv_heads) * (size_t) head_dim;
	const size_t out = (size_t) (heads * head_dim);
	const size_t total = all_tokens(todo);
	float *input, *got[2], *want;
	char what[100];
	m1b_backend *b;

	g.max_context = 1200;
	snprintf(what, sizeof what, "%s attention, %d heads of %d, %d shared%s",
			 kind == LIGHTNING ? "lightning" : "softmax", heads, head_dim, kv_heads, f32 ? ", fp32" : "");
	input = random_floats(total * in, 1.0f);
	b = open_cpu(&g);
	want = run_schedule(b, &g, kind, todo, input);
	b->ops->close(b);
	for (int i = 0; i < 2; i++)
	{
		b = open_cuda(&g);
		got[i] = run_schedule(b, &g, kind, todo, input);
		b->ops->close(b);
	}
	assert_near(got[0], want, total * out, tolerance, what);
	if (memcmp(got[0], got[1], total * out * sizeof(float)) != 0)
		fail_msg("%s: two runs differ", what);
	free(input);
	free(got[0]);
	free(got[1]);
	free(want);
}

static void
check_attention(attention_kind kind, int heads, int kv_heads, int head_dim, bool f32, double tolerance)
{
	check_schedule(kind, &short_steps, heads, kv_heads, head_dim, f32, tolerance);
}

static void
test_lightning(void **state)
{
	(void) state;
	check_attention(LIGHTNING, 3, 1, 16, true, EXACT);
	check_attention(LIGHTNING, 2, 1, 40, false, EXACT);
	check_attention(LIGHTNING, 2, 1, 128, true, EXACT);
	check_attention(LIGHTNING, 4, 1, 128, false, ROUNDED);
}

static void
test_softmax(void **state)
{
	(void) state;
	check_attention(SOFTMAX, 6, 3, 16, true, EXACT);
	check_attention(SOFTMAX, 10, 1, 24, true, EXACT);
	check_attention(SOFTMAX, 4, 2, 32, false, ROUNDED);
	check_attention(SOFTMAX, 4, 2, 128, true, EXACT);
	check_attention(SOFTMAX, 8, 1, 128, false, ROUNDED);
	check_attention(SOFTMAX, 3, 1, 128, false, ROUNDED);
	check_attention(SOFTMAX, 16, 1, 128, false, ROUNDED);
}

/* As many ranges as the keys suffice for, and as many as there may be: they share a fixed number of blocks. */
static void
test_divided_keys(void **state)
{
	(void) state;
	check_schedule(SOFTMAX, &far_steps, 3, 1, 128, false, ROUNDED);
	check_schedule(SOFTMAX, &far_steps, 2, 1, 16, true, EXACT);
	check_schedule(SOFTMAX, &far_steps, 132, 132, 8, true, EXACT);
}

/* ---- experts ---- */

/* w1, w3 and w2 of any types. f32: the backend computes in fp32 throughout. */
static void
check_mixed_moe(const m1b_dtype types[3], bool f32, int n, int experts, int top_k, double tolerance)
{
	m1b_geometry g = geometry(2, 1, 16, f32);
	const int d = m1b_block_weights(types[0]) > 32 || m1b_block_weights(types[1]) > 32 ? 256 : 64;
	const int width = m1b_block_weights(types[2]) > 32 ? 256 : 96;
	const size_t outs = (size_t) n * (size_t) d;
	m1b_backend *b;
	uint8_t *w[3][8];
	m1b_matrix m[3][8];
	uint8_t *gate = random_weights(M1B_F32, (size_t) experts * (size_t) d);
	float *x = random_floats(outs, 1.0f);
	float *scores = malloc((size_t) n * (size_t) experts * sizeof *scores);
	float *want = calloc(outs, sizeof *want);
	float *got;
	m1b_matrix router;
	m1b_moe p;
	char what[100];

	snprintf(what, sizeof what, "%d rows through %d of %d experts, %s, %s and %s", n, top_k, experts,
			 m1b_dtype_name(types[0]), m1b_dtype_name(types[1]), m1b_dtype_name(types[2]));
	g.hidden = d;
	g.expert_width = width;
	g.experts = experts;
	g.max_tokens = n > g.max_tokens ? n : g.max_tokens;
	g.max_moe_pairs = g.max_tokens * top_k;
	g.bf16_experts = types[0] == M1B_BF16 && types[1] == M1B_BF16 && types[2] == M1B_BF16;
	b = open_cuda(&g);
	router = load(b, gate, M1B_F32, M1B_USE_PRODUCT, experts, d);
	for (int e = 0; e < experts; e++)
		for (int i = 0; i < 3; i++)
		{
			const int rows = i == 2 ? d : width;
			const int cols = i == 2 ? width : d;

			w[i][e] = random_weights(types[i], (size_t) rows * (size_t) cols);
			m[i][e] = load(b, w[i][e], types[i], M1B_USE_PRODUCT, rows, cols);
		}
	multiply(gate, M1B_F32, experts, d, x, n, scores);
	for (int t = 0; t < n; t++)
	{
		bool taken[8] = {false};
		int pick[8];
		float weight[8];
		float total = 0;

		for (int k = 0; k < top_k; k++)
		{
			pick[k] = -1;
			for (int e = 0; e < experts; e++)
				if (!taken[e] && (pick[k] < 0 || scores[t * experts + e] > scores[t * experts + pick[k]]))
					pick[k] = e;
			taken[pick[k]] = true;
			weight[k] = expf(scores[t * experts + pick[k]] - scores[t * experts + pick[0]]);
			total += weight[k];
		}
		for (int k = 0; k < top_k; k++)
		{
			float hidden[256], factor[256], y[256];

			multiply(w[0][pick[k]], types[0], width, d, x + t * d, 1, hidden);
			multiply(w[1][pick[k]], types[1], width, d, x + t * d, 1, factor);
			for (int i = 0; i < width; i++)
				hidden[i] = silu(hidden[i]) * factor[i];
			multiply(w[2][pick[k]], types[2], d, width, hidden, 1, y);
			for (int i = 0; i < d; i++)
				want[t * d + i] += weight[k] / total * y[i];
		}
	}
	p = (m1b_moe){.router = &router,
				  .w1 = m[0],
				  .w3 = m[1],
				  .w2 = m[2],
				  .experts = experts,
				  .top_k = top_k,
				  .x = put(b, x, outs),
				  .n = n,
				  .out = poisoned(b, outs)};
	{
		m1b_moe again = p;

		again.out = poisoned(b, outs);
		b->ops->moe(b, &p);
		b->ops->moe(b, &again);
		got = fetch(b, p.out, outs);
		assert_near(got, want, outs, tolerance, what);
		assert_same(b, p.out, again.out, outs, what);
	}
	for (int e = 0; e < experts; e++)
		for (int i = 0; i < 3; i++)
			free(w[i][e]);
	free(gate);
	free(x);
	free(scores);
	free(want);
	free(got);
	b->ops->close(b);
}

static void
check_moe(m1b_dtype up, m1b_dtype down, int n, int experts, int top_k, double tolerance)
{
	check_mixed_moe((const m1b_dtype[]){up, up, down}, up == M1B_F32, n, experts, top_k, tolerance);
}

/* Types may differ within a layer, and from those of the layers that decide whether all is computed in fp32. */
static void
test_mixed_moe(void **state)
{
	static const m1b_dtype mixed[][3] = {
		{M1B_Q8_0, M1B_BF16, M1B_Q4_0}, {M1B_F8_E4M3, M1B_Q4_K, M1B_F16}, {M1B_F32, M1B_Q8_0, M1B_BF16},
		{M1B_BF16, M1B_BF16, M1B_F32},	{M1B_F32, M1B_F32, M1B_F32},
	};

	(void) state;
	for (size_t i = 0; i < sizeof mixed / sizeof *mixed; i++)
	{
		check_mixed_moe(mixed[i], false, 1, 4, 2, EXACT);
		check_mixed_moe(mixed[i], false, 6, 4, 2, EXACT);
		check_mixed_moe(mixed[i], false, 23, 4, 2, ROUNDED);
		check_mixed_moe(mixed[i], true, 23, 4, 2, EXACT);
	}
}

static void
test_moe(void **state)
{
	(void) state;
	check_moe(M1B_F32, M1B_F32, 1, 5, 2, EXACT);
	check_moe(M1B_F32, M1B_F32, 30, 5, 2, EXACT);
	check_moe(M1B_BF16, M1B_BF16, 1, 5, 2, EXACT);
	check_moe(M1B_BF16, M1B_BF16, 7, 5, 3, EXACT);
	check_moe(M1B_BF16, M1B_BF16, 9, 8, 2, ROUNDED);   /* tiles of 16 places */
	check_moe(M1B_BF16, M1B_BF16, 100, 5, 2, ROUNDED); /* 64 */
	check_moe(M1B_BF16, M1B_BF16, 150, 3, 2, ROUNDED); /* 128 */
	check_moe(M1B_BF16, M1B_BF16, 40, 1, 1, ROUNDED);
	check_moe(M1B_BF16, M1B_BF16, 300, 4, 2, ROUNDED);	/* by the library */
	check_moe(M1B_BF16, M1B_BF16, 1200, 2, 2, ROUNDED); /* in two pieces */
	check_moe(M1B_Q4_K, M1B_Q6_K, 3, 4, 2, EXACT);
	check_moe(M1B_Q4_K, M1B_Q6_K, 21, 4, 2, ROUNDED);
	check_moe(M1B_Q8_0, M1B_Q8_0, 33, 4, 2, ROUNDED);
	check_moe(M1B_F8_E4M3, M1B_F8_E4M3, 5, 4, 2, EXACT);
	check_moe(M1B_F8_E4M3, M1B_F8_E4M3, 33, 4, 2, ROUNDED);
}

/* ---- memory and errors ---- */

/* A released state is wiped: the next sequence starts from zero, not from somebody else's text. */
static void
test_released_state_is_zero(void **test_state)
{
	const m1b_geometry g = geometry(2, 1, 16, true);
	const float decays[2] = {0.1f, 0.2f};
	m1b_backend *b = open_cuda(&g);
	float *x = random_floats(2 * 3 * 16, 1.0f);
	float *decay = put(b, decays, 2);
	float *qkv = put(b, x, 2 * 3 * 16);
	float *out[2] = {poisoned(b, 2 * 16), poisoned(b, 2 * 16)};

	(void) test_state;
	for (int i = 0; i < 2; i++)
	{
		m1b_segment segment = {.state = b->ops->state_acquire(b, 1), .n_tokens = 1};
		m1b_batch batch = {.segments = &segment, .n_segments = 1, .n_tokens = 1};

		b->ops->begin(b, &batch);
		b->ops->lightning(b, &(m1b_lightning){.batch = &batch, .decay = decay, .qkv = qkv, .out = out[i]});
		b->ops->end(b);
		b->ops->state_release(b, segment.state);
	}
	assert_same(b, out[0], out[1], 2 * 16, "a fresh state");
	free(x);
	b->ops->close(b);
}

/* Tokens first .. first + n of qkv through lightning attention of one sequence. */
static void
feed(m1b_backend *b, m1b_state *state, const float *decay, const float *qkv, int first, int n, float *out)
{
	m1b_segment segment = {.state = state, .start = first, .n_tokens = n};
	m1b_batch batch = {.segments = &segment, .n_segments = 1, .n_tokens = n};

	b->ops->begin(b, &batch);
	b->ops->lightning(
		b, &(m1b_lightning){.batch = &batch, .decay = decay, .qkv = qkv + (size_t) first * 2 * 3 * 16, .out = out});
	b->ops->end(b);
}

/*
 * A sequence that starts from a snapshot goes on as the one it was taken of, to the bit; accounts are even afterwards.
 */
static void
test_snapshot(void **test_state)
{
	m1b_geometry g = geometry(2, 1, 16, true);
	const float decays[2] = {0.1f, 0.2f};
	m1b_backend *b;
	m1b_state *first, *second;
	m1b_snapshot *snapshot;
	float *x = random_floats(100 * 2 * 3 * 16, 1.0f);
	float *decay, *qkv, *skipped, *out[2];
	int free_pages;

	(void) test_state;
	g.snapshot_bytes = (size_t) 1 << 20;
	b = open_cuda(&g);
	decay = put(b, decays, 2);
	qkv = put(b, x, 100 * 2 * 3 * 16);
	skipped = poisoned(b, 70 * 2 * 16);
	out[0] = poisoned(b, 30 * 2 * 16);
	out[1] = poisoned(b, 30 * 2 * 16);
	free_pages = b->ops->memory(b).free_pages;
	assert_non_null(first = b->ops->state_acquire(b, 100));
	feed(b, first, decay, qkv, 0, 70, skipped);
	assert_non_null(snapshot = b->ops->snapshot_take(b, first, 70, M1B_SHARED));
	assert_int_equal(b->ops->memory(b).snapshots, 1);
	feed(b, first, decay, qkv, 70, 30, out[0]);
	b->ops->state_release(b, first);
	assert_non_null(second = b->ops->state_acquire_from(b, 100, snapshot));
	feed(b, second, decay, qkv, 70, 30, out[1]);
	assert_same(b, out[0], out[1], 30 * 2 * 16, "a sequence from a snapshot");
	b->ops->state_release(b, second);
	b->ops->snapshot_release(b, snapshot);
	assert_int_equal(b->ops->memory(b).snapshots, 0);
	assert_int_equal(b->ops->memory(b).free_pages, free_pages);
	free(x);
	b->ops->close(b);
}

/* Softmax attention of one sequence's tokens from `first` on; qkv: [n, H, D] of q, then k, then v. */
static void
attend(m1b_backend *b, const m1b_geometry *g, m1b_state *state, int first, int n, float *qkv, float *out)
{
	const size_t heads = (size_t) (n * g->heads * g->head_dim);
	const size_t kv_heads = (size_t) (n * g->kv_heads * g->head_dim);
	m1b_segment segment = {.state = state, .start = first, .n_tokens = n};
	m1b_batch batch = {.segments = &segment, .n_segments = 1, .n_tokens = n};

	b->ops->begin(b, &batch);
	b->ops->attention(
		b, &(m1b_attention){.batch = &batch, .q = qkv, .k = qkv + heads, .v = qkv + heads + kv_heads, .out = out});
	b->ops->end(b);
}

/* A sequence of one token after the snapshot of a page. */
static void
attend_after(m1b_backend *b, const m1b_geometry *g, m1b_snapshot *snapshot, float *qkv, float *out)
{
	m1b_state *state = b->ops->state_acquire_from(b, M1K_PAGE_TOKENS + 1, snapshot);

	assert_non_null(state);
	attend(b, g, state, M1K_PAGE_TOKENS, 1, qkv, out);
	b->ops->state_release(b, state);
}

/* What a sequence that was given up still does on the device does not touch the pages of the next in its place. */
static void
test_given_up(void **test_state)
{
	m1b_geometry g = geometry(2, 1, 16, true);
	const size_t n = (size_t) M1K_PAGE_TOKENS * 4 * 16;
	m1b_backend *b;
	m1b_state *state;
	m1b_snapshot *snapshot;
	float *x = random_floats(3 * n, 1.0f);
	float *first, *other, *next[2], *skipped, *out[2];

	(void) test_state;
	g.max_states = 1;
	g.snapshot_bytes = (size_t) 1 << 20;
	b = open_cuda(&g);
	first = put(b, x, n);
	other = put(b, x + n, n);
	for (int i = 0; i < 2; i++)
	{
		next[i] = put(b, x + 2 * n, n); /* q is rotated where it is: once each */
		out[i] = poisoned(b, 2 * 16);
	}
	skipped = poisoned(b, n);
	assert_non_null(state = b->ops->state_acquire(b, M1K_PAGE_TOKENS));
	attend(b, &g, state, 0, M1K_PAGE_TOKENS, first, skipped);
	assert_non_null(snapshot = b->ops->snapshot_take(b, state, M1K_PAGE_TOKENS, M1B_SHARED));
	b->ops->state_release(b, state);
	attend_after(b, &g, snapshot, next[0], out[0]);
	free(fetch(b, out[0], 2 * 16)); /* everything is done */
	assert_non_null(state = b->ops->state_acquire(b, M1K_PAGE_TOKENS));
	attend(b, &g, state, 0, M1K_PAGE_TOKENS, other, skipped);
	b->ops->state_release(b, state);
	attend_after(b, &g, snapshot, next[1], out[1]);
	assert_same(b, out[0], out[1], 2 * 16, "a sequence after one that was given up");
	b->ops->snapshot_release(b, snapshot);
	free(x);
	b->ops->close(b);
}

#ifdef M1K_EMULATED
static char logged[512];

static void
remember(void *context, const char *line)
{
	(void) context;
	snprintf(logged, sizeof logged, "%s", line);
}

static void
test_plan(void **state)
{
	const m1b_cuda_options options = {.log = remember};
	m1b_geometry g = geometry(2, 1, 16, false);
	m1b_backend *b;
	m1_error err;

	(void) state;
	assert_ok(m1b_cuda_open(&options, &b, &err));
	assert_ok(b->ops->configure(b, &g, &err));
	assert_non_null(strstr(logged, "12 sequences"));
	b->ops->close(b);

	/* what does not fit is refused with numbers before anything is allocated */
	g.weight_bytes = (size_t) 90 << 30;
	assert_ok(m1b_cuda_open(&options, &b, &err));
	assert_int_equal(b->ops->configure(b, &g, &err), M1_E_NO_MEMORY);
	assert_non_null(strstr(err.detail, "96637812736 weights")); /* 90 GiB, and the slack of 16 matrices */
	assert_non_null(strstr(err.hint, "max_context"));
	b->ops->close(b);

	/* and so are more sequences than a grid has places for */
	g.max_states = 65536;
	assert_ok(m1b_cuda_open(&options, &b, &err));
	assert_int_equal(b->ops->configure(b, &g, &err), M1_E_UNSUPPORTED);
	assert_string_equal(err.message, "more than 65535 requests at once are not supported on CUDA");
	b->ops->close(b);
}

/* Tests and small models open many a device: what passes weights on is no larger than they are. */
static void
test_little_is_pinned(void **state)
{
	m1b_geometry g = geometry(2, 1, 16, false);
	const size_t before = emulated_pinned();
	m1b_backend *b = open_cuda(&g);

	(void) state;
	assert_in_range(emulated_pinned() - before, 1, (size_t) 4 * (6 << 20)); /* 4 MiB, and the slack of 16 matrices */
	b->ops->close(b);
	g.weight_bytes = (size_t) 1 << 30;
	b = open_cuda(&g);
	assert_in_range(emulated_pinned() - before, (size_t) 4 * (32 << 20), (size_t) 4 * (33 << 20));
	b->ops->close(b);
	assert_int_equal(emulated_pinned(), before);
}

static void
test_device_failure(void **state)
{
	const m1b_geometry g = geometry(2, 1, 16, true);
	m1b_backend *b = open_cuda(&g);
	float *x = random_floats(256, 1.0f);
	float *device = put(b, x, 256);
	float *out = poisoned(b, 256);
	m1b_norm p = {.residual = device, .weight = device, .eps = 1e-5f, .n = 1, .width = 256, .out = out};
	m1_error err;

	(void) state;
	emulated_fail_next_launch(cudaErrorIllegalAddress);
	b->ops->norm(b, &p);
	b->ops->norm(b, &p);
	assert_int_equal(b->ops->read(b, out, 256, x, &err), M1_E_DEVICE);
	assert_non_null(strstr(err.message, "normalising"));
	assert_non_null(strstr(err.detail, "cudaErrorIllegalAddress"));
	/* a device that failed once is not trusted again */
	assert_int_equal(b->ops->read(b, out, 256, x, &err), M1_E_DEVICE);
	free(x);
	b->ops->close(b);
}

/* A product that answers so instead of being made. */
static void
check_library_failure(cublasStatus_t answer, m1_status want, m1_error *err)
{
	const m1b_geometry g = geometry(2, 1, 16, false);
	m1b_backend *b = open_cuda(&g);
	uint8_t *w = random_weights(M1B_BF16, 131 * 96);
	float *x = random_floats(40 * 131, 1.0f);
	m1b_matrix m = load(b, w, M1B_BF16, M1B_USE_PRODUCT, 131, 96);
	float *device_x = put(b, x, 40 * 96);
	float *out = poisoned(b, 40 * 131);

	emulated_fail_next_product(answer);
	b->ops->linear(b, &(m1b_linear){.x = device_x, .n = 40, .products = {{&m, M1B_NONE, out}}, .n_products = 1});
	assert_int_equal(b->ops->read(b, out, 40 * 131, x, err), want);
	assert_string_equal(err->message, "cuBLASLt failed while multiplying");
	free(w);
	free(x);
	b->ops->close(b);
}

/* What cuBLASLt refuses is told with its own number and what was asked, and where memory lacks, what helps. */
static void
test_library_failure(void **state)
{
	m1_error err;

	(void) state;
	check_library_failure(CUBLAS_STATUS_INVALID_VALUE, M1_E_DEVICE, &err);
	assert_string_equal(err.detail, "cuBLAS status 7, of 40 rows with a BF16 matrix [131, 96].");
	assert_string_equal(err.hint, "");
	check_library_failure(CUBLAS_STATUS_ALLOC_FAILED, M1_E_NO_MEMORY, &err);
	assert_string_equal(err.detail, "cuBLAS status 3, of 40 rows with a BF16 matrix [131, 96].");
	assert_non_null(strstr(err.hint, "max_context"));
}

/* What cuBLASLt has nothing for is computed all the same, and told once. */
static void
test_library_lacks_products(void **state)
{
	emulated_know_no_product(true);
	test_linear(state);
	test_fp32_throughout(state);
	test_moe(state);
	emulated_know_no_product(false);
}

static void
count_line(void *context, const char *line)
{
	if (strstr(line, "cuBLASLt has no product of 40 rows with a BF16 matrix [131, 96]") != NULL)
		++*(int *) context;
}

/* Whether it says so beforehand or when it is asked. */
static void
check_lack_is_told(bool beforehand)
{
	const m1b_geometry g = geometry(2, 1, 16, false);
	int told = 0;
	const m1b_cuda_options options = {.log = count_line, .log_context = &told};
	uint8_t *w = random_weights(M1B_BF16, 131 * 96);
	float *x = random_floats(40 * 96, 1.0f);
	float *want = not_numbers(40 * 131);
	float *got;
	m1b_backend *b;
	m1b_matrix m;
	m1b_linear p;
	m1_error err;

	assert_ok(m1b_cuda_open(&options, &b, &err));
	assert_ok(b->ops->configure(b, &g, &err));
	m = load(b, w, M1B_BF16, M1B_USE_PRODUCT, 131, 96);
	p = (m1b_linear){
		.x = put(b, x, 40 * 96), .n = 40, .products = {{&m, M1B_NONE, poisoned(b, 40 * 131)}}, .n_products = 1};
	multiply(w, M1B_BF16, 131, 96, x, 40, want);
	emulated_know_no_product(beforehand);
	for (int i = 0; i < 2; i++)
	{
		if (!beforehand)
			emulated_fail_next_product(CUBLAS_STATUS_NOT_SUPPORTED);
		b->ops->linear(b, &p);
	}
	emulated_know_no_product(false);
	got = fetch(b, p.products[0].out, 40 * 131);
	assert_near(got, want, 40 * 131, ROUNDED, "by our own kernel");
	assert_int_equal(told, 1);
	free(got);
	free(want);
	free(x);
	free(w);
	b->ops->close(b);
}

static void
test_lack_is_told(void **state)
{
	(void) state;
	check_lack_is_told(true);
	check_lack_is_told(false);
}

/* What is recorded anew runs once before, which lets libraries load. */
static void
test_recordings_are_forgotten(void **state)
{
	const m1b_geometry g = geometry(2, 1, 16, false);
	m1b_backend *b = open_cuda(&g);
	m1b_cuda *c = m1b_cuda_of(b);

	(void) state;
	c->graphs.layers[1].seen = 2;
	c->graphs.draws[3][1].seen = 1;
	m1b_cuda_recordings_free(c);
	assert_int_equal(c->graphs.layers[1].seen, 0);
	assert_int_equal(c->graphs.draws[3][1].seen, 0);
	b->ops->close(b);
}

static void
test_no_device(void **state)
{
	const m1b_cuda_options options = {.log = NULL};
	m1b_backend *b;
	m1_error err;

	(void) state;
	emulated_set_devices(0);
	assert_false(m1b_cuda_present());
	assert_int_equal(m1b_cuda_open(&options, &b, &err), M1_E_DEVICE);
	assert_non_null(strstr(err.message, "cuda"));
	emulated_set_devices(4);
	assert_true(m1b_cuda_present());
}
#endif

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linear),
		cmocka_unit_test(test_rows_are_independent),
		cmocka_unit_test(test_norm_and_gate),
		cmocka_unit_test(test_embed),
		cmocka_unit_test(test_lightning),
		cmocka_unit_test(test_softmax),
		cmocka_unit_test(test_divided_keys),
		cmocka_unit_test(test_moe),
		cmocka_unit_test(test_mixed_moe),
		cmocka_unit_test(test_fp32_throughout),
		cmocka_unit_test(test_released_state_is_zero),
		cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_given_up),
#ifdef M1K_EMULATED
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_little_is_pinned),
		cmocka_unit_test(test_device_failure),
		cmocka_unit_test(test_library_failure),
		cmocka_unit_test(test_library_lacks_products),
		cmocka_unit_test(test_lack_is_told),
		cmocka_unit_test(test_recordings_are_forgotten),
		cmocka_unit_test(test_no_device),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
