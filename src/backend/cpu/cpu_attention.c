/*
 * cpu_attention.c - lightning (linear) and softmax attention on the CPU.
 *
 * A loop's pieces are (segment, head, query tile) triples; each piece is one
 * thread's and reads nothing that another piece writes. How a segment is cut into
 * blocks depends on the segment alone, so batch neighbours never change a result.
 */
#include "blocks/blocks.h"
#include "backend/cpu/cpu_internal.h"
#include "base/least.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct m1b_piece
{
	int segment;
	int head;  /* head (lightning) or kv head (softmax) */
	int first; /* first token of the tile within the segment */
	int n_tokens;
} m1b_piece;

size_t
m1b_cpu_lightning_scratch(const m1b_geometry *g)
{
	size_t block = M1B_LIGHTNING_BLOCK;

	/* scores [B, B], scaled q and k [B, D] each, decay powers [B + 1] */
	return block * block + 2 * block * (size_t) g->head_dim + block + 1;
}

size_t
m1b_cpu_attention_scratch(const m1b_geometry *g)
{
	size_t rows = (size_t) M1B_QUERY_TOKENS * (size_t) (g->heads / g->kv_heads);

	/* queries and output [rows, D] each, scores [rows, page], running maximum and sum */
	return rows * M1B_PAGE_TOKENS + 2 * rows * (size_t) g->head_dim + 2 * rows;
}

m1_status
m1b_cpu_attention_configure(m1b_cpu *c, m1_error *err)
{
	const m1b_geometry *g = &c->g;
	int half = g->rotary_dim / 2;
	int threads = m1_pool_size(c->pool);
	size_t a = m1b_cpu_lightning_scratch(g);
	size_t b = m1b_cpu_attention_scratch(g);

	c->scratch_floats = a > b ? a : b;
	/* No more than one piece per token and head: a tile holds at least one token. */
	c->max_pieces = g->max_tokens * g->heads;
	c->inv_freq = calloc((size_t) half + 1, sizeof *c->inv_freq);
	c->rope = calloc((size_t) g->max_tokens * (size_t) g->rotary_dim + 1, sizeof *c->rope);
	c->pieces = calloc((size_t) c->max_pieces, sizeof *c->pieces);
	c->worker_scratch = calloc((size_t) threads + 1, sizeof *c->worker_scratch); /* ends with NULL */
	if (c->inv_freq == NULL || c->rope == NULL || c->pieces == NULL || c->worker_scratch == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for attention's work space");
	for (int i = 0; i < threads; i++)
		if ((c->worker_scratch[i] = calloc(c->scratch_floats, sizeof(float))) == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for attention's work space");
	for (int j = 0; j < half; j++)
		c->inv_freq[j] = 1.0f / powf(g->rope_theta, 2.0f * (float) j / (float) g->rotary_dim);
	return M1_OK;
}

void
m1b_cpu_attention_free(m1b_cpu *c)
{
	if (c->worker_scratch != NULL)
		for (int i = 0; c->worker_scratch[i] != NULL; i++)
			free(c->worker_scratch[i]);
	free(c->worker_scratch);
	free(c->inv_freq);
	free(c->rope);
	free(c->pieces);
}

/* ---- rotary positions ---- */

/* cos and sin for each pair of one position. */
void
m1b_cpu_rotation(const m1b_cpu *c, int position, float *rope)
{
	for (int j = 0; j < c->g.rotary_dim / 2; j++)
	{
		const float angle = (float) position * c->inv_freq[j];

		rope[2 * j] = cosf(angle);
		rope[2 * j + 1] = sinf(angle);
	}
}

/* Rotations of this step's tokens, computed once and used by every softmax layer. */
bool
m1b_cpu_begin(m1b_backend *b, const m1b_batch *batch)
{
	m1b_cpu *c = m1b_cpu_of(b);

	if (c->g.softmax_layers == 0)
		return false;
	for (int s = 0; s < batch->n_segments; s++)
	{
		const m1b_segment *segment = &batch->segments[s];

		m1b_cpu_state_extend(c, segment->state, segment->start + segment->n_tokens);
		for (int t = 0; t < segment->n_tokens; t++)
			m1b_cpu_rotation(c, segment->start + t, c->rope + (size_t) (segment->row + t) * (size_t) c->g.rotary_dim);
	}
	return false;
}

void
m1b_cpu_rotate(const m1b_cpu *c, float *x, const float *rope)
{
	int half = c->g.rotary_dim / 2;

	for (int j = 0; j < half; j++)
	{
		float a = x[j];
		float b = x[j + half];

		x[j] = a * rope[2 * j] - b * rope[2 * j + 1];
		x[j + half] = b * rope[2 * j] + a * rope[2 * j + 1];
	}
}

/* ---- lightning attention ---- */

typedef struct lightning_job
{
	m1b_cpu *c;
	const m1b_lightning *p;
} lightning_job;

/* Multiplies the scores of m queries and m keys by e^(-l(p-r)), and makes those of later keys zeros. */
void
m1b_cpu_decay_scores(float *scores, const float *decay, int m)
{
	for (int p = 0; p < m; p++)
	{
		float *row = scores + p * M1B_LIGHTNING_BLOCK;

		for (int r = 0; r <= p; r++)
			row[r] *= decay[p - r];
		memset(row + p + 1, 0, (size_t) (m - 1 - p) * sizeof *row);
	}
}

/*
 * S = e^(-lm) S + sum_r e^(-l(m-r)) k_r^T v_r over a block of m tokens; scaled_k [m, D] is work memory,
 * decay[i] = e^(-li).
 */
void
m1b_cpu_lightning_advance(const m1b_cpu *c, float *scaled_k, float *state, const float *k, const float *v,
						  size_t stride, int m, const float *decay)
{
	const int d = c->g.head_dim;

	for (int p = 0; p < m; p++)
	{
		memcpy(scaled_k + (size_t) p * (size_t) d, k + (size_t) p * stride, (size_t) d * sizeof(float));
		c->k->scale(scaled_k + (size_t) p * (size_t) d, decay[m - 1 - p], d);
	}
	c->k->mac(&(m1b_mac){.m = d,
						 .n = d,
						 .k = m,
						 .a = scaled_k,
						 .a_row = 1,
						 .a_col = (size_t) d,
						 .b = v,
						 .b_row = stride,
						 .c = state,
						 .c_row = (size_t) d,
						 .scale = decay[m]});
}

/*
 * One block of m tokens of one head, 1-based position r in the block:
 * o_p = e^(-lp) q_p S + sum_{r <= p} e^(-l(p-r)) (q_p k_r) v_r, then S as above.
 * Decays are powers of exponent differences, which cannot overflow.
 */
void
m1b_cpu_lightning_block(const m1b_cpu *c, float *scratch, float *state, const float *q, size_t stride, int m,
						float lambda, float *out, size_t out_stride)
{
	const int d = c->g.head_dim;
	const size_t block = M1B_LIGHTNING_BLOCK;
	const float *k = q + d;
	const float *v = q + 2 * d;
	float *scores = scratch;
	float *scaled_q = scores + block * block;
	float *scaled_k = scaled_q + block * (size_t) d;
	float *decay = scaled_k + block * (size_t) d;
	const float *q_rows[M1B_LIGHTNING_BLOCK];
	float *score_rows[M1B_LIGHTNING_BLOCK];

	for (int i = 0; i <= m; i++)
		decay[i] = expf(-lambda * (float) i);
	for (int p = 0; p < m; p++)
	{
		q_rows[p] = q + (size_t) p * stride;
		score_rows[p] = scores + (size_t) p * block;
		memcpy(scaled_q + (size_t) p * (size_t) d, q_rows[p], (size_t) d * sizeof(float));
		c->k->scale(scaled_q + (size_t) p * (size_t) d, decay[p + 1], d);
	}
	c->k->dot(&(m1b_dot){
		.x = q_rows, .n = m, .w = k, .w_type = M1B_F32, .w_stride = stride, .k = d, .row1 = m, .out = score_rows});
	m1b_cpu_decay_scores(scores, decay, m);
	c->k->mac(&(m1b_mac){.m = m,
						 .n = d,
						 .k = d,
						 .a = scaled_q,
						 .a_row = (size_t) d,
						 .a_col = 1,
						 .b = state,
						 .b_row = (size_t) d,
						 .c = out,
						 .c_row = out_stride,
						 .scale = 0.0f});
	c->k->mac(&(m1b_mac){.m = m,
						 .n = d,
						 .k = m,
						 .a = scores,
						 .a_row = block,
						 .a_col = 1,
						 .b = v,
						 .b_row = stride,
						 .c = out,
						 .c_row = out_stride,
						 .scale = 1.0f});
	m1b_cpu_lightning_advance(c, scaled_k, state, k, v, stride, m, decay);
}

static void
lightning_piece(void *arg, int index, int worker)
{
	const lightning_job *job = arg;
	const m1b_lightning *p = job->p;
	const m1b_cpu *c = job->c;
	const int h = c->pieces[index].head;
	const m1b_segment *segment = &p->batch->segments[c->pieces[index].segment];
	const size_t d = (size_t) c->g.head_dim;
	const size_t heads = (size_t) c->g.heads;
	float *state = segment->state->lightning + ((size_t) p->slot * heads + (size_t) h) * d * d;
	const float *qkv = p->qkv + ((size_t) segment->row * heads + (size_t) h) * 3 * d;
	float *out = p->out + ((size_t) segment->row * heads + (size_t) h) * d;

	if (segment->n_tokens == 1)
	{
		c->k->lightning_step(state, qkv, qkv + d, qkv + 2 * d, expf(-p->decay[h]), (int) d, out);
		return;
	}
	for (int t = 0; t < segment->n_tokens; t += M1B_LIGHTNING_BLOCK)
		m1b_cpu_lightning_block(c, c->worker_scratch[worker], state, qkv + (size_t) t * heads * 3 * d, heads * 3 * d,
								m1_min_int(M1B_LIGHTNING_BLOCK, segment->n_tokens - t), p->decay[h],
								out + (size_t) t * heads * d, heads * d);
}

void
m1b_cpu_lightning(m1b_backend *b, const m1b_lightning *p)
{
	lightning_job job = {m1b_cpu_of(b), p};
	const m1b_geometry *g = &job.c->g;
	int n = 0;

	for (int s = 0; s < p->batch->n_segments; s++)
		for (int h = 0; h < g->heads; h++)
			job.c->pieces[n++] = (m1b_piece){.segment = s, .head = h};
	m1b_cpu_loop(job.c, 2.0 * p->batch->n_tokens * g->heads * g->head_dim * g->head_dim, n, lightning_piece, &job);
}

/* ---- softmax attention ---- */

typedef struct attention_job
{
	m1b_cpu *c;
	const m1b_attention *p;
} attention_job;

void
m1b_cpu_store_head(const m1b_cpu *c, const float *x, void *part, size_t first, size_t step)
{
	if (c->kv_type == M1B_BF16)
		for (int i = 0; i < c->g.head_dim; i++)
			((uint16_t *) part)[first + (size_t) i * step] = m1b_float_to_bf16(x[i]);
	else
		for (int i = 0; i < c->g.head_dim; i++)
			((float *) part)[first + (size_t) i * step] = x[i];
}

/* Rotates one token's q and k heads and stores k and v in its page. */
static void
append_token(void *arg, int index, int worker)
{
	const attention_job *job = arg;
	const m1b_cpu *c = job->c;
	const m1b_attention *p = job->p;
	const m1b_piece *piece = &c->pieces[index];
	const m1b_segment *segment = &p->batch->segments[piece->segment];
	const size_t d = (size_t) c->g.head_dim;
	int row = segment->row + piece->first;
	int position = segment->start + piece->first;
	const float *rope = c->rope + (size_t) row * (size_t) c->g.rotary_dim;

	(void) worker;
	for (int h = 0; h < c->g.heads; h++)
		m1b_cpu_rotate(c, p->q + ((size_t) row * (size_t) c->g.heads + (size_t) h) * d, rope);
	for (int h = 0; h < c->g.kv_heads; h++)
	{
		size_t at = ((size_t) row * (size_t) c->g.kv_heads + (size_t) h) * d;
		size_t place = (size_t) (position % M1B_PAGE_TOKENS);
		int page = position / M1B_PAGE_TOKENS;

		m1b_cpu_rotate(c, p->k + at, rope);
		m1b_cpu_store_head(c, p->k + at, m1b_cpu_page(c, segment->state, page, p->slot, 0, h), place, M1B_PAGE_TOKENS);
		m1b_cpu_store_head(c, p->v + at, m1b_cpu_page(c, segment->state, page, p->slot, 1, h), place * d, 1);
	}
}

/* The queries of one kv head for a tile of tokens, with their running softmax. */
typedef struct query_tile
{
	int rows;	   /* tokens * group */
	int group;	   /* query heads per kv head */
	int position;  /* of the first token */
	float *q;	   /* [rows, D], scaled by 1 / sqrt(D) */
	float *scores; /* [rows, M1B_PAGE_TOKENS] */
	float *out;	   /* [rows, D], unnormalised */
	float *max;	   /* [rows] */
	float *sum;	   /* [rows] */
} query_tile;

/*
 * Folds one page of n keys [D, page], the first at position `base`, and values [page, D] into the tile. Few queries
 * take less time than memory does to bring a page, so what is read next, up to the next page's keys, is always on its
 * way.
 */
static void
attend_page(const m1b_cpu *c, query_tile *tile, const void *keys, const void *values, const void *next_keys, int base,
			int n)
{
	const int d = c->g.head_dim;

	c->k->mac(&(m1b_mac){.m = tile->rows,
						 .n = n,
						 .k = d,
						 .a = tile->q,
						 .a_row = (size_t) d,
						 .a_col = 1,
						 .b = keys,
						 .b_type = c->kv_type,
						 .b_row = M1B_PAGE_TOKENS,
						 .next = values,
						 .c = tile->scores,
						 .c_row = M1B_PAGE_TOKENS,
						 .scale = 0.0f});
	for (int r = 0; r < tile->rows; r++)
	{
		float *s = tile->scores + (size_t) r * M1B_PAGE_TOKENS;
		int seen = tile->position + r / tile->group + 1 - base; /* keys up to and including its own */
		float before = tile->max[r];
		float max;

		for (int j = seen < 0 ? 0 : seen; j < n; j++)
			s[j] = -INFINITY;
		max = fmaxf(before, c->k->max(s, n));
		/* page 0 always holds a visible key, so max is finite from there on */
		tile->sum[r] = tile->sum[r] * expf(before - max) + c->k->exp_sum(s, max, n);
		if (before != max && base > 0)
			c->k->scale(tile->out + (size_t) r * (size_t) d, expf(before - max), d);
		tile->max[r] = max;
	}
	c->k->mac(&(m1b_mac){.m = tile->rows,
						 .n = d,
						 .k = n,
						 .a = tile->scores,
						 .a_row = M1B_PAGE_TOKENS,
						 .a_col = 1,
						 .b = values,
						 .b_type = c->kv_type,
						 .b_row = (size_t) d,
						 .next = next_keys,
						 .c = tile->out,
						 .c_row = (size_t) d,
						 .scale = base == 0 ? 0.0f : 1.0f});
}

void
m1b_cpu_attend(const m1b_cpu *c, float *scratch, const m1b_queries *p, m1b_page_fn page, const void *pages)
{
	const size_t d = (size_t) c->g.head_dim;
	const int group = c->g.heads / c->g.kv_heads;
	const size_t max_rows = (size_t) M1B_QUERY_TOKENS * (size_t) group;
	const int n_keys = p->position + p->n_tokens;
	const void *keys = page(pages, 0, 0, p->kv_head);
	query_tile tile = {.rows = p->n_tokens * group, .group = group, .position = p->position};

	tile.q = scratch;
	tile.scores = tile.q + max_rows * d;
	tile.out = tile.scores + max_rows * M1B_PAGE_TOKENS;
	tile.max = tile.out + max_rows * d;
	tile.sum = tile.max + max_rows;
	for (int r = 0; r < tile.rows; r++)
	{
		const size_t head = m1b_cpu_query_head(c, p, r);

		memcpy(tile.q + (size_t) r * d, p->q + head * d, d * sizeof(float));
		c->k->scale(tile.q + (size_t) r * d, 1.0f / sqrtf((float) d), (int) d);
		tile.max[r] = -INFINITY;
		tile.sum[r] = 0.0f;
	}
	for (int base = 0; base < n_keys; base += M1B_PAGE_TOKENS)
	{
		const int at = base / M1B_PAGE_TOKENS;
		const void *values = page(pages, at, 1, p->kv_head);
		const void *next_keys = base + M1B_PAGE_TOKENS < n_keys ? page(pages, at + 1, 0, p->kv_head) : NULL;

		attend_page(c, &tile, keys, values, next_keys, base, m1_min_int(M1B_PAGE_TOKENS, n_keys - base));
		keys = next_keys;
	}
	for (int r = 0; r < tile.rows; r++)
	{
		const size_t head = m1b_cpu_query_head(c, p, r);
		float *out = p->out + head * d;

		memcpy(out, tile.out + (size_t) r * d, d * sizeof(float));
		c->k->scale(out, 1.0f / tile.sum[r], (int) d);
		if (p->lse != NULL)
			p->lse[head] = tile.max[r] + logf(tile.sum[r]);
	}
}

/* Where a page of a state's sequence has a layer's keys or values. */
typedef struct state_pages
{
	const m1b_cpu *c;
	const m1b_state *state;
	int slot;
} state_pages;

static const void *
page_of_state(const void *pages, int page, int which, int kv_head)
{
	const state_pages *p = pages;

	return m1b_cpu_page(p->c, p->state, page, p->slot, which, kv_head);
}

static void
attention_piece(void *arg, int index, int worker)
{
	const attention_job *job = arg;
	const m1b_cpu *c = job->c;
	const m1b_attention *p = job->p;
	const m1b_piece *piece = &c->pieces[index];
	const m1b_segment *segment = &p->batch->segments[piece->segment];
	const size_t at = (size_t) (segment->row + piece->first) * (size_t) (c->g.heads * c->g.head_dim);
	const m1b_queries queries = {.n_tokens = piece->n_tokens,
								 .position = segment->start + piece->first,
								 .kv_head = piece->head,
								 .q = p->q + at,
								 .out = p->out + at};

	m1b_cpu_attend(c, c->worker_scratch[worker], &queries, page_of_state,
				   &(state_pages){.c = c, .state = segment->state, .slot = p->slot});
}

void
m1b_cpu_attention(m1b_backend *b, const m1b_attention *p)
{
	attention_job job = {m1b_cpu_of(b), p};
	m1b_cpu *c = job.c;
	double work = 0;
	int n = 0;

	for (int s = 0; s < p->batch->n_segments; s++)
		for (int t = 0; t < p->batch->segments[s].n_tokens; t++)
			c->pieces[n++] = (m1b_piece){.segment = s, .first = t, .n_tokens = 1};
	m1b_cpu_loop(c, 4.0 * n * c->g.heads * c->g.head_dim, n, append_token, &job);

	n = 0;
	for (int s = 0; s < p->batch->n_segments; s++)
	{
		const m1b_segment *segment = &p->batch->segments[s];

		work += 2.0 * segment->n_tokens * (segment->start + segment->n_tokens) * c->g.heads * c->g.head_dim;
		for (int t = 0; t < segment->n_tokens; t += M1B_QUERY_TOKENS)
			for (int h = 0; h < c->g.kv_heads; h++)
				c->pieces[n++] = (m1b_piece){.segment = s,
											 .head = h,
											 .first = t,
											 .n_tokens = m1_min_int(M1B_QUERY_TOKENS, segment->n_tokens - t)};
	}
	m1b_cpu_loop(c, work, n, attention_piece, &job);
}
