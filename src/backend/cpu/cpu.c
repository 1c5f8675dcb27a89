/*
 * cpu.c - the CPU backend: its life and row-wise operations. See backend.h for what
 * each operation means.
 */
#include "blocks/blocks.h"
#include "backend/cpu/cpu_learn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- choosing kernels ---- */

typedef struct instruction_set
{
	const char *name; /* for tests and people who want to compare */
	const m1b_kernels *kernels;
	bool available;
} instruction_set;

/* The best of the sets that this processor has, or the one of that name. */
static const m1b_kernels *
choose_kernels(const char *name)
{
#if defined(__x86_64__)
	const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
							__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
	const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
	const instruction_set sets[] = {
#if defined(__x86_64__)
		{"avx512vnni", &m1b_kernels_avx512vnni, has_avx512 && __builtin_cpu_supports("avx512vnni")},
		{"avx512", &m1b_kernels_avx512, has_avx512},
		{"avx2", &m1b_kernels_avx2, has_avx2},
#endif
		{"portable", &m1b_kernels_portable, true},
	};

	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
		if (sets[i].available && (name == NULL || strcmp(name, sets[i].name) == 0))
			return sets[i].kernels;
	return NULL;
}

/* ---- row-wise operations ---- */

void
m1b_cpu_embed(m1b_backend *b, const m1b_embed *p)
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

/* ---- work memory ---- */

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

/* Every operation is done when it returns. */
static bool
end(m1b_backend *b)
{
	(void) b;
	return true;
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
	m1_status status;

	if (g->heads / g->kv_heads > M1B_MAX_GROUP)
		return m1_fail(err, M1_E_UNSUPPORTED, "more than %d attention heads share a key/value head", M1B_MAX_GROUP);
	c->g = *g;
	if ((status = m1b_cpu_product_configure(c, err)) != M1_OK)
		return status;
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
	m1b_cpu_weights_free(c);
	m1b_cpu_product_free(c);
	m1b_cpu_states_free(c);
	m1b_cpu_attention_free(c);
	m1b_cpu_moe_free(c);
	m1b_cpu_learn_free(c);
	m1b_cpu_adapters_free(c);
	for (int i = 0; i < c->n_owned; i++)
		free(c->owned[i]);
	free(c->owned);
	free(c);
}

static const m1b_ops cpu_ops = {
	.close = cpu_close,
	.describe = describe,
	.configure = configure,
	.matrix = m1b_cpu_matrix,
	.scratch = scratch,
	.prepare_adapters = m1b_cpu_prepare_adapters,
	.state_acquire = m1b_cpu_state_acquire,
	.state_acquire_from = m1b_cpu_state_acquire_from,
	.state_release = m1b_cpu_state_release,
	.snapshot_take = m1b_cpu_snapshot_take,
	.snapshot_cost = m1b_cpu_snapshot_cost,
	.state_trim = m1b_cpu_state_trim,
	.snapshot_release = m1b_cpu_snapshot_release,
	.memory = m1b_cpu_memory,
	.begin = m1b_cpu_begin,
	.embed = m1b_cpu_embed,
	.norm = norm,
	.linear = m1b_cpu_linear,
	.lightning = m1b_cpu_lightning,
	.gate = gate,
	.attention = m1b_cpu_attention,
	.moe = m1b_cpu_moe,
	.end = end,
	.read = read_floats,
	.learning = &m1b_cpu_learning,
};

m1_status
m1b_cpu_open(int threads, const char *isa, m1b_backend **out, m1_error *err)
{
	const m1b_kernels *kernels = choose_kernels(isa);
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
