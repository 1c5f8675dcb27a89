/*
 * cpu.c - the CPU backend: its life, weights in place, row-wise operations and
 * the linear layer. See backend.h for what each operation means.
 */
#include "backend/blocks.h"
#include "backend/cpu_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- choosing kernels ---- */

static const m1b_kernels *
best_kernels(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
		__builtin_cpu_supports("avx512vl"))
		return &m1b_kernels_avx512;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return &m1b_kernels_avx2;
#endif
	return &m1b_kernels_portable;
}

static const m1b_kernels *
kernels_named(const char *isa)
{
	const m1b_kernels *best = best_kernels();

	if (isa == NULL)
		return best;
	if (strcmp(isa, "portable") == 0)
		return &m1b_kernels_portable;
#if defined(__x86_64__)
	if (strcmp(isa, "avx2") == 0 && best != &m1b_kernels_portable)
		return &m1b_kernels_avx2;
	if (strcmp(isa, "avx512") == 0 && best == &m1b_kernels_avx512)
		return &m1b_kernels_avx512;
#endif
	return NULL;
}

/* ---- loops ---- */

void
m1b_cpu_loop(m1b_cpu *c, double work, int pieces, m1_pool_fn fn, void *arg)
{
	if (work < M1B_SERIAL_WORK)
		for (int i = 0; i < pieces; i++)
			fn(arg, i, 0);
	else
		m1_pool_run(c->pool, pieces, fn, arg);
}

int
m1b_cpu_rows_per_piece(const m1b_cpu *c, int rows, int parts)
{
	/* Eight pieces a thread even out their speeds; a multiple of 8 rows fills the kernels' tiles. */
	int per = rows * parts / (8 * m1_pool_size(c->pool));

	per = (per + 7) / 8 * 8;
	return per < 8 ? 8 : per > 64 ? 64 : per;
}

/* ---- row-wise operations ---- */

static void
embed(m1b_backend *b, const m1b_embed *p)
{
	size_t width = (size_t) p->table->cols;
	size_t row_bytes = m1b_bytes(p->table->type, width);

	(void) b;
	for (int t = 0; t < p->n; t++)
		m1b_dequantize(p->table->type, (const char *) p->table->data + (size_t) p->tokens[t] * row_bytes, width,
					   p->out + (size_t) t * width);
}

typedef struct norm_job
{
	const m1b_cpu *c;
	const m1b_norm *p;
} norm_job;

static void
norm_row(void *arg, int t, int worker)
{
	const norm_job *job = arg;
	const m1b_norm *p = job->p;
	const m1b_kernels *k = job->c->k;
	size_t at = (size_t) t * (size_t) p->width;
	const float *sum = p->residual + at;

	(void) worker;
	if (p->branch != NULL)
	{
		float *to = p->keep_sum != NULL ? p->keep_sum + at : p->out + at;

		k->scale_add(to, p->residual + at, p->branch + at, p->alpha, p->beta, p->width);
		sum = to;
	}
	else if (p->keep_sum != NULL && p->keep_sum != p->residual)
		memcpy(p->keep_sum + at, sum, (size_t) p->width * sizeof *sum);
	k->rms_norm(sum, p->weight, p->eps, p->width, p->out + at);
}

static void
norm(m1b_backend *b, const m1b_norm *p)
{
	norm_job job = {m1b_cpu_of(b), p};

	m1b_cpu_loop(m1b_cpu_of(b), 4.0 * p->n * p->width, p->n, norm_row, &job);
}

typedef struct gate_job
{
	const m1b_cpu *c;
	const m1b_gate *p;
} gate_job;

static void
gate_row(void *arg, int t, int worker)
{
	const gate_job *job = arg;
	const m1b_gate *p = job->p;
	size_t at = (size_t) t * (size_t) p->width;

	(void) worker;
	job->c->k->rms_norm(p->x + at, p->weight, p->eps, p->width, p->out + at);
	job->c->k->sigmoid_mul(p->out + at, p->gate + at, p->width);
}

static void
gate(m1b_backend *b, const m1b_gate *p)
{
	gate_job job = {m1b_cpu_of(b), p};

	m1b_cpu_loop(m1b_cpu_of(b), 16.0 * p->n * p->width, p->n, gate_row, &job);
}

/* ---- linear ---- */

typedef struct linear_job
{
	const m1b_cpu *c;
	const m1b_linear *p;
	int rows_per_piece;
} linear_job;

static void
linear_piece(void *arg, int piece, int worker)
{
	const linear_job *job = arg;
	const m1b_linear *p = job->p;
	int rows = p->weight->rows;
	m1b_dot dot = {
		.x = job->c->x_rows,
		.n = p->n,
		.w = p->weight->data,
		.w_type = p->weight->type,
		.w_stride = (size_t) p->weight->cols,
		.k = p->weight->cols,
		.row0 = piece * job->rows_per_piece,
		.row1 = (piece + 1) * job->rows_per_piece,
		.out = job->c->out_rows,
	};

	(void) worker;
	if (dot.row1 > rows)
		dot.row1 = rows;
	job->c->k->dot(&dot);
	if (p->activation == M1B_SILU)
		for (int t = 0; t < p->n; t++)
			job->c->k->silu(dot.out[t] + dot.row0, dot.row1 - dot.row0);
}

static void
linear(m1b_backend *b, const m1b_linear *p)
{
	m1b_cpu *c = m1b_cpu_of(b);
	linear_job job = {c, p, m1b_cpu_rows_per_piece(c, p->weight->rows, 1)};
	int pieces = (p->weight->rows + job.rows_per_piece - 1) / job.rows_per_piece;

	for (int t = 0; t < p->n; t++)
	{
		c->x_rows[t] = p->x + (size_t) t * (size_t) p->weight->cols;
		c->out_rows[t] = p->out + (size_t) t * (size_t) p->weight->rows;
	}
	m1b_cpu_loop(c, (double) p->n * p->weight->rows * p->weight->cols, pieces, linear_piece, &job);
}

/* ---- weights and work memory ---- */

static m1_status
matrix(m1b_backend *b, const void *host, m1b_dtype type, m1b_use use, int rows, int cols, m1b_matrix *out,
	   bool *borrowed, m1_error *err)
{
	(void) b;
	if (m1b_is_quantized(type))
		return m1_fail(err, M1_E_UNSUPPORTED, "weights of type %s are not supported", m1b_dtype_name(type));
	*out = (m1b_matrix){.data = host, .type = type, .use = use, .rows = rows, .cols = cols};
	*borrowed = true;
	return M1_OK;
}

static float *
scratch(m1b_backend *b, size_t n, const float *host)
{
	m1b_cpu *c = m1b_cpu_of(b);
	float *block;

	if (c->n_owned == c->cap_owned)
	{
		int cap = c->cap_owned == 0 ? 64 : 2 * c->cap_owned;
		void **grown = realloc(c->owned, (size_t) cap * sizeof *grown);

		if (grown == NULL)
			return NULL;
		c->owned = grown;
		c->cap_owned = cap;
	}
	if (n > SIZE_MAX / sizeof *block - 16)
		return NULL;
	block = aligned_alloc(64, (n * sizeof *block + 63) / 64 * 64 + 64);
	if (block == NULL)
		return NULL;
	if (host != NULL)
		memcpy(block, host, n * sizeof *block);
	else
		memset(block, 0, n * sizeof *block);
	c->owned[c->n_owned++] = block;
	return block;
}

static m1_status
read_floats(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err)
{
	(void) b;
	(void) err;
	if (host != device)
		memcpy(host, device, n * sizeof *host);
	return M1_OK;
}

/* ---- life ---- */

static const char *
describe(const m1b_backend *b)
{
	return ((const m1b_cpu *) b)->description;
}

static m1_status
configure(m1b_backend *b, const m1b_geometry *g, m1_error *err)
{
	m1b_cpu *c = m1b_cpu_of(b);
	size_t rows = (size_t) (g->max_tokens > g->max_moe_pairs ? g->max_tokens : g->max_moe_pairs);
	m1_status status;

	if (g->heads / g->kv_heads > M1B_MAX_GROUP)
		return m1_fail(err, M1_E_UNSUPPORTED, "more than %d attention heads share a key/value head", M1B_MAX_GROUP);
	c->g = *g;
	c->x_rows = calloc(rows, sizeof *c->x_rows);
	c->out_rows = calloc(rows, sizeof *c->out_rows);
	if (c->x_rows == NULL || c->out_rows == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the work space of %d tokens", g->max_tokens);
	if ((status = m1b_cpu_states_configure(c, err)) != M1_OK)
		return status;
	if ((status = m1b_cpu_attention_configure(c, err)) != M1_OK)
		return status;
	return m1b_cpu_moe_configure(c, err);
}

static void
cpu_close(m1b_backend *b)
{
	m1b_cpu *c = m1b_cpu_of(b);

	m1_pool_free(c->pool);
	m1b_cpu_states_free(c);
	m1b_cpu_attention_free(c);
	m1b_cpu_moe_free(c);
	for (int i = 0; i < c->n_owned; i++)
		free(c->owned[i]);
	free(c->owned);
	free(c->x_rows);
	free(c->out_rows);
	free(c);
}

static const m1b_ops cpu_ops = {
	.close = cpu_close,
	.describe = describe,
	.configure = configure,
	.matrix = matrix,
	.scratch = scratch,
	.state_acquire = m1b_cpu_state_acquire,
	.state_release = m1b_cpu_state_release,
	.begin = m1b_cpu_begin,
	.embed = embed,
	.norm = norm,
	.linear = linear,
	.lightning = m1b_cpu_lightning,
	.gate = gate,
	.attention = m1b_cpu_attention,
	.moe = m1b_cpu_moe,
	.read = read_floats,
};

m1_status
m1b_cpu_open(int threads, const char *isa, m1b_backend **out, m1_error *err)
{
	const m1b_kernels *kernels = kernels_named(isa);
	m1b_cpu *c;
	m1_status status;

	*out = NULL;
	if (kernels == NULL)
		return m1_fail(err, M1_E_UNSUPPORTED, "this processor has no instruction set \"%s\"", isa);
	if ((c = calloc(1, sizeof *c)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the CPU backend");
	c->base.ops = &cpu_ops;
	c->k = kernels;
	if ((status = m1_pool_create(threads, &c->pool, err)) != M1_OK)
	{
		free(c);
		return status;
	}
	snprintf(c->description, sizeof c->description, "cpu (%s, %d thread%s)", kernels->name, m1_pool_size(c->pool),
			 m1_pool_size(c->pool) == 1 ? "" : "s");
	*out = &c->base;
	return M1_OK;
}
