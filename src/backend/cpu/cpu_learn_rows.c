/*
 * cpu_learn_rows.c - gradients of what is done row by row, of the embedding and of the distribution over the
 * vocabulary, and the optimizer.
 *
 * Sums over rows are divided among threads by column, so that each is one chain in the order of the rows.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_learn.h"

#define COLUMNS 64	  /* of a piece of a sum over rows */
#define ELEMENTS 8192 /* of a piece of an operation on each element */

static int
pieces_of(size_t n, size_t size)
{
	return (int) ((n + size - 1) / size);
}

/* How many of n are in piece i, when all but the last have `size`. */
static int
in_piece(size_t n, int i, size_t size)
{
	const size_t left = n - (size_t) i * size;

	return (int) (left < size ? left : size);
}

/* ---- elements ---- */

typedef struct elements_job
{
	const m1b_cpu *c;
	const m1b_sum *sum;
	const m1b_silu *silu;
} elements_job;

static void
sum_piece(void *arg, int i, int worker)
{
	const elements_job *job = arg;
	const m1b_sum *p = job->sum;
	const size_t at = (size_t) i * ELEMENTS;
	const int n = in_piece(p->n, i, ELEMENTS);

	(void) worker;
	if (p->y != NULL)
	{
		job->c->k->scale_add(p->out + at, p->x + at, p->y + at, p->alpha, p->beta, n);
		return;
	}
	if (p->out != p->x)
		memcpy(p->out + at, p->x + at, (size_t) n * sizeof *p->x);
	if (p->alpha != 1.0f)
		job->c->k->scale(p->out + at, p->alpha, n);
}

void
m1b_cpu_sum(m1b_backend *b, const m1b_sum *p)
{
	elements_job job = {.c = m1b_cpu_of(b), .sum = p};

	m1b_cpu_loop(m1b_cpu_of(b), 2.0 * (double) p->n, pieces_of(p->n, ELEMENTS), sum_piece, &job);
}

static void
silu_piece(void *arg, int i, int worker)
{
	const elements_job *job = arg;
	const m1b_silu *p = job->silu;
	const size_t at = (size_t) i * ELEMENTS;
	const int n = in_piece(p->n, i, ELEMENTS);

	(void) worker;
	if (p->dy != NULL)
	{
		job->c->k->learning->silu_back(p->z + at, p->dy + at, p->out + at, n);
		return;
	}
	memcpy(p->out + at, p->z + at, (size_t) n * sizeof *p->z);
	job->c->k->silu(p->out + at, n);
}

void
m1b_cpu_silu(m1b_backend *b, const m1b_silu *p)
{
	elements_job job = {.c = m1b_cpu_of(b), .silu = p};

	m1b_cpu_loop(m1b_cpu_of(b), 16.0 * (double) p->n, pieces_of(p->n, ELEMENTS), silu_piece, &job);
}

/* ---- rows from and to other rows ---- */

void
m1b_cpu_gather(m1b_backend *b, const m1b_rows *p)
{
	const size_t width = (size_t) p->width;

	(void) b;
	for (int i = 0; i < p->n; i++)
		memcpy(p->to + (size_t) i * width, p->from + (size_t) p->rows[i] * width, width * sizeof *p->to);
}

void
m1b_cpu_scatter(m1b_backend *b, const m1b_rows *p)
{
	const size_t width = (size_t) p->width;

	for (int i = 0; i < p->n; i++)
	{
		float *to = p->to + (size_t) p->rows[i] * width;

		m1b_cpu_of(b)->k->scale_add(to, to, p->from + (size_t) i * width, 1.0f, 1.0f, p->width);
	}
}

typedef struct embed_job
{
	const m1b_cpu *c;
	const m1b_embed_back *p;
} embed_job;

static void
embed_columns(void *arg, int i, int worker)
{
	const embed_job *job = arg;
	const m1b_embed_back *p = job->p;
	const int n = in_piece((size_t) p->width, i, COLUMNS);

	(void) worker;
	for (int t = 0; t < p->n; t++)
	{
		float *to = p->dtable + (size_t) p->tokens[t] * (size_t) p->width + (size_t) i * COLUMNS;

		job->c->k->scale_add(to, to, p->dx + (size_t) t * (size_t) p->width + (size_t) i * COLUMNS, 1.0f, 1.0f, n);
	}
}

void
m1b_cpu_embed_back(m1b_backend *b, const m1b_embed_back *p)
{
	embed_job job = {.c = m1b_cpu_of(b), .p = p};

	m1b_cpu_loop(m1b_cpu_of(b), (double) p->n * p->width, pieces_of((size_t) p->width, COLUMNS), embed_columns, &job);
}

/* ---- norms ---- */

typedef struct norm_job
{
	m1b_cpu *c;
	const m1b_norm_back *p;
} norm_job;

static void
norm_row(void *arg, int t, int worker)
{
	const norm_job *job = arg;
	const m1b_norm_back *p = job->p;
	const size_t at = (size_t) t * (size_t) p->width;

	(void) worker;
	job->c->learn->rho[t] =
		job->c->k->learning->norm_back(p->x + at, p->weight, p->dy + at, p->eps, p->width, p->dx + at);
}

static void
norm_columns(void *arg, int i, int worker)
{
	const norm_job *job = arg;
	const m1b_norm_back *p = job->p;
	const size_t column = (size_t) i * COLUMNS;
	const int n = in_piece((size_t) p->width, i, COLUMNS);

	(void) worker;
	for (int t = 0; t < p->n; t++)
	{
		const size_t at = (size_t) t * (size_t) p->width + column;

		job->c->k->learning->add_product(p->dweight + column, p->dy + at, p->x + at, job->c->learn->rho[t], n);
	}
}

/* Of at most as many rows as work memory is for. */
static void
norm_rows(norm_job *job)
{
	const m1b_norm_back *p = job->p;

	m1b_cpu_loop(job->c, 6.0 * p->n * p->width, p->n, norm_row, job);
	if (p->dweight != NULL)
		m1b_cpu_loop(job->c, 2.0 * p->n * p->width, pieces_of((size_t) p->width, COLUMNS), norm_columns, job);
}

void
m1b_cpu_norm_back(m1b_backend *b, const m1b_norm_back *p)
{
	m1b_cpu *c = m1b_cpu_of(b);

	for (int t = 0; t < p->n; t += c->g.max_tokens)
	{
		const size_t at = (size_t) t * (size_t) p->width;
		m1b_norm_back some = *p;

		some.n = in_piece((size_t) (p->n - t), 0, (size_t) c->g.max_tokens);
		some.x += at;
		some.dy += at;
		some.dx += at;
		norm_rows(&(norm_job){.c = c, .p = &some});
	}
}

typedef struct gate_job
{
	const m1b_cpu *c;
	const m1b_gate_back *p;
} gate_job;

/* dx holds what the gate multiplies until the norm's gradient is made. */
static void
gate_row(void *arg, int t, int worker)
{
	const gate_job *job = arg;
	const m1b_gate_back *p = job->p;
	const size_t at = (size_t) t * (size_t) p->width;

	(void) worker;
	job->c->k->rms_norm(p->x + at, p->weight, p->eps, p->width, p->dx + at);
	job->c->k->learning->gate_back(p->dx + at, p->gate + at, p->dy + at, p->dgate + at, p->width);
}

void
m1b_cpu_gate_back(m1b_backend *b, const m1b_gate_back *p)
{
	gate_job job = {.c = m1b_cpu_of(b), .p = p};
	const m1b_norm_back norm = m1b_norm_of_gate(p);

	m1b_cpu_loop(m1b_cpu_of(b), 20.0 * p->n * p->width, p->n, gate_row, &job);
	m1b_cpu_norm_back(b, &norm);
}

/* ---- the distribution over the vocabulary ---- */

#define NO_PROBABILITY 200.0f /* below the largest logit, whose exponential is then 0 */

typedef struct predict_job
{
	const m1b_cpu *c;
	const m1b_predict *p;
	const float *coefficient; /* of the gradient */
} predict_job;

/* Gives a value to the logits of all tokens whose bits are not set. */
static void
forbid(const uint64_t *allowed, int vocab, float value, float *logits)
{
	for (int v = 0; v < vocab; v++)
		if ((allowed[v / 64] >> (v % 64) & 1) == 0)
			logits[v] = value;
}

static void
predict_row(void *arg, int t, int worker)
{
	const predict_job *job = arg;
	const m1b_predict *p = job->p;
	float *logits = p->logits + (size_t) t * (size_t) p->vocab;
	const uint64_t *allowed = p->allowed != NULL ? p->allowed[t] : NULL;
	float max, target, weighted, log_sum;

	(void) worker;
	if (p->temperature != 1.0f)
		job->c->k->scale(logits, 1.0f / p->temperature, p->vocab);
	if (allowed != NULL)
		forbid(allowed, p->vocab, -INFINITY, logits);
	max = job->c->k->max(logits, p->vocab);
	if (allowed != NULL)
		forbid(allowed, p->vocab, max - NO_PROBABILITY, logits); /* as infinity times 0 is no number */
	target = logits[p->targets[t]] - max;
	p->sum[t] = job->c->k->learning->exp_sums(logits, max, p->vocab, &weighted);
	log_sum = logf(p->sum[t]);
	p->logprob[t] = target - log_sum;
	p->entropy[t] = log_sum - weighted / p->sum[t];
}

void
m1b_cpu_predict(m1b_backend *b, const m1b_predict *p)
{
	predict_job job = {.c = m1b_cpu_of(b), .p = p};

	m1b_cpu_loop(m1b_cpu_of(b), 16.0 * p->n * p->vocab, p->n, predict_row, &job);
}

/* dz = coefficient (softmax - onehot) / temperature */
static void
predict_back_row(void *arg, int t, int worker)
{
	const predict_job *job = arg;
	const m1b_predict *p = job->p;
	float *logits = p->logits + (size_t) t * (size_t) p->vocab;
	const float factor = job->coefficient[t] / p->temperature;

	(void) worker;
	if (factor == 0.0f)
	{
		memset(logits, 0, (size_t) p->vocab * sizeof *logits);
		return;
	}
	job->c->k->scale(logits, factor / p->sum[t], p->vocab);
	logits[p->targets[t]] -= factor;
}

void
m1b_cpu_predict_back(m1b_backend *b, const m1b_predict_back *p)
{
	predict_job job = {.c = m1b_cpu_of(b), .p = p->forward, .coefficient = p->coefficient};

	m1b_cpu_loop(m1b_cpu_of(b), 2.0 * p->forward->n * p->forward->vocab, p->forward->n, predict_back_row, &job);
}

/* ---- the optimizer ---- */

typedef struct optimizer_job
{
	const m1b_adamw *adamw;
	const float *x;
	size_t n;
	double *sums; /* of each piece */
} optimizer_job;

static void
square_piece(void *arg, int i, int worker)
{
	const optimizer_job *job = arg;
	const float *x = job->x + (size_t) i * ELEMENTS;
	double sum = 0.0;

	(void) worker;
	for (int j = 0, n = in_piece(job->n, i, ELEMENTS); j < n; j++)
		sum += (double) x[j] * x[j];
	job->sums[i] = sum;
}

double
m1b_cpu_sum_of_squares(m1b_backend *b, const float *x, size_t n)
{
	double sums[64];
	double sum = 0.0;

	for (size_t at = 0; at < n; at += 64 * ELEMENTS)
	{
		optimizer_job job = {.x = x + at, .n = n - at < 64 * ELEMENTS ? n - at : 64 * ELEMENTS, .sums = sums};
		const int pieces = pieces_of(job.n, ELEMENTS);

		m1b_cpu_loop(m1b_cpu_of(b), 2.0 * (double) job.n, pieces, square_piece, &job);
		for (int i = 0; i < pieces; i++)
			sum += sums[i];
	}
	return sum;
}

static void
adamw_piece(void *arg, int i, int worker)
{
	const optimizer_job *job = arg;
	const m1b_adamw *p = job->adamw;
	const size_t first = (size_t) i * ELEMENTS;
	const size_t last = first + (size_t) in_piece(p->n, i, ELEMENTS);
	float *restrict value = p->value;
	float *restrict m = p->m;
	float *restrict v = p->v;
	const float *restrict gradient = p->gradient;

	(void) worker;
	for (size_t j = first; j < last; j++)
	{
		const float g = gradient[j] * p->scale;

		m[j] = p->beta1 * m[j] + (1.0f - p->beta1) * g;
		v[j] = p->beta2 * v[j] + (1.0f - p->beta2) * g * g;
		value[j] -= p->decay * value[j] + p->rate * (m[j] / p->correction1) / (sqrtf(v[j] / p->correction2) + p->eps);
	}
}

void
m1b_cpu_adamw(m1b_backend *b, const m1b_adamw *p)
{
	optimizer_job job = {.adamw = p};

	m1b_cpu_loop(m1b_cpu_of(b), 16.0 * (double) p->n, pieces_of(p->n, ELEMENTS), adamw_piece, &job);
}
