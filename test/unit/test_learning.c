/*
 * test_learning.c - the operations of learning.h with each instruction set, against sums in double precision: attention
 * of both kinds around the edges of blocks, pages and kept states, and products through weights of every type.
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/learning.h"
#include "blocks/blocks.h"

#define HEADS 4
#define KV_HEADS 2
#define D 20 /* not a multiple of any vector width */
#define ROTARY 8
#define THETA 1e4f
#define MAX_TOKENS 1100

static const char *const isas[] = {"portable", "avx2", "avx512", "avx512vnni"};
static const float decays[HEADS] = {0.917f, 0.004f, 1e-6f, 0.1f};

static m1b_backend *
open_backend_of(const char *isa, bool integer_experts)
{
	m1b_backend *b;
	m1_error err;
	const m1b_geometry g = {.heads = HEADS,
							.kv_heads = KV_HEADS,
							.head_dim = D,
							.rotary_dim = ROTARY,
							.rope_theta = THETA,
							.lightning_layers = 1,
							.softmax_layers = 1,
							.max_context = 64,
							.max_states = 1,
							.max_tokens = 64,
							.max_moe_pairs = 64,
							.expert_width = 1,
							.hidden = 1,
							.experts = 1,
							.integer_experts = integer_experts};

	if (m1b_cpu_open(2, isa, &b, &err) != M1_OK)
		return NULL; /* this processor lacks the instruction set */
	assert_ok(b->ops->configure(b, &g, &err));
	return b;
}

static m1b_backend *
open_backend(const char *isa)
{
	return open_backend_of(isa, false);
}

static float *
random_floats(size_t n, uint64_t seed)
{
	float *x = malloc(n * sizeof *x);

	for (size_t i = 0; i < n; i++)
		x[i] = test_random_float(&seed);
	return x;
}

static void
assert_close(const float *got, const double *want, size_t n, double tolerance, const char *isa, const char *what,
			 int tokens)
{
	double size = 0.0;

	for (size_t i = 0; i < n; i++)
		size = fmax(size, fabs(want[i]));
	for (size_t i = 0; i < n; i++)
		if (!(fabs(got[i] - want[i]) <= tolerance * (size + 1e-9)))
			fail_msg("%s, %s of %d tokens: element %zu is %.9g instead of %.9g", isa, what, tokens, i, got[i], want[i]);
}

static m1b_spans
one_span(m1b_span *span, int n)
{
	*span = (m1b_span){.n_rows = n, .parent = -1};
	return (m1b_spans){.at = span, .n = 1, .n_rows = n, .n_states = m1b_span_states(n, false)};
}

/* ---- lightning attention ---- */

/* dq_p = do_p S_p^T, dk_p = v_p R_p^T, dv_p = k_p R_p with R_p = q_p^T do_p + e^-l R_(p+1), token by token. */
static void
lightning_reference(const float *qkv, const float *dout, int n, int h, double *dqkv)
{
	const double e = exp(-(double) decays[h]);
	double s[D][D] = {{0}};
	double r[D][D] = {{0}};

	for (int p = 0; p < n; p++)
	{
		const size_t at = ((size_t) p * HEADS + (size_t) h) * D;
		const float *k = qkv + 3 * at + D;
		const float *v = k + D;

		for (int i = 0; i < D; i++)
		{
			double *dq = dqkv + 3 * at;

			dq[i] = 0.0;
			for (int j = 0; j < D; j++)
			{
				s[i][j] = e * s[i][j] + (double) k[i] * v[j];
				dq[i] += dout[at + (size_t) j] * s[i][j];
			}
		}
	}
	for (int p = n - 1; p >= 0; p--)
	{
		const size_t at = ((size_t) p * HEADS + (size_t) h) * D;
		const float *q = qkv + 3 * at;
		double *dk = dqkv + 3 * at + D;
		double *dv = dk + D;

		memset(dk, 0, 2 * D * sizeof *dk);
		for (int i = 0; i < D; i++)
			for (int j = 0; j < D; j++)
			{
				r[i][j] = e * r[i][j] + (double) q[i] * dout[at + (size_t) j];
				dk[i] += (q + 2 * D)[j] * r[i][j];
				dv[j] += (q + D)[i] * r[i][j];
			}
	}
}

static void
check_lightning(m1b_backend *b, const char *isa, int n)
{
	const size_t floats = (size_t) n * HEADS * D;
	float *qkv = random_floats(3 * floats, 3);
	float *dout = random_floats(floats, 4);
	float *out = malloc(floats * sizeof *out);
	float *dqkv = malloc(3 * floats * sizeof *dqkv);
	double *want = malloc(3 * floats * sizeof *want);
	m1b_span span;
	const m1b_spans spans = one_span(&span, n);
	float *states = malloc(((size_t) spans.n_states + 1) * HEADS * D * D * sizeof *states);
	const m1b_lightning_kept forward = {.spans = &spans, .decay = decays, .qkv = qkv, .out = out, .states = states};
	const m1b_lightning_back back = {.forward = &forward, .dout = dout, .dqkv = dqkv};
	m1_error err;

	assert_ok(b->ops->learning->reserve(b, &spans, &err));
	b->ops->learning->lightning(b, &forward);
	b->ops->learning->lightning_back(b, &back);
	for (int h = 0; h < HEADS; h++)
		lightning_reference(qkv, dout, n, h, want);
	assert_close(dqkv, want, 3 * floats, 2e-5, isa, "lightning attention", n);
	free(qkv);
	free(dout);
	free(out);
	free(dqkv);
	free(want);
	free(states);
}

static void
test_lightning(void **state)
{
	static const int lengths[] = {1, 2, 63, 64, 65, 511, 512, 513, 1100};

	(void) state;
	for (size_t s = 0; s < sizeof isas / sizeof *isas; s++)
	{
		m1b_backend *b = open_backend(isas[s]);

		for (size_t i = 0; b != NULL && i < sizeof lengths / sizeof *lengths; i++)
			check_lightning(b, isas[s], lengths[i]);
		if (b != NULL)
			b->ops->close(b);
	}
}

/* ---- softmax attention ---- */

/* Turns a head's first ROTARY numbers; with `back`, the other way. */
static void
turn(double *x, int position, bool back)
{
	for (int j = 0; j < ROTARY / 2; j++)
	{
		const double angle = (back ? -1.0 : 1.0) * position * pow((double) THETA, -2.0 * j / ROTARY);
		const double a = x[j];
		const double b = x[j + ROTARY / 2];

		x[j] = a * cos(angle) - b * sin(angle);
		x[j + ROTARY / 2] = b * cos(angle) + a * sin(angle);
	}
}

static double *
doubles(const float *x, size_t n)
{
	double *y = malloc(n * sizeof *y);

	for (size_t i = 0; i < n; i++)
		y[i] = x[i];
	return y;
}

static double *
turned(const float *x, int n, int heads)
{
	double *y = doubles(x, (size_t) (n * heads * D));

	for (int i = 0; i < n * heads; i++)
		turn(y + i * D, i / heads, false);
	return y;
}

static double
inner(const double *a, const double *b)
{
	double sum = 0.0;

	for (int i = 0; i < D; i++)
		sum += a[i] * b[i];
	return sum;
}

/* One query head of one token: adds to the gradients of its keys and values. */
static void
attend_back(const double *q, const double *k, const double *v, const double *dout, int p, double *dq, double *dk,
			double *dv)
{
	const size_t stride = KV_HEADS * D;
	double a[MAX_TOKENS];
	double sum = 0.0;
	double along = 0.0;

	for (int r = 0; r <= p; r++)
		sum += a[r] = exp(inner(q, k + (size_t) r * stride) / sqrt(D));
	for (int r = 0; r <= p; r++)
		along += a[r] / sum * inner(dout, v + (size_t) r * stride);
	for (int r = 0; r <= p; r++)
	{
		const size_t at = (size_t) r * stride;
		const double weight = a[r] / sum;
		const double ds = weight * (inner(dout, v + at) - along) / sqrt(D);

		for (int i = 0; i < D; i++)
		{
			dq[i] += ds * k[at + (size_t) i];
			dk[at + (size_t) i] += ds * q[i];
			dv[at + (size_t) i] += weight * dout[i];
		}
	}
}

typedef struct attention_case
{
	int n;
	float *q, *k, *v, *dout;
	double *dq, *dk, *dv; /* wanted */
} attention_case;

/* What the gradients are to be where the queries are q, and keys and values that they meet k and v. */
static void
want_gradients(attention_case *c, const double *q, const double *k, const double *v)
{
	const size_t heads = (size_t) c->n * HEADS * D;
	const size_t kv_heads = (size_t) c->n * KV_HEADS * D;
	double *dout = doubles(c->dout, heads);

	memset(c->dq, 0, heads * sizeof *c->dq);
	memset(c->dk, 0, kv_heads * sizeof *c->dk);
	memset(c->dv, 0, kv_heads * sizeof *c->dv);
	for (int p = 0; p < c->n; p++)
		for (int h = 0; h < HEADS; h++)
		{
			const size_t at = ((size_t) p * HEADS + (size_t) h) * D;
			const size_t kv = (size_t) (h / (HEADS / KV_HEADS)) * D;

			attend_back(q + at, k + kv, v + kv, dout + at, p, c->dq + at, c->dk + kv, c->dv + kv);
		}
	for (int i = 0; i < c->n * HEADS; i++)
		turn(c->dq + i * D, i / HEADS, true);
	for (int i = 0; i < c->n * KV_HEADS; i++)
		turn(c->dk + i * D, i / KV_HEADS, true);
	free(dout);
}

static attention_case
make_attention(int n)
{
	attention_case c = {.n = n};
	const size_t rows = (size_t) n;
	double *q, *k, *v;

	c.q = random_floats(rows * HEADS * D, 5);
	c.k = random_floats(rows * KV_HEADS * D, 6);
	c.v = random_floats(rows * KV_HEADS * D, 7);
	c.dout = random_floats(rows * HEADS * D, 8);
	c.dq = calloc(rows * HEADS * D, sizeof *c.dq);
	c.dk = calloc(rows * KV_HEADS * D, sizeof *c.dk);
	c.dv = calloc(rows * KV_HEADS * D, sizeof *c.dv);
	q = turned(c.q, n, HEADS);
	k = turned(c.k, n, KV_HEADS);
	v = doubles(c.v, rows * KV_HEADS * D);
	want_gradients(&c, q, k, v);
	free(q);
	free(k);
	free(v);
	return c;
}

static void
free_attention(attention_case *c)
{
	free(c->q);
	free(c->k);
	free(c->v);
	free(c->dout);
	free(c->dq);
	free(c->dk);
	free(c->dv);
}

static float *
copied(const float *x, size_t n)
{
	float *y = malloc(n * sizeof *y);

	memcpy(y, x, n * sizeof *y);
	return y;
}

/* What the queries have met must be the BF16 number next to what it should be, and so must the gradients be of that. */
static void
want_rounded(attention_case *c, const float *q, const float *k, const float *v)
{
	const size_t n = (size_t) c->n * KV_HEADS * D;
	double *plain_k = turned(c->k, c->n, KV_HEADS);
	double *met_q = doubles(q, (size_t) c->n * HEADS * D);
	double *met_k = doubles(k, n);
	double *met_v = doubles(v, n);

	for (size_t i = 0; i < n; i++)
	{
		assert_true(m1b_bf16_to_float(m1b_float_to_bf16(k[i])) == k[i]);
		assert_true(m1b_bf16_to_float(m1b_float_to_bf16(c->v[i])) == v[i]);
		assert_true(fabs(k[i] - plain_k[i]) <= fabs(plain_k[i]) / 256 + 1e-6);
	}
	want_gradients(c, met_q, met_k, met_v);
	free(plain_k);
	free(met_q);
	free(met_k);
	free(met_v);
}

static void
check_attention(m1b_backend *b, const char *isa, attention_case *c, bool rounds)
{
	const size_t heads = (size_t) c->n * HEADS;
	const size_t kv = (size_t) c->n * KV_HEADS * D;
	float *q = copied(c->q, heads * D); /* they are rotated in place, */
	float *k = copied(c->k, kv);
	float *v = copied(c->v, kv); /* and may be rounded */
	float *out = malloc(heads * D * sizeof *out);
	float *lse = malloc(heads * sizeof *lse);
	float *dq = malloc(heads * D * sizeof *dq);
	float *dk = malloc(kv * sizeof *dk);
	float *dv = malloc(kv * sizeof *dv);
	m1b_span span;
	const m1b_spans spans = one_span(&span, c->n);
	const m1b_attention_kept forward = {.spans = &spans, .q = q, .k = k, .v = v, .out = out, .lse = lse};
	const m1b_attention_back back = {.forward = &forward, .dout = c->dout, .dq = dq, .dk = dk, .dv = dv};
	m1_error err;

	assert_ok(b->ops->learning->reserve(b, &spans, &err));
	b->ops->learning->attention(b, &forward);
	b->ops->learning->attention_back(b, &back);
	if (rounds)
		want_rounded(c, q, k, v);
	assert_close(dq, c->dq, heads * D, 2e-5, isa, "the gradient of q", c->n);
	assert_close(dk, c->dk, kv, 2e-5, isa, "the gradient of k", c->n);
	assert_close(dv, c->dv, kv, 2e-5, isa, "the gradient of v", c->n);
	free(q);
	free(k);
	free(v);
	free(out);
	free(lse);
	free(dq);
	free(dk);
	free(dv);
}

static void
test_attention(void **state)
{
	static const int lengths[] = {1, 15, 16, 17, 63, 64, 65, 200};

	(void) state;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
	{
		attention_case c = make_attention(lengths[i]);

		for (size_t s = 0; s < 2 * (sizeof isas / sizeof *isas); s++)
		{
			const char *isa = isas[s % (sizeof isas / sizeof *isas)];
			const bool rounds = s >= sizeof isas / sizeof *isas; /* what is wanted changes with the first that does */
			m1b_backend *b = open_backend_of(isa, rounds);

			if (b == NULL)
				continue;
			check_attention(b, isa, &c, rounds);
			b->ops->close(b);
		}
		free_attention(&c);
	}
}

/* ---- products through weights ---- */

/* Random weights as they are stored, of any type. */
static void *
stored_weights(m1b_dtype type, size_t n, uint64_t seed)
{
	const size_t bytes = m1b_bytes(type, n);
	uint8_t *stored = malloc(bytes);

	if (m1b_can_quantize(type))
	{
		float *x = random_floats(n, seed);

		assert_true(m1b_quantize(type, x, n, stored));
		free(x);
		return stored;
	}
	for (size_t i = 0; i < bytes; i++)
		stored[i] = (uint8_t) test_random(&seed);
	for (size_t i = 0; i < bytes; i += m1b_block_bytes(type))
	{
		const uint16_t scale = m1b_float_to_half(0.01f);

		if (type == M1B_F16 || type == M1B_BF16 || type == M1B_F32)
		{
			const float x = test_random_float(&seed);
			const uint16_t half = type == M1B_F16 ? m1b_float_to_half(x) : m1b_float_to_bf16(x);

			memcpy(stored + i, type == M1B_F32 ? (const void *) &x : (const void *) &half, m1b_block_bytes(type));
		}
		else if (type == M1B_Q6_K)
			memcpy(stored + i + 208, &scale, sizeof scale);
		else
		{
			memcpy(stored + i, &scale, sizeof scale);
			memcpy(stored + i + 2, &scale, sizeof scale);
		}
	}
	return stored;
}

static void
check_product(m1b_backend *b, const char *isa, m1b_dtype type, int n, int rows, int cols)
{
	const size_t weights = (size_t) rows * (size_t) cols;
	void *stored = stored_weights(type, weights, 9);
	float *w = malloc(weights * sizeof *w);
	float *dy = random_floats((size_t) n * (size_t) rows, 10);
	float *dx = random_floats((size_t) n * (size_t) cols, 11);
	double *want = malloc((size_t) n * (size_t) cols * sizeof *want);
	const m1b_stored_matrix matrix = {.host = stored, .type = type, .use = M1B_USE_PRODUCT, .rows = rows, .cols = cols};
	m1b_linear_back p = {.dy = dy, .n = n, .dx = dx, .add = true};
	m1b_matrix weight;
	bool borrowed;
	m1_error err;

	assert_ok(b->ops->matrix(b, &matrix, &weight, &borrowed, &err));
	m1b_dequantize(type, stored, weights, w);
	for (int t = 0; t < n; t++)
		for (int j = 0; j < cols; j++)
		{
			double *sum = want + (size_t) t * (size_t) cols + (size_t) j;

			*sum = dx[(size_t) t * (size_t) cols + (size_t) j];
			for (int i = 0; i < rows; i++)
				*sum +=
					(double) dy[(size_t) t * (size_t) rows + (size_t) i] * w[(size_t) i * (size_t) cols + (size_t) j];
		}
	p.weight = &weight;
	b->ops->learning->linear_back(b, &p);
	assert_close(dx, want, (size_t) n * (size_t) cols, 1e-5, isa, m1b_dtype_name(type), n);
	free(stored);
	free(w);
	free(dy);
	free(dx);
	free(want);
}

static void
test_products(void **state)
{
	static const m1b_dtype types[] = {M1B_F32,	M1B_F16,  M1B_BF16, M1B_Q8_0,	M1B_Q4_0,
									  M1B_Q4_K, M1B_Q5_K, M1B_Q6_K, M1B_F8_E4M3};

	(void) state;
	for (size_t s = 0; s < sizeof isas / sizeof *isas; s++)
	{
		m1b_backend *b = open_backend(isas[s]);
		m1b_span span;
		const m1b_spans spans = one_span(&span, 1);
		m1_error err;

		if (b == NULL)
			continue;
		assert_ok(b->ops->learning->reserve(b, &spans, &err));
		for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		{
			check_product(b, isas[s], types[i], 3, 37, 256);
			check_product(b, isas[s], types[i], 67, 150, 512);
		}
		check_product(b, isas[s], M1B_F32, 65, 129, 131);
		b->ops->close(b);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lightning),
		cmocka_unit_test(test_attention),
		cmocka_unit_test(test_products),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
