/*
 * forward.c - the forward pass, top to bottom, once for every backend.
 *
 * Each layer: h = RMS(x); y = alpha h + beta Attn(h); g = RMS(y); x' = alpha g + beta MoE(g).
 * With postnorm false the residual is the un-normalised x and y instead of h and g.
 * The sum of residual and branch is folded into the norm that reads it next.
 *
 * Sequences that use adapters are runs of rows, which operations are told of; a batch without one has no runs.
 */
#include "model/forward.h"

#include <stdlib.h>
#include <string.h>

#include "backend/learning.h"
#include "model/adapter.h"

/* Activations of one step, in device memory. T = max_batch_tokens. */
typedef struct m1_activations
{
	float *x;			/* [T, d] the un-normalised stream; only read with postnorm false */
	float *normed;		/* [T, d] h, then g */
	float *normed_next; /* [T, d] norm may not write what it reads */
	float *branch;		/* [T, d] output of attention or experts */
	float *qkv;			/* [T, 3 * H * D] lightning; or q, k, v of softmax one after the other */
	float *gate;		/* [T, H * D] */
	float *attention;	/* [T, H * D] */
	float *head_in;		/* [max_sequences, d] */
	float *logits;		/* [max_sequences, vocab] */

	/* on the host: the rows of this step that use adapters, and those of the head's, which are runs of their own */
	m1b_run *runs;				 /* [max_sequences] */
	const m1_adapter **adapters; /* [max_sequences] of the runs */
	int n_runs;

	int32_t *choices; /* [layers, T, top_k] on the host: experts of the last step, if they were to be kept */
	bool keeps_choices;
} m1_activations;

/* Where each array belongs, and its floats. */
typedef struct array
{
	float **at;
	size_t floats;
} array;

#define ARRAYS 9

static void
arrays_of(const m1_model *m, m1_activations *a, array all[ARRAYS])
{
	const m1_config *c = &m->config;
	const size_t t = (size_t) m->max_batch_tokens;
	const size_t d = (size_t) c->hidden_size;
	const size_t width = (size_t) c->heads * (size_t) c->head_dim;
	const array list[ARRAYS] = {
		{&a->x, t * d},
		{&a->normed, t * d},
		{&a->normed_next, t * d},
		{&a->branch, t * d},
		{&a->qkv, t * 3 * width},
		{&a->gate, t * width},
		{&a->attention, t * width},
		{&a->head_in, (size_t) m->max_sequences * d},
		{&a->logits, (size_t) m->max_sequences * (size_t) c->vocab_size},
	};

	memcpy(all, list, sizeof list);
}

size_t
m1_forward_bytes(const m1_model *m)
{
	m1_activations a;
	array all[ARRAYS];
	size_t bytes = 0;

	arrays_of(m, &a, all);
	for (int i = 0; i < ARRAYS; i++)
		bytes += m1b_scratch_bytes(all[i].floats);
	return bytes;
}

m1_status
m1_forward_prepare(m1_model *m, m1_error *err)
{
	array all[ARRAYS];

	m->activations = calloc(1, sizeof *m->activations);
	if (m->activations == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the activations");
	arrays_of(m, m->activations, all);
	for (int i = 0; i < ARRAYS; i++)
		if ((*all[i].at = m->backend->ops->scratch(m->backend, all[i].floats, NULL)) == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the activations of %d tokens", m->max_batch_tokens);
	m->activations->runs = calloc((size_t) m->max_sequences, sizeof *m->activations->runs);
	m->activations->adapters = calloc((size_t) m->max_sequences, sizeof *m->activations->adapters);
	if (m->activations->runs == NULL || m->activations->adapters == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the adapters of %d sequences", m->max_sequences);
	return M1_OK;
}

void
m1_forward_free(m1_model *m)
{
	if (m->activations != NULL)
	{
		free(m->activations->runs);
		free(m->activations->adapters);
		free(m->activations->choices);
	}
	free(m->activations);
	m->activations = NULL;
}

/* ---- adapters ---- */

/* Row number `row` of what is computed next belongs to this adapter; rows come in order. */
static void
add_row(m1_activations *a, const m1_adapter *adapter, int row, int n)
{
	m1b_run *last = a->n_runs > 0 ? &a->runs[a->n_runs - 1] : NULL;

	if (adapter == NULL)
		return;
	if (last != NULL && a->adapters[a->n_runs - 1] == adapter && last->row + last->n == row)
	{
		last->n += n;
		return;
	}
	a->adapters[a->n_runs] = adapter;
	a->runs[a->n_runs++] = (m1b_run){.row = row, .n = n};
}

static void
find_runs(m1_model *m, const m1b_batch *batch)
{
	m->activations->n_runs = 0;
	for (int i = 0; i < batch->n_segments; i++)
	{
		const m1b_segment *s = &batch->segments[i];

		add_row(m->activations, m1_model_adapter(m, s->adapter), s->row, s->n_tokens);
	}
}

/* The same for the rows that the head computes, of which each is the row of some segment. */
static void
find_head_runs(m1_model *m, const m1b_batch *batch, const int *rows, int n)
{
	m->activations->n_runs = 0;
	for (int i = 0, s = 0; i < n; i++)
	{
		while (s + 1 < batch->n_segments && rows[i] >= batch->segments[s + 1].row)
			s++;
		add_row(m->activations, m1_model_adapter(m, batch->segments[s].adapter), i, 1);
	}
}

/* What the adapters make of the weights that an operation uses, in its order; of no layer, layer is 0. */
static m1b_runs
adapted(const m1_model *m, const m1_layer *layer, const m1_role *roles, int n)
{
	m1_activations *a = m->activations;
	const int number = layer != NULL ? (int) (layer - m->weights.layers) : 0;

	for (int r = 0; r < a->n_runs; r++)
		for (int i = 0; i < n; i++)
			a->runs[r].matrices[i] = m1_adapter_change(a->adapters[r], roles[i], number);
	return (m1b_runs){.list = a->runs, .n = a->n_runs};
}

#define ADAPTED(m, layer, ...) \
	adapted(m, layer, (const m1_role[]){__VA_ARGS__}, sizeof((const m1_role[]){__VA_ARGS__}) / sizeof(m1_role))

/* ---- layers ---- */

/*
 * Adds branch (NULL for the first norm of a pass) to the residual and normalises:
 * afterwards a->normed holds the result, and a->x the un-normalised sum if anyone reads it.
 */
static void
add_and_norm(m1_model *m, const float *branch, float alpha, float beta, const float *weight, int n)
{
	m1_activations *a = m->activations;
	const bool residual_is_normed = m->config.postnorm && branch != NULL;
	m1b_norm norm = {
		.residual = residual_is_normed ? a->normed : a->x,
		.branch = branch,
		.alpha = alpha,
		.beta = beta,
		.keep_sum = m->config.postnorm ? NULL : a->x,
		.weight = weight,
		.eps = m->config.rms_norm_eps,
		.n = n,
		.width = m->config.hidden_size,
		.out = a->normed_next,
	};
	float *swap = a->normed;

	m->backend->ops->norm(m->backend, &norm);
	a->normed = a->normed_next;
	a->normed_next = swap;
}

static void
linear(m1_model *m, const m1_layer *layer, m1_role role, const m1b_matrix *weight, const float *x, int n, float *out)
{
	m1b_linear p = {
		.x = x, .n = n, .products = {{weight, M1B_NONE, out}}, .n_products = 1, .adapters = ADAPTED(m, layer, role)};

	m->backend->ops->linear(m->backend, &p);
}

static void
lightning_layer(m1_model *m, const m1_layer *layer, const m1b_batch *batch)
{
	m1_activations *a = m->activations;
	const int n = batch->n_tokens;
	m1b_linear project = {
		.x = a->normed,
		.n = n,
		.products = {{&layer->qkv, M1B_SILU, a->qkv}, {&layer->output_gate, M1B_NONE, a->gate}},
		.n_products = 2,
		.adapters = ADAPTED(m, layer, M1_ROLE_QKV, M1_ROLE_OUTPUT_GATE),
	};
	m1b_lightning attend = {
		.batch = batch, .slot = layer->slot, .decay = layer->decay, .qkv = a->qkv, .out = a->attention};
	m1b_gate gate = {
		.x = a->attention,
		.gate = a->gate,
		.weight = layer->inner_norm,
		.eps = M1_INNER_NORM_EPS,
		.n = n,
		.width = m->config.heads * m->config.head_dim,
		.out = a->attention,
	};

	m->backend->ops->linear(m->backend, &project);
	m->backend->ops->lightning(m->backend, &attend);
	m->backend->ops->gate(m->backend, &gate);
	linear(m, layer, M1_ROLE_LIGHTNING_OUT, &layer->out, a->attention, n, a->branch);
}

static void
softmax_layer(m1_model *m, const m1_layer *layer, const m1b_batch *batch)
{
	m1_activations *a = m->activations;
	const int n = batch->n_tokens;
	float *q = a->qkv;
	float *k = q + (size_t) n * (size_t) layer->q.rows;
	float *v = k + (size_t) n * (size_t) layer->k.rows;
	m1b_linear project = {
		.x = a->normed,
		.n = n,
		.products = {{&layer->q, M1B_NONE, q}, {&layer->k, M1B_NONE, k}, {&layer->v, M1B_NONE, v}},
		.n_products = 3,
		.adapters = ADAPTED(m, layer, M1_ROLE_Q, M1_ROLE_K, M1_ROLE_V),
	};
	m1b_attention attend = {.batch = batch, .slot = layer->slot, .q = q, .k = k, .v = v, .out = a->attention};

	m->backend->ops->linear(m->backend, &project);
	m->backend->ops->attention(m->backend, &attend);
	linear(m, layer, M1_ROLE_SOFTMAX_OUT, &layer->out, a->attention, n, a->branch);
}

static int32_t *
choices_of(const m1_model *m, const m1_layer *layer)
{
	return m->activations->choices +
		   (size_t) (layer - m->weights.layers) * (size_t) m->max_batch_tokens * (size_t) m->config.experts_per_token;
}

static void
experts(m1_model *m, const m1_layer *layer, int n)
{
	m1_activations *a = m->activations;
	m1b_moe moe = {
		.router = &layer->router,
		.w1 = layer->w1,
		.w2 = layer->w2,
		.w3 = layer->w3,
		.experts = m->config.experts,
		.top_k = m->config.experts_per_token,
		.x = a->normed,
		.n = n,
		.out = a->branch,
		.choice = a->keeps_choices ? choices_of(m, layer) : NULL,
		/* in the order of m1b_moe_matrix */
		.adapters = ADAPTED(m, layer, M1_ROLE_ROUTER, M1_ROLE_W1, M1_ROLE_W2, M1_ROLE_W3),
	};

	m->backend->ops->moe(m->backend, &moe);
}

/* Ends the last layer for up to max_sequences wanted rows, and puts their logits into a->logits, in that order. */
static void
head(m1_model *m, const m1b_batch *batch, const int *rows, int n)
{
	m1_activations *a = m->activations;
	const size_t d = (size_t) m->config.hidden_size;

	for (int i = 0, run; i < n; i += run)
	{
		size_t at = (size_t) rows[i] * d;
		m1b_norm last = {.residual = (m->config.postnorm ? a->normed : a->x) + at,
						 .branch = a->branch + at,
						 .alpha = m->config.alpha_mlp,
						 .beta = m->config.beta_mlp,
						 .weight = m->weights.final_norm,
						 .eps = m->config.rms_norm_eps,
						 .width = m->config.hidden_size,
						 .out = a->head_in + (size_t) i * d};

		/* rows that follow each other in one go */
		for (run = 1; i + run < n && rows[i + run] == rows[i] + run; run++)
			;
		last.n = run;
		m->backend->ops->norm(m->backend, &last);
	}
	if (n == 0)
		return;
	find_head_runs(m, batch, rows, n);
	linear(m, NULL, M1_ROLE_HEAD, &m->weights.head, a->head_in, n, a->logits);
}

/* All layers but the end of the last one, which the head does for the rows that are wanted. */
static void
layers(m1_model *m, const m1b_batch *batch)
{
	const m1_config *c = &m->config;
	m1_activations *a = m->activations;
	const int n = batch->n_tokens;
	const float *branch = NULL;
	m1b_embed embed = {.table = &m->weights.embed, .tokens = batch->tokens, .n = n, .out = a->x};

	m->backend->ops->embed(m->backend, &embed);
	for (int i = 0; i < c->layers; i++)
	{
		const m1_layer *layer = &m->weights.layers[i];
		const bool lightning = c->attention[i] == M1_LIGHTNING;

		add_and_norm(m, branch, c->alpha_mlp, c->beta_mlp, layer->input_norm, n);
		if (lightning)
			lightning_layer(m, layer, batch);
		else
			softmax_layer(m, layer, batch);
		branch = a->branch;
		add_and_norm(m, branch, lightning ? c->alpha_lightning : c->alpha_softmax,
					 lightning ? c->beta_lightning : c->beta_softmax, layer->post_norm, n);
		experts(m, layer, n);
	}
}

static void
all_layers(m1_model *m, const m1b_batch *batch)
{
	find_runs(m, batch);
	/* Two norms a layer swap the two arrays an even number of times: recorded layers use the same ones every time. */
	if (m->backend->ops->begin(m->backend, batch))
		return;
	do
		layers(m, batch);
	while (!m->backend->ops->end(m->backend));
}

bool
m1_forward_can_keep_choices(const m1_model *m)
{
	const m1b_learning *learning = m->backend->ops->learning;

	return learning != NULL && learning->keeps_choices;
}

bool
m1_forward_keep_choices(m1_model *m, bool keep)
{
	m1_activations *a = m->activations;
	const size_t n = (size_t) m->config.layers * (size_t) m->max_batch_tokens * (size_t) m->config.experts_per_token;

	if (keep && a->choices == NULL)
		a->choices = calloc(n, sizeof *a->choices);
	a->keeps_choices = keep && a->choices != NULL;
	return a->keeps_choices == keep;
}

void
m1_forward_choices(const m1_model *m, int row, uint16_t *to)
{
	const size_t k = (size_t) m->config.experts_per_token;

	for (int i = 0; i < m->config.layers; i++)
		for (size_t rank = 0; rank < k; rank++)
			*to++ = (uint16_t) choices_of(m, &m->weights.layers[i])[(size_t) row * k + rank];
}

void
m1_forward_start(m1_model *m, const m1b_batch *batch, const int *rows, int n_rows)
{
	all_layers(m, batch);
	head(m, batch, rows, n_rows);
}

m1_status
m1_forward_logits(m1_model *m, int first, int n, float *logits, m1_error *err)
{
	const size_t vocab = (size_t) m->config.vocab_size;

	return m->backend->ops->read(m->backend, m->activations->logits + (size_t) first * vocab, (size_t) n * vocab,
								 logits, err);
}

bool
m1_forward_samples(const m1_model *m)
{
	return m->backend->ops->sample != NULL;
}

m1_status
m1_forward_sample(m1_model *m, const m1b_draw *draws, int n, m1b_pick *picks, m1_error *err)
{
	const m1b_sample p = {.logits = m->activations->logits, .draws = draws, .n = n, .picks = picks};

	return m->backend->ops->sample(m->backend, &p, err);
}

m1_status
m1_forward(m1_model *m, const m1b_batch *batch, const int *rows, int n_rows, float *logits, m1_error *err)
{
	m1_status status = M1_OK;

	all_layers(m, batch);
	for (int first = 0; first < n_rows && status == M1_OK; first += m->max_sequences)
	{
		const int n = n_rows - first < m->max_sequences ? n_rows - first : m->max_sequences;

		head(m, batch, rows + first, n);
		status = m1_forward_logits(m, 0, n, logits + (size_t) first * (size_t) m->config.vocab_size, err);
	}
	return status;
}
