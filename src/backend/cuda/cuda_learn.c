/*
 * cuda_learn.c - learning on one GPU: memory, products through weights and of their gradients, and the table of
 * operations. See learning.h for what each of them means.
 *
 * All is in fp32, and a row's bits do not depend on the others of a call: not even those of products with many rows,
 * which serving leaves to cuBLASLt. No operation waits for the device but those that tell the host something.
 */
#include "backend/cuda/cuda_internal.h"

#include <stdlib.h>

/* ---- memory ---- */

static float *
take(m1b_backend *b, size_t n)
{
	m1b_cuda *c = m1b_cuda_of(b);
	void *memory = NULL;

	if (n > SIZE_MAX / sizeof(float) || cudaMalloc(&memory, n * sizeof(float)) != cudaSuccess)
	{
		cudaGetLastError(); /* whoever asked for it tells */
		return NULL;
	}
	m1b_cuda_zero(c, memory, n * sizeof(float), "clearing memory");
	return memory;
}

static void
give(m1b_backend *b, float *memory)
{
	m1b_cuda_note(m1b_cuda_of(b), cudaFree(memory), "freeing memory");
}

static void
zero(m1b_backend *b, float *x, size_t n)
{
	m1b_cuda_zero(m1b_cuda_of(b), x, n * sizeof *x, "clearing memory");
}

static void
put(m1b_backend *b, void *to, const void *from, size_t bytes)
{
	m1b_cuda_upload(m1b_cuda_of(b), to, from, bytes, "uploading numbers");
}

/* A place in the list of what close frees. */
static bool
grow_list(m1b_cuda_learn *w)
{
	void **grown = realloc(w->widened, (w->n_widened + 1) * sizeof *grown);

	if (grown != NULL)
		w->widened = grown;
	return grown != NULL;
}

/* What was recorded of serving reads the matrix where it was, and is recorded anew. */
static float *
widen(m1b_backend *b, m1b_matrix *m)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1k_matrix stored = m1b_cuda_kernel_matrix(m);
	float *value;

	if (!grow_list(&c->learn) || (value = take(b, (size_t) m->rows * (size_t) m->cols)) == NULL)
		return NULL;
	c->learn.widened[c->learn.n_widened++] = value;
	m1b_cuda_recordings_free(c);
	m1k_learn_widen(&stored, value, c->stream);
	m1b_cuda_launched(c, "widening weights");
	m->data = value;
	m->type = M1B_F32;
	return value;
}

static size_t
memory(m1b_backend *b)
{
	size_t left = 0;
	size_t total;

	m1b_cuda_note(m1b_cuda_of(b), cudaMemGetInfo(&left, &total), "asking for free memory");
	return left;
}

static m1b_cuda_buffers
work_buffers(const m1b_cuda *c, const m1b_spans *spans, m1b_cuda_learn *w)
{
	m1b_cuda_buffers all = {.n = 0};

	m1b_cuda_learn_rows_want(c, spans, &w->rows, &all);
	m1b_cuda_learn_spans_want(c, spans, &w->spans, &all);
	m1b_cuda_learn_moe_want(c, &w->moe, &all);
	return all;
}

static size_t
reserve_bytes(const m1b_backend *b, const m1b_spans *spans)
{
	m1b_cuda_learn w;
	const m1b_cuda_buffers all = work_buffers((const m1b_cuda *) b, spans, &w);

	return m1b_cuda_buffers_bytes(&all);
}

static void
free_arena(m1b_cuda_learn *w)
{
	cudaFree(w->arena.base);
	w->arena = (m1b_cuda_arena){.base = NULL};
}

static m1_status
reserve(m1b_backend *b, const m1b_spans *spans, m1_error *err)
{
	m1b_cuda *c = m1b_cuda_of(b);
	m1b_cuda_learn *w = &c->learn;
	const m1b_cuda_buffers all = work_buffers(c, spans, w);
	const size_t bytes = m1b_cuda_buffers_bytes(&all);
	m1_status status;

	m1b_cuda_loader_finish(c);
	w->arena.used = 0;
	if (bytes > w->arena.size)
	{
		free_arena(w);
		if ((status = m1b_cuda_arena_create(&w->arena, bytes, err)) != M1_OK)
			return status;
	}
	if ((status = m1b_cuda_take_buffers(&w->arena, &all, err)) != M1_OK ||
		(status = m1b_cuda_learn_spans_set(c, spans, err)) != M1_OK)
		return status;
	return m1b_cuda_status(c, err);
}

void
m1b_cuda_learn_free(m1b_cuda *c)
{
	free_arena(&c->learn);
	for (size_t i = 0; i < c->learn.n_widened; i++)
		cudaFree(c->learn.widened[i]);
	free(c->learn.widened);
}

/* ---- products ---- */

static void
multiply(m1b_cuda *c, const m1k_multiply *p)
{
	m1k_learn_multiply(p, c->stream);
	m1b_cuda_launched(c, "multiplying");
}

void
m1b_cuda_learn_linear(m1b_backend *b, const m1b_linear *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	for (int i = 0; i < p->n_products; i++)
	{
		const m1b_product *product = &p->products[i];
		const m1b_matrix *w = product->weight;
		const m1k_multiply k = {.m = p->n,
								.n = w->rows,
								.k = w->cols,
								.a = p->x,
								.a_row = (size_t) w->cols,
								.a_col = 1,
								.weight = m1b_cuda_kernel_matrix(w),
								.transposed = true,
								.c = product->out};

		multiply(c, &k);
		if (product->activation == M1B_SILU)
			m1k_silu(product->out, (size_t) p->n * (size_t) w->rows, c->stream);
	}
	m1b_cuda_launched(c, "multiplying");
}

void
m1b_cuda_learn_linear_back(m1b_backend *b, const m1b_linear_back *p)
{
	const m1b_matrix *w = p->weight;
	const m1k_multiply k = {.m = p->n,
							.n = w->cols,
							.k = w->rows,
							.a = p->dy,
							.a_row = (size_t) w->rows,
							.a_col = 1,
							.weight = m1b_cuda_kernel_matrix(w),
							.c = p->dx,
							.add = p->add};

	multiply(m1b_cuda_of(b), &k);
}

void
m1b_cuda_learn_weight_back(m1b_backend *b, const m1b_weight_back *p)
{
	const m1k_multiply k = {.m = p->rows,
							.n = p->cols,
							.k = p->n,
							.a = p->dy,
							.a_row = 1,
							.a_col = (size_t) p->rows,
							.b = p->x,
							.c = p->dw,
							.add = true};

	multiply(m1b_cuda_of(b), &k);
}

const m1b_learning m1b_cuda_learning = {
	.take = take,
	.give = give,
	.zero = zero,
	.put = put,
	.widen = widen,
	.memory = memory,
	.reserve = reserve,
	.reserve_bytes = reserve_bytes,
	.embed = m1b_cuda_learn_embed,
	.linear = m1b_cuda_learn_linear,
	.sum = m1b_cuda_learn_sum,
	.silu = m1b_cuda_learn_silu,
	.gather = m1b_cuda_learn_gather,
	.scatter = m1b_cuda_learn_scatter,
	.lightning = m1b_cuda_learn_lightning,
	.attention = m1b_cuda_learn_attention,
	.moe_load = m1b_cuda_learn_moe_load,
	.predict = m1b_cuda_learn_predict,
	.linear_back = m1b_cuda_learn_linear_back,
	.weight_back = m1b_cuda_learn_weight_back,
	.adapted_back = NULL, /* there are no adapters on this device */
	.norm_back = m1b_cuda_learn_norm_back,
	.gate_back = m1b_cuda_learn_gate_back,
	.lightning_back = m1b_cuda_learn_lightning_back,
	.attention_back = m1b_cuda_learn_attention_back,
	.moe_back = m1b_cuda_learn_moe_back,
	.embed_back = m1b_cuda_learn_embed_back,
	.predict_back = m1b_cuda_learn_predict_back,
	.sum_of_squares = m1b_cuda_learn_squares,
	.adamw = m1b_cuda_learn_adamw,
};
