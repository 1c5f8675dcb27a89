/*
 * cpu_learn_moe.c - the gradients of router and experts.
 *
 * Pairs of token and rank are sorted by expert as in the forward pass, within an expert in token order, and their rows
 * laid out one after the other: an expert's gradients are products of such rows.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu_gemm.h"
#include "backend/cpu/cpu_learn.h"
#include "backend/cpu/cpu_moe.h"

/* Rows of pairs in sorted order, but for kappa. */
typedef struct m1b_moe_learn
{
	float *x;			/* [pairs, d] */
	float *dy;			/* [pairs, d] */
	float *dx;			/* [pairs, d] */
	float *s;			/* [pairs, F] dy W2, the unweighted gradient of u */
	float *u;			/* [pairs, F] silu(gate) * up, then weighted */
	float *dgate;		/* [pairs, F] */
	float *dup;			/* [pairs, F] */
	float *kappa;		/* [T, top_k] s u: dy times the expert's output */
	float *dlogits;		/* [T, E] */
	int *place;			/* [T, top_k] of the pair in sorted order */
	m1b_gemm *products; /* [4 E] */
} m1b_moe_learn;

/* Where each array belongs, and its floats. */
typedef struct array
{
	float **at;
	size_t floats;
} array;

#define ARRAYS 9

static void
arrays_of(const m1b_geometry *g, m1b_moe_learn *w, array all[ARRAYS])
{
	const size_t pairs = (size_t) g->max_moe_pairs;
	const size_t d = (size_t) g->hidden;
	const size_t f = (size_t) g->expert_width;
	const array list[ARRAYS] = {
		{&w->x, pairs * d},	  {&w->dy, pairs * d}, {&w->dx, pairs * d},
		{&w->s, pairs * f},	  {&w->u, pairs * f},  {&w->dgate, pairs * f},
		{&w->dup, pairs * f}, {&w->kappa, pairs},  {&w->dlogits, (size_t) g->max_tokens * (size_t) g->experts},
	};

	memcpy(all, list, sizeof list);
}

size_t
m1b_cpu_learn_moe_bytes(const m1b_cpu *c)
{
	m1b_moe_learn w;
	array all[ARRAYS];
	size_t bytes = (size_t) c->g.max_moe_pairs * sizeof *w.place + 4 * (size_t) c->g.experts * sizeof *w.products;

	arrays_of(&c->g, &w, all);
	for (int i = 0; i < ARRAYS; i++)
		bytes += all[i].floats * sizeof(float);
	return bytes;
}

bool
m1b_cpu_learn_moe_create(m1b_cpu *c)
{
	m1b_moe_learn *w = c->learn->moe = calloc(1, sizeof *w);
	array all[ARRAYS];
	bool ok;

	if (w == NULL)
		return false;
	w->place = calloc((size_t) c->g.max_moe_pairs, sizeof *w->place);
	w->products = calloc(4 * (size_t) c->g.experts, sizeof *w->products);
	ok = w->place != NULL && w->products != NULL;
	arrays_of(&c->g, w, all);
	for (int i = 0; i < ARRAYS; i++)
		ok = (*all[i].at = calloc(all[i].floats, sizeof(float))) != NULL && ok;
	return ok;
}

void
m1b_cpu_learn_moe_free(m1b_cpu *c)
{
	m1b_moe_learn *w = c->learn->moe;
	array all[ARRAYS];

	if (w == NULL)
		return;
	arrays_of(&c->g, w, all);
	for (int i = 0; i < ARRAYS; i++)
		free(*all[i].at);
	free(w->place);
	free(w->products);
	free(w);
}

/* ---- steps of the gradient ---- */

typedef struct moe_job
{
	m1b_cpu *c;
	const m1b_moe_back *p;
	const m1b_moe *forward;
	int width; /* F */
	int d;
	int pairs;
} moe_job;

/* Lays out place i of the sorted order: x, dy and what W2 multiplied. */
static void
gather_pair(void *arg, int i, int worker)
{
	const moe_job *job = arg;
	const m1b_moe_kept *kept = job->forward->kept;
	m1b_moe_learn *w = job->c->learn->moe;
	const size_t pair = (size_t) job->c->moe->order[i];
	const size_t token = pair / (size_t) job->forward->top_k;
	const size_t d = (size_t) job->d;
	const size_t f = (size_t) job->width;
	float *u = w->u + (size_t) i * f;

	(void) worker;
	w->place[pair] = i;
	memcpy(w->x + (size_t) i * d, job->forward->x + token * d, d * sizeof(float));
	memcpy(w->dy + (size_t) i * d, job->p->dy + token * d, d * sizeof(float));
	memcpy(u, kept->gate + pair * f, f * sizeof *u);
	job->c->k->silu_mul(u, kept->up + pair * f, (int) f);
}

/* kappa, and the gradients by gate and up; u is weighted from here on. */
static void
hidden_pair(void *arg, int i, int worker)
{
	const moe_job *job = arg;
	const m1b_kernels *k = job->c->k;
	const m1b_moe_kept *kept = job->forward->kept;
	m1b_moe_learn *w = job->c->learn->moe;
	const size_t pair = (size_t) job->c->moe->order[i];
	const size_t f = (size_t) job->width;
	const size_t at = (size_t) i * f;

	(void) worker;
	w->kappa[pair] = k->learning->inner(w->s + at, w->u + at, (int) f);
	k->scale(w->s + at, kept->weight[pair], (int) f);
	k->scale(w->u + at, kept->weight[pair], (int) f);
	k->learning->silu_mul_back(kept->gate + pair * f, kept->up + pair * f, w->s + at, w->dgate + at, w->dup + at,
							   (int) f);
}

/* p (dp - sum_j p_j dp_j) for every expert: the auxiliary loss by the logits. */
static void
add_balance(const moe_job *job, int t, float *dlogits)
{
	const m1b_moe *forward = job->forward;
	const float *logits = forward->kept->logits + (size_t) t * (size_t) forward->experts;
	const float *balance = job->p->balance;
	float best = logits[0];
	float total = 0.0f;
	float mean = 0.0f;

	for (int e = 1; e < forward->experts; e++)
		best = fmaxf(best, logits[e]);
	for (int e = 0; e < forward->experts; e++)
	{
		const float x = expf(logits[e] - best);

		total += x;
		mean += x * balance[e];
	}
	mean /= total;
	for (int e = 0; e < forward->experts; e++)
		dlogits[e] += job->p->copies[t] * (expf(logits[e] - best) / total) * (balance[e] - mean);
}

/* The gradient of the router's logits, and the sum of the pairs' dx, in the order of their ranks. */
static void
combine_row(void *arg, int t, int worker)
{
	const moe_job *job = arg;
	const m1b_moe *forward = job->forward;
	m1b_moe_learn *w = job->c->learn->moe;
	const size_t first = (size_t) t * (size_t) forward->top_k;
	const float *weight = forward->kept->weight + first;
	float *dlogits = w->dlogits + (size_t) t * (size_t) forward->experts;
	float *dx = job->p->dx + (size_t) t * (size_t) job->d;
	float mean = 0.0f;

	(void) worker;
	memset(dlogits, 0, (size_t) forward->experts * sizeof *dlogits);
	for (int rank = 0; rank < forward->top_k; rank++)
	{
		const float *from = w->dx + (size_t) w->place[first + (size_t) rank] * (size_t) job->d;

		mean += weight[rank] * w->kappa[first + (size_t) rank];
		if (rank == 0)
			memcpy(dx, from, (size_t) job->d * sizeof *dx);
		else
			job->c->k->scale_add(dx, dx, from, 1.0f, 1.0f, job->d);
	}
	for (int rank = 0; rank < forward->top_k; rank++)
		dlogits[forward->kept->choice[first + (size_t) rank]] = weight[rank] * (w->kappa[first + (size_t) rank] - mean);
	if (job->p->balance != NULL)
		add_balance(job, t, dlogits);
}

/* ---- products ---- */

/* out rows of an expert's pairs = in rows times a weight [rows of in's width, columns]. */
static m1b_gemm
back_through(const m1b_matrix *weight, const float *in, float *out, int first, int n, bool add)
{
	return (m1b_gemm){.m = n,
					  .n = weight->cols,
					  .k = weight->rows,
					  .a = in + (size_t) first * (size_t) weight->rows,
					  .a_row = (size_t) weight->rows,
					  .a_col = 1,
					  .weight = weight,
					  .c = out + (size_t) first * (size_t) weight->cols,
					  .c_row = (size_t) weight->cols,
					  .add = add};
}

/* dw [rows, cols] += dy^T x over an expert's pairs */
static m1b_gemm
weight_gradient(const float *dy, int rows, const float *x, int cols, int first, int n, float *dw)
{
	return (m1b_gemm){.m = rows,
					  .n = cols,
					  .k = n,
					  .a = dy + (size_t) first * (size_t) rows,
					  .a_row = 1,
					  .a_col = (size_t) rows,
					  .b = x + (size_t) first * (size_t) cols,
					  .b_row = (size_t) cols,
					  .c = dw,
					  .c_row = (size_t) cols,
					  .add = true};
}

/* out = in W, or added to it, of each active expert's own pairs. */
static void
through_experts(moe_job *job, const m1b_matrix *weights, const float *in, float *out, bool add)
{
	const m1b_moe_work *order = job->c->moe;
	m1b_gemm *products = job->c->learn->moe->products;

	for (int i = 0; i < order->n_active; i++)
	{
		const int e = order->active[i];
		const int first = order->group[e];

		products[i] = back_through(&weights[e], in, out, first, order->group[e + 1] - first, add);
	}
	m1b_cpu_gemms(job->c, products, order->n_active);
}

/* Of the experts' weights, and the first half of dx. */
static void
through_w1(moe_job *job)
{
	const m1b_moe_work *order = job->c->moe;
	const m1b_moe_back *p = job->p;
	m1b_moe_learn *w = job->c->learn->moe;
	int products = 0;

	for (int i = 0; i < order->n_active; i++)
	{
		const int e = order->active[i];
		const int first = order->group[e];
		const int n = order->group[e + 1] - first;

		w->products[products++] = back_through(&job->forward->w1[e], w->dgate, w->dx, first, n, false);
		if (p->dw1 != NULL)
			w->products[products++] = weight_gradient(w->dgate, job->width, w->x, job->d, first, n, p->dw1[e]);
		if (p->dw2 != NULL)
			w->products[products++] = weight_gradient(w->dy, job->d, w->u, job->width, first, n, p->dw2[e]);
		if (p->dw3 != NULL)
			w->products[products++] = weight_gradient(w->dup, job->width, w->x, job->d, first, n, p->dw3[e]);
	}
	m1b_cpu_gemms(job->c, w->products, products);
}

/* What the adapter that learns, if there is one, makes of a matrix. */
static const m1b_adapted *
adapted(const moe_job *job, m1b_moe_matrix matrix)
{
	return job->p->adapted[matrix] != NULL ? job->forward->adapters.list[0].matrices[matrix] : NULL;
}

/* Through what the adapter adds to a matrix of the experts, by pairs in sorted order; dx NULL: only its gradients. */
static void
through_adapter(moe_job *job, m1b_moe_matrix matrix, const m1b_matrix *weight, const float *x, const float *dy,
				float *dx, bool gradients)
{
	const m1b_experts_adapted p = {.adapted = adapted(job, matrix),
								   .gradient = gradients ? job->p->adapted[matrix] : NULL,
								   .x = x,
								   .dy = dy,
								   .rows = weight->rows,
								   .cols = weight->cols,
								   .dx = dx};

	if (p.adapted != NULL)
		m1b_cpu_experts_adapted_back(job->c, &p, job->c->learn->moe->products);
}

static void
through_router(moe_job *job)
{
	const m1b_moe_back *p = job->p;
	const m1b_moe *forward = job->forward;
	const m1b_adapted *change = adapted(job, M1B_MOE_ROUTER);
	const bool whole = change != NULL && change->whole != NULL;
	float *dlogits = job->c->learn->moe->dlogits;
	float *drouter = whole ? p->adapted[M1B_MOE_ROUTER]->whole : p->drouter;
	m1b_gemm products[2];
	int n = 0;

	products[n] = back_through(whole ? change->whole : forward->router, dlogits, p->dx, 0, forward->n, true);
	n++;
	if (drouter != NULL)
		products[n++] = weight_gradient(dlogits, forward->experts, forward->x, job->d, 0, forward->n, drouter);
	m1b_cpu_gemms(job->c, products, n);
	if (change != NULL && change->rank > 0)
		m1b_cpu_adapted_back(&job->c->base, &(m1b_adapted_back){.adapted = change,
																.x = forward->x,
																.dy = dlogits,
																.n = forward->n,
																.rows = forward->experts,
																.cols = job->d,
																.dx = p->dx,
																.gradient = p->adapted[M1B_MOE_ROUTER]});
}

void
m1b_cpu_moe_back(m1b_backend *b, const m1b_moe_back *p)
{
	m1b_cpu *c = m1b_cpu_of(b);
	const m1b_moe *forward = p->forward;
	moe_job job = {.c = c,
				   .p = p,
				   .forward = forward,
				   .width = forward->w1[0].rows,
				   .d = forward->w1[0].cols,
				   .pairs = forward->n * forward->top_k};
	const m1b_moe_learn *work = c->learn->moe;

	memcpy(c->moe->choice, forward->kept->choice, (size_t) job.pairs * sizeof *c->moe->choice);
	m1b_cpu_moe_group(c->moe, job.pairs, forward->experts);
	m1b_cpu_loop(c, 16.0 * job.pairs * job.width, job.pairs, gather_pair, &job);
	through_experts(&job, forward->w2, work->dy, work->s, false); /* s = dy W2 */
	through_adapter(&job, M1B_MOE_W2, forward->w2, work->u, work->dy, work->s, false);
	m1b_cpu_loop(c, 32.0 * job.pairs * job.width, job.pairs, hidden_pair, &job);
	through_adapter(&job, M1B_MOE_W2, forward->w2, work->u, work->dy, NULL, true);
	through_w1(&job);
	through_experts(&job, forward->w3, work->dup, work->dx, true);
	through_adapter(&job, M1B_MOE_W1, forward->w1, work->x, work->dgate, work->dx, true);
	through_adapter(&job, M1B_MOE_W3, forward->w3, work->x, work->dup, work->dx, true);
	m1b_cpu_loop(c, 2.0 * job.pairs * job.d, forward->n, combine_row, &job);
	through_router(&job);
}
