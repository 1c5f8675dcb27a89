/*
 * cpu_learn_adapters.c - the gradients of what adapters add to products. Of y = scale (x a^T) b, with u = scale x a^T
 * and v = scale dy b^T: da = v^T x, db = u^T dy, and dx = v a.
 *
 * u and v are worked out row by row, as in the forward pass; then each gradient is a product over all rows in their
 * order, as those of weights are.
 */
#include "backend/cpu/cpu_gemm.h"
#include "backend/cpu/cpu_learn.h"
#include "backend/cpu/cpu_moe.h"
#include "base/least.h"

#define TILE 16 /* rows that are shrunk at a time */

/* Some rows of x and dy, and where their u and v are. */
typedef struct rows_of
{
	const m1b_adapted *adapted;
	const float *x, *dy;
	int n, rows, cols;
	float *u, *v; /* [n], max_rank apart */
} rows_of;

/* inner = scale x a^T for rows of x that lie one after the other. */
static void
shrink(const m1b_cpu *c, const m1b_adapted *m, const float *x, int cols, int n, float *inner)
{
	for (int t = 0; t < n; t += TILE)
	{
		const int tile = m1_min_int(TILE, n - t);
		const float *rows[TILE];

		for (int i = 0; i < tile; i++)
			rows[i] = x + (size_t) (t + i) * (size_t) cols;
		m1b_cpu_shrink(c, m, rows, cols, tile, inner + (size_t) t * (size_t) c->max_rank);
	}
}

/* Fills u and v of n rows from `first` on. */
static void
shrink_both(const m1b_cpu *c, const rows_of *r, int first, int n)
{
	const m1b_adapted *m = r->adapted;
	const m1b_adapted transposed = {.a = m->b, .rank = m->rank, .scale = m->scale};
	const size_t at = (size_t) first * (size_t) c->max_rank;

	shrink(c, m, r->x + (size_t) first * (size_t) r->cols, r->cols, n, r->u + at);
	shrink(c, &transposed, r->dy + (size_t) first * (size_t) r->rows, r->rows, n, r->v + at);
}

/* out [rank, width] += inner^T with, over all rows */
static m1b_gemm
gradient_of(const m1b_cpu *c, const rows_of *r, const float *inner, const float *with, int width, float *out)
{
	return (m1b_gemm){.m = r->adapted->rank,
					  .n = width,
					  .k = r->n,
					  .a = inner,
					  .a_row = 1,
					  .a_col = (size_t) c->max_rank,
					  .b = with,
					  .b_row = (size_t) width,
					  .c = out,
					  .c_row = (size_t) width,
					  .add = true};
}

/* The products of these rows; returns how many there are, three at most. */
static int
products_of(const m1b_cpu *c, const rows_of *r, float *dx, const m1b_adapted_gradient *gradient, m1b_gemm *list)
{
	int n = 0;

	if (dx != NULL)
	{
		list[n] = (m1b_gemm){.m = r->n,
							 .n = r->cols,
							 .k = r->adapted->rank,
							 .a = r->v,
							 .a_row = (size_t) c->max_rank,
							 .a_col = 1,
							 .b = r->adapted->a,
							 .b_row = (size_t) r->cols,
							 .c = dx,
							 .c_row = (size_t) r->cols,
							 .add = true};
		n++;
	}
	if (gradient != NULL)
	{
		list[n++] = gradient_of(c, r, r->v, r->x, r->cols, gradient->a);
		list[n++] = gradient_of(c, r, r->u, r->dy, r->rows, gradient->b);
	}
	return n;
}

/* ---- the linear layer ---- */

typedef struct shrink_job
{
	const m1b_cpu *c;
	const rows_of *rows;
} shrink_job;

static void
shrink_tile(void *arg, int tile, int worker)
{
	const shrink_job *job = arg;

	(void) worker;
	shrink_both(job->c, job->rows, tile * TILE, m1_min_int(TILE, job->rows->n - tile * TILE));
}

void
m1b_cpu_adapted_back(m1b_backend *b, const m1b_adapted_back *p)
{
	m1b_cpu *c = m1b_cpu_of(b);
	const int most = (int) m1b_cpu_max_rows(c);

	for (int row = 0; row < p->n; row += most)
	{
		const rows_of r = {.adapted = p->adapted,
						   .x = p->x + (size_t) row * (size_t) p->cols,
						   .dy = p->dy + (size_t) row * (size_t) p->rows,
						   .n = m1_min_int(most, p->n - row),
						   .rows = p->rows,
						   .cols = p->cols,
						   .u = c->inner[0],
						   .v = c->inner[1]};
		shrink_job job = {c, &r};
		m1b_gemm products[3];

		m1b_cpu_loop(c, (double) r.n * p->adapted->rank * (p->rows + p->cols), (r.n + TILE - 1) / TILE, shrink_tile,
					 &job);
		m1b_cpu_gemms(c, products, products_of(c, &r, p->dx + (size_t) row * (size_t) p->cols, p->gradient, products));
	}
}

/* ---- experts ---- */

typedef struct experts_job
{
	const m1b_cpu *c;
	const m1b_experts_adapted *p;
} experts_job;

/* The pairs of an active expert. */
static rows_of
rows_of_expert(const m1b_cpu *c, const m1b_experts_adapted *p, int expert)
{
	const size_t first = (size_t) c->moe->group[expert];
	const size_t inner = first * (size_t) c->max_rank;

	return (rows_of){.adapted = &p->adapted[expert],
					 .x = p->x + first * (size_t) p->cols,
					 .dy = p->dy + first * (size_t) p->rows,
					 .n = c->moe->group[expert + 1] - (int) first,
					 .rows = p->rows,
					 .cols = p->cols,
					 .u = c->inner[0] + inner,
					 .v = c->inner[1] + inner};
}

static void
shrink_expert(void *arg, int place, int worker)
{
	const experts_job *job = arg;
	const rows_of r = rows_of_expert(job->c, job->p, job->c->moe->active[place]);

	(void) worker;
	if (r.adapted->rank > 0)
		shrink_both(job->c, &r, 0, r.n);
}

void
m1b_cpu_experts_adapted_back(m1b_cpu *c, const m1b_experts_adapted *p, m1b_gemm *products)
{
	const m1b_moe_work *order = c->moe;
	experts_job job = {c, p};
	int n = 0;

	m1b_cpu_loop(c, (double) order->group[c->g.experts] * c->max_rank * (p->rows + p->cols), order->n_active,
				 shrink_expert, &job);
	for (int i = 0; i < order->n_active; i++)
	{
		const int e = order->active[i];
		const rows_of r = rows_of_expert(c, p, e);
		float *dx = p->dx != NULL ? p->dx + (size_t) order->group[e] * (size_t) p->cols : NULL;

		if (r.adapted->rank > 0)
			n += products_of(c, &r, dx, p->gradient != NULL ? &p->gradient[e] : NULL, products + n);
	}
	m1b_cpu_gemms(c, products, n);
}
