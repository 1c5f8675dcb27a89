/*
 * cpu_product.c - products of activations with weights of any type: the linear layer,
 * and what the experts share with it.
 *
 * With packed weights the activations are quantized first, each row once for all
 * weights that it meets. For the head, what quantizing left over is multiplied too, so
 * that logits are as exact as the weights.
 */
#include <stdlib.h>

#include "blocks/blocks.h"
#include "backend/cpu/cpu_internal.h"

#define HEAD_TOKENS 8 /* rows whose second product is held at a time */

static int
max_int(int a, int b)
{
	return a > b ? a : b;
}

size_t
m1b_cpu_max_rows(const m1b_cpu *c)
{
	return (size_t) max_int(2 * c->g.max_tokens, c->g.max_moe_pairs); /* twice: the head's second rows */
}

m1_status
m1b_cpu_product_configure(m1b_cpu *c, m1_error *err)
{
	const m1b_geometry *g = &c->g;
	const int columns = max_int(max_int(g->hidden, g->heads * g->head_dim), g->expert_width);
	const size_t rows = m1b_cpu_max_rows(c);

	c->x_rows = calloc(rows, sizeof *c->x_rows);
	for (int i = 0; i < M1B_MAX_PRODUCTS; i++)
		if ((c->out_rows[i] = calloc(rows, sizeof **c->out_rows)) == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the work space of %d tokens", g->max_tokens);
	c->q_rows = calloc(rows, sizeof *c->q_rows);
	c->q_row_bytes = m1b_qrow_bytes(columns);
	c->q_memory = aligned_alloc(M1B_LINE, rows * c->q_row_bytes);
	if (c->x_rows == NULL || c->q_rows == NULL || c->q_memory == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the work space of %d tokens", g->max_tokens);
	return M1_OK;
}

void
m1b_cpu_product_free(m1b_cpu *c)
{
	free(c->x_rows);
	for (int i = 0; i < M1B_MAX_PRODUCTS; i++)
		free(c->out_rows[i]);
	free(c->q_rows);
	free(c->q_memory);
}

/* ---- quantizing ---- */

typedef struct quantize_job
{
	const m1b_cpu *c;
	const m1b_operand *in;
	int columns;
	bool rest;
} quantize_job;

static void
quantize_row(void *arg, int t, int worker)
{
	const quantize_job *job = arg;
	const m1b_operand *in = job->in;

	(void) worker;
	job->c->k->packed->quantize(in->x[t], job->columns, in->q[t]);
	if (job->rest)
		job->c->k->packed->quantize_rest(in->x[t], job->columns, in->q[t], in->q[in->n + t]);
}

m1b_operand
m1b_cpu_operand(m1b_cpu *c, const float *const *x, int n, const m1b_matrix *const *weights, int n_weights)
{
	m1b_operand in = {.x = x, .n = n, .q = c->q_rows};
	quantize_job job = {.c = c, .in = &in, .columns = weights[0]->cols};
	bool packed = false;
	int rows;

	for (int i = 0; i < n_weights; i++)
	{
		packed = packed || m1b_is_integer(weights[i]->type);
		job.rest = job.rest || weights[i]->use == M1B_USE_HEAD;
	}
	if (!packed)
		return in;
	rows = job.rest ? 2 * n : n;
	for (int i = 0; i < rows; i++)
		c->q_rows[i] = c->q_memory + (size_t) i * c->q_row_bytes;
	m1b_cpu_loop(c, 8.0 * rows * job.columns, n, quantize_row, &job);
	return in;
}

/* ---- rows of a product ---- */

void
m1b_cpu_product(const m1b_cpu *c, const m1b_matrix *weight, const m1b_operand *in, int row0, int row1,
				float *const *out)
{
	if (m1b_is_integer(weight->type))
		c->k->packed->qdot(&(m1b_qdot){.x = in->q,
									   .n = in->n,
									   .w = weight->data,
									   .type = weight->type,
									   .k = weight->cols,
									   .row0 = row0,
									   .row1 = row1,
									   .out = out});
	else
		c->k->dot(&(m1b_dot){.x = in->x,
							 .n = in->n,
							 .w = weight->data,
							 .w_type = weight->type,
							 .w_stride = (size_t) weight->cols,
							 .k = weight->cols,
							 .row0 = row0,
							 .row1 = row1,
							 .out = out});
}

/* Adds the product of the rows that quantizing left over. */
static void
add_rest(const m1b_cpu *c, const m1b_matrix *weight, const m1b_operand *in, int row0, int row1, float *const *out)
{
	float rest[HEAD_TOKENS][M1B_MAX_PIECE_ROWS];
	float *rest_rows[HEAD_TOKENS];

	for (int t = 0; t < in->n; t += HEAD_TOKENS)
	{
		const int n = in->n - t < HEAD_TOKENS ? in->n - t : HEAD_TOKENS;
		const m1b_operand some = {.n = n, .q = in->q + in->n + t};

		for (int i = 0; i < n; i++)
			rest_rows[i] = rest[i] - row0; /* products are written from element row0 on */
		m1b_cpu_product(c, weight, &some, row0, row1, rest_rows);
		for (int i = 0; i < n; i++)
			for (int j = row0; j < row1; j++)
				out[t + i][j] += rest[i][j - row0];
	}
}

/* ---- linear ---- */

typedef struct linear_job
{
	const m1b_cpu *c;
	const m1b_linear *p;
	m1b_operand in;
	int rows_per_piece;
	int first_piece[M1B_MAX_PRODUCTS + 1]; /* of each product; the products' pieces form one loop */
} linear_job;

static void
linear_piece(void *arg, int piece, int worker)
{
	const linear_job *job = arg;
	const m1b_product *product = job->p->products;
	const m1b_matrix *weight;
	float *const *out;
	int row0, row1;

	(void) worker;
	while (piece >= job->first_piece[product - job->p->products + 1])
		product++;
	weight = product->weight;
	out = job->c->out_rows[product - job->p->products];
	row0 = (piece - job->first_piece[product - job->p->products]) * job->rows_per_piece;
	row1 = row0 + job->rows_per_piece < weight->rows ? row0 + job->rows_per_piece : weight->rows;
	m1b_cpu_product(job->c, weight, &job->in, row0, row1, out);
	if (weight->use == M1B_USE_HEAD && m1b_is_integer(weight->type))
		add_rest(job->c, weight, &job->in, row0, row1, out);
	m1b_cpu_linear_expand(job->c, job->p, (int) (product - job->p->products), row0, row1);
	if (product->activation == M1B_SILU)
		for (int t = 0; t < job->p->n; t++)
			job->c->k->silu(out[t] + row0, row1 - row0);
}

void
m1b_cpu_linear(m1b_backend *b, const m1b_linear *p)
{
	m1b_cpu *c = m1b_cpu_of(b);
	linear_job job = {.c = c, .p = p};
	const m1b_matrix *weights[M1B_MAX_PRODUCTS] = {NULL};
	const int columns = p->products[0].weight->cols;
	int rows = 0;

	for (int i = 0; i < p->n_products; i++)
	{
		weights[i] = p->products[i].weight;
		rows += weights[i]->rows;
		for (int t = 0; t < p->n; t++)
			c->out_rows[i][t] = p->products[i].out + (size_t) t * (size_t) weights[i]->rows;
	}
	job.rows_per_piece = m1b_cpu_rows_per_piece(c, rows, 1);
	for (int i = 0; i < p->n_products; i++)
	{
		const int pieces = (p->products[i].weight->rows + job.rows_per_piece - 1) / job.rows_per_piece;

		job.first_piece[i + 1] = job.first_piece[i] + pieces;
	}
	for (int t = 0; t < p->n; t++)
		c->x_rows[t] = p->x + (size_t) t * (size_t) columns;
	job.in = m1b_cpu_operand(c, c->x_rows, p->n, weights, p->n_products);
	m1b_cpu_linear_shrink(c, p);
	m1b_cpu_loop(c, (double) p->n * rows * columns, job.first_piece[p->n_products], linear_piece, &job);
	m1b_cpu_linear_replace(c, p);
}
