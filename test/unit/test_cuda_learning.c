/*
 * test_cuda_learning.c - every operation of learning.h on a GPU against the same on the CPU, from the same random
 * numbers: around the edges of tiles, of kept states and of shared beginnings, through weights of every type, with
 * masks, replayed experts and more rows than a step has.
 *
 * Each operation runs twice on the GPU, and must give the same bits: what depends on the order of threads is a race.
 * Where a sum is added to, so must two calls of half the rows each.
 */
#include "cuda_testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda_learn.h"
#include "backend/learning.h"
#include "blocks/blocks.h"

#define HEADS 4
#define KV_HEADS 2
#define D 24
#define HIDDEN 72
#define EXPERTS 5
#define TOP_K 2
#define WIDTH 40 /* of an expert */
#define VOCAB 150
#define MAX_TOKENS 64
#define TEMPERATURE 0.7f
#define NEAR 3e-5

/* Where something runs: on the CPU, on the GPU, and there once more. */
enum runs
{
	CPU,
	GPU,
	AGAIN,
	RUNS
};

static const m1b_span span_list[] = {
	{.row = 0, .n_rows = 530, .parent = -1, .is_parent = true, .state = 0},
	{.row = 530, .n_rows = 20, .parent = 0, .start = 530, .state = 2},
	{.row = 550, .n_rows = 45, .parent = 0, .start = 530, .state = 2},
	{.row = 595, .n_rows = 33, .parent = -1, .state = 2},
};
static const m1b_spans spans = {.at = span_list, .n = 4, .n_rows = 628, .n_states = 2};

static m1b_backend *backends[RUNS];
static uint64_t seed = 20261128;

/* ---- arrays ---- */

/* The same numbers for every run, in memory of its device. */
typedef struct array
{
	float *at[RUNS];
	size_t n;
} array;

static const m1b_learning *
ops(int run)
{
	return run == CPU ? backends[run]->ops->learning : &m1b_cuda_learning;
}

static array
array_of(const float *numbers, size_t n)
{
	array x = {.n = n};

	for (int run = 0; run < RUNS; run++)
	{
		assert_non_null(x.at[run] = ops(run)->take(backends[run], n + 1));
		ops(run)->put(backends[run], x.at[run], numbers, n * sizeof *numbers);
	}
	return x;
}

static array
random_array(size_t n)
{
	float *numbers = test_random_floats(&seed, n);
	const array x = array_of(numbers, n);

	free(numbers);
	return x;
}

/* Nothing that is read by mistake. */
static array
poisoned(size_t n)
{
	float *numbers = malloc(n * sizeof *numbers);
	array x;

	memset(numbers, 0xff, n * sizeof *numbers);
	x = array_of(numbers, n);
	free(numbers);
	return x;
}

static float *
fetch(int run, const float *at, size_t n)
{
	float *host = calloc(n + 1, sizeof *host);
	m1_error err;

	assert_ok(backends[run]->ops->read(backends[run], at, n, host, &err));
	return host;
}

static void
give(const array *x)
{
	for (int run = 0; run < RUNS; run++)
		ops(run)->give(backends[run], x->at[run]);
}

/* The GPU's numbers are near the CPU's, and twice the same bits. Frees them. */
static void
compare(const array *x, double tolerance, const char *what)
{
	float *host[RUNS];

	for (int run = 0; run < RUNS; run++)
		host[run] = fetch(run, x->at[run], x->n);
	assert_near(host[GPU], host[CPU], x->n, tolerance, what);
	if (memcmp(host[GPU], host[AGAIN], x->n * sizeof **host) != 0)
		fail_msg("%s: two runs differ", what);
	for (int run = 0; run < RUNS; run++)
		free(host[run]);
	give(x);
}

#define EACH_RUN for (int run = 0; run < RUNS; run++)

/* ---- matrices, which are there before anything else ---- */

typedef struct matrix
{
	m1b_matrix at[RUNS];
} matrix;

static const int typed_rows = 70;
static const int typed_cols = 256;
static matrix typed[M1B_F8_E4M3 + 1];
static matrix router, w1[EXPERTS], w2[EXPERTS], w3[EXPERTS];
static matrix table;

static matrix
matrix_of(m1b_dtype type, m1b_use use, int rows, int cols)
{
	const size_t n = (size_t) rows * (size_t) cols;
	const size_t block = m1b_block_bytes(type);
	const size_t bytes = m1b_bytes(type, n);
	uint8_t *stored = malloc(bytes);
	const m1b_stored_matrix p = {.host = stored, .type = type, .use = use, .rows = rows, .cols = cols};
	bool borrowed[RUNS];
	m1_error err;
	matrix m;

	for (size_t i = 0; i < bytes; i++)
		stored[i] = (uint8_t) test_random(&seed);
	for (size_t at = 0; at < bytes; at += block)
	{
		const float x = 0.2f * test_random_float(&seed);
		const uint16_t half = type == M1B_BF16								  ? m1b_float_to_bf16(x)
							  : m1b_bytes(type, m1b_block_weights(type)) == 2 ? m1b_float_to_half(x)
																			  : m1b_float_to_half(0.01f * x);

		if (type == M1B_F32 || type == M1B_F8_E4M3)
			memcpy(stored + at, &(float){type == M1B_F32 ? x : 0.01f * x}, sizeof x);
		else
			memcpy(stored + at + (type == M1B_Q6_K ? 208 : 0), &half, sizeof half);
		if (type == M1B_Q4_K || type == M1B_Q5_K)
			memcpy(stored + at + 2, &half, sizeof half);
		for (size_t i = 4; type == M1B_F8_E4M3 && i < block; i++)
			stored[at + i] ^= (stored[at + i] & 0x7f) == 0x7f; /* no NaN */
	}
	for (int run = 0; run < RUNS; run++)
		assert_ok(backends[run]->ops->matrix(backends[run], &p, &m.at[run], &borrowed[run], &err));
	if (!borrowed[CPU])
		free(stored);
	return m;
}

static void
open_backends(void)
{
	const m1b_geometry g = {.heads = HEADS,
							.kv_heads = KV_HEADS,
							.head_dim = D,
							.rotary_dim = 8,
							.rope_theta = 1e4f,
							.lightning_layers = 1,
							.softmax_layers = 1,
							.max_context = 1024,
							.max_states = 1,
							.max_tokens = MAX_TOKENS,
							.max_moe_pairs = MAX_TOKENS * TOP_K,
							.expert_width = WIDTH,
							.hidden = HIDDEN,
							.experts = EXPERTS,
							.vocab = VOCAB,
							.weight_bytes = (size_t) 4 << 20,
							.weight_matrices = 64,
							.scratch_bytes = (size_t) 1 << 20};
	m1_error err;

	assert_ok(m1b_cpu_open(1, "portable", &backends[CPU], &err));
	assert_ok(m1b_cuda_open(&(m1b_cuda_options){.log = NULL}, &backends[GPU], &err));
	backends[AGAIN] = backends[GPU];
	assert_ok(backends[CPU]->ops->configure(backends[CPU], &g, &err));
	assert_ok(backends[GPU]->ops->configure(backends[GPU], &g, &err));
	for (int type = M1B_F32; type <= M1B_F8_E4M3; type++)
		typed[type] = matrix_of((m1b_dtype) type, M1B_USE_PRODUCT, typed_rows, typed_cols);
	router = matrix_of(M1B_F32, M1B_USE_HEAD, EXPERTS, HIDDEN);
	for (int e = 0; e < EXPERTS; e++)
	{
		w1[e] = matrix_of(M1B_BF16, M1B_USE_PRODUCT, WIDTH, HIDDEN);
		w2[e] = matrix_of(M1B_F32, M1B_USE_PRODUCT, HIDDEN, WIDTH);
		w3[e] = matrix_of(M1B_F16, M1B_USE_PRODUCT, WIDTH, HIDDEN);
	}
	table = matrix_of(M1B_BF16, M1B_USE_ROWS, VOCAB, HIDDEN);
	for (int run = CPU; run <= GPU; run++)
	{
		assert_true(ops(run)->reserve_bytes(backends[run], &spans) > 0);
		assert_ok(ops(run)->reserve(backends[run], &spans, &err));
	}
}

/* ---- products ---- */

static void
check_product(int type, int n)
{
	const array x = random_array((size_t) (n * typed_cols));
	const array dy = random_array((size_t) (n * typed_rows));
	const array y = poisoned((size_t) (n * typed_rows));
	const array added = random_array((size_t) (n * typed_cols));
	const array dx = poisoned((size_t) (n * typed_cols));
	char what[64];

	EACH_RUN
	{
		const m1b_matrix *w = &typed[type].at[run];

		/* the CPU rounds activations where weights are integers; and there backward is what is exact */
		if (!m1b_is_integer((m1b_dtype) type))
			ops(run)->linear(
				backends[run],
				&(m1b_linear){.x = x.at[run], .n = n, .products = {{w, M1B_SILU, y.at[run]}}, .n_products = 1});
		ops(run)->linear_back(backends[run],
							  &(m1b_linear_back){.weight = w, .dy = dy.at[run], .n = n, .dx = dx.at[run]});
		if (m1b_is_integer((m1b_dtype) type) && run == CPU)
			continue;
		ops(run)->linear_back(
			backends[run], &(m1b_linear_back){.weight = w, .dy = dy.at[run], .n = n, .add = true, .dx = added.at[run]});
	}
	give(&x);
	give(&dy);
	snprintf(what, sizeof what, "dx of %d rows through %s", n, m1b_dtype_name((m1b_dtype) type));
	compare(&dx, NEAR, what);
	snprintf(what, sizeof what, "%d rows times %s, or what is added to", n, m1b_dtype_name((m1b_dtype) type));
	if (m1b_is_integer((m1b_dtype) type))
	{
		give(&y);
		give(&added);
		return;
	}
	compare(&y, NEAR, what);
	compare(&added, NEAR, what);
}

static void
test_products(void **state)
{
	(void) state;
	for (int type = M1B_F32; type <= M1B_F8_E4M3; type++)
	{
		check_product(type, 3);
		check_product(type, 67);
	}
}

/* In one call, in two, and twice. */
static void
test_weight_gradients(void **state)
{
	const int n = 150, rows = 37, cols = 70, first = 61;
	const array dy = random_array((size_t) (n * rows));
	const array x = random_array((size_t) (n * cols));
	const array dw = random_array((size_t) (rows * cols));

	(void) state;
	EACH_RUN
	{
		m1b_weight_back p = {.dy = dy.at[run], .x = x.at[run], .n = n, .rows = rows, .cols = cols, .dw = dw.at[run]};

		if (run == AGAIN)
		{
			p.n = first;
			ops(run)->weight_back(backends[run], &p);
			p.n = n - first;
			p.dy += first * rows;
			p.x += first * cols;
		}
		ops(run)->weight_back(backends[run], &p);
	}
	give(&dy);
	give(&x);
	compare(&dw, NEAR, "a gradient of weights");
}

/* ---- rows ---- */

static void
test_elements(void **state)
{
	const size_t n = 9001;
	const array x = random_array(n);
	const array y = random_array(n);
	const array sum = poisoned(n);
	const array scaled = random_array(n);
	const array silu = poisoned(n);
	const array slope = random_array(n);

	(void) state;
	EACH_RUN
	{
		m1b_backend *b = backends[run];

		ops(run)->sum(
			b, &(m1b_sum){.x = x.at[run], .y = y.at[run], .alpha = 0.3f, .beta = -2.0f, .n = n, .out = sum.at[run]});
		ops(run)->sum(b, &(m1b_sum){.x = scaled.at[run], .alpha = 0.5f, .n = n, .out = scaled.at[run]});
		ops(run)->silu(b, &(m1b_silu){.z = x.at[run], .n = n, .out = silu.at[run]});
		ops(run)->silu(b, &(m1b_silu){.z = x.at[run], .dy = slope.at[run], .n = n, .out = slope.at[run]});
	}
	give(&x);
	give(&y);
	compare(&sum, NEAR, "sums");
	compare(&scaled, NEAR, "multiples");
	compare(&silu, NEAR, "silu");
	compare(&slope, NEAR, "the gradient of silu");
}

/* More rows than a step has, some of them twice. */
static void
test_rows(void **state)
{
	const int n = 300;
	const array from = random_array((size_t) n * HIDDEN);
	const array gathered = poisoned((size_t) n * HIDDEN);
	const array scattered = random_array((size_t) n * HIDDEN);
	const array embedded = poisoned((size_t) n * HIDDEN);
	const array dtable = random_array((size_t) VOCAB * HIDDEN);
	int rows[300];
	int32_t tokens[300];

	(void) state;
	for (int i = 0; i < n; i++)
	{
		rows[i] = (int) (test_random(&seed) % (uint64_t) n);
		tokens[i] = (int32_t) (test_random(&seed) % VOCAB);
	}
	EACH_RUN
	{
		m1b_backend *b = backends[run];
		m1b_rows p = {.rows = rows, .n = n, .width = HIDDEN, .from = from.at[run], .to = gathered.at[run]};

		ops(run)->gather(b, &p);
		p.to = scattered.at[run];
		ops(run)->scatter(b, &p);
		ops(run)->embed(b, &(m1b_embed){.table = &table.at[run], .tokens = tokens, .n = n, .out = embedded.at[run]});
		ops(run)->embed_back(
			b,
			&(m1b_embed_back){.tokens = tokens, .dx = from.at[run], .n = n, .width = HIDDEN, .dtable = dtable.at[run]});
	}
	give(&from);
	compare(&gathered, 0.0, "rows that were gathered");
	compare(&scattered, NEAR, "rows that were added");
	compare(&embedded, 0.0, "embeddings");
	compare(&dtable, NEAR, "the gradient of embeddings");
}

static void
test_norms(void **state)
{
	const int n = 150;
	const size_t floats = (size_t) n * HIDDEN;
	const array x = random_array(floats);
	const array weight = random_array(HIDDEN);
	const array gate = random_array(floats);
	const array y = poisoned(floats);
	const array gated = poisoned(floats);
	const array dy = random_array(floats);
	const array dx = poisoned(floats);
	const array dweight = random_array(HIDDEN);
	const array dgate = poisoned(floats);
	const array dx_gated = poisoned(floats);
	const array dweight_gated = random_array(HIDDEN);

	(void) state;
	EACH_RUN
	{
		m1b_backend *b = backends[run];
		const m1b_norm norm = {
			.residual = x.at[run], .weight = weight.at[run], .eps = 1e-5f, .n = n, .width = HIDDEN, .out = y.at[run]};
		const m1b_gate forward = {.x = x.at[run],
								  .gate = gate.at[run],
								  .weight = weight.at[run],
								  .eps = 1e-6f,
								  .n = n,
								  .width = HIDDEN,
								  .out = gated.at[run]};
		const m1b_norm_back back = {.x = x.at[run],
									.weight = weight.at[run],
									.eps = 1e-5f,
									.n = n,
									.width = HIDDEN,
									.dy = dy.at[run],
									.dx = dx.at[run],
									.dweight = dweight.at[run]};
		const m1b_gate_back gate_back = {.x = x.at[run],
										 .gate = gate.at[run],
										 .weight = weight.at[run],
										 .eps = 1e-6f,
										 .n = n,
										 .width = HIDDEN,
										 .dy = dy.at[run],
										 .dx = dx_gated.at[run],
										 .dgate = dgate.at[run],
										 .dweight = dweight_gated.at[run]};

		b->ops->norm(b, &norm);
		b->ops->gate(b, &forward);
		ops(run)->norm_back(b, &back);
		ops(run)->gate_back(b, &gate_back);
	}
	give(&x);
	give(&weight);
	give(&gate);
	compare(&y, NEAR, "norms");
	compare(&gated, NEAR, "gated norms");
	compare(&dx, NEAR, "dx of a norm");
	compare(&dweight, NEAR, "the gradient of a norm");
	compare(&dy, NEAR, "what a gate leaves of dy");
	compare(&dgate, NEAR, "the gradient of a gate");
	compare(&dx_gated, NEAR, "dx of a gated norm");
	compare(&dweight_gated, NEAR, "the gradient of a gated norm");
}

static void
test_optimizer(void **state)
{
	const size_t n = 300001;
	const array value = random_array(n);
	const array m = random_array(n);
	const array v = poisoned(n);
	const array gradient = random_array(n);
	double squares[RUNS];

	(void) state;
	EACH_RUN
	{
		m1b_backend *b = backends[run];
		m1b_adamw p = {.value = value.at[run],
					   .m = m.at[run],
					   .v = v.at[run],
					   .gradient = gradient.at[run],
					   .n = n,
					   .scale = 0.5f,
					   .rate = 1e-2f,
					   .beta1 = 0.9f,
					   .beta2 = 0.95f,
					   .eps = 1e-8f,
					   .correction1 = 0.19f,
					   .correction2 = 0.0975f,
					   .decay = 1e-3f};

		ops(run)->zero(b, v.at[run], n);
		ops(run)->adamw(b, &p);
		ops(run)->adamw(b, &p);
		squares[run] = ops(run)->sum_of_squares(b, gradient.at[run], n);
	}
	give(&gradient);
	compare(&value, NEAR, "weights");
	compare(&m, NEAR, "means");
	compare(&v, NEAR, "means of squares");
	assert_true(fabs(squares[GPU] - squares[CPU]) <= 1e-12 * squares[CPU]);
	assert_true(squares[GPU] == squares[AGAIN]);
}

/* ---- the distribution over the vocabulary ---- */

#define TARGETS 300 /* more than are looked at together */

static void
test_predictions(void **state)
{
	const array logits = random_array((size_t) TARGETS * VOCAB);
	static uint64_t masks[3][(VOCAB + 63) / 64];
	static const uint64_t *allowed[TARGETS];
	static int32_t targets[TARGETS];
	static float coefficient[TARGETS], said[RUNS][3][TARGETS];

	(void) state;
	for (int i = 0; i < 3; i++)
		for (int word = 0; word < 3; word++)
			masks[i][word] = test_random(&seed) & test_random(&seed);
	for (int t = 0; t < TARGETS; t++)
	{
		targets[t] = (int32_t) (test_random(&seed) % VOCAB);
		coefficient[t] = t % 7 == 0 ? 0.0f : test_random_float(&seed);
		allowed[t] = t % 4 < 3 ? masks[t % 4] : NULL;
		if (allowed[t] != NULL)
			masks[t % 4][targets[t] / 64] |= (uint64_t) 1 << targets[t] % 64;
	}
	EACH_RUN
	{
		const m1b_predict p = {.logits = logits.at[run],
							   .n = TARGETS,
							   .vocab = VOCAB,
							   .temperature = TEMPERATURE,
							   .targets = targets,
							   .allowed = allowed,
							   .logprob = said[run][0],
							   .entropy = said[run][1],
							   .sum = said[run][2]};

		ops(run)->predict(backends[run], &p);
		ops(run)->predict_back(backends[run], &(m1b_predict_back){.forward = &p, .coefficient = coefficient});
	}
	for (int i = 0; i < 3; i++)
		assert_near(said[GPU][i], said[CPU][i], TARGETS, NEAR, "what is said of targets");
	assert_memory_equal(said[GPU], said[AGAIN], sizeof said[GPU]);
	compare(&logits, NEAR, "the gradient of logits");
}

/* ---- attention ---- */

static void
test_lightning(void **state)
{
	const size_t floats = (size_t) spans.n_rows * HEADS * D;
	const float numbers[HEADS] = {0.917f, 0.004f, 1e-6f, 0.1f};
	const array decay = array_of(numbers, HEADS);
	const array qkv = random_array(3 * floats);
	const array dout = random_array(floats);
	const array out = poisoned(floats);
	const array states = poisoned((size_t) spans.n_states * HEADS * D * D);
	const array dqkv = poisoned(3 * floats);

	(void) state;
	EACH_RUN
	{
		const m1b_lightning_kept forward = {
			.spans = &spans, .decay = decay.at[run], .qkv = qkv.at[run], .out = out.at[run], .states = states.at[run]};

		ops(run)->lightning(backends[run], &forward);
		ops(run)->lightning_back(
			backends[run], &(m1b_lightning_back){.forward = &forward, .dout = dout.at[run], .dqkv = dqkv.at[run]});
	}
	give(&decay);
	give(&qkv);
	give(&dout);
	compare(&out, NEAR, "lightning attention");
	compare(&states, NEAR, "kept states");
	compare(&dqkv, NEAR, "the gradient of lightning attention");
}

static void
test_attention(void **state)
{
	const size_t rows = (size_t) spans.n_rows;
	const array q = random_array(rows * HEADS * D);
	const array k = random_array(rows * KV_HEADS * D);
	const array v = random_array(rows * KV_HEADS * D);
	const array dout = random_array(rows * HEADS * D);
	const array out = poisoned(rows * HEADS * D);
	const array lse = poisoned(rows * HEADS);
	const array dq = poisoned(rows * HEADS * D);
	const array dk = poisoned(rows * KV_HEADS * D);
	const array dv = poisoned(rows * KV_HEADS * D);

	(void) state;
	EACH_RUN
	{
		const m1b_attention_kept forward = {
			.spans = &spans, .q = q.at[run], .k = k.at[run], .v = v.at[run], .out = out.at[run], .lse = lse.at[run]};
		const m1b_attention_back back = {
			.forward = &forward, .dout = dout.at[run], .dq = dq.at[run], .dk = dk.at[run], .dv = dv.at[run]};

		ops(run)->attention(backends[run], &forward);
		ops(run)->attention_back(backends[run], &back);
	}
	give(&v);
	give(&dout);
	compare(&q, NEAR, "rotated queries");
	compare(&k, NEAR, "rotated keys");
	compare(&out, NEAR, "softmax attention");
	compare(&lse, NEAR, "log-sums");
	compare(&dq, NEAR, "the gradient of queries");
	compare(&dk, NEAR, "the gradient of keys");
	compare(&dv, NEAR, "the gradient of values");
}

/* ---- experts ---- */

static m1b_moe
moe_of(int run, const array *x, const array *out, const m1b_moe_kept *kept, m1b_matrix (*w)[EXPERTS])
{
	for (int e = 0; e < EXPERTS; e++)
	{
		w[0][e] = w1[e].at[run];
		w[1][e] = w2[e].at[run];
		w[2][e] = w3[e].at[run];
	}
	return (m1b_moe){.router = &router.at[run],
					 .w1 = w[0],
					 .w2 = w[1],
					 .w3 = w[2],
					 .experts = EXPERTS,
					 .top_k = TOP_K,
					 .x = x->at[run],
					 .n = MAX_TOKENS,
					 .out = out->at[run],
					 .kept = kept};
}

/* Where the gradients of each expert are, one after the other. */
static float *const *
parts_of(float *all, size_t size, float **list)
{
	for (int e = 0; e < EXPERTS; e++)
		list[e] = all + (size_t) e * size;
	return list;
}

/* With replayed experts: those of every third row, of which some are not what the router would choose. */
static void
check_experts(bool replay, bool balanced)
{
	const size_t pairs = MAX_TOKENS * TOP_K;
	const size_t size = (size_t) WIDTH * HIDDEN;
	const array x = random_array(MAX_TOKENS * HIDDEN);
	const array dy = random_array(MAX_TOKENS * HIDDEN);
	const array logits = poisoned(MAX_TOKENS * EXPERTS);
	const array choice = poisoned(pairs);
	const array weight = poisoned(pairs);
	const array gate = poisoned(pairs * WIDTH);
	const array up = poisoned(pairs * WIDTH);
	const array out = poisoned(MAX_TOKENS * HIDDEN);
	const array dx = poisoned(MAX_TOKENS * HIDDEN);
	const array drouter = random_array(EXPERTS * HIDDEN);
	const array dw[3] = {random_array(EXPERTS * size), random_array(EXPERTS * size), random_array(EXPERTS * size)};
	double chosen[RUNS][EXPERTS] = {{0}}, probability[RUNS][EXPERTS] = {{0}};
	int64_t differ[RUNS] = {0};
	float balance[EXPERTS], copies[MAX_TOKENS];
	int32_t given[MAX_TOKENS * TOP_K];

	for (int e = 0; e < EXPERTS; e++)
		balance[e] = test_random_float(&seed);
	for (int t = 0; t < MAX_TOKENS; t++)
	{
		copies[t] = (float) (1 + t % 3);
		given[t * TOP_K] = t % 3 == 0 ? t % EXPERTS : -1;
		given[t * TOP_K + 1] = t % 3 == 0 ? (t + 2) % EXPERTS : -1;
	}
	EACH_RUN
	{
		m1b_backend *b = backends[run];
		m1b_matrix w[3][EXPERTS];
		float *list[3][EXPERTS];
		const m1b_moe_kept kept = {.logits = logits.at[run],
								   .choice = (int32_t *) (void *) choice.at[run],
								   .weight = weight.at[run],
								   .gate = gate.at[run],
								   .up = up.at[run],
								   .replay = replay};
		const m1b_moe moe = moe_of(run, &x, &out, &kept, w);
		const m1b_moe_back back = {.forward = &moe,
								   .dy = dy.at[run],
								   .balance = balanced ? balance : NULL,
								   .copies = copies,
								   .dx = dx.at[run],
								   .drouter = drouter.at[run],
								   .dw1 = parts_of(dw[0].at[run], size, list[0]),
								   .dw2 = parts_of(dw[1].at[run], size, list[1]),
								   .dw3 = parts_of(dw[2].at[run], size, list[2])};

		ops(run)->put(b, kept.choice, given, sizeof given);
		b->ops->moe(b, &moe);
		ops(run)->moe_back(b, &back);
		ops(run)->moe_load(b, &(m1b_moe_load){.kept = &kept,
											  .copies = copies,
											  .n = MAX_TOKENS,
											  .experts = EXPERTS,
											  .top_k = TOP_K,
											  .chosen = chosen[run],
											  .probability = probability[run],
											  .differ = &differ[run]});
	}
	give(&x);
	give(&dy);
	compare(&logits, NEAR, "logits of the router");
	compare(&choice, 0.0, "choices");
	compare(&weight, NEAR, "weights of experts");
	compare(&gate, NEAR, "gates of experts");
	compare(&up, NEAR, "what is gated");
	compare(&out, NEAR, "experts");
	compare(&dx, NEAR, "dx of experts");
	compare(&drouter, NEAR, "the gradient of the router");
	for (int i = 0; i < 3; i++)
		compare(&dw[i], NEAR, "the gradient of experts");
	assert_memory_equal(chosen[GPU], chosen[CPU], sizeof *chosen);
	assert_true(differ[GPU] == differ[CPU] && (differ[GPU] > 0) == replay);
	for (int e = 0; e < EXPERTS; e++)
		assert_true(fabs(probability[GPU][e] - probability[CPU][e]) <= 1e-4);
}

static void
test_experts(void **state)
{
	(void) state;
	check_experts(false, true);
	check_experts(true, false);
}

/* Last: the matrix is another one afterwards. */
static void
test_widened(void **state)
{
	const array x = random_array((size_t) (3 * typed_cols));
	const array y = poisoned((size_t) (3 * typed_rows));
	array value = {.n = (size_t) (typed_rows * typed_cols)};

	(void) state;
	EACH_RUN
	{
		m1b_matrix w = typed[M1B_F16].at[run];

		assert_non_null(value.at[run] = ops(run)->widen(backends[run], &w));
		assert_true(w.type == M1B_F32 && w.data == value.at[run]);
		backends[run]->ops->linear(
			backends[run],
			&(m1b_linear){.x = x.at[run], .n = 3, .products = {{&w, M1B_NONE, y.at[run]}}, .n_products = 1});
	}
	give(&x);
	compare(&y, NEAR, "rows times a matrix that was made float32");
	for (int run = GPU; run <= AGAIN; run++)
	{
		float *got = fetch(run, value.at[run], value.n);
		float *want = fetch(CPU, value.at[CPU], value.n);

		assert_memory_equal(got, want, value.n * sizeof *got);
		free(got);
		free(want);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_products),	cmocka_unit_test(test_weight_gradients),
		cmocka_unit_test(test_elements),	cmocka_unit_test(test_rows),
		cmocka_unit_test(test_norms),		cmocka_unit_test(test_optimizer),
		cmocka_unit_test(test_predictions), cmocka_unit_test(test_lightning),
		cmocka_unit_test(test_attention),	cmocka_unit_test(test_experts),
		cmocka_unit_test(test_widened),
	};
	int failed;

	if (devices() == 0)
		return 0;
	open_backends();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	backends[CPU]->ops->close(backends[CPU]);
	backends[GPU]->ops->close(backends[GPU]);
	return failed;
}
