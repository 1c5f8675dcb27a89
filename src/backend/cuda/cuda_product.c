/*
 * cuda_product.c - linear and experts on the GPU: which kernel a product takes.
 *
 * Up to M1K_FEW_ROWS rows, weights are streamed past fp32 activations. With more,
 * activations are rounded to bf16 and tensor cores multiply: cuBLASLt for bf16
 * weights and for very many rows, our own kernel else and for experts (many tokens
 * to each: see cuda_experts.c). F32 weights stay exact: cuBLASLt in fp32. So does
 * everything in a checkpoint whose experts are F32, which are streamed then, however
 * many rows there are. The head stays exact too: its activations go through bf16 in
 * three parts, which together have fp32's precision, and are rows of one product, so that
 * its weights are read once.
 *
 * What cuBLASLt has no kernel for, ours compute.
 */
#include "backend/cuda/cuda_internal.h"

#include <stdio.h>

#define EXPANDED_ROWS 4096 /* of quantized weights, made bf16 for the library at once */
#define EXPAND_ROWS 512	   /* rows of x from which on quantized weights go to cuBLASLt, too */
#define HEAD_PARTS 3
#define HEAD_ROWS 64 /* of the head at once */

/* ---- work space ---- */

/* Of routing, and of the products that follow. */
static void
want_routed(m1b_cuda *c, m1b_cuda_buffers *all)
{
	const m1b_geometry *g = &c->g;
	m1b_cuda_routed *r = &c->routed;
	const size_t tokens = (size_t) g->max_tokens;
	const size_t experts = (size_t) g->experts;
	const size_t pairs = (size_t) g->max_moe_pairs;
	const size_t top_k = pairs > tokens ? pairs / tokens : 1;
	const size_t width = (size_t) g->expert_width;

	m1b_cuda_want(all, &r->scores, tokens * experts, sizeof *r->scores);
	m1b_cuda_want(all, &r->choice, pairs, sizeof *r->choice);
	m1b_cuda_want(all, &r->weight, pairs, sizeof *r->weight);
	m1b_cuda_want(all, &r->group, experts + 1, sizeof *r->group);
	m1b_cuda_want(all, &r->tiles, experts + 1, sizeof *r->tiles);
	m1b_cuda_want(all, &r->place, pairs, sizeof *r->place);
	m1b_cuda_want(all, &r->token, pairs, sizeof *r->token);
	m1b_cuda_want(all, &r->hidden, (c->tensor_cores ? M1K_FEW_ROWS * top_k : pairs) * width, sizeof *r->hidden);
	if (c->tensor_cores)
		m1b_cuda_want(all, &r->hidden_rounded, pairs * width, sizeof *r->hidden_rounded);
	m1b_cuda_want(all, &r->out, pairs * (size_t) g->hidden, sizeof *r->out);
}

/* Rows of the head that are multiplied at once. */
static size_t
head_rows(const m1b_geometry *g)
{
	return (size_t) (g->max_states < HEAD_ROWS ? g->max_states : HEAD_ROWS);
}

void
m1b_cuda_products_want(m1b_cuda *c, m1b_cuda_buffers *all)
{
	const m1b_geometry *g = &c->g;
	m1b_cuda_products *p = &c->products;
	const size_t parts = HEAD_PARTS * head_rows(g);

	if (c->tensor_cores && !g->bf16_experts)
		m1b_cuda_want(all, &p->expanded, EXPANDED_ROWS * m1b_cuda_widest(g), sizeof *p->expanded);
	m1b_cuda_want(all, &p->head_parts, parts * (size_t) g->hidden, sizeof *p->head_parts);
	m1b_cuda_want(all, &p->head_sums, parts * (size_t) (g->vocab / c->ranks), sizeof *p->head_sums);
	want_routed(c, all);
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

/* Only once: what one shape lacks, others may lack. */
static void
tell_lack(m1b_cuda *c, const m1b_cuda_multiply *p)
{
	char line[128];

	if (c->log == NULL || c->products.told)
		return;
	c->products.told = true;
	snprintf(line, sizeof line, "cuBLASLt has no product of %d rows with a %s matrix [%d, %d]: our own is slower", p->n,
			 p->weight.type == M1K_F32 ? "F32" : "BF16", p->weight.rows, p->weight.cols);
	c->log(c->log_context, line);
}

/* False where the library has nothing for it; a failure is noted. */
static bool
by_library(m1b_cuda *c, const m1b_cuda_multiply *p)
{
	int status;
	const cudaError_t error = m1b_cuda_gemm(c->gemm, p, &status);

	if (error == cudaErrorNotSupported)
	{
		tell_lack(c, p);
		return false;
	}
	if (error != cudaSuccess)
		m1b_cuda_note_library(c, "cuBLASLt", error, "multiplying",
							  "cuBLAS status %d, of %d rows with a %s matrix [%d, %d]", status, p->n,
							  p->weight.type == M1K_F32 ? "F32" : "BF16", p->weight.rows, p->weight.cols);
	return true;
}

void
m1b_cuda_multiply_many(m1b_cuda *c, const m1b_cuda_multiply *p)
{
	const m1k_matrix *w = &p->weight;
	m1k_product own = {.type = w->type,
					   .rows = w->rows,
					   .cols = w->cols,
					   .row_bytes = w->row_bytes,
					   .experts = 1,
					   .n = p->n,
					   .w = {w->data},
					   .out = p->out};

	if (by_library(c, p))
		return;
	if (w->type == M1K_F32)
	{
		own.x = p->x;
		m1k_product_few(&own, p->stream);
	}
	else
	{
		own.x_bf16 = p->x;
		m1k_product_many(&own, p->stream);
	}
}

/* n rows of x, which are of the weight's type, by cuBLASLt where it can. */
static void
many(m1b_cuda *c, const m1k_matrix *w, const void *x, int n, float *out)
{
	const m1b_cuda_multiply p = {.weight = *w, .x = x, .n = n, .out = out, .out_stride = w->rows, .stream = c->stream};

	m1b_cuda_multiply_many(c, &p);
}

static void
many_by_library(m1b_cuda *c, const m1b_product *p, const void *x, int n)
{
	const m1k_matrix w = m1b_cuda_kernel_matrix(p->weight);

	many(c, &w, x, n, p->out);
	if (p->activation == M1B_SILU)
		m1k_silu(p->out, (size_t) n * (size_t) w.rows, c->stream);
}

static void
many_quantized(m1b_cuda *c, const m1b_product *p, const uint16_t *x, int n)
{
	m1k_product product = plain_product(p, NULL, n);

	product.x_bf16 = x;
	m1k_product_many(&product, c->stream);
}

/*
 * With so many rows, the library is faster even if weights are made bf16 for it each time, some of their rows at once.
 */
static void
expanded_by_library(m1b_cuda *c, const m1b_product *p, const uint16_t *x, int n)
{
	const m1k_matrix w = m1b_cuda_kernel_matrix(p->weight);
	m1k_matrix part = {.data = c->products.expanded,
					   .type = M1K_BF16,
					   .cols = w.cols,
					   .row_bytes = (size_t) w.cols * sizeof *c->products.expanded};
	m1b_cuda_multiply to = {.x = x, .n = n, .out_stride = w.rows, .stream = c->stream};

	for (int row = 0; row < w.rows; row += part.rows)
	{
		part.rows = w.rows - row < EXPANDED_ROWS ? w.rows - row : EXPANDED_ROWS;
		m1k_expand(&w, row, part.rows, c->products.expanded, c->stream);
		to.weight = part;
		to.out = p->out + row;
		if (!by_library(c, &to))
		{
			many_quantized(c, p, x, n);
			return;
		}
	}
	if (p->activation == M1B_SILU)
		m1k_silu(p->out, (size_t) n * (size_t) w.rows, c->stream);
}

/* The parts of some rows are rows of one product; the smallest come first, and are added first. */
static void
head_by_library(m1b_cuda *c, const m1b_product *p, const float *x, int n)
{
	const m1k_matrix w = m1b_cuda_kernel_matrix(p->weight);
	const int most = (int) head_rows(&c->g);
	m1b_cuda_products *to = &c->products;

	for (int first = 0; first < n; first += most)
	{
		const int rows = n - first < most ? n - first : most;
		const size_t all = (size_t) rows * (size_t) w.cols;

		m1k_to_bf16(x + (size_t) first * (size_t) w.cols, all, to->head_parts + 2 * all, to->head_parts + all,
					to->head_parts, c->stream);
		many(c, &w, to->head_parts, HEAD_PARTS * rows, to->head_sums);
		m1k_add_parts(to->head_sums, HEAD_PARTS, (size_t) rows * (size_t) w.rows,
					  p->out + (size_t) first * (size_t) w.rows, c->stream);
	}
}

/* A BF16 head, that there is room for. */
static bool
is_head(const m1b_cuda *c, const m1b_product *p)
{
	return p->weight->use == M1B_USE_HEAD && p->weight->type == M1B_BF16 && p->activation == M1B_NONE &&
		   p->weight->rows <= c->g.vocab / c->ranks;
}

static void
multiply_by(m1b_cuda *c, const m1b_product *p, const float *x, int n)
{
	const m1b_dtype type = p->weight->type;

	if (n <= M1K_FEW_ROWS)
		few(c, p, x, n);
	else if (type == M1B_F32)
		many_by_library(c, p, x, n);
	else if (p->weight->use != M1B_USE_HEAD && c->tensor_cores)
	{
		const uint16_t *rounded = m1b_cuda_rounded(c, x, n, p->weight->cols);

		if (type == M1B_BF16)
			many_by_library(c, p, rounded, n);
		else if (n >= EXPAND_ROWS && c->products.expanded != NULL)
			expanded_by_library(c, p, rounded, n);
		else
			many_quantized(c, p, rounded, n);
	}
	else if (is_head(c, p))
		head_by_library(c, p, x, n);
	else
		few(c, p, x, n); /* a pass over the weights for every M1K_FEW_ROWS rows */
	m1b_cuda_wrote(c, p->out);
}

/* The product, and what of it is on the other GPUs, where it is needed whole: sums of parts, and logits. */
static void
multiply_whole(m1b_cuda *c, const m1b_product *p, const float *x, int n)
{
	const m1b_matrix *w = p->weight;
	const bool logits = w->use == M1B_USE_HEAD && w->split == M1B_SPLIT_ROWS;
	m1b_product own = *p;

	if (logits)
		own.out = m1b_cuda_own_slice(c, n, w->rows);
	multiply_by(c, &own, x, n);
	m1b_cuda_launched(c, "multiplying");
	if (logits)
		m1b_cuda_join(c, n, w->rows, p->out);
	if (w->split == M1B_SPLIT_COLS)
		m1b_cuda_sum(c, p->out, n, w->rows);
}

void
m1b_cuda_linear(m1b_backend *b, const m1b_linear *p)
{
	for (int i = 0; i < p->n_products; i++)
		multiply_whole(m1b_cuda_of(b), &p->products[i], p->x, p->n);
}

/* ---- experts ---- */

static void
route(m1b_cuda *c, const m1b_moe *p, int tile)
{
	m1b_cuda_routed *to = &c->routed;
	const m1b_product scores = {.weight = p->router, .out = to->scores};
	const m1k_route r = {
		.scores = to->scores,
		.n = p->n,
		.experts = p->experts,
		.top_k = p->top_k,
		.tile = tile,
		.choice = to->choice,
		.weight = to->weight,
		.group = to->group,
		.tiles = to->tiles,
		.place = to->place,
		.token = to->token,
	};

	/* always in fp32, whatever the number of rows: a token's experts must not depend on its neighbours */
	few(c, &scores, p->x, p->n);
	m1k_route_tokens(&r, c->stream);
}

static void
set_matrices(m1k_product *product, const m1b_matrix *w, int experts)
{
	const m1k_matrix first = m1b_cuda_kernel_matrix(&w[0]);

	product->type = first.type;
	product->rows = first.rows;
	product->cols = first.cols;
	product->row_bytes = first.row_bytes;
	for (int e = 0; e < experts; e++)
		product->w[e] = w[e].data;
}

/* One matrix per expert; places are sorted by expert. */
static m1k_product
expert_product(const m1b_cuda *c, const m1b_moe *p, const m1b_matrix *w)
{
	m1k_product product = {
		.experts = p->experts,
		.group = c->routed.group,
		.tiles = c->routed.tiles,
		.n = p->n * p->top_k,
		.one_each = p->n == 1,
	};

	set_matrices(&product, w, p->experts);
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

/* hidden = silu(w1 x) * (w3 x): in one pass where w1 and w3 are of one type, else one after the other. */
static void
multiply_up(m1b_cuda *c, const m1b_moe *p, bool by_few)
{
	m1k_product up = expert_product(c, p, p->w1);

	up.x_row = c->routed.token;
	if (by_few)
	{
		up.x = p->x;
		up.out = c->routed.hidden;
	}
	else
	{
		up.x_bf16 = m1b_cuda_rounded(c, p->x, p->n, p->w1->cols);
		up.out_bf16 = c->routed.hidden_rounded;
	}
	if (p->w1->type == p->w3->type)
		for (int e = 0; e < p->experts; e++)
			up.times[e] = p->w3[e].data;
	else
	{
		m1k_product factor = up;

		set_matrices(&factor, p->w3, p->experts);
		multiply(c, &factor, by_few);
		up.silu = up.scale_out = true;
	}
	multiply(c, &up, by_few);
}

void
m1b_cuda_moe(m1b_backend *b, const m1b_moe *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const int pairs = p->n * p->top_k;
	const bool by_few = p->n <= M1K_FEW_ROWS || !c->tensor_cores;
	m1k_product down;

	if (p->kept != NULL)
	{
		m1b_cuda_learn_moe_forward(c, p);
		return;
	}
	down = expert_product(c, p, p->w2);
	route(c, p, !by_few ? m1k_product_tile(pairs, p->experts) : p->n == 1 ? 1 : M1K_FEW_ROWS);
	if (m1b_cuda_experts_suit(c, p))
		m1b_cuda_experts(c, p);
	else
	{
		multiply_up(c, p, by_few);
		if (by_few)
			down.x = c->routed.hidden;
		else
			down.x_bf16 = c->routed.hidden_rounded;
		down.out = c->routed.out;
		multiply(c, &down, by_few);
	}
	m1k_combine(c->routed.out, c->routed.place, c->routed.weight, p->n, p->top_k, p->w2->rows, p->out, c->stream);
	m1b_cuda_wrote(c, p->out);
	m1b_cuda_launched(c, "running experts");
	if (p->w2->split == M1B_SPLIT_COLS)
		m1b_cuda_sum(c, p->out, p->n, p->w2->rows);
}
