/*
 * backward.c - the forward pass that keeps what gradients need, and the backward pass: forward.c once more, layer by
 * layer and top to bottom, over any backend that can learn.
 *
 * Each layer: h = RMS(x); y = alpha h + beta Attn(h); g = RMS(y); x' = alpha g + beta MoE(g). Backward, with a gradient
 * dx' by what comes out: dg = alpha dx' + MoE^T(beta dx'); dy = RMS^T(dg); dh = alpha dy + Attn^T(beta dy);
 * dx = RMS^T(dh). With postnorm false the residual is the un-normalised x and y, and so their gradients are added after
 * the norms' and not before.
 *
 * With an adapter, which all rows use then, its gradients are made and none of the weights that it leaves as they are.
 *
 * The operations are those of serving, on the same weights. What they want in steps of max_batch_tokens rows is fed to
 * them so; a row's result does not depend on its neighbours.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/forward.h"
#include "train/trainer.h"
#include "base/least.h"

static int
rows_of(const m1_trainer *t)
{
	return t->progress.micro.spans.n_rows;
}

static size_t
floats_of(const m1_trainer *t, int width)
{
	return (size_t) rows_of(t) * (size_t) width;
}

/* ---- operations on all rows ---- */

static void
linear(m1_trainer *t, m1_role role, int layer, const float *x, int n, float *out)
{
	const m1_projection w = m1_train_projection(t, role, layer);
	const int most = t->model->max_batch_tokens;

	for (int row = 0; row < n; row += most)
	{
		const m1b_run run = {.n = m1_min_int(most, n - row), .matrices = {w.adapted}};
		m1b_linear p = {
			.x = x + (size_t) row * (size_t) w.matrix->cols,
			.n = run.n,
			.products = {{w.matrix, M1B_NONE, out + (size_t) row * (size_t) w.matrix->rows}},
			.n_products = 1,
			.adapters = {.list = &run, .n = w.adapted != NULL},
		};

		t->ops->linear(t->backend, &p);
	}
}

/* dx of linear, written or added to, and the gradients of what is trained of the weight. */
static void
linear_back(m1_trainer *t, m1_role role, int layer, const float *x, const float *dy, int n, bool add, float *dx)
{
	const m1_projection w = m1_train_projection(t, role, layer);
	const m1b_matrix *whole = w.adapted != NULL ? w.adapted->whole : NULL;
	const m1b_linear_back p = {.weight = whole != NULL ? whole : w.matrix, .dy = dy, .n = n, .add = add, .dx = dx};
	const m1b_weight_back weight = {.dy = dy,
									.x = x,
									.n = n,
									.rows = w.matrix->rows,
									.cols = w.matrix->cols,
									.dw = whole != NULL ? w.adapted_gradient->whole : w.gradient};
	const m1b_adapted_back adapted = {.adapted = w.adapted,
									  .x = x,
									  .dy = dy,
									  .n = n,
									  .rows = w.matrix->rows,
									  .cols = w.matrix->cols,
									  .dx = dx,
									  .gradient = w.adapted_gradient};

	t->ops->linear_back(t->backend, &p);
	if (weight.dw != NULL)
		t->ops->weight_back(t->backend, &weight);
	if (w.adapted != NULL && w.adapted->rank > 0)
		t->ops->adapted_back(t->backend, &adapted);
}

static void
norm(m1_trainer *t, const float *x, const float *weight, int n, float *out)
{
	const m1b_norm p = {.residual = x,
						.weight = weight,
						.eps = t->model->config.rms_norm_eps,
						.n = n,
						.width = t->model->config.hidden_size,
						.out = out};

	t->backend->ops->norm(t->backend, &p);
}

static void
norm_back(m1_trainer *t, const float *x, const float *weight, const float *dy, int n, float *dx, float *dweight)
{
	const m1b_norm_back p = {.x = x,
							 .weight = weight,
							 .eps = t->model->config.rms_norm_eps,
							 .n = n,
							 .width = t->model->config.hidden_size,
							 .dy = dy,
							 .dx = dx,
							 .dweight = dweight};

	t->ops->norm_back(t->backend, &p);
}

/* out = alpha x + beta y over rows of the hidden size */
static void
add(m1_trainer *t, float alpha, const float *x, float beta, const float *y, float *out)
{
	const m1b_sum p = {
		.x = x, .y = y, .alpha = alpha, .beta = beta, .n = floats_of(t, t->model->config.hidden_size), .out = out};

	t->ops->sum(t->backend, &p);
}

/* ---- lightning attention ---- */

static m1b_gate
gate_of(const m1_trainer *t, const m1_layer *layer, const m1_tape *tape)
{
	return (m1b_gate){
		.x = tape->attention,
		.gate = tape->gate,
		.weight = layer->inner_norm,
		.eps = M1_INNER_NORM_EPS,
		.n = rows_of(t),
		.width = t->model->config.heads * t->model->config.head_dim,
		.out = t->a.attention,
	};
}

static m1b_lightning_kept
lightning_of(const m1_trainer *t, const m1_layer *layer, const m1_tape *tape)
{
	return (m1b_lightning_kept){
		.spans = &t->progress.micro.spans,
		.decay = layer->decay,
		.qkv = t->a.qkv,
		.out = tape->attention,
		.states = tape->states,
	};
}

static void
lightning_layer(m1_trainer *t, int number, const m1_tape *tape)
{
	const m1_layer *layer = &t->model->weights.layers[number];
	const int n = rows_of(t);
	const m1b_silu activate = {.z = tape->qkv, .n = floats_of(t, layer->qkv.rows), .out = t->a.qkv};
	const m1b_lightning_kept attend = lightning_of(t, layer, tape);
	const m1b_gate gate = gate_of(t, layer, tape);

	linear(t, M1_ROLE_QKV, number, tape->h, n, tape->qkv);
	linear(t, M1_ROLE_OUTPUT_GATE, number, tape->h, n, tape->gate);
	t->ops->silu(t->backend, &activate);
	t->ops->lightning(t->backend, &attend);
	t->backend->ops->gate(t->backend, &gate);
	linear(t, M1_ROLE_LIGHTNING_OUT, number, t->a.attention, n, t->a.branch);
}

/* From a->branch, the gradient by the layer's attention, to a->dnormed. What is cheap is made again. */
static void
lightning_back(m1_trainer *t, int number, const m1_tape *tape)
{
	const m1_layer *layer = &t->model->weights.layers[number];
	m1_training_activations *a = &t->a;
	const int n = rows_of(t);
	const size_t floats = floats_of(t, layer->qkv.rows);
	const m1b_gate gate = gate_of(t, layer, tape);
	const m1b_lightning_kept forward = lightning_of(t, layer, tape);
	const m1b_silu activate = {.z = tape->qkv, .n = floats, .out = a->qkv};
	const m1b_silu activate_back = {.z = tape->qkv, .dy = a->dqkv, .n = floats, .out = a->dqkv};
	const m1b_lightning_back attend_back = {.forward = &forward, .dout = a->attention, .dqkv = a->dqkv};
	const m1b_gate_back gate_back = {.x = tape->attention,
									 .gate = tape->gate,
									 .weight = layer->inner_norm,
									 .eps = M1_INNER_NORM_EPS,
									 .n = n,
									 .width = gate.width,
									 .dy = a->dattention,
									 .dx = a->attention,
									 .dgate = a->dgate,
									 .dweight = t->layers[number].inner_norm};

	t->backend->ops->gate(t->backend, &gate);
	linear_back(t, M1_ROLE_LIGHTNING_OUT, number, a->attention, a->branch, n, false, a->dattention);
	t->ops->gate_back(t->backend, &gate_back);
	t->ops->silu(t->backend, &activate);
	t->ops->lightning_back(t->backend, &attend_back);
	t->ops->silu(t->backend, &activate_back);
	linear_back(t, M1_ROLE_QKV, number, tape->h, a->dqkv, n, false, a->dnormed);
	linear_back(t, M1_ROLE_OUTPUT_GATE, number, tape->h, a->dgate, n, true, a->dnormed);
}

/* ---- softmax attention ---- */

/* q, k and v one after the other, of all rows. */
typedef struct qkv_parts
{
	float *q, *k, *v;
} qkv_parts;

static qkv_parts
parts_of(const m1_trainer *t, const m1_layer *layer, float *qkv)
{
	qkv_parts p = {.q = qkv};

	p.k = p.q + floats_of(t, layer->q.rows);
	p.v = p.k + floats_of(t, layer->k.rows);
	return p;
}

static m1b_attention_kept
attention_of(const m1_trainer *t, const m1_layer *layer, const m1_tape *tape)
{
	const qkv_parts p = parts_of(t, layer, tape->qkv);

	return (m1b_attention_kept){
		.spans = &t->progress.micro.spans, .q = p.q, .k = p.k, .v = p.v, .out = tape->attention, .lse = tape->lse};
}

static void
softmax_layer(m1_trainer *t, int number, const m1_tape *tape)
{
	const m1_layer *layer = &t->model->weights.layers[number];
	const int n = rows_of(t);
	const qkv_parts p = parts_of(t, layer, tape->qkv);
	const m1b_attention_kept attend = attention_of(t, layer, tape);

	linear(t, M1_ROLE_Q, number, tape->h, n, p.q);
	linear(t, M1_ROLE_K, number, tape->h, n, p.k);
	linear(t, M1_ROLE_V, number, tape->h, n, p.v);
	t->ops->attention(t->backend, &attend);
	linear(t, M1_ROLE_SOFTMAX_OUT, number, tape->attention, n, t->a.branch);
}

static void
softmax_back(m1_trainer *t, int number, const m1_tape *tape)
{
	const m1_layer *layer = &t->model->weights.layers[number];
	m1_training_activations *a = &t->a;
	const int n = rows_of(t);
	const m1b_attention_kept forward = attention_of(t, layer, tape);
	const qkv_parts p = parts_of(t, layer, a->dqkv);
	const m1b_attention_back attend_back = {
		.forward = &forward, .dout = a->dattention, .dq = p.q, .dk = p.k, .dv = p.v};

	linear_back(t, M1_ROLE_SOFTMAX_OUT, number, tape->attention, a->branch, n, false, a->dattention);
	t->ops->attention_back(t->backend, &attend_back);
	linear_back(t, M1_ROLE_Q, number, tape->h, p.q, n, false, a->dnormed);
	linear_back(t, M1_ROLE_K, number, tape->h, p.k, n, true, a->dnormed);
	linear_back(t, M1_ROLE_V, number, tape->h, p.v, n, true, a->dnormed);
}

/* ---- experts ---- */

static const m1_role moe_roles[M1B_MOE_MATRICES] = {
	[M1B_MOE_ROUTER] = M1_ROLE_ROUTER,
	[M1B_MOE_W1] = M1_ROLE_W1,
	[M1B_MOE_W2] = M1_ROLE_W2,
	[M1B_MOE_W3] = M1_ROLE_W3,
};

/* The part of what is kept that begins at a row. */
static m1b_moe_kept
kept_from(const m1_trainer *t, const m1_tape *tape, int row)
{
	const m1_config *c = &t->model->config;
	const size_t pair = (size_t) row * (size_t) c->experts_per_token;
	m1b_moe_kept kept = tape->moe;

	kept.logits += (size_t) row * (size_t) c->experts;
	kept.choice += pair;
	kept.weight += pair;
	kept.gate += pair * (size_t) c->expert_width;
	kept.up += pair * (size_t) c->expert_width;
	return kept;
}

/* *run: of all rows, where they use an adapter. */
static m1b_moe
moe_of(const m1_trainer *t, int number, const m1_tape *tape, int row, const m1b_moe_kept *kept, m1b_run *run)
{
	const m1_config *c = &t->model->config;
	const m1_layer *layer = &t->model->weights.layers[number];
	const size_t at = (size_t) row * (size_t) c->hidden_size;
	const int n = m1_min_int(t->model->max_batch_tokens, rows_of(t) - row);

	*run = (m1b_run){.n = n};
	for (int i = 0; t->adapter != NULL && i < M1B_MOE_MATRICES; i++)
		run->matrices[i] = m1_adapter_change(t->adapter, moe_roles[i], number);
	return (m1b_moe){
		.router = &layer->router,
		.w1 = layer->w1,
		.w2 = layer->w2,
		.w3 = layer->w3,
		.experts = c->experts,
		.top_k = c->experts_per_token,
		.x = tape->g + at,
		.n = n,
		.out = t->a.branch + at,
		.kept = kept,
		.adapters = {.list = run, .n = t->adapter != NULL},
	};
}

/* The experts that sampling has taken for a row; NULL: nobody knows. */
static const uint16_t *
taken(const m1_trainer *t, int layer, int row)
{
	const m1_config *c = &t->model->config;
	const m1_row_source *from = &t->progress.micro.source[row];
	const uint16_t *experts = from->sequence->experts;

	if (experts == NULL)
		return NULL;
	experts += ((size_t) from->token * (size_t) c->layers + (size_t) layer) * (size_t) c->experts_per_token;
	return *experts != M1_NO_EXPERT ? experts : NULL;
}

#define SOME_CHOICES 1024 /* sent to the device together; no row has so many */

/* Experts that sampling has taken are taken again. */
static bool
replay(m1_trainer *t, int layer, int32_t *choice)
{
	const int k = t->model->config.experts_per_token;
	int32_t some[SOME_CHOICES];
	int n = 0;
	bool any = false;

	for (int row = 0; row < rows_of(t) && !any; row++)
		any = taken(t, layer, row) != NULL;
	for (int row = 0; row < rows_of(t) && any; row++)
	{
		const uint16_t *experts = taken(t, layer, row);

		for (int rank = 0; rank < k; rank++)
			some[n++] = experts != NULL ? experts[rank] : -1;
		if (n + k <= SOME_CHOICES && row + 1 < rows_of(t))
			continue;
		t->ops->put(t->backend, choice, some, (size_t) n * sizeof *some);
		choice += n;
		n = 0;
	}
	return any;
}

static void
experts(m1_trainer *t, int number, m1_tape *tape)
{
	tape->moe.replay = replay(t, number, tape->moe.choice);
	for (int row = 0; row < rows_of(t); row += t->model->max_batch_tokens)
	{
		m1b_run run;
		const m1b_moe_kept kept = kept_from(t, tape, row);
		const m1b_moe moe = moe_of(t, number, tape, row, &kept, &run);

		t->backend->ops->moe(t->backend, &moe);
	}
}

/* What the auxiliary loss E sum_e f_e m_e, a mean over layers, adds to the gradient of a probability of one row. */
static const float *
balance_of(m1_trainer *t, int layer)
{
	const m1_config *c = &t->model->config;
	const double *chosen = t->chosen + (size_t) layer * (size_t) c->experts;
	const double tokens = (double) t->progress.ordered.tokens;

	if (t->progress.objective.balance == 0.0f)
		return NULL;
	for (int e = 0; e < c->experts; e++)
		t->balance[e] =
			(float) ((double) t->progress.objective.balance * c->experts * (chosen[e] / tokens) / (c->layers * tokens));
	return t->balance;
}

static void
experts_back(m1_trainer *t, int number, const m1_tape *tape)
{
	const m1_layer_gradients *d = &t->layers[number];
	const size_t width = (size_t) t->model->config.hidden_size;

	for (int row = 0; row < rows_of(t); row += t->model->max_batch_tokens)
	{
		m1b_run run;
		const m1b_moe_kept kept = kept_from(t, tape, row);
		const m1b_moe moe = moe_of(t, number, tape, row, &kept, &run);
		m1b_moe_back p = {.forward = &moe,
						  .dy = t->a.branch + (size_t) row * width,
						  .balance = balance_of(t, number),
						  .copies = t->progress.micro.copies + row,
						  .dx = t->a.dnormed + (size_t) row * width,
						  .drouter = d->router,
						  .dw1 = d->w1,
						  .dw2 = d->w2,
						  .dw3 = d->w3};

		for (int i = 0; t->adapter != NULL && i < M1B_MOE_MATRICES; i++)
			p.adapted[i] = m1_adapted_gradients(t, moe_roles[i], number);
		t->ops->moe_back(t->backend, &p);
	}
}

/* Adds the layer's choices to what the auxiliary loss and the load are made of. */
static void
count_load(m1_trainer *t, int layer, const m1_tape *tape)
{
	const size_t at = (size_t) layer * (size_t) t->model->config.experts;
	const m1b_moe_load p = {.kept = &tape->moe,
							.copies = t->progress.micro.copies,
							.n = rows_of(t),
							.experts = t->model->config.experts,
							.top_k = t->model->config.experts_per_token,
							.chosen = t->chosen + at,
							.probability = t->progress.objective.balance != 0.0f ? t->probability + at : NULL,
							.differ = &t->progress.result.rerouted};

	t->ops->moe_load(t->backend, &p);
}

/* ---- one layer ---- */

/* alpha and beta of a layer's attention */
static void
attention_factors(const m1_config *c, int layer, float *alpha, float *beta)
{
	const bool lightning = c->attention[layer] == M1_LIGHTNING;

	*alpha = lightning ? c->alpha_lightning : c->alpha_softmax;
	*beta = lightning ? c->beta_lightning : c->beta_softmax;
}

/* From x[number] to x[number + 1], filling the layer's tape. */
static void
layer_forward(m1_trainer *t, int number)
{
	const m1_config *c = &t->model->config;
	const m1_layer *layer = &t->model->weights.layers[number];
	m1_training_activations *a = &t->a;
	m1_tape *tape = &a->tape[number];
	float alpha, beta;

	attention_factors(c, number, &alpha, &beta);
	norm(t, a->x[number], layer->input_norm, rows_of(t), tape->h);
	if (c->attention[number] == M1_LIGHTNING)
		lightning_layer(t, number, tape);
	else
		softmax_layer(t, number, tape);
	add(t, alpha, c->postnorm ? tape->h : a->x[number], beta, a->branch, tape->y);
	norm(t, tape->y, layer->post_norm, rows_of(t), tape->g);
	experts(t, number, tape);
	add(t, c->alpha_mlp, c->postnorm ? tape->g : tape->y, c->beta_mlp, a->branch, a->x[number + 1]);
}

void
m1_train_layer_forward(m1_trainer *t, int number)
{
	layer_forward(t, number);
	if (t->progress.phase == M1_PHASE_LOAD || !t->progress.load_first)
		count_load(t, number, &t->a.tape[number]);
}

/*
 * Of one half of a layer, s' = alpha r + beta B(n) with n = RMS(s) and r = n or s: from a->dx, the gradient by s', and
 * a->dnormed, that by n through B, to a->dx, the gradient by s.
 */
static void
half_back(m1_trainer *t, float alpha, const float *s, const float *weight, float *dweight)
{
	m1_training_activations *a = &t->a;
	const bool postnorm = t->model->config.postnorm;
	float *swap = a->dx;

	if (postnorm)
		add(t, alpha, a->dx, 1.0f, a->dnormed, a->dnormed);
	norm_back(t, s, weight, a->dnormed, rows_of(t), a->dnext, dweight);
	if (!postnorm)
		add(t, alpha, a->dx, 1.0f, a->dnext, a->dnext);
	a->dx = a->dnext;
	a->dnext = swap;
}

void
m1_train_layer_backward(m1_trainer *t, int number)
{
	const m1_config *c = &t->model->config;
	const m1_layer *layer = &t->model->weights.layers[number];
	const m1_layer_gradients *d = &t->layers[number];
	m1_training_activations *a = &t->a;
	m1_tape *tape = &a->tape[number];
	float alpha, beta;

	attention_factors(c, number, &alpha, &beta);
	if (t->progress.recompute)
		layer_forward(t, number);
	add(t, c->beta_mlp, a->dx, 0.0f, NULL, a->branch);
	experts_back(t, number, tape);
	half_back(t, c->alpha_mlp, tape->y, layer->post_norm, d->post_norm);
	add(t, beta, a->dx, 0.0f, NULL, a->branch);
	if (c->attention[number] == M1_LIGHTNING)
		lightning_back(t, number, tape);
	else
		softmax_back(t, number, tape);
	half_back(t, alpha, a->x[number], layer->input_norm, d->input_norm);
}

/* ---- embedding and head ---- */

void
m1_train_embed(m1_trainer *t)
{
	const m1b_embed p = {
		.table = &t->model->weights.embed, .tokens = t->progress.micro.tokens, .n = rows_of(t), .out = t->a.x[0]};

	t->ops->embed(t->backend, &p);
}

void
m1_train_embed_backward(m1_trainer *t)
{
	const m1b_embed_back p = {.tokens = t->progress.micro.tokens,
							  .dx = t->a.dx,
							  .n = rows_of(t),
							  .width = t->model->config.hidden_size,
							  .dtable = t->embed};

	if (p.dtable != NULL)
		t->ops->embed_back(t->backend, &p);
}

/* What a chunk's targets are, and what came of them; on the host. */
typedef struct chunk
{
	const m1_target *targets;
	int n;
	int rows[M1_MAX_TARGETS];
	int32_t tokens[M1_MAX_TARGETS];
	const uint64_t *allowed[M1_MAX_TARGETS];
	float logprob[M1_MAX_TARGETS];
	float entropy[M1_MAX_TARGETS];
	float sum[M1_MAX_TARGETS];
	float coefficient[M1_MAX_TARGETS];
} chunk;

static void
set_chunk(const m1_trainer *t, int number, chunk *c)
{
	const m1_micro *m = &t->progress.micro;
	const int first = number * t->target_chunk;

	c->targets = m->targets + first;
	c->n = m1_min_int(t->target_chunk, m->n_targets - first);
	for (int i = 0; i < c->n; i++)
	{
		const m1_sequence *s = c->targets[i].sequence;
		const int token = c->targets[i].token;

		c->rows[i] = c->targets[i].row;
		c->tokens[i] = s->tokens[token];
		c->allowed[i] = s->allowed != NULL ? s->allowed[token] : NULL;
	}
}

/* The losses of a chunk's targets, in their order. */
static void
use_predictions(m1_trainer *t, chunk *c)
{
	const m1_objective *o = &t->progress.objective;
	m1_batch_result *result = &t->progress.result;

	for (int i = 0; i < c->n; i++)
	{
		const m1_target *target = &c->targets[i];
		const m1_sequence *s = target->sequence;
		m1_token_loss loss = {0};

		if (s->logprob != NULL)
			s->logprob[target->token] = c->logprob[i];
		if (s->entropy != NULL)
			s->entropy[target->token] = c->entropy[i];
		if (m1_loss_counts(o, s, target->token))
			loss = m1_loss_of(o, s, target->token, c->logprob[i], target->scale);
		c->coefficient[i] = loss.coefficient;
		result->loss += loss.value;
		result->clipped += loss.clipped;
		result->entropy += c->entropy[i]; /* their sum, until the batch has ended */
		if (s->old_logprob != NULL)
		{
			const double difference = fabs((double) c->logprob[i] - s->old_logprob[target->token]);

			result->old_difference = fmax(result->old_difference, difference);
			result->old_mean += difference; /* as the entropy */
		}
	}
	result->predicted += c->n;
}

/* dx of the final norm's input, and the gradients of head and final norm. */
static void
head_back(m1_trainer *t, const chunk *c, const m1b_predict *predict)
{
	m1_training_activations *a = &t->a;
	const m1_weights *w = &t->model->weights;
	const m1b_predict_back p = {.forward = predict, .coefficient = c->coefficient};
	const m1b_rows scatter = {
		.rows = c->rows, .n = c->n, .width = t->model->config.hidden_size, .from = a->dhead_sum, .to = a->dx};

	t->ops->predict_back(t->backend, &p);
	linear_back(t, M1_ROLE_HEAD, 0, a->head_in, a->logits, c->n, false, a->dhead_in);
	norm_back(t, a->head_sum, w->final_norm, a->dhead_in, c->n, a->dhead_sum, t->final_norm);
	t->ops->scatter(t->backend, &scatter);
}

void
m1_train_head(m1_trainer *t, int number)
{
	const m1_config *config = &t->model->config;
	m1_training_activations *a = &t->a;
	chunk c;
	const m1b_rows gather = {
		.rows = c.rows, .width = config->hidden_size, .from = a->x[config->layers], .to = a->head_sum};
	m1b_predict predict = {.logits = a->logits,
						   .vocab = config->vocab_size,
						   .temperature = t->progress.objective.temperature,
						   .targets = c.tokens,
						   .allowed = c.allowed,
						   .logprob = c.logprob,
						   .entropy = c.entropy,
						   .sum = c.sum};
	m1b_rows rows = gather;

	set_chunk(t, number, &c);
	rows.n = predict.n = c.n;
	t->ops->gather(t->backend, &rows);
	norm(t, a->head_sum, t->model->weights.final_norm, c.n, a->head_in);
	linear(t, M1_ROLE_HEAD, 0, a->head_in, c.n, a->logits);
	t->ops->predict(t->backend, &predict);
	use_predictions(t, &c);
	if (t->progress.gradients)
		head_back(t, &c, &predict);
}
