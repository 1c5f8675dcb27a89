/*
 * activations.c - where the arrays of a micro-batch lie in one block of device memory. The same walk measures and lays
 * out, so that what is planned is what is used.
 */
#include <stdlib.h>

#include "train/trainer.h"

typedef struct place
{
	float *base; /* NULL: only measured */
	size_t at;
} place;

/* The next n floats, aligned as scratch is. */
static float *
carve(place *p, size_t n)
{
	float *here = p->base != NULL ? p->base + p->at : NULL;

	p->at += m1b_scratch_bytes(n) / sizeof(float);
	return here;
}

static void
carve_moe(place *p, const m1_config *c, size_t rows, m1b_moe_kept *kept)
{
	const size_t pairs = rows * (size_t) c->experts_per_token;

	kept->logits = carve(p, rows * (size_t) c->experts);
	kept->choice = (int32_t *) (void *) carve(p, pairs);
	kept->weight = carve(p, pairs);
	kept->gate = carve(p, pairs * (size_t) c->expert_width);
	kept->up = carve(p, pairs * (size_t) c->expert_width);
}

/* Room for a layer of either kind, or of both. */
static void
carve_tape(place *p, const m1_config *c, const m1b_spans *spans, bool lightning, bool softmax, m1_tape *tape)
{
	const size_t rows = (size_t) spans->n_rows;
	const size_t d = (size_t) c->hidden_size;
	const size_t head_dim = (size_t) c->head_dim;
	const size_t width = (size_t) c->heads * head_dim;
	const size_t qkv = lightning ? 3 * width : width + 2 * (size_t) c->kv_heads * head_dim;

	*tape = (m1_tape){0};
	tape->h = carve(p, rows * d);
	tape->y = carve(p, rows * d);
	tape->g = carve(p, rows * d);
	tape->qkv = carve(p, rows * qkv);
	tape->attention = carve(p, rows * width);
	if (lightning)
	{
		tape->gate = carve(p, rows * width);
		tape->states = carve(p, (size_t) spans->n_states * width * head_dim);
	}
	if (softmax)
		tape->lse = carve(p, rows * (size_t) c->heads);
	carve_moe(p, c, rows, &tape->moe);
}

static void
carve_work(place *p, const m1_trainer *t, size_t rows, m1_training_activations *a)
{
	const m1_config *c = &t->model->config;
	const size_t d = (size_t) c->hidden_size;
	const size_t width = (size_t) c->heads * (size_t) c->head_dim;
	const size_t chunk = (size_t) t->target_chunk;

	a->qkv = carve(p, rows * 3 * width);
	a->dqkv = carve(p, rows * 3 * width);
	a->attention = carve(p, rows * width);
	a->dattention = carve(p, rows * width);
	a->dgate = carve(p, rows * width);
	a->branch = carve(p, rows * d);
	a->dnormed = carve(p, rows * d);
	a->dx = carve(p, rows * d);
	a->dnext = carve(p, rows * d);
	a->head_sum = carve(p, chunk * d);
	a->head_in = carve(p, chunk * d);
	a->dhead_in = carve(p, chunk * d);
	a->dhead_sum = carve(p, chunk * d);
	a->logits = carve(p, chunk * (size_t) c->vocab_size);
}

size_t
m1_activations_lay_out(m1_trainer *t, const m1b_spans *spans, bool recompute, float *base)
{
	const m1_config *c = &t->model->config;
	const size_t rows = (size_t) spans->n_rows;
	m1_training_activations *a = &t->a;
	bool kinds[2] = {false, false};
	place p = {.base = base};

	for (int i = 0; i < c->layers; i++)
		kinds[c->attention[i]] = true;
	for (int i = 0; i <= c->layers; i++)
		a->x[i] = carve(&p, rows * (size_t) c->hidden_size);
	for (int i = 0; i < c->layers; i++)
		if (!recompute)
			carve_tape(&p, c, spans, c->attention[i] == M1_LIGHTNING, c->attention[i] == M1_SOFTMAX, &a->tape[i]);
		else if (i == 0)
			carve_tape(&p, c, spans, kinds[M1_LIGHTNING], kinds[M1_SOFTMAX], &a->tape[0]);
		else
			a->tape[i] = a->tape[0];
	carve_work(&p, t, rows, a);
	return p.at;
}

m1_status
m1_activations_prepare(m1_trainer *t, m1_error *err)
{
	const size_t layers = (size_t) t->model->config.layers;
	const size_t experts = (size_t) t->model->config.experts;

	t->a.x = calloc(layers + 1, sizeof *t->a.x);
	t->a.tape = calloc(layers, sizeof *t->a.tape);
	t->chosen = calloc(layers * experts, sizeof *t->chosen);
	t->probability = calloc(layers * experts, sizeof *t->probability);
	t->balance = calloc(experts, sizeof *t->balance);
	if (!t->a.x || !t->a.tape || !t->chosen || !t->probability || !t->balance)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %zu layers", layers);
	return M1_OK;
}

void
m1_activations_free(m1_trainer *t)
{
	t->ops->give(t->backend, t->arena);
	free(t->a.x);
	free(t->a.tape);
	free(t->chosen);
	free(t->probability);
	free(t->balance);
}
