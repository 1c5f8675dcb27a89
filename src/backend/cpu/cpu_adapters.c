/*
 * cpu_adapters.c - what adapters add to products: x is shrunk to a few numbers by a, which b expands again. The same
 * kernels as everywhere, so that a row's result is independent of its batch here, too.
 *
 * Each product's loop expands what belongs to its own pieces. What a makes of the rows is worked out once, before.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu_internal.h"

#define TILE 16 /* rows that are shrunk at a time */

static void
free_inner(float *const *inner)
{
	for (int i = 0; i < M1B_MAX_PRODUCTS; i++)
		free(inner[i]);
}

/* Where there is no memory, adapters that are served keep what they have. */
m1_status
m1b_cpu_prepare_adapters(m1b_backend *b, int max_rank, m1_error *err)
{
	m1b_cpu *c = m1b_cpu_of(b);
	const size_t rows = m1b_cpu_max_rows(c);
	float *inner[M1B_MAX_PRODUCTS] = {NULL};

	if (max_rank <= c->max_rank)
		return M1_OK;
	for (int i = 0; i < M1B_MAX_PRODUCTS; i++)
		if ((inner[i] = calloc(rows * (size_t) max_rank, sizeof *inner[i])) == NULL)
		{
			free_inner(inner);
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for adapters of rank %d", max_rank);
		}
	free_inner(c->inner);
	memcpy(c->inner, inner, sizeof inner);
	c->max_rank = max_rank;
	return M1_OK;
}

void
m1b_cpu_adapters_free(m1b_cpu *c)
{
	free_inner(c->inner);
}

/* ---- rows ---- */

void
m1b_cpu_shrink(const m1b_cpu *c, const m1b_adapted *m, const float *const *x, int cols, int n, float *inner)
{
	for (int t = 0; t < n; t += TILE)
	{
		const int tile = n - t < TILE ? n - t : TILE;
		float *rows[TILE];

		for (int i = 0; i < tile; i++)
			rows[i] = inner + (size_t) (t + i) * (size_t) c->max_rank;
		c->k->dot(&(m1b_dot){.x = x + t,
							 .n = tile,
							 .w = m->a,
							 .w_type = M1B_F32,
							 .w_stride = (size_t) cols,
							 .k = cols,
							 .row1 = m->rank,
							 .out = rows});
		for (int i = 0; i < tile; i++)
			c->k->scale(rows[i], m->scale, m->rank);
	}
}

void
m1b_cpu_expand(const m1b_cpu *c, const m1b_adapted *m, const float *inner, int rows, int n, int row0, int row1,
			   float *out)
{
	c->k->mac(&(m1b_mac){.m = n,
						 .n = row1 - row0,
						 .k = m->rank,
						 .a = inner,
						 .a_row = (size_t) c->max_rank,
						 .a_col = 1,
						 .b = m->b + row0,
						 .b_type = M1B_F32,
						 .b_row = (size_t) rows,
						 .c = out + row0,
						 .c_row = (size_t) rows,
						 .scale = 1.0f});
}

/* ---- the linear layer ---- */

typedef struct shrink_job
{
	const m1b_cpu *c;
	const m1b_linear *p;
	const m1b_run *run;
} shrink_job;

static const m1b_adapted *
added(const m1b_run *run, int product)
{
	const m1b_adapted *m = run->matrices[product];

	return m != NULL && m->rank > 0 ? m : NULL;
}

static float *
inner_at(const m1b_cpu *c, int product, int row)
{
	return c->inner[product] + (size_t) row * (size_t) c->max_rank;
}

static void
shrink_piece(void *arg, int piece, int worker)
{
	const shrink_job *job = arg;
	const int row = job->run->row + piece * TILE;
	const int left = job->run->n - piece * TILE;
	const int cols = job->p->products[0].weight->cols;

	(void) worker;
	for (int i = 0; i < job->p->n_products; i++)
		if (added(job->run, i) != NULL)
			m1b_cpu_shrink(job->c, added(job->run, i), job->c->x_rows + row, cols, left < TILE ? left : TILE,
						   inner_at(job->c, i, row));
}

void
m1b_cpu_linear_shrink(m1b_cpu *c, const m1b_linear *p)
{
	for (int r = 0; r < p->adapters.n; r++)
	{
		shrink_job job = {.c = c, .p = p, .run = &p->adapters.list[r]};
		int ranks = 0;

		for (int i = 0; i < p->n_products; i++)
			ranks += added(job.run, i) != NULL ? added(job.run, i)->rank : 0;
		if (ranks > 0)
			m1b_cpu_loop(c, (double) ranks * job.run->n * p->products[0].weight->cols, (job.run->n + TILE - 1) / TILE,
						 shrink_piece, &job);
	}
}

void
m1b_cpu_linear_expand(const m1b_cpu *c, const m1b_linear *p, int product, int row0, int row1)
{
	const m1b_product *to = &p->products[product];
	const int rows = to->weight->rows;

	for (int r = 0; r < p->adapters.n; r++)
	{
		const m1b_run *run = &p->adapters.list[r];

		if (added(run, product) != NULL)
			m1b_cpu_expand(c, added(run, product), inner_at(c, product, run->row), rows, run->n, row0, row1,
						   to->out + (size_t) run->row * (size_t) rows);
	}
}

/*
 * The rows have been multiplied with the model's own weight, too, which is what most rows of a batch need; whole
 * matrices are the router's, for the most part, which costs nothing.
 */
void
m1b_cpu_linear_replace(m1b_cpu *c, const m1b_linear *p)
{
	for (int r = 0; r < p->adapters.n; r++)
		for (int i = 0; i < p->n_products; i++)
		{
			const m1b_run *run = &p->adapters.list[r];
			const m1b_product *old = &p->products[i];
			m1b_adapted rest;
			m1b_run own = {.n = run->n, .matrices = {&rest}};
			m1b_linear again = {.n = run->n, .n_products = 1, .adapters = {&own, 1}};

			if (run->matrices[i] == NULL || run->matrices[i]->whole == NULL)
				continue;
			rest = *run->matrices[i];
			rest.whole = NULL;
			again.x = p->x + (size_t) run->row * (size_t) old->weight->cols;
			again.products[0] = (m1b_product){run->matrices[i]->whole, old->activation,
											  old->out + (size_t) run->row * (size_t) old->weight->rows};
			m1b_cpu_linear(&c->base, &again);
		}
}
