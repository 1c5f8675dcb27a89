/*
 * cuda_learn_rows.c - learning on a GPU: what is done row by row, the embedding, the distribution over the vocabulary,
 * and the optimizer.
 */
#include "backend/cuda/cuda_internal.h"

#include <string.h>

#include "base/least.h"

/* ---- work memory ---- */

static int
mask_words(const m1b_cuda *c)
{
	return (c->g.vocab + 63) / 64;
}

void
m1b_cuda_learn_rows_want(const m1b_cuda *c, const m1b_spans *spans, m1b_cuda_learn_rows *w, m1b_cuda_buffers *all)
{
	const size_t targets = M1B_CUDA_TARGETS;
	const size_t rows = (size_t) spans->n_rows;

	m1b_cuda_want(all, &w->rho, (size_t) c->g.max_tokens, sizeof *w->rho);
	m1b_cuda_want(all, &w->squares, M1K_SQUARE_SUMS + 1, sizeof *w->squares);
	m1b_cuda_want(all, &w->rows, rows > targets ? rows : targets, sizeof *w->rows);
	m1b_cuda_want(all, &w->targets, targets, sizeof *w->targets);
	m1b_cuda_want(all, &w->mask_of, targets, sizeof *w->mask_of);
	m1b_cuda_want(all, &w->said, 3 * targets, sizeof *w->said);
	m1b_cuda_want(all, &w->coefficient, targets, sizeof *w->coefficient);
	m1b_cuda_want(all, &w->masks, targets * (size_t) mask_words(c), sizeof *w->masks);
}

/* Numbers of rows, where operations read them. */
static const int *
send_rows(m1b_cuda *c, const int *rows, int n)
{
	m1b_cuda_upload(c, c->learn.rows.rows, rows, (size_t) n * sizeof *rows, "uploading rows");
	return c->learn.rows.rows;
}

/* ---- elements, and rows from and to other rows ---- */

void
m1b_cuda_learn_sum(m1b_backend *b, const m1b_sum *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	m1k_learn_sum(p->x, p->y, p->alpha, p->beta, p->n, p->out, c->stream);
	m1b_cuda_launched(c, "adding");
}

void
m1b_cuda_learn_silu(m1b_backend *b, const m1b_silu *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	m1k_learn_silu(p->z, p->dy, p->n, p->out, c->stream);
	m1b_cuda_launched(c, "activating");
}

void
m1b_cuda_learn_embed(m1b_backend *b, const m1b_embed *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1k_matrix table = m1b_cuda_kernel_matrix(p->table);

	m1k_embed(&table, send_rows(c, p->tokens, p->n), p->n, p->out, c->stream);
	m1b_cuda_launched(c, "looking up embeddings");
}

void
m1b_cuda_learn_embed_back(m1b_backend *b, const m1b_embed_back *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	m1k_learn_scatter(p->dx, send_rows(c, p->tokens, p->n), p->n, p->width, p->dtable, c->stream);
	m1b_cuda_launched(c, "adding to embeddings");
}

void
m1b_cuda_learn_gather(m1b_backend *b, const m1b_rows *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	m1k_learn_gather(p->from, send_rows(c, p->rows, p->n), p->n, p->width, p->to, c->stream);
	m1b_cuda_launched(c, "gathering rows");
}

void
m1b_cuda_learn_scatter(m1b_backend *b, const m1b_rows *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	m1k_learn_scatter(p->from, send_rows(c, p->rows, p->n), p->n, p->width, p->to, c->stream);
	m1b_cuda_launched(c, "adding rows");
}

/* ---- norms ---- */

/* Of at most as many rows as work memory is for. */
static m1k_norm_back
norm_of(const m1b_cuda *c, const m1b_norm_back *p, int row)
{
	const size_t at = (size_t) row * (size_t) p->width;

	return (m1k_norm_back){.x = p->x + at,
						   .weight = p->weight,
						   .eps = p->eps,
						   .n = m1_min_int(c->g.max_tokens, p->n - row),
						   .width = p->width,
						   .dy = p->dy + at,
						   .dx = p->dx + at,
						   .dweight = p->dweight,
						   .rho = c->learn.rows.rho};
}

void
m1b_cuda_learn_norm_back(m1b_backend *b, const m1b_norm_back *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	for (int row = 0; row < p->n; row += c->g.max_tokens)
	{
		const m1k_norm_back k = norm_of(c, p, row);

		m1k_learn_norm_back(&k, c->stream);
	}
	m1b_cuda_launched(c, "going back through a norm");
}

void
m1b_cuda_learn_gate_back(m1b_backend *b, const m1b_gate_back *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1b_norm_back norm = m1b_norm_of_gate(p);
	const m1k_norm_back k = {.x = p->x, .weight = p->weight, .eps = p->eps, .n = p->n, .width = p->width};

	m1k_learn_gate_back(&k, p->gate, p->dy, p->dgate, c->stream);
	m1b_cuda_learn_norm_back(b, &norm);
}

/* ---- the distribution over the vocabulary ---- */

/* Some of the rows; their targets are sent. */
static m1k_predict
predict_of(m1b_cuda *c, const m1b_predict *p, int row)
{
	m1b_cuda_learn_rows *w = &c->learn.rows;
	const m1k_predict k = {.logits = p->logits + (size_t) row * (size_t) p->vocab,
						   .n = m1_min_int(M1B_CUDA_TARGETS, p->n - row),
						   .vocab = p->vocab,
						   .temperature = p->temperature,
						   .targets = w->targets,
						   .masks = w->masks,
						   .mask_of = w->mask_of,
						   .mask_words = mask_words(c),
						   .logprob = w->said,
						   .entropy = w->said + M1B_CUDA_TARGETS,
						   .sum = w->said + 2 * M1B_CUDA_TARGETS};

	m1b_cuda_upload(c, w->targets, p->targets + row, (size_t) k.n * sizeof *w->targets, "uploading targets");
	return k;
}

/* The rows' bits, one mask after the other. */
static void
send_masks(m1b_cuda *c, const m1b_predict *p, int row, int n)
{
	m1b_cuda_learn_rows *w = &c->learn.rows;
	const size_t words = (size_t) mask_words(c);
	int mask_of[M1B_CUDA_TARGETS];
	int masks = 0;

	for (int i = 0; i < n; i++)
	{
		const uint64_t *allowed = p->allowed != NULL ? p->allowed[row + i] : NULL;

		mask_of[i] = allowed != NULL ? masks++ : -1;
		if (allowed != NULL)
			m1b_cuda_upload(c, w->masks + (size_t) mask_of[i] * words, allowed, words * sizeof *allowed,
							"uploading masks");
	}
	m1b_cuda_upload(c, w->mask_of, mask_of, (size_t) n * sizeof *mask_of, "uploading masks");
}

void
m1b_cuda_learn_predict(m1b_backend *b, const m1b_predict *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	for (int row = 0; row < p->n; row += M1B_CUDA_TARGETS)
	{
		const m1k_predict k = predict_of(c, p, row);
		const size_t bytes = (size_t) k.n * sizeof(float);

		send_masks(c, p, row, k.n);
		m1k_learn_predict(&k, c->stream);
		m1b_cuda_launched(c, "predicting");
		m1b_cuda_download(c, p->logprob + row, k.logprob, bytes, "reading predictions");
		m1b_cuda_download(c, p->entropy + row, k.entropy, bytes, "reading predictions");
		m1b_cuda_download(c, p->sum + row, k.sum, bytes, "reading predictions");
	}
	m1b_cuda_note(c, cudaStreamSynchronize(c->stream), "reading predictions");
}

void
m1b_cuda_learn_predict_back(m1b_backend *b, const m1b_predict_back *p)
{
	m1b_cuda *c = m1b_cuda_of(b);

	for (int row = 0; row < p->forward->n; row += M1B_CUDA_TARGETS)
	{
		const m1k_predict k = predict_of(c, p->forward, row);
		const size_t bytes = (size_t) k.n * sizeof(float);

		m1b_cuda_upload(c, k.sum, p->forward->sum + row, bytes, "uploading coefficients");
		m1b_cuda_upload(c, c->learn.rows.coefficient, p->coefficient + row, bytes, "uploading coefficients");
		m1k_learn_predict_back(&k, c->learn.rows.coefficient, c->stream);
		m1b_cuda_launched(c, "going back through predictions");
	}
}

/* ---- the optimizer ---- */

double
m1b_cuda_learn_squares(m1b_backend *b, const float *x, size_t n)
{
	m1b_cuda *c = m1b_cuda_of(b);
	double *out = c->learn.rows.squares + M1K_SQUARE_SUMS;
	double sum = 0.0;

	m1k_learn_squares(x, n, c->learn.rows.squares, out, c->stream);
	m1b_cuda_launched(c, "adding squares");
	m1b_cuda_download(c, &sum, out, sizeof sum, "adding squares");
	m1b_cuda_note(c, cudaStreamSynchronize(c->stream), "adding squares");
	return sum;
}

void
m1b_cuda_learn_adamw(m1b_backend *b, const m1b_adamw *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1k_adamw k = {.value = p->value,
						 .m = p->m,
						 .v = p->v,
						 .gradient = p->gradient,
						 .n = p->n,
						 .scale = p->scale,
						 .rate = p->rate,
						 .beta1 = p->beta1,
						 .beta2 = p->beta2,
						 .eps = p->eps,
						 .correction1 = p->correction1,
						 .correction2 = p->correction2,
						 .decay = p->decay};

	m1k_learn_adamw(&k, c->stream);
	m1b_cuda_launched(c, "changing weights");
}
