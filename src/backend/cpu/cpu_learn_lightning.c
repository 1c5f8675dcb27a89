/*
 * cpu_learn_lightning.c - lightning attention over the spans of a training batch, and its gradient.
 *
 * The state before a block cannot be made from the state after it. The forward sweep keeps one at every
 * M1B_KEPT_STATE_TOKENS; the backward sweep makes those between again, and carries the reverse state G, the gradient by
 * the state, from block to block. One piece of a loop is one head of one span; children of a span go after it forward
 * and before it backward.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_learn.h"
#include "base/least.h"

#define KEPT_BLOCKS (M1B_KEPT_STATE_TOKENS / M1B_LIGHTNING_BLOCK)

_Static_assert(M1B_KEPT_STATE_TOKENS % M1B_LIGHTNING_BLOCK == 0, "states are kept where blocks begin");

typedef struct lightning_job
{
	m1b_cpu *c;
	const m1b_lightning_kept *p;
	const m1b_lightning_back *back;
	bool children; /* spans with a parent are gone through, or those without */
} lightning_job;

static size_t
state_floats(const m1b_cpu *c)
{
	return (size_t) c->g.head_dim * (size_t) c->g.head_dim;
}

/* Kept state number i of a span. */
static float *
kept_state(const lightning_job *job, const m1b_span *span, int i, int head)
{
	return job->p->states +
		   ((size_t) (span->state + i) * (size_t) job->c->g.heads + (size_t) head) * state_floats(job->c);
}

/* The state before a span's first token. */
static void
start_state(const lightning_job *job, const m1b_span *span, int head, float *state)
{
	const size_t bytes = state_floats(job->c) * sizeof *state;
	const m1b_span *parent = span->parent >= 0 ? &job->p->spans->at[span->parent] : NULL;

	if (parent != NULL)
		memcpy(state, kept_state(job, parent, m1b_span_states(parent->n_rows, true) - 1, head), bytes);
	else
		memset(state, 0, bytes);
}

/* Goes over the spans, those with or those without a parent. */
static void
each_span(lightning_job *job, bool children, double work, m1_pool_fn fn)
{
	job->children = children;
	m1b_cpu_loop(job->c, work, job->p->spans->n * job->c->g.heads, fn, job);
}

static double
work_of(const lightning_job *job)
{
	return 2.0 * job->p->spans->n_rows * job->c->g.heads * (double) state_floats(job->c);
}

/* ---- forward ---- */

static void
forward_piece(void *arg, int index, int worker)
{
	const lightning_job *job = arg;
	const m1b_cpu *c = job->c;
	const m1b_lightning_kept *p = job->p;
	const m1b_span *span = &p->spans->at[index / c->g.heads];
	const int h = index % c->g.heads;
	const size_t d = (size_t) c->g.head_dim;
	const size_t heads = (size_t) c->g.heads;
	const float *qkv = p->qkv + ((size_t) span->row * heads + (size_t) h) * 3 * d;
	float *out = p->out + ((size_t) span->row * heads + (size_t) h) * d;
	float *state = m1b_cpu_learn_scratch(c, worker);
	float *scratch = state + state_floats(c);

	if ((span->parent >= 0) != job->children)
		return;
	start_state(job, span, h, state);
	for (int t = 0; t < span->n_rows; t += M1B_LIGHTNING_BLOCK)
	{
		if (t > 0 && t % M1B_KEPT_STATE_TOKENS == 0)
			memcpy(kept_state(job, span, t / M1B_KEPT_STATE_TOKENS - 1, h), state, state_floats(c) * sizeof *state);
		m1b_cpu_lightning_block(c, scratch, state, qkv + (size_t) t * heads * 3 * d, heads * 3 * d,
								m1_min_int(M1B_LIGHTNING_BLOCK, span->n_rows - t), p->decay[h],
								out + (size_t) t * heads * d, heads * d);
	}
	if (span->is_parent)
		memcpy(kept_state(job, span, m1b_span_states(span->n_rows, true) - 1, h), state,
			   state_floats(c) * sizeof *state);
}

void
m1b_cpu_lightning_kept(m1b_backend *b, const m1b_lightning_kept *p)
{
	lightning_job job = {.c = m1b_cpu_of(b), .p = p};

	each_span(&job, false, work_of(&job), forward_piece);
	each_span(&job, true, work_of(&job), forward_piece);
}

/* ---- backward ---- */

/* One block of one head: its place in the arrays, and work memory. */
typedef struct block
{
	int m;
	size_t stride; /* between rows of qkv and dqkv */
	const float *q, *k, *v;
	const float *dout;
	size_t dout_stride;
	float *dq, *dk, *dv;
	float *scores;	/* [B, B] P */
	float *dscores; /* [B, B] dP */
	float *scaled;	/* [B, D] */
	float *decay;	/* [B + 1] */
} block;

size_t
m1b_cpu_lightning_back_scratch(const m1b_geometry *g)
{
	const size_t b = M1B_LIGHTNING_BLOCK;
	const size_t d = (size_t) g->head_dim;

	/* states of KEPT_BLOCKS blocks and one more to advance, G, and what a block needs */
	return (KEPT_BLOCKS + 2) * d * d + 2 * b * b + b * d + b + 1;
}

/* scores = (x y^T) with decays; rows of x and y of m tokens. */
static void
decayed_scores(const m1b_cpu *c, const block *p, const float *x, size_t x_stride, const float *y, size_t y_stride,
			   float *scores)
{
	const float *x_rows[M1B_LIGHTNING_BLOCK];
	float *rows[M1B_LIGHTNING_BLOCK];

	for (int i = 0; i < p->m; i++)
	{
		x_rows[i] = x + (size_t) i * x_stride;
		rows[i] = scores + i * M1B_LIGHTNING_BLOCK;
	}
	c->k->dot(&(m1b_dot){.x = x_rows,
						 .n = p->m,
						 .w = y,
						 .w_type = M1B_F32,
						 .w_stride = y_stride,
						 .k = c->g.head_dim,
						 .row1 = p->m,
						 .out = rows});
	m1b_cpu_decay_scores(scores, p->decay, p->m);
}

/* scaled[r] = x[r] times e^(-l (r + 1)), or with `to_end` e^(-l (m - 1 - r)): how far the block's ends are. */
static void
scale_rows(const m1b_cpu *c, const block *p, const float *x, size_t stride, bool to_end)
{
	const size_t d = (size_t) c->g.head_dim;

	for (int r = 0; r < p->m; r++)
	{
		memcpy(p->scaled + (size_t) r * d, x + (size_t) r * stride, d * sizeof *x);
		c->k->scale(p->scaled + (size_t) r * d, p->decay[to_end ? p->m - 1 - r : r + 1], (int) d);
	}
}

/* to = scaled S^T */
static void
times_transposed(const m1b_cpu *c, const block *p, const float *state, float *to)
{
	const size_t d = (size_t) c->g.head_dim;
	const float *x_rows[M1B_LIGHTNING_BLOCK];
	float *rows[M1B_LIGHTNING_BLOCK];

	for (int i = 0; i < p->m; i++)
	{
		x_rows[i] = p->scaled + (size_t) i * d;
		rows[i] = to + (size_t) i * p->stride;
	}
	c->k->dot(&(m1b_dot){.x = x_rows,
						 .n = p->m,
						 .w = state,
						 .w_type = M1B_F32,
						 .w_stride = d,
						 .k = (int) d,
						 .row1 = (int) d,
						 .out = rows});
}

/* to += scores x, or scores^T x */
static void
add_scores_times(const m1b_cpu *c, const block *p, const float *scores, bool transposed, const float *x, size_t stride,
				 float *to)
{
	c->k->mac(&(m1b_mac){.m = p->m,
						 .n = c->g.head_dim,
						 .k = p->m,
						 .a = scores,
						 .a_row = transposed ? 1 : M1B_LIGHTNING_BLOCK,
						 .a_col = transposed ? M1B_LIGHTNING_BLOCK : 1,
						 .b = x,
						 .b_row = stride,
						 .c = to,
						 .c_row = p->stride,
						 .scale = 1.0f});
}

/*
 * With S the state before the block and G the gradient by the state after it, a_p = e^(-lp), b_p = e^(-l(m-p)):
 * dQ = diag(a) dO S^T + dP K, dK = diag(b) V G^T + dP^T Q, dV = diag(b) K G + P^T dO, and then
 * G = e^(-lm) G + (diag(a) Q)^T dO.
 */
static void
block_back(const m1b_cpu *c, const block *p, const float *state, float *reverse)
{
	const size_t d = (size_t) c->g.head_dim;

	decayed_scores(c, p, p->q, p->stride, p->k, p->stride, p->scores);
	decayed_scores(c, p, p->dout, p->dout_stride, p->v, p->stride, p->dscores);

	scale_rows(c, p, p->dout, p->dout_stride, false);
	times_transposed(c, p, state, p->dq);
	add_scores_times(c, p, p->dscores, false, p->k, p->stride, p->dq);

	scale_rows(c, p, p->v, p->stride, true);
	times_transposed(c, p, reverse, p->dk);
	add_scores_times(c, p, p->dscores, true, p->q, p->stride, p->dk);

	scale_rows(c, p, p->k, p->stride, true);
	c->k->mac(&(m1b_mac){.m = p->m,
						 .n = (int) d,
						 .k = (int) d,
						 .a = p->scaled,
						 .a_row = d,
						 .a_col = 1,
						 .b = reverse,
						 .b_row = d,
						 .c = p->dv,
						 .c_row = p->stride,
						 .scale = 0.0f});
	add_scores_times(c, p, p->scores, true, p->dout, p->dout_stride, p->dv);

	scale_rows(c, p, p->q, p->stride, false);
	c->k->mac(&(m1b_mac){.m = (int) d,
						 .n = (int) d,
						 .k = p->m,
						 .a = p->scaled,
						 .a_row = 1,
						 .a_col = d,
						 .b = p->dout,
						 .b_row = p->dout_stride,
						 .c = reverse,
						 .c_row = d,
						 .scale = p->decay[p->m]});
}

/* The block that begins at token t of a span. */
static void
set_block(const lightning_job *job, const m1b_span *span, int head, int t, block *p)
{
	const m1b_lightning_kept *forward = job->p;
	const size_t d = (size_t) job->c->g.head_dim;
	const size_t heads = (size_t) job->c->g.heads;
	const size_t at = ((size_t) (span->row + t) * heads + (size_t) head) * d;

	p->m = m1_min_int(M1B_LIGHTNING_BLOCK, span->n_rows - t);
	p->stride = heads * 3 * d;
	p->dout_stride = heads * d;
	p->q = forward->qkv + 3 * at;
	p->k = p->q + d;
	p->v = p->k + d;
	p->dout = job->back->dout + at;
	p->dq = job->back->dqkv + 3 * at;
	p->dk = p->dq + d;
	p->dv = p->dk + d;
	for (int i = 0; i <= p->m; i++)
		p->decay[i] = expf(-forward->decay[head] * (float) i);
}

static float *
child_gradient(const lightning_job *job, int span, int head)
{
	const m1b_learn_work *w = job->c->learn;

	return w->state_gradients +
		   ((size_t) w->child[span] * (size_t) job->c->g.heads + (size_t) head) * state_floats(job->c);
}

/* The gradient by the state after a span: what its children have found, in their order. */
static void
end_gradient(const lightning_job *job, int index, int head, float *reverse)
{
	const m1b_spans *spans = job->p->spans;
	const int n = (int) state_floats(job->c);

	memset(reverse, 0, (size_t) n * sizeof *reverse);
	for (int s = index + 1; spans->at[index].is_parent && s < spans->n && spans->at[s].parent == index; s++)
		job->c->k->scale_add(reverse, reverse, child_gradient(job, s, head), 1.0f, 1.0f, n);
}

/* Up to KEPT_BLOCKS blocks that begin at token first, where a state was kept: forward for their states, and back. */
static void
blocks_back(const lightning_job *job, const m1b_span *span, int head, int first, float *states, float *reverse,
			block *p)
{
	const m1b_cpu *c = job->c;
	const size_t n = state_floats(c);
	const int blocks =
		(m1_min_int(M1B_KEPT_STATE_TOKENS, span->n_rows - first) + M1B_LIGHTNING_BLOCK - 1) / M1B_LIGHTNING_BLOCK;

	if (first == 0)
		start_state(job, span, head, states);
	else
		memcpy(states, kept_state(job, span, first / M1B_KEPT_STATE_TOKENS - 1, head), n * sizeof *states);
	for (int i = 0; i + 1 < blocks; i++)
	{
		float *next = states + (size_t) (i + 1) * n;

		set_block(job, span, head, first + i * M1B_LIGHTNING_BLOCK, p);
		memcpy(next, states + (size_t) i * n, n * sizeof *next);
		m1b_cpu_lightning_advance(c, p->scaled, next, p->k, p->v, p->stride, p->m, p->decay);
	}
	for (int i = blocks - 1; i >= 0; i--)
	{
		set_block(job, span, head, first + i * M1B_LIGHTNING_BLOCK, p);
		block_back(c, p, states + (size_t) i * n, reverse);
	}
}

static void
backward_piece(void *arg, int index, int worker)
{
	const lightning_job *job = arg;
	const m1b_cpu *c = job->c;
	const int number = index / c->g.heads;
	const int h = index % c->g.heads;
	const m1b_span *span = &job->p->spans->at[number];
	const size_t n = state_floats(c);
	const size_t b = M1B_LIGHTNING_BLOCK;
	float *states = m1b_cpu_learn_scratch(c, worker);
	float *reverse = states + (KEPT_BLOCKS + 1) * n;
	block p = {.scores = reverse + n};

	if ((span->parent >= 0) != job->children)
		return;
	p.dscores = p.scores + b * b;
	p.scaled = p.dscores + b * b;
	p.decay = p.scaled + b * (size_t) c->g.head_dim;
	end_gradient(job, number, h, reverse);
	for (int first = (span->n_rows - 1) / M1B_KEPT_STATE_TOKENS * M1B_KEPT_STATE_TOKENS; first >= 0;
		 first -= M1B_KEPT_STATE_TOKENS)
		blocks_back(job, span, h, first, states, reverse, &p);
	if (span->parent >= 0)
		memcpy(child_gradient(job, number, h), reverse, n * sizeof *reverse);
}

void
m1b_cpu_lightning_back(m1b_backend *b, const m1b_lightning_back *p)
{
	lightning_job job = {.c = m1b_cpu_of(b), .p = p->forward, .back = p};

	each_span(&job, true, 3.0 * work_of(&job), backward_piece);
	each_span(&job, false, 3.0 * work_of(&job), backward_piece);
}
