/*
 * cpu_learn_attention.c - softmax attention over the spans of a training batch, and its gradient.
 *
 * Forward it is what serving does, over pages that are laid out the same way, so that the bits are the same. Backward,
 * probabilities are made again from the scores and the row's log-sum; one piece of a loop is one kv head of a span
 * without a parent and of its children, whose keys they share.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_learn.h"
#include "base/least.h"
#include "blocks/blocks.h"

typedef struct attention_job
{
	m1b_cpu *c;
	const m1b_attention_kept *p;
	const m1b_attention_back *back;
} attention_job;

/* ---- pages ---- */

size_t
m1b_cpu_learn_page_bytes(const m1b_cpu *c)
{
	return 2 * (size_t) c->g.kv_heads * m1b_cpu_head_bytes(c);
}

/* The first page that is a span's own: one that its parent fills in part is copied. */
static int
first_own_page(const m1b_span *span)
{
	return span->start / M1B_PAGE_TOKENS;
}

static int
pages_of_sequence(const m1b_span *span)
{
	return m1b_pages_for(span->start + span->n_rows);
}

size_t
m1b_cpu_attention_pages(const m1b_spans *spans, size_t *entries)
{
	size_t pages = 0;

	*entries = 0;
	for (int s = 0; s < spans->n; s++)
	{
		*entries += (size_t) pages_of_sequence(&spans->at[s]);
		pages += (size_t) (pages_of_sequence(&spans->at[s]) - first_own_page(&spans->at[s]));
	}
	return pages;
}

void
m1b_cpu_attention_lay_out(m1b_cpu *c, const m1b_spans *spans)
{
	m1b_learn_work *w = c->learn;
	char *page = w->pages;
	int entry = 0;

	for (int s = 0; s < spans->n; s++)
	{
		const m1b_span *span = &spans->at[s];
		const int own = first_own_page(span);

		w->first_page[s] = entry;
		for (int i = 0; i < pages_of_sequence(span); i++)
			if (i < own)
				w->page[entry++] = w->page[w->first_page[span->parent] + i];
			else
			{
				w->page[entry++] = page;
				page += m1b_cpu_learn_page_bytes(c);
			}
	}
}

/* K (which = 0) or V (which = 1) of one kv head in a page of a span's sequence. */
static void *
part_of(const m1b_cpu *c, int span, int page, int which, int kv_head)
{
	const m1b_learn_work *w = c->learn;

	return w->page[w->first_page[span] + page] + (size_t) (which * c->g.kv_heads + kv_head) * m1b_cpu_head_bytes(c);
}

static void
store_token(const attention_job *job, int span, int row, int position)
{
	const m1b_cpu *c = job->c;
	const size_t d = (size_t) c->g.head_dim;
	const int page = position / M1B_PAGE_TOKENS;
	const size_t place = (size_t) (position % M1B_PAGE_TOKENS);

	for (int h = 0; h < c->g.kv_heads; h++)
	{
		const size_t at = ((size_t) row * (size_t) c->g.kv_heads + (size_t) h) * d;

		m1b_cpu_store_head(c, job->p->k + at, part_of(c, span, page, 0, h), place, M1B_PAGE_TOKENS);
		m1b_cpu_store_head(c, job->p->v + at, part_of(c, span, page, 1, h), place * d, 1);
	}
}

/* ---- forward ---- */

/* Rotates a span's q and k, or with `back` turns gradients by the same angles the other way. */
static void
rotate_span(const m1b_cpu *c, const m1b_span *span, float *q, float *k, bool back, float *rope)
{
	const size_t d = (size_t) c->g.head_dim;

	for (int t = 0; t < span->n_rows; t++)
	{
		const size_t row = (size_t) (span->row + t);

		m1b_cpu_rotation(c, span->start + t, rope);
		for (int j = 0; back && j < c->g.rotary_dim / 2; j++)
			rope[2 * j + 1] = -rope[2 * j + 1];
		for (int h = 0; h < c->g.heads; h++)
			m1b_cpu_rotate(c, q + (row * (size_t) c->g.heads + (size_t) h) * d, rope);
		for (int h = 0; h < c->g.kv_heads; h++)
			m1b_cpu_rotate(c, k + (row * (size_t) c->g.kv_heads + (size_t) h) * d, rope);
	}
}

/* To the numbers that pages of BF16 hold, which is what the queries meet. */
static void
round_span(const m1b_cpu *c, const m1b_span *span, float *x)
{
	const size_t width = (size_t) c->g.kv_heads * (size_t) c->g.head_dim;
	float *at = x + (size_t) span->row * width;

	for (size_t i = 0; c->kv_type == M1B_BF16 && i < (size_t) span->n_rows * width; i++)
		at[i] = m1b_bf16_to_float(m1b_float_to_bf16(at[i]));
}

static void
rotate_piece(void *arg, int s, int worker)
{
	const attention_job *job = arg;
	const m1b_span *span = &job->p->spans->at[s];

	rotate_span(job->c, span, job->p->q, job->p->k, false, m1b_cpu_learn_scratch(job->c, worker));
	round_span(job->c, span, job->p->k);
	round_span(job->c, span, job->p->v);
}

static void
store_piece(void *arg, int s, int worker)
{
	const attention_job *job = arg;
	const m1b_span *span = &job->p->spans->at[s];
	const int shared = span->start - first_own_page(span) * M1B_PAGE_TOKENS; /* tokens of the parent's last page */

	(void) worker;
	for (int t = -shared; t < span->n_rows; t++)
	{
		const m1b_span *parent = t < 0 ? &job->p->spans->at[span->parent] : NULL;

		store_token(job, s, parent != NULL ? parent->row + parent->n_rows + t : span->row + t, span->start + t);
	}
}

typedef struct span_pages
{
	const m1b_cpu *c;
	int span;
} span_pages;

static const void *
page_of_span(const void *pages, int page, int which, int kv_head)
{
	const span_pages *p = pages;

	return part_of(p->c, p->span, page, which, kv_head);
}

/* One kv head of one span. */
static void
forward_piece(void *arg, int index, int worker)
{
	const attention_job *job = arg;
	const m1b_cpu *c = job->c;
	const int number = index / c->g.kv_heads;
	const m1b_span *span = &job->p->spans->at[number];

	for (int t = 0; t < span->n_rows; t += M1B_QUERY_TOKENS)
	{
		const size_t head = (size_t) (span->row + t) * (size_t) c->g.heads;
		const m1b_queries queries = {.n_tokens = m1_min_int(M1B_QUERY_TOKENS, span->n_rows - t),
									 .position = span->start + t,
									 .kv_head = index % c->g.kv_heads,
									 .q = job->p->q + head * (size_t) c->g.head_dim,
									 .out = job->p->out + head * (size_t) c->g.head_dim,
									 .lse = job->p->lse + head};

		m1b_cpu_attend(c, m1b_cpu_learn_scratch(c, worker), &queries, page_of_span,
					   &(span_pages){.c = c, .span = number});
	}
}

/* Multiply-adds of one product of all queries with their keys. */
static double
work_of(const attention_job *job)
{
	double work = 0;

	for (int s = 0; s < job->p->spans->n; s++)
	{
		const m1b_span *span = &job->p->spans->at[s];

		work += (double) span->n_rows * (span->start + span->n_rows) * job->c->g.heads * job->c->g.head_dim;
	}
	return work;
}

void
m1b_cpu_attention_kept(m1b_backend *b, const m1b_attention_kept *p)
{
	m1b_cpu *c = m1b_cpu_of(b);
	attention_job job = {.c = c, .p = p};
	const double row_work = 8.0 * p->spans->n_rows * c->g.heads * c->g.head_dim;

	m1b_cpu_loop(c, row_work, p->spans->n, rotate_piece, &job);
	m1b_cpu_loop(c, row_work, p->spans->n, store_piece, &job);
	m1b_cpu_loop(c, 2.0 * work_of(&job), p->spans->n * c->g.kv_heads, forward_piece, &job);
}

/* ---- backward ---- */

/* A tile of queries that share a kv head; rows as in m1b_queries. */
typedef struct tile
{
	m1b_queries at;
	int rows;
	float *q;			  /* [rows, D] scaled by 1 / sqrt(D) */
	float *dout;		  /* [rows, D] */
	float *dq;			  /* [rows, D] */
	float *p;			  /* [rows, page] probabilities */
	float *ds;			  /* [rows, page] gradients of scores */
	float *lse;			  /* [rows] */
	float *along;		  /* [rows] dout o */
	const float **x_rows; /* [rows] */
	float **out_rows;	  /* [rows] */
} tile;

static size_t
tile_rows(const m1b_geometry *g)
{
	return (size_t) M1B_QUERY_TOKENS * (size_t) (g->heads / g->kv_heads);
}

size_t
m1b_cpu_attention_back_scratch(const m1b_geometry *g)
{
	const size_t pointers = 2 * sizeof(float *) / sizeof(float);

	return tile_rows(g) * (3 * (size_t) g->head_dim + 2 * M1B_PAGE_TOKENS + 2 + pointers) + 16;
}

static void
lay_out_tile(const m1b_cpu *c, float *scratch, tile *t)
{
	const size_t rows = tile_rows(&c->g);
	const size_t d = (size_t) c->g.head_dim;

	t->x_rows = (const float **) (void *) scratch;
	t->out_rows = (float **) (void *) (t->x_rows + rows);
	t->q = (float *) (void *) (t->out_rows + rows);
	t->dout = t->q + rows * d;
	t->dq = t->dout + rows * d;
	t->p = t->dq + rows * d;
	t->ds = t->p + rows * M1B_PAGE_TOKENS;
	t->lse = t->ds + rows * M1B_PAGE_TOKENS;
	t->along = t->lse + rows;
}

static void
load_tile(const attention_job *job, const m1b_span *span, int first, int kv_head, tile *t)
{
	const m1b_cpu *c = job->c;
	const size_t d = (size_t) c->g.head_dim;
	const size_t heads = (size_t) (span->row + first) * (size_t) c->g.heads;

	t->at = (m1b_queries){.n_tokens = m1_min_int(M1B_QUERY_TOKENS, span->n_rows - first),
						  .position = span->start + first,
						  .kv_head = kv_head};
	t->rows = t->at.n_tokens * (c->g.heads / c->g.kv_heads);
	for (int r = 0; r < t->rows; r++)
	{
		const size_t head = heads + m1b_cpu_query_head(c, &t->at, r);
		float *q = t->q + (size_t) r * d;
		float *dout = t->dout + (size_t) r * d;

		memcpy(q, job->p->q + head * d, d * sizeof *q);
		c->k->scale(q, 1.0f / sqrtf((float) d), (int) d);
		memcpy(dout, job->back->dout + head * d, d * sizeof *dout);
		t->lse[r] = job->p->lse[head];
		t->along[r] = c->k->learning->inner(dout, job->p->out + head * d, (int) d);
	}
	memset(t->dq, 0, (size_t) t->rows * d * sizeof *t->dq);
}

/* out [rows, page] = x [rows, D] y^T for n keys or values, which lie `stride` apart. */
static void
scores(const m1b_cpu *c, tile *t, const float *x, const float *y, size_t stride, int n, float *out)
{
	for (int r = 0; r < t->rows; r++)
	{
		t->x_rows[r] = x + (size_t) r * (size_t) c->g.head_dim;
		t->out_rows[r] = out + (size_t) r * M1B_PAGE_TOKENS;
	}
	c->k->dot(&(m1b_dot){.x = t->x_rows,
						 .n = t->rows,
						 .w = y,
						 .w_type = M1B_F32,
						 .w_stride = stride,
						 .k = c->g.head_dim,
						 .row1 = n,
						 .out = t->out_rows});
}

/* p = exp(score - lse), ds = p (dout v - dout o); both 0 for keys that come later than the query. */
static void
score_gradients(const m1b_cpu *c, tile *t, int base, int n)
{
	const int group = c->g.heads / c->g.kv_heads;

	for (int r = 0; r < t->rows; r++)
	{
		const int seen = m1_min_int(n, t->at.position + r / group + 1 - base);
		float *p = t->p + (size_t) r * M1B_PAGE_TOKENS;
		float *ds = t->ds + (size_t) r * M1B_PAGE_TOKENS;

		for (int j = seen < 0 ? 0 : seen; j < n; j++)
			p[j] = -INFINITY;
		c->k->exp_sum(p, t->lse[r], n);
		for (int j = 0; j < n; j++)
			ds[j] = p[j] * (ds[j] - t->along[r]);
	}
}

/* to [keys, D] += weights^T x */
static void
add_to_keys(const m1b_cpu *c, const tile *t, const float *weights, const float *x, int n, float *to, size_t stride)
{
	c->k->mac(&(m1b_mac){.m = n,
						 .n = c->g.head_dim,
						 .k = t->rows,
						 .a = weights,
						 .a_row = 1,
						 .a_col = M1B_PAGE_TOKENS,
						 .b = x,
						 .b_row = (size_t) c->g.head_dim,
						 .c = to,
						 .c_row = stride,
						 .scale = 1.0f});
}

/* The tile against n keys, the first at position base and in row `row`. */
static void
keys_back(const attention_job *job, tile *t, int row, int base, int n)
{
	const m1b_cpu *c = job->c;
	const size_t stride = (size_t) c->g.kv_heads * (size_t) c->g.head_dim;
	const size_t at = (size_t) row * stride + (size_t) t->at.kv_head * (size_t) c->g.head_dim;

	scores(c, t, t->q, job->p->k + at, stride, n, t->p);
	scores(c, t, t->dout, job->p->v + at, stride, n, t->ds);
	score_gradients(c, t, base, n);
	add_to_keys(c, t, t->p, t->dout, n, job->back->dv + at, stride);
	add_to_keys(c, t, t->ds, t->q, n, job->back->dk + at, stride);
	c->k->mac(&(m1b_mac){.m = t->rows,
						 .n = c->g.head_dim,
						 .k = n,
						 .a = t->ds,
						 .a_row = M1B_PAGE_TOKENS,
						 .a_col = 1,
						 .b = job->p->k + at,
						 .b_row = stride,
						 .c = t->dq,
						 .c_row = (size_t) c->g.head_dim,
						 .scale = 1.0f});
}

/* The tile against the keys of one span that the last of its queries sees. */
static void
span_keys_back(const attention_job *job, tile *t, const m1b_span *span)
{
	const int seen = m1_min_int(span->n_rows, t->at.position + t->at.n_tokens - span->start);

	for (int first = 0; first < seen; first += M1B_PAGE_TOKENS)
		keys_back(job, t, span->row + first, span->start + first, m1_min_int(M1B_PAGE_TOKENS, seen - first));
}

static void
store_dq(const attention_job *job, const m1b_span *span, int first, const tile *t)
{
	const m1b_cpu *c = job->c;
	const size_t d = (size_t) c->g.head_dim;
	const size_t heads = (size_t) (span->row + first) * (size_t) c->g.heads;

	for (int r = 0; r < t->rows; r++)
	{
		float *to = job->back->dq + (heads + m1b_cpu_query_head(c, &t->at, r)) * d;

		memcpy(to, t->dq + (size_t) r * d, d * sizeof *to);
		c->k->scale(to, 1.0f / sqrtf((float) d), (int) d);
	}
}

static void
clear_keys(const attention_job *job, const m1b_span *span, int kv_head)
{
	const m1b_cpu *c = job->c;
	const size_t d = (size_t) c->g.head_dim;

	for (int t = 0; t < span->n_rows; t++)
	{
		const size_t at = ((size_t) (span->row + t) * (size_t) c->g.kv_heads + (size_t) kv_head) * d;

		memset(job->back->dk + at, 0, d * sizeof(float));
		memset(job->back->dv + at, 0, d * sizeof(float));
	}
}

static void
span_back(const attention_job *job, const m1b_span *span, int kv_head, tile *t)
{
	clear_keys(job, span, kv_head);
	for (int first = 0; first < span->n_rows; first += M1B_QUERY_TOKENS)
	{
		load_tile(job, span, first, kv_head, t);
		if (span->parent >= 0)
			span_keys_back(job, t, &job->p->spans->at[span->parent]);
		span_keys_back(job, t, span);
		store_dq(job, span, first, t);
	}
}

/* One kv head of a span and its children. */
static void
backward_piece(void *arg, int index, int worker)
{
	const attention_job *job = arg;
	const m1b_spans *spans = job->p->spans;
	const int number = index / job->c->g.kv_heads;
	const int kv_head = index % job->c->g.kv_heads;
	tile t;

	if (spans->at[number].parent >= 0)
		return;
	lay_out_tile(job->c, m1b_cpu_learn_scratch(job->c, worker), &t);
	span_back(job, &spans->at[number], kv_head, &t);
	for (int s = number + 1; s < spans->n && spans->at[s].parent == number; s++)
		span_back(job, &spans->at[s], kv_head, &t);
}

static void
rotate_back_piece(void *arg, int s, int worker)
{
	const attention_job *job = arg;

	rotate_span(job->c, &job->p->spans->at[s], job->back->dq, job->back->dk, true,
				m1b_cpu_learn_scratch(job->c, worker));
}

void
m1b_cpu_attention_back(m1b_backend *b, const m1b_attention_back *p)
{
	m1b_cpu *c = m1b_cpu_of(b);
	attention_job job = {.c = c, .p = p->forward, .back = p};

	m1b_cpu_loop(c, 5.0 * work_of(&job), p->forward->spans->n * c->g.kv_heads, backward_piece, &job);
	m1b_cpu_loop(c, 8.0 * p->forward->spans->n_rows * c->g.heads * c->g.head_dim, p->forward->spans->n,
				 rotate_back_piece, &job);
}
