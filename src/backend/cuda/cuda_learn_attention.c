/*
 * cuda_learn_attention.c - learning on a GPU: both attentions over the spans of a batch.
 *
 * What the kernels are to do is listed once a batch: tiles of queries and keys for softmax attention; for lightning
 * attention the sweeps, forward, from kept state to kept state, and back.
 */
#include "backend/cuda/cuda_internal.h"

#include <stdlib.h>

#include "base/least.h"

_Static_assert(M1K_SWEEP_KEPT == M1B_KEPT_STATE_TOKENS, "states are kept where others go on from them");

/* ---- how much there is ---- */

static int
pieces(int n, int size)
{
	return (n + size - 1) / size;
}

/* Counts tiles, sweeps and spans of each kind. */
static void
count(const m1b_spans *spans, m1b_cuda_learn_spans *w)
{
	w->n_tiles = w->n_roots = w->n_children = w->n_pieces = 0;
	w->n_rows = spans->n_rows;
	for (int s = 0; s < spans->n; s++)
	{
		const m1b_span *span = &spans->at[s];

		w->n_tiles += pieces(span->n_rows, M1K_LEARN_TILE);
		w->n_pieces += pieces(span->n_rows, M1K_SWEEP_KEPT);
		w->n_roots += span->parent < 0;
		w->n_children += span->parent >= 0;
	}
}

void
m1b_cuda_learn_spans_want(const m1b_cuda *c, const m1b_spans *spans, m1b_cuda_learn_spans *w, m1b_cuda_buffers *all)
{
	const m1b_geometry *g = &c->g;
	const size_t rows = (size_t) spans->n_rows;
	const size_t n = (size_t) spans->n;
	const size_t state = (size_t) g->heads * (size_t) g->head_dim * (size_t) g->head_dim;

	count(spans, w);
	m1b_cuda_want(all, &w->rope, rows * (size_t) g->rotary_dim + 1, sizeof *w->rope);
	m1b_cuda_want(all, &w->segment_of, rows, sizeof *w->segment_of);
	m1b_cuda_want(all, &w->segments, n, sizeof *w->segments);
	m1b_cuda_want(all, &w->query_tiles, (size_t) w->n_tiles, sizeof *w->query_tiles);
	m1b_cuda_want(all, &w->key_tiles, (size_t) w->n_tiles, sizeof *w->key_tiles);
	m1b_cuda_want(all, &w->along, rows * (size_t) g->heads, sizeof *w->along);
	m1b_cuda_want(all, &w->forward, n, sizeof *w->forward);
	m1b_cuda_want(all, &w->pieces, (size_t) w->n_pieces, sizeof *w->pieces);
	m1b_cuda_want(all, &w->reverse, n, sizeof *w->reverse);
	m1b_cuda_want(all, &w->gradients, (size_t) w->n_children * state, sizeof *w->gradients);
}

/* ---- the lists ---- */

/* On the host, until they are uploaded. */
typedef struct lists
{
	int *segment_of;
	m1k_segment *segments;
	m1k_query_tile *query_tiles;
	m1k_key_tile *key_tiles;
	m1k_sweep_item *forward, *pieces, *reverse;
	int n_tiles, n_roots, n_children, n_pieces; /* so far */
} lists;

/* The state that a span's children begin with. */
static int
last_state(const m1b_span *span)
{
	return span->state + m1b_span_states(span->n_rows, true) - 1;
}

/* The row after a span and its children. */
static int
family_end(const m1b_spans *spans, int number)
{
	int end = spans->at[number].row + spans->at[number].n_rows;

	for (int s = number + 1; s < spans->n && spans->at[s].parent == number; s++)
		end += spans->at[s].n_rows;
	return end;
}

static void
list_tiles(const m1b_spans *spans, int number, lists *l)
{
	const m1b_span *span = &spans->at[number];
	const m1b_span *parent = span->parent >= 0 ? &spans->at[span->parent] : NULL;
	const int end = family_end(spans, number);

	for (int t = 0; t < span->n_rows; t += M1K_LEARN_TILE)
	{
		const int n = m1_min_int(M1K_LEARN_TILE, span->n_rows - t);

		l->query_tiles[l->n_tiles] = (m1k_query_tile){.row = span->row + t,
													  .n = n,
													  .span_row = span->row,
													  .parent_row = parent != NULL ? parent->row : 0,
													  .parent_n = parent != NULL ? parent->n_rows : 0};
		l->key_tiles[l->n_tiles++] = (m1k_key_tile){.row = span->row + t, .n = n, .end_row = end};
	}
}

/* A span's pieces between kept states, each of which goes on from one. */
static void
list_pieces(const m1b_spans *spans, const m1b_span *span, lists *l)
{
	for (int t = 0; t < span->n_rows; t += M1K_SWEEP_KEPT)
	{
		const bool begins = t == 0;

		l->pieces[l->n_pieces++] = (m1k_sweep_item){.row = span->row + t,
													.n = m1_min_int(M1K_SWEEP_KEPT, span->n_rows - t),
													.from = !begins				? span->state + t / M1K_SWEEP_KEPT - 1
															: span->parent >= 0 ? last_state(&spans->at[span->parent])
																				: 0,
													.n_from = !begins || span->parent >= 0,
													.end = -1,
													.keep = -1};
	}
}

/* Of a span without a parent: its children's gradients are added up, which are numbered as the children are. */
static void
list_root(const m1b_spans *spans, int number, lists *l)
{
	const m1b_span *span = &spans->at[number];
	int children = 0;

	while (number + 1 + children < spans->n && spans->at[number + 1 + children].parent == number)
		children++;
	l->forward[l->n_roots] = (m1k_sweep_item){
		.row = span->row, .n = span->n_rows, .end = span->is_parent ? last_state(span) : -1, .keep = span->state};
	l->reverse[l->n_roots++] = (m1k_sweep_item){
		.row = span->row, .n = span->n_rows, .from = l->n_children, .n_from = children, .end = -1, .keep = -1};
}

static void
list_child(const m1b_spans *spans, const m1b_span *span, int n_roots, lists *l)
{
	const int at = n_roots + l->n_children;

	l->forward[at] = (m1k_sweep_item){.row = span->row,
									  .n = span->n_rows,
									  .from = last_state(&spans->at[span->parent]),
									  .n_from = 1,
									  .end = -1,
									  .keep = span->state};
	l->reverse[at] = (m1k_sweep_item){.row = span->row, .n = span->n_rows, .end = l->n_children++, .keep = -1};
}

static void
fill(const m1b_spans *spans, int n_roots, lists *l)
{
	for (int s = 0; s < spans->n; s++)
	{
		const m1b_span *span = &spans->at[s];

		l->segments[s] = (m1k_segment){.start = span->start, .n_tokens = span->n_rows, .row = span->row};
		for (int t = 0; t < span->n_rows; t++)
			l->segment_of[span->row + t] = s;
		list_tiles(spans, s, l);
		list_pieces(spans, span, l);
		if (span->parent < 0)
			list_root(spans, s, l);
		else
			list_child(spans, span, n_roots, l);
	}
}

static void
upload(m1b_cuda *c, void *to, const void *from, size_t n, size_t size)
{
	m1b_cuda_upload(c, to, from, n * size, "uploading a batch");
}

static void
upload_lists(m1b_cuda *c, const m1b_spans *spans, const lists *l)
{
	const m1b_cuda_learn_spans *w = &c->learn.spans;
	const size_t n = (size_t) spans->n;

	upload(c, w->segment_of, l->segment_of, (size_t) spans->n_rows, sizeof *l->segment_of);
	upload(c, w->segments, l->segments, n, sizeof *l->segments);
	upload(c, w->query_tiles, l->query_tiles, (size_t) w->n_tiles, sizeof *l->query_tiles);
	upload(c, w->key_tiles, l->key_tiles, (size_t) w->n_tiles, sizeof *l->key_tiles);
	upload(c, w->forward, l->forward, n, sizeof *l->forward);
	upload(c, w->pieces, l->pieces, (size_t) w->n_pieces, sizeof *l->pieces);
	upload(c, w->reverse, l->reverse, n, sizeof *l->reverse);
	m1k_rope_table(w->segments, w->segment_of, spans->n_rows, c->attention.inv_freq, c->g.rotary_dim / 2, w->rope,
				   c->stream);
	m1b_cuda_launched(c, "preparing a batch");
}

m1_status
m1b_cuda_learn_spans_set(m1b_cuda *c, const m1b_spans *spans, m1_error *err)
{
	const m1b_cuda_learn_spans *w = &c->learn.spans;
	const size_t n = (size_t) spans->n;
	lists l = {.segment_of = calloc((size_t) spans->n_rows, sizeof *l.segment_of),
			   .segments = calloc(n, sizeof *l.segments),
			   .query_tiles = calloc((size_t) w->n_tiles, sizeof *l.query_tiles),
			   .key_tiles = calloc((size_t) w->n_tiles, sizeof *l.key_tiles),
			   .forward = calloc(n, sizeof *l.forward),
			   .pieces = calloc((size_t) w->n_pieces, sizeof *l.pieces),
			   .reverse = calloc(n, sizeof *l.reverse)};
	const bool ok = l.segment_of != NULL && l.segments != NULL && l.query_tiles != NULL && l.key_tiles != NULL &&
					l.forward != NULL && l.pieces != NULL && l.reverse != NULL;

	if (ok)
	{
		fill(spans, w->n_roots, &l);
		upload_lists(c, spans, &l);
	}
	free(l.segment_of);
	free(l.segments);
	free(l.query_tiles);
	free(l.key_tiles);
	free(l.forward);
	free(l.pieces);
	free(l.reverse);
	return ok ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for a batch of %d tokens", spans->n_rows);
}

/* ---- lightning attention ---- */

/* q, k and v of arrays [T, H, 3, D]; or with `out` alone. */
typedef struct operand
{
	const float *at;
	int unit;
} operand;

static m1k_sweep
sweep_of(const m1b_cuda *c, const m1b_lightning_kept *p, operand q, operand k, operand v)
{
	return (m1k_sweep){.decay = p->decay,
					   .q = q.at,
					   .k = k.at,
					   .v = v.at,
					   .q_unit = q.unit,
					   .k_unit = k.unit,
					   .v_unit = v.unit,
					   .heads = c->g.heads,
					   .head_dim = c->g.head_dim};
}

/* One of q, k and v, of which there are 3. */
static operand
part_of(const m1b_cuda *c, const float *qkv, int part)
{
	return (operand){qkv + part * c->g.head_dim, 3 * c->g.head_dim};
}

static void
run_sweep(m1b_cuda *c, m1k_sweep sweep, const m1k_sweep_item *items, int n)
{
	sweep.items = items;
	sweep.n_items = n;
	if (n > 0)
		m1k_learn_sweep(&sweep, c->stream);
	m1b_cuda_launched(c, "running lightning attention");
}

void
m1b_cuda_learn_lightning(m1b_backend *b, const m1b_lightning_kept *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1b_cuda_learn_spans *w = &c->learn.spans;
	m1k_sweep sweep = sweep_of(c, p, part_of(c, p->qkv, 0), part_of(c, p->qkv, 1), part_of(c, p->qkv, 2));

	sweep.out = p->out;
	sweep.out_unit = c->g.head_dim;
	sweep.from_states = sweep.to_states = p->states;
	run_sweep(c, sweep, w->forward, w->n_roots);
	run_sweep(c, sweep, w->forward + w->n_roots, w->n_children);
}

/* Children first, whose gradients their parents begin with. */
static void
sweep_back(m1b_cuda *c, m1k_sweep sweep, float *out)
{
	const m1b_cuda_learn_spans *w = &c->learn.spans;

	sweep.reverse = true;
	sweep.out = out;
	sweep.out_unit = 3 * c->g.head_dim;
	sweep.from_states = sweep.to_states = w->gradients;
	run_sweep(c, sweep, w->reverse + w->n_roots, w->n_children);
	run_sweep(c, sweep, w->reverse, w->n_roots);
}

void
m1b_cuda_learn_lightning_back(m1b_backend *b, const m1b_lightning_back *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1b_lightning_kept *forward = p->forward;
	const int d = c->g.head_dim;
	const operand q = part_of(c, forward->qkv, 0);
	const operand k = part_of(c, forward->qkv, 1);
	const operand v = part_of(c, forward->qkv, 2);
	const operand dout = {p->dout, d};
	m1k_sweep dq = sweep_of(c, forward, dout, v, k);

	dq.out = p->dqkv;
	dq.out_unit = 3 * d;
	dq.from_states = forward->states;
	dq.from_transposed = true;
	run_sweep(c, dq, c->learn.spans.pieces, c->learn.spans.n_pieces);
	sweep_back(c, sweep_of(c, forward, v, dout, q), p->dqkv + d);
	sweep_back(c, sweep_of(c, forward, k, q, dout), p->dqkv + 2 * d);
}

/* ---- softmax attention ---- */

static m1k_attend
attend_of(const m1b_cuda *c, const m1b_attention_kept *p)
{
	const m1b_cuda_learn_spans *w = &c->learn.spans;

	return (m1k_attend){.query_tiles = w->query_tiles,
						.key_tiles = w->key_tiles,
						.n_query_tiles = w->n_tiles,
						.n_key_tiles = w->n_tiles,
						.n_rows = w->n_rows,
						.heads = c->g.heads,
						.kv_heads = c->g.kv_heads,
						.head_dim = c->g.head_dim,
						.q = p->q,
						.k = p->k,
						.v = p->v,
						.out = p->out,
						.lse = p->lse,
						.along = w->along};
}

static void
rotate(m1b_cuda *c, float *x, int heads, float sign)
{
	const m1b_cuda_learn_spans *w = &c->learn.spans;

	m1k_learn_rotate(x, w->n_rows, heads, c->g.head_dim, w->rope, c->g.rotary_dim / 2, sign, c->stream);
}

void
m1b_cuda_learn_attention(m1b_backend *b, const m1b_attention_kept *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1k_attend k = attend_of(c, p);

	rotate(c, p->q, c->g.heads, 1.0f);
	rotate(c, p->k, c->g.kv_heads, 1.0f);
	m1k_learn_attend(&k, c->stream);
	m1b_cuda_launched(c, "running softmax attention");
}

void
m1b_cuda_learn_attention_back(m1b_backend *b, const m1b_attention_back *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	m1k_attend k = attend_of(c, p->forward);

	k.dout = p->dout;
	k.dq = p->dq;
	k.dk = p->dk;
	k.dv = p->dv;
	m1k_learn_attend_back(&k, c->stream);
	rotate(c, p->dq, c->g.heads, -1.0f);
	rotate(c, p->dk, c->g.kv_heads, -1.0f);
	m1b_cuda_launched(c, "going back through softmax attention");
}
