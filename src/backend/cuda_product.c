/*
 * cuda_product.c - linear and experts on the GPU: which kernel a product takes.
 *
 * Up to M1K_FEW_ROWS rows, weights are streamed past fp32 activations. With more,
 * activations are rounded to bf16 and tensor cores multiply: cuBLASLt for bf16
 * weights, our own kernel for the other types and for experts. F32 weights stay
 * exact: cuBLASLt in fp32, and streaming for experts. The head stays exact too: its
 * activations go through bf16 in three parts, which together have fp32's precision.
 */
#include "backend/cuda_internal.h"

/* ---- the bf16 copy of the rows that products read ---- */

void
m1b_cuda_wrote(m1b_cuda *c, const float *out)
{
	if (c->rounded_from == out)
		c->rounded_from = NULL;
}

uint16_t *
m1b_cuda_wrote_rounded(m1b_cuda *c, const float *out, int n)
{
	m1b_cuda_wrote(c, out);
	if (!c->tensor_cores || n <= M1K_FEW_ROWS)
		return NULL;
	c->rounded_from = out;
	return c->rounded;
}

/* x in bf16: as the operation that wrote it left it, or made now. */
static const uint16_t *
rounded(m1b_cuda *c, const float *x, int n, int width)
{
	if (c->rounded_from != x)
	{
		m1k_to_bf16(x, (size_t) n * (size_t) width, c->rounded, NULL, NULL, c->stream);
		c->rounded_from = x;
	}
	return c->rounded;
}

/* ---- linear ---- */

static m1k_product
plain_product(const m1b_product *p, const float *x, int n)
{
	const m1k_matrix w = m1b_cuda_kernel_matrix(p->weight);
	m1k_product product = {
		.type = w.type,
		.rows = w.rows,
		.cols = w.cols,
		.row_bytes = w.row_bytes,
		.experts = 1,
		.n = n,
		.one_each = n == 1,
		.x = x,
		.silu = p->activation == M1B_SILU,
		.out = p->out,
	};

	product.w[0] = w.data;
	return product;
}

static void
few(m1b_cuda *c, const m1b_product *p, const float *x, int n)
{
	m1k_product product = plain_product(p, x, n);

	m1k_product_few(&product, c->stream);
}

static void
many_quantized(m1b_cuda *c, const m1b_product *p, const float *x, int n)
{
	m1k_product product = plain_product(p, x, n);

	product.x_bf16 = rounded(c, x, n, p->weight->cols);
	m1k_product_many(&product, c->stream);
}

static void
many_by_library(m1b_cuda *c, const m1b_product *p, const void *x, int n)
{
	const m1k_matrix w = m1b_cuda_kernel_matrix(p->weight);

	m1b_cuda_note(c, m1b_cuda_gemm(c->gemm, &w, x, n, false, p->out, c->stream), "multiplying by cuBLASLt");
	if (p->activation == M1B_SILU)
		m1k_silu(p->out, (size_t) n * (size_t) w.rows, c->stream);
}

static void
head_by_library(m1b_cuda *c, const m1b_product *p, const float *x, int n)
{
	const m1k_matrix w = m1b_cuda_kernel_matrix(p->weight);
	const size_t all = (size_t) n * (size_t) w.cols;

	m1k_to_bf16(x, all, c->head_parts, c->head_parts + all, c->head_parts + 2 * all, c->stream);
	/* the smallest part first */
	for (int part = 2; part >= 0; part--)
		m1b_cuda_note(c,
					  m1b_cuda_gemm(c->gemm, &w, c->head_parts + (size_t) part * all, n, part < 2, p->out, c->stream),
					  "multiplying by cuBLASLt");
}

static void
multiply_by(m1b_cuda *c, const m1b_product *p, const float *x, int n)
{
	const m1b_dtype type = p->weight->type;

	if (n <= M1K_FEW_ROWS)
		few(c, p, x, n);
	else if (type == M1B_F32)
		many_by_library(c, p, x, n);
	else if (p->weight->use != M1B_USE_HEAD)
	{
		if (type == M1B_BF16)
			many_by_library(c, p, rounded(c, x, n, p->weight->cols), n);
		else
			many_quantized(c, p, x, n);
	}
	else if (type == M1B_BF16 && p->activation == M1B_NONE && n <= c->g.max_states)
		head_by_library(c, p, x, n);
	else
		few(c, p, x, n); /* a pass over the weights for every M1K_FEW_ROWS rows */
	m1b_cuda_wrote(c, p->out);
}

void
m1b_cuda_linear(m1b_backend *b, const m1b_linear *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	for (int i = 0; i < p->n_products; i++)
		multiply_by(c, &p->products[i], p->x, p->n);
	m1b_cuda_launched(c, "multiplying");
	for (int i = 0; i < p->n_products; i++)
		if (p->products[i].weight->split == M1B_SPLIT_COLS)
			m1b_cuda_sum(c, p->products[i].out, p->n, p->products[i].weight->rows);
}

/* ---- experts ---- */

static bool
takes_few(const m1b_moe *p, const m1b_matrix *w)
{
	return p->n <= M1K_FEW_ROWS || w->type == M1B_F32;
}

static void
route(m1b_cuda *c, const m1b_moe *p, int tile)
{
	const m1b_product scores = {.weight = p->router, .out = c->scores};
	const m1k_route r = {
		.scores = c->scores,
		.n = p->n,
		.experts = p->experts,
		.top_k = p->top_k,
		.tile = tile,
		.choice = c->choice,
		.weight = c->weight,
		.group = c->group,
		.tiles = c->tiles,
		.place = c->place,
		.token = c->token,
	};

	/* always in fp32, whatever the number of rows: a token's experts must not depend on its neighbours */
	few(c, &scores, p->x, p->n);
	m1k_route_tokens(&r, c->stream);
}

/* One matrix per expert; places are sorted by expert. */
static m1k_product
expert_product(const m1b_cuda *c, const m1b_moe *p, const m1b_matrix *w, const m1b_matrix *times)
{
	const m1k_matrix first = m1b_cuda_kernel_matrix(&w[0]);
	m1k_product product = {
		.type = first.type,
		.rows = first.rows,
		.cols = first.cols,
		.row_bytes = first.row_bytes,
		.experts = p->experts,
		.group = c->group,
		.tiles = c->tiles,
		.n = p->n * p->top_k,
		.one_each = p->n == 1,
	};

	for (int e = 0; e < p->experts; e++)
	{
		product.w[e] = w[e].data;
		if (times != NULL)
			product.times[e] = times[e].data;
	}
	/* with one expert there is nothing to look up */
	if (p->experts == 1)
		product.group = product.tiles = NULL;
	return product;
}

static void
multiply(m1b_cuda *c, const m1k_product *p, bool by_few)
{
	if (by_few)
		m1k_product_few(p, c->stream);
	else
		m1k_product_many(p, c->stream);
}

void
m1b_cuda_moe(m1b_backend *b, const m1b_moe *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const int pairs = p->n * p->top_k;
	const bool few_up = takes_few(p, p->w1);
	const bool few_down = takes_few(p, p->w2);
	m1k_product up = expert_product(c, p, p->w1, p->w3);
	m1k_product down = expert_product(c, p, p->w2, NULL);

	if (p->w1->type != p->w3->type || few_up != few_down || (few_down && (size_t) pairs > c->hidden_rows))
	{
		/* F32 beside other types in one expert: nobody makes such a checkpoint */
		m1b_cuda_note(c, cudaErrorInvalidValue, "multiplying with experts of mixed types");
		return;
	}
	route(c, p, few_up ? (p->n == 1 ? 1 : M1K_FEW_ROWS) : m1k_product_tile(pairs, p->experts));
	up.x_row = c->token;
	if (few_up)
	{
		up.x = p->x;
		up.out = c->hidden;
		down.x = c->hidden;
	}
	else
	{
		up.x_bf16 = rounded(c, p->x, p->n, p->w1->cols);
		up.out_bf16 = c->hidden_rounded;
		down.x_bf16 = c->hidden_rounded;
	}
	down.out = c->expert_out;
	multiply(c, &up, few_up);
	multiply(c, &down, few_down);
	m1k_combine(c->expert_out, c->place, c->weight, p->n, p->top_k, p->w2->rows, p->out, c->stream);
	m1b_cuda_wrote(c, p->out);
	m1b_cuda_launched(c, "running experts");
	if (p->w2->split == M1B_SPLIT_COLS)
		m1b_cuda_sum(c, p->out, p->n, p->w2->rows);
}
