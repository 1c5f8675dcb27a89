/*
 * cpu_moe.c - router and experts on the CPU.
 *
 * Tokens are grouped by expert, so that an expert's weights are read once for all
 * tokens that chose it. A (token, rank) pair owns a row of each intermediate; the
 * final sum runs in rank order, so that grouping cannot change a token's result.
 */
#include "backend/cpu/cpu_moe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct moe_job
{
	m1b_cpu *c;
	const m1b_moe *p;
	int rows_per_piece;
	int pieces_per_expert;
} moe_job;

m1_status
m1b_cpu_moe_configure(m1b_cpu *c, m1_error *err)
{
	const m1b_geometry *g = &c->g;
	size_t pairs = (size_t) g->max_moe_pairs;
	m1b_moe_work *w = calloc(1, sizeof *w);

	c->moe = w;
	if (w == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the experts");
	w->scores = calloc((size_t) g->max_tokens * (size_t) g->experts, sizeof *w->scores);
	w->choice = calloc(pairs, sizeof *w->choice);
	w->weight = calloc(pairs, sizeof *w->weight);
	w->group = calloc((size_t) g->experts + 1, sizeof *w->group);
	w->order = calloc(pairs, sizeof *w->order);
	w->x = calloc(pairs, sizeof *w->x);
	w->q = calloc(pairs, sizeof *w->q);
	w->run = calloc(pairs, sizeof *w->run);
	w->hidden_rows = calloc(pairs, sizeof *w->hidden_rows);
	w->up_rows = calloc(pairs, sizeof *w->up_rows);
	w->out_rows = calloc(pairs, sizeof *w->out_rows);
	w->hidden = calloc(pairs * (size_t) g->expert_width, sizeof *w->hidden);
	w->up = calloc(pairs * (size_t) g->expert_width, sizeof *w->up);
	w->out = calloc(pairs * (size_t) g->hidden, sizeof *w->out);
	w->active = calloc((size_t) g->experts, sizeof *w->active);
	if (!w->scores || !w->choice || !w->weight || !w->group || !w->order || !w->x || !w->q || !w->run ||
		!w->hidden_rows || !w->up_rows || !w->out_rows || !w->hidden || !w->up || !w->out || !w->active)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the experts' work space of %zu rows", pairs);
	return M1_OK;
}

void
m1b_cpu_moe_free(m1b_cpu *c)
{
	m1b_moe_work *w = c->moe;

	if (w == NULL)
		return;
	free(w->scores);
	free(w->choice);
	free(w->weight);
	free(w->group);
	free(w->order);
	free(w->x);
	free(w->q);
	free(w->run);
	free(w->hidden_rows);
	free(w->up_rows);
	free(w->out_rows);
	free(w->hidden);
	free(w->up);
	free(w->out);
	free(w->active);
	free(w);
}

/* The top_k best experts of one token, best first (the lower number wins a tie). */
static void
choose(const float *scores, int experts, int top_k, int *choice)
{
	for (int rank = 0; rank < top_k; rank++)
	{
		int pick = -1;

		for (int e = 0; e < experts; e++)
		{
			bool taken = false;

			for (int r = 0; r < rank; r++)
				taken = taken || choice[r] == e;
			if (!taken && (pick < 0 || scores[e] > scores[pick]))
				pick = e;
		}
		choice[rank] = pick;
	}
}

/* Softmax in fp32 over the chosen experts: the others' part of the denominator cancels in the renormalisation. */
static void
weigh(const float *scores, int top_k, const int *choice, float *weight)
{
	float best = scores[choice[0]];
	float total = 0.0f;

	for (int rank = 1; rank < top_k; rank++)
		best = fmaxf(best, scores[choice[rank]]);
	for (int rank = 0; rank < top_k; rank++)
	{
		weight[rank] = expf(scores[choice[rank]] - best);
		total += weight[rank];
	}
	for (int rank = 0; rank < top_k; rank++)
		weight[rank] /= total;
}

static void
route(m1b_cpu *c, const m1b_moe *p)
{
	m1b_moe_work *w = c->moe;
	const size_t pairs = (size_t) p->n * (size_t) p->top_k;
	const bool replay = p->kept != NULL && p->kept->replay;
	m1b_linear router = {
		.x = p->x, .n = p->n, .products = {{p->router, M1B_NONE, w->scores}}, .n_products = 1, .adapters = p->adapters};

	c->base.ops->linear(&c->base, &router);
	if (replay)
		memcpy(w->choice, p->kept->choice, pairs * sizeof *w->choice);
	for (int t = 0; t < p->n; t++)
	{
		const int pair = t * p->top_k;
		const float *scores = w->scores + (size_t) t * (size_t) p->experts;

		if (!replay || w->choice[pair] < 0)
			choose(scores, p->experts, p->top_k, w->choice + pair);
		weigh(scores, p->top_k, w->choice + pair, w->weight + pair);
	}
	if (p->choice != NULL)
		memcpy(p->choice, w->choice, pairs * sizeof *w->choice);
	if (p->kept != NULL)
	{
		memcpy(p->kept->logits, w->scores, (size_t) p->n * (size_t) p->experts * sizeof *w->scores);
		memcpy(p->kept->choice, w->choice, pairs * sizeof *w->choice);
		memcpy(p->kept->weight, w->weight, pairs * sizeof *w->weight);
	}
}

void
m1b_cpu_moe_group(m1b_moe_work *w, int pairs, int experts)
{
	memset(w->group, 0, ((size_t) experts + 1) * sizeof *w->group);
	for (int i = 0; i < pairs; i++)
		w->group[w->choice[i] + 1]++;
	w->n_active = 0;
	for (int e = 0; e < experts; e++)
	{
		if (w->group[e + 1] > 0)
			w->active[w->n_active++] = e;
		w->group[e + 1] += w->group[e];
	}
	for (int i = 0; i < pairs; i++)
		w->order[w->group[w->choice[i]]++] = i;
	for (int e = experts; e > 0; e--)
		w->group[e] = w->group[e - 1];
	w->group[0] = 0;
}

/* The expert, its places in the sorted order and the weight rows of one piece. */
static int
piece_of(const moe_job *job, int piece, int rows, int *first, int *n, int *row0, int *row1)
{
	const m1b_moe_work *w = job->c->moe;
	int expert = w->active[piece / job->pieces_per_expert];

	*first = w->group[expert];
	*n = w->group[expert + 1] - *first;
	*row0 = piece % job->pieces_per_expert * job->rows_per_piece;
	*row1 = *row0 + job->rows_per_piece < rows ? *row0 + job->rows_per_piece : rows;
	return expert;
}

static void
multiply(const moe_job *job, const m1b_matrix *weight, int first, int n, int row0, int row1, float **out)
{
	const m1b_moe_work *w = job->c->moe;
	const m1b_operand in = {.x = w->x + first, .q = w->q + first, .n = n};

	m1b_cpu_product(job->c, weight, &in, row0, row1, out + first);
}

/* ---- what adapters add ---- */

/* Notes each pair's run, in sorted order. */
static void
find_runs(m1b_moe_work *w, const m1b_moe *p)
{
	const int pairs = p->n * p->top_k;

	for (int i = 0; i < pairs && p->adapters.n > 0; i++)
	{
		const int token = w->order[i] / p->top_k;

		w->run[i] = NULL;
		for (int r = 0; r < p->adapters.n && p->adapters.list[r].row <= token; r++)
			if (token < p->adapters.list[r].row + p->adapters.list[r].n)
				w->run[i] = &p->adapters.list[r];
	}
}

/* What the adapter of a pair adds to a matrix of its expert; NULL for nothing. */
static const m1b_adapted *
added(const m1b_moe_work *w, int pair, m1b_moe_matrix matrix, int expert)
{
	const m1b_adapted *m = w->run[pair] != NULL ? w->run[pair]->matrices[matrix] : NULL;

	return m != NULL && m[expert].rank > 0 ? &m[expert] : NULL;
}

static float *
inner_at(const m1b_cpu *c, int which, int pair)
{
	return c->inner[which] + (size_t) pair * (size_t) c->max_rank;
}

/* inner[which] of all pairs of one expert, those of an adapter at once. */
static void
shrink_expert(const moe_job *job, int expert, m1b_moe_matrix matrix, int cols, int which)
{
	const m1b_moe_work *w = job->c->moe;
	const int end = w->group[expert + 1];

	for (int i = w->group[expert], n; i < end; i += n)
	{
		const m1b_adapted *m = added(w, i, matrix, expert);

		for (n = 1; i + n < end && w->run[i + n] == w->run[i]; n++)
			;
		if (m != NULL)
			m1b_cpu_shrink(job->c, m, w->x + i, cols, n, inner_at(job->c, which, i));
	}
}

static void
shrink_up_piece(void *arg, int piece, int worker)
{
	const moe_job *job = arg;
	const int expert = job->c->moe->active[piece];

	(void) worker;
	shrink_expert(job, expert, M1B_MOE_W1, job->p->w1->cols, 0);
	shrink_expert(job, expert, M1B_MOE_W3, job->p->w3->cols, 1);
}

static void
shrink_down_piece(void *arg, int piece, int worker)
{
	const moe_job *job = arg;

	(void) worker;
	shrink_expert(job, job->c->moe->active[piece], M1B_MOE_W2, job->p->w2->cols, 0);
}

static void
shrink(moe_job *job, int cols, m1_pool_fn fn)
{
	if (job->p->adapters.n > 0)
		m1b_cpu_loop(job->c, (double) job->p->n * job->p->top_k * cols * job->c->max_rank, job->c->moe->n_active, fn,
					 job);
}

/* Adds to rows [row0, row1) of a product of an expert, which has them in all, with n pairs from `first` on. */
static void
expand(const moe_job *job, int expert, m1b_moe_matrix matrix, int rows, int first, int n, int row0, int row1,
	   float **out, int which)
{
	if (job->p->adapters.n == 0)
		return;
	for (int i = first; i < first + n; i++)
	{
		const m1b_adapted *m = added(job->c->moe, i, matrix, expert);

		if (m != NULL)
			m1b_cpu_expand(job->c, m, inner_at(job->c, which, i), rows, 1, row0, row1, out[i]);
	}
}

/* ---- experts ---- */

static void
keep_hidden(const moe_job *job, int i, int row0, int row1)
{
	const m1b_moe_work *w = job->c->moe;
	const size_t at = (size_t) w->order[i] * (size_t) job->p->w1->rows + (size_t) row0;
	const size_t bytes = (size_t) (row1 - row0) * sizeof(float);

	memcpy(job->p->kept->gate + at, w->hidden_rows[i] + row0, bytes);
	memcpy(job->p->kept->up + at, w->up_rows[i] + row0, bytes);
}

/* hidden = silu(w1 x) * (w3 x) for some rows of one expert */
static void
up_piece(void *arg, int piece, int worker)
{
	const moe_job *job = arg;
	m1b_moe_work *w = job->c->moe;
	int first, n, row0, row1;
	const int rows = job->p->w1->rows;
	int expert = piece_of(job, piece, rows, &first, &n, &row0, &row1);

	(void) worker;
	multiply(job, &job->p->w1[expert], first, n, row0, row1, w->hidden_rows);
	multiply(job, &job->p->w3[expert], first, n, row0, row1, w->up_rows);
	expand(job, expert, M1B_MOE_W1, rows, first, n, row0, row1, w->hidden_rows, 0);
	expand(job, expert, M1B_MOE_W3, rows, first, n, row0, row1, w->up_rows, 1);
	for (int i = first; i < first + n; i++)
	{
		if (job->p->kept != NULL)
			keep_hidden(job, i, row0, row1);
		job->c->k->silu_mul(w->hidden_rows[i] + row0, w->up_rows[i] + row0, row1 - row0);
	}
}

static void
down_piece(void *arg, int piece, int worker)
{
	const moe_job *job = arg;
	const int rows = job->p->w2->rows;
	int first, n, row0, row1;
	int expert = piece_of(job, piece, rows, &first, &n, &row0, &row1);

	(void) worker;
	multiply(job, &job->p->w2[expert], first, n, row0, row1, job->c->moe->out_rows);
	expand(job, expert, M1B_MOE_W2, rows, first, n, row0, row1, job->c->moe->out_rows, 0);
}

static void
run_experts(moe_job *job, int rows, m1_pool_fn fn)
{
	const m1b_moe_work *w = job->c->moe;
	double work = (double) job->p->n * job->p->top_k * job->p->w1->rows * job->p->w1->cols;

	job->rows_per_piece = m1b_cpu_rows_per_piece(job->c, rows, w->n_active);
	job->pieces_per_expert = (rows + job->rows_per_piece - 1) / job->rows_per_piece;
	m1b_cpu_loop(job->c, work, w->n_active * job->pieces_per_expert, fn, job);
}

/* out = sum over ranks of weight * expert output, in rank order */
static void
combine_row(void *arg, int t, int worker)
{
	const moe_job *job = arg;
	const m1b_moe_work *w = job->c->moe;
	const m1b_moe *p = job->p;
	int d = p->w2->rows;
	float *out = p->out + (size_t) t * (size_t) d;

	(void) worker;
	for (int rank = 0; rank < p->top_k; rank++)
	{
		size_t pair = (size_t) t * (size_t) p->top_k + (size_t) rank;
		const float *y = w->out + pair * (size_t) d;

		/* the first term has no sum to add to: its old contents must not matter, not even as NaN */
		job->c->k->scale_add(out, y, rank == 0 ? y : out, w->weight[pair], rank == 0 ? 0.0f : 1.0f, d);
	}
}

void
m1b_cpu_moe(m1b_backend *b, const m1b_moe *p)
{
	m1b_cpu *c = m1b_cpu_of(b);
	m1b_moe_work *w = c->moe;
	size_t d = (size_t) p->w2->rows;
	size_t width = (size_t) p->w1->rows;
	int pairs = p->n * p->top_k;
	moe_job job = {.c = c, .p = p};
	m1b_operand in;

	route(c, p);
	m1b_cpu_moe_group(w, pairs, p->experts);
	for (int t = 0; t < p->n; t++)
		c->x_rows[t] = p->x + (size_t) t * d;
	in = m1b_cpu_operand(c, c->x_rows, p->n, (const m1b_matrix *[]){&p->w1[0], &p->w3[0]}, 2);
	for (int i = 0; i < pairs; i++)
	{
		size_t pair = (size_t) w->order[i];
		size_t token = pair / (size_t) p->top_k;

		w->x[i] = in.x[token];
		w->q[i] = in.q[token];
		w->hidden_rows[i] = w->hidden + pair * width;
		w->up_rows[i] = w->up + pair * width;
		w->out_rows[i] = w->out + pair * d;
	}
	find_runs(w, p);
	shrink(&job, p->w1->cols, shrink_up_piece);
	run_experts(&job, p->w1->rows, up_piece);
	for (int i = 0; i < pairs; i++)
		w->x[i] = w->hidden_rows[i];
	in = m1b_cpu_operand(c, w->x, pairs, (const m1b_matrix *[]){&p->w2[0]}, 1);
	for (int i = 0; i < pairs; i++)
		w->q[i] = in.q[i];
	shrink(&job, p->w2->cols, shrink_down_piece);
	run_experts(&job, p->w2->rows, down_piece);
	m1b_cpu_loop(c, (double) pairs * p->w2->rows, p->n, combine_row, &job);
}
