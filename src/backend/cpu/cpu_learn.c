/*
 * cpu_learn.c - learning on the CPU: its work memory, products through weights and of their gradients, and the table of
 * operations. See learning.h for what each of them means.
 *
 * Work memory is made by the first reserve and freed by close; what depends on the spans is made anew by each.
 */
#include "backend/cpu/cpu_learn.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu_gemm.h"
#include "backend/moe_load.h"
#include "base/memory.h"
#include "blocks/blocks.h"

/* ---- memory ---- */

static float *
take(m1b_backend *b, size_t n)
{
	float *memory;

	if (n > SIZE_MAX / sizeof *memory - 32)
		return NULL;
	memory = aligned_alloc(64, m1b_round_up((n + 16) * sizeof *memory, 64));
	if (memory == NULL)
		return NULL;
	memset(memory, 0, n * sizeof *memory);
	m1b_cpu_of(b)->taken += malloc_usable_size(memory);
	return memory;
}

static void
give(m1b_backend *b, float *memory)
{
	m1b_cpu_of(b)->taken -= malloc_usable_size(memory);
	free(memory);
}

static void
zero(m1b_backend *b, float *x, size_t n)
{
	(void) b;
	memset(x, 0, n * sizeof *x);
}

static void
put(m1b_backend *b, void *to, const void *from, size_t bytes)
{
	(void) b;
	memcpy(to, from, bytes);
}

static float *
widen(m1b_backend *b, m1b_matrix *m)
{
	const size_t n = (size_t) m->rows * (size_t) m->cols;
	float *value = b->ops->scratch(b, n, NULL);

	if (value == NULL)
		return NULL;
	m1b_cpu_of(b)->taken += n * sizeof *value;
	m1b_dequantize(m->type, m->data, n, value);
	m->data = value;
	m->type = M1B_F32;
	return value;
}

static size_t
larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Weights that are larger than memory are read from disk again and again: an eighth is left all the same. */
static size_t
memory(m1b_backend *b)
{
	const m1b_cpu *c = m1b_cpu_of(b);
	const size_t all = m1_machine_memory();
	const size_t held = c->g.weight_bytes + (size_t) c->pages.n_pages * c->pages.page_bytes + c->taken;

	return larger(all > held ? all - held : 0, all / 8);
}

size_t
m1b_cpu_learn_scratch_floats(const m1b_cpu *c)
{
	const m1b_geometry *g = &c->g;
	const size_t state = (size_t) g->head_dim * (size_t) g->head_dim;
	size_t floats = (size_t) M1B_GEMM_DEPTH * M1B_GEMM_COLUMNS;

	floats = larger(floats, state + m1b_cpu_lightning_scratch(g));
	floats = larger(floats, m1b_cpu_lightning_back_scratch(g));
	floats = larger(floats, m1b_cpu_attention_scratch(g));
	return larger(floats, m1b_cpu_attention_back_scratch(g));
}

float *
m1b_cpu_learn_scratch(const m1b_cpu *c, int worker)
{
	return c->learn->worker[worker];
}

static void
free_spans(m1b_learn_work *w)
{
	free(w->state_gradients);
	free(w->child);
	free(w->pages);
	free(w->page);
	free(w->first_page);
}

void
m1b_cpu_learn_free(m1b_cpu *c)
{
	m1b_learn_work *w = c->learn;

	if (w == NULL)
		return;
	m1b_cpu_learn_moe_free(c);
	for (int i = 0; w->worker != NULL && i < w->threads; i++)
		free(w->worker[i]);
	free(w->worker);
	free(w->rho);
	free_spans(w);
	free(w);
	c->learn = NULL;
}

static m1_status
create(m1b_cpu *c, m1_error *err)
{
	const int threads = m1_pool_size(c->pool);
	m1b_learn_work *w = c->learn = calloc(1, sizeof *w);
	bool ok = w != NULL;

	if (ok)
	{
		w->threads = threads;
		w->worker = calloc((size_t) threads, sizeof *w->worker);
		w->rho = calloc((size_t) c->g.max_tokens, sizeof *w->rho);
		ok = w->worker != NULL && w->rho != NULL && m1b_cpu_learn_moe_create(c);
		for (int i = 0; ok && i < threads; i++)
			ok = (w->worker[i] = take(&c->base, m1b_cpu_learn_scratch_floats(c))) != NULL;
	}
	if (ok)
		return M1_OK;
	m1b_cpu_learn_free(c);
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the work space of learning");
}

/* ---- of spans ---- */

static size_t
state_gradient_floats(const m1b_cpu *c, int children)
{
	const size_t d = (size_t) c->g.head_dim;

	return (size_t) children * (size_t) c->g.heads * d * d;
}

static int
children_of(const m1b_spans *spans, int *places)
{
	int children = 0;

	for (int s = 0; s < spans->n; s++)
	{
		if (places != NULL)
			places[s] = children;
		children += spans->at[s].parent >= 0;
	}
	return children;
}

static size_t
reserve_bytes(const m1b_backend *b, const m1b_spans *spans)
{
	const m1b_cpu *c = (const m1b_cpu *) b;
	const size_t threads = (size_t) m1_pool_size(c->pool);
	size_t entries;
	size_t pages = m1b_cpu_attention_pages(spans, &entries);

	if (c->g.softmax_layers == 0)
		pages = 0;
	return pages * m1b_cpu_learn_page_bytes(c) + entries * sizeof(char *) + (size_t) spans->n * 2 * sizeof(int) +
		   (state_gradient_floats(c, children_of(spans, NULL)) + threads * m1b_cpu_learn_scratch_floats(c) +
			(size_t) c->g.max_tokens) *
			   sizeof(float) +
		   m1b_cpu_learn_moe_bytes(c);
}

static m1_status
reserve(m1b_backend *b, const m1b_spans *spans, m1_error *err)
{
	m1b_cpu *c = m1b_cpu_of(b);
	m1b_learn_work *w;
	m1_status status;
	size_t entries;
	const size_t pages = m1b_cpu_attention_pages(spans, &entries);

	if (c->learn == NULL && (status = create(c, err)) != M1_OK)
		return status;
	w = c->learn;
	free_spans(w);
	w->child = calloc((size_t) spans->n, sizeof *w->child);
	w->first_page = calloc((size_t) spans->n, sizeof *w->first_page);
	w->page = calloc(entries, sizeof *w->page);
	w->pages = c->g.softmax_layers > 0 ? malloc(pages * m1b_cpu_learn_page_bytes(c)) : malloc(1);
	w->state_gradients = NULL;
	if (w->child != NULL)
		w->state_gradients = malloc((state_gradient_floats(c, children_of(spans, w->child)) + 1) * sizeof(float));
	if (w->child == NULL || w->first_page == NULL || w->page == NULL || w->pages == NULL || w->state_gradients == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the work space of %d tokens", spans->n_rows);
	if (c->g.softmax_layers > 0)
		m1b_cpu_attention_lay_out(c, spans);
	return M1_OK;
}

/* ---- products ---- */

static void
linear_back(m1b_backend *b, const m1b_linear_back *p)
{
	const size_t rows = (size_t) p->weight->rows;
	const size_t cols = (size_t) p->weight->cols;
	m1b_gemm product = {.m = p->n,
						.n = (int) cols,
						.k = (int) rows,
						.a = p->dy,
						.a_row = rows,
						.a_col = 1,
						.weight = p->weight,
						.c = p->dx,
						.c_row = cols,
						.add = p->add};

	m1b_cpu_gemms(m1b_cpu_of(b), &product, 1);
}

static void
weight_back(m1b_backend *b, const m1b_weight_back *p)
{
	m1b_gemm product = {.m = p->rows,
						.n = p->cols,
						.k = p->n,
						.a = p->dy,
						.a_row = 1,
						.a_col = (size_t) p->rows,
						.b = p->x,
						.b_row = (size_t) p->cols,
						.c = p->dw,
						.c_row = (size_t) p->cols,
						.add = true};

	m1b_cpu_gemms(m1b_cpu_of(b), &product, 1);
}

static void
moe_load(m1b_backend *b, const m1b_moe_load *p)
{
	(void) b;
	m1b_moe_count_load(p);
}

const m1b_learning m1b_cpu_learning = {
	.take = take,
	.give = give,
	.zero = zero,
	.put = put,
	.widen = widen,
	.memory = memory,
	.reserve = reserve,
	.reserve_bytes = reserve_bytes,
	.embed = m1b_cpu_embed,
	.linear = m1b_cpu_linear,
	.sum = m1b_cpu_sum,
	.silu = m1b_cpu_silu,
	.gather = m1b_cpu_gather,
	.scatter = m1b_cpu_scatter,
	.lightning = m1b_cpu_lightning_kept,
	.attention = m1b_cpu_attention_kept,
	.moe_load = moe_load,
	.predict = m1b_cpu_predict,
	.linear_back = linear_back,
	.weight_back = weight_back,
	.adapted_back = m1b_cpu_adapted_back,
	.norm_back = m1b_cpu_norm_back,
	.gate_back = m1b_cpu_gate_back,
	.lightning_back = m1b_cpu_lightning_back,
	.attention_back = m1b_cpu_attention_back,
	.moe_back = m1b_cpu_moe_back,
	.embed_back = m1b_cpu_embed_back,
	.predict_back = m1b_cpu_predict_back,
	.keeps_choices = true,
	.sum_of_squares = m1b_cpu_sum_of_squares,
	.adamw = m1b_cpu_adamw,
};
