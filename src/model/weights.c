/* weights.c - see weights.h. */
#include "model/weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/blocks.h"

typedef struct loader
{
	const m1_checkpoint *checkpoint;
	const m1_config *config;
	m1b_backend *backend;
	m1_weights *weights;
	m1_status status; /* the first failure, after which nothing more is tried */
	m1_error *err;
} loader;

static void
fail_tensor(loader *l, m1_status code, const char *name, const char *why)
{
	l->status = m1_fail(l->err, code, "tensor \"%.120s\" %s", name, why);
}

static void
describe_shape(char *to, size_t size, const int64_t *shape, int dims)
{
	size_t at = 0;

	to[0] = '\0';
	for (int i = 0; i < dims && at < size; i++)
		at += (size_t) snprintf(to + at, size - at, "%s%lld", i == 0 ? "[" : ", ", (long long) shape[i]);
	if (at < size)
		snprintf(to + at, size - at, dims == 0 ? "[]" : "]");
}

/* The tensor of that name if it has shape [rows, cols], or [rows] with cols 0; else NULL and a failure. */
static const m1_tensor *
find(loader *l, const char *name, int rows, int cols, m1b_dtype *type)
{
	const int64_t wanted[2] = {rows, cols};
	const int dims = cols == 0 ? 1 : 2;
	const m1_tensor *t;

	if (l->status != M1_OK)
		return NULL;
	if ((t = m1_checkpoint_find(l->checkpoint, name)) == NULL)
	{
		fail_tensor(l, M1_E_NOT_FOUND, name, "is missing from the checkpoint");
		return NULL;
	}
	if (t->dims != dims || memcmp(t->shape, wanted, (size_t) dims * sizeof *wanted) != 0)
	{
		char is[128];
		char should[128];

		describe_shape(is, sizeof is, t->shape, t->dims);
		describe_shape(should, sizeof should, wanted, dims);
		fail_tensor(l, M1_E_CORRUPT, name, "has the wrong shape");
		m1_error_detail(l->err, "It is %s in %s; config.json asks for %s.", is, t->file, should);
		return NULL;
	}
	if (!t->usable)
	{
		fail_tensor(l, M1_E_UNSUPPORTED, name, "has a type that is not supported");
		m1_error_detail(l->err, "It is %s in %s; supported are F32, F16 and BF16.", t->type_name, t->file);
		return NULL;
	}
	*type = t->type;
	return t;
}

static void
matrix(loader *l, const char *name, m1b_use use, int rows, int cols, m1b_matrix *out)
{
	m1b_dtype type;
	bool borrowed;
	const m1_tensor *t = find(l, name, rows, cols, &type);

	if (t == NULL)
		return;
	l->status = l->backend->ops->matrix(l->backend, t->data, type, use, rows, cols, out, &borrowed, l->err);
	if (use != M1B_USE_HEAD || !l->config->tied_head)
		l->weights->parameters += (uint64_t) rows * (uint64_t) cols;
}

/* A vector in fp32: norms are tiny and read by every token. */
static const float *
vector(loader *l, const char *name, int n)
{
	m1b_dtype type;
	const m1_tensor *t = find(l, name, n, 0, &type);
	float *host;
	const float *device;

	if (t == NULL)
		return NULL;
	if ((host = malloc((size_t) n * sizeof *host)) == NULL)
	{
		l->status = m1_fail(l->err, M1_E_NO_MEMORY, "out of memory for tensor \"%.120s\"", name);
		return NULL;
	}
	m1b_dequantize(type, t->data, (size_t) n, host);
	l->weights->parameters += (uint64_t) n;
	if ((device = l->backend->ops->scratch(l->backend, (size_t) n, host)) == NULL)
		l->status = m1_fail(l->err, M1_E_NO_MEMORY, "out of memory for tensor \"%.120s\"", name);
	free(host);
	return device;
}

/* "model.layers.N." followed by a formatted rest, in a buffer that the next call overwrites. */
typedef struct layer_name
{
	char text[160];
} layer_name;

static const char *M1_PRINTF(3, 4) named(layer_name *buffer, int layer, const char *fmt, ...)
{
	va_list args;
	int at = snprintf(buffer->text, sizeof buffer->text, "model.layers.%d.", layer);

	va_start(args, fmt);
	vsnprintf(buffer->text + at, sizeof buffer->text - (size_t) at, fmt, args);
	va_end(args);
	return buffer->text;
}

static void
load_lightning(loader *l, int i, m1_layer *layer)
{
	const m1_config *c = l->config;
	const int width = c->heads * c->head_dim;
	layer_name name = {""};

	matrix(l, named(&name, i, "self_attn.qkv_proj.weight"), M1B_USE_PRODUCT, 3 * width, c->hidden_size, &layer->qkv);
	matrix(l, named(&name, i, "self_attn.output_gate.weight"), M1B_USE_PRODUCT, width, c->hidden_size,
		   &layer->output_gate);
	matrix(l, named(&name, i, "self_attn.out_proj.weight"), M1B_USE_PRODUCT, c->hidden_size, width, &layer->out);
	layer->inner_norm = vector(l, named(&name, i, "self_attn.norm.weight"), width);
	if ((layer->decay = malloc((size_t) c->heads * sizeof *layer->decay)) == NULL)
	{
		l->status = m1_fail(l->err, M1_E_NO_MEMORY, "out of memory for layer %d", i);
		return;
	}
	for (int h = 0; h < c->heads; h++)
		layer->decay[h] = m1_config_decay(c, i, h);
}

static void
load_softmax(loader *l, int i, m1_layer *layer)
{
	const m1_config *c = l->config;
	const int d = c->head_dim;
	layer_name name = {""};

	matrix(l, named(&name, i, "self_attn.q_proj.weight"), M1B_USE_PRODUCT, c->heads * d, c->hidden_size, &layer->q);
	matrix(l, named(&name, i, "self_attn.k_proj.weight"), M1B_USE_PRODUCT, c->kv_heads * d, c->hidden_size, &layer->k);
	matrix(l, named(&name, i, "self_attn.v_proj.weight"), M1B_USE_PRODUCT, c->kv_heads * d, c->hidden_size, &layer->v);
	matrix(l, named(&name, i, "self_attn.o_proj.weight"), M1B_USE_PRODUCT, c->hidden_size, c->heads * d, &layer->out);
}

static void
load_experts(loader *l, int i, m1_layer *layer)
{
	const m1_config *c = l->config;
	layer_name name = {""};

	layer->w1 = calloc((size_t) c->experts, sizeof *layer->w1);
	layer->w2 = calloc((size_t) c->experts, sizeof *layer->w2);
	layer->w3 = calloc((size_t) c->experts, sizeof *layer->w3);
	if (layer->w1 == NULL || layer->w2 == NULL || layer->w3 == NULL)
	{
		l->status = m1_fail(l->err, M1_E_NO_MEMORY, "out of memory for layer %d", i);
		return;
	}
	matrix(l, named(&name, i, "block_sparse_moe.gate.weight"), M1B_USE_PRODUCT, c->experts, c->hidden_size,
		   &layer->router);
	for (int e = 0; e < c->experts && l->status == M1_OK; e++)
	{
		matrix(l, named(&name, i, "block_sparse_moe.experts.%d.w1.weight", e), M1B_USE_PRODUCT, c->expert_width,
			   c->hidden_size, &layer->w1[e]);
		matrix(l, named(&name, i, "block_sparse_moe.experts.%d.w2.weight", e), M1B_USE_PRODUCT, c->hidden_size,
			   c->expert_width, &layer->w2[e]);
		matrix(l, named(&name, i, "block_sparse_moe.experts.%d.w3.weight", e), M1B_USE_PRODUCT, c->expert_width,
			   c->hidden_size, &layer->w3[e]);
	}
}

m1_status
m1_weights_load(const m1_checkpoint *checkpoint, const m1_config *c, m1b_backend *backend, m1_weights *w, m1_error *err)
{
	loader l = {checkpoint, c, backend, w, M1_OK, err};
	int slots[2] = {0, 0};
	layer_name name = {""};

	memset(w, 0, sizeof *w);
	if ((w->layers = calloc((size_t) c->layers, sizeof *w->layers)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d layers", c->layers);
	w->n_layers = c->layers;
	matrix(&l, "model.embed_tokens.weight", M1B_USE_ROWS, c->vocab_size, c->hidden_size, &w->embed);
	w->final_norm = vector(&l, "model.norm.weight", c->hidden_size);
	matrix(&l, c->tied_head ? "model.embed_tokens.weight" : "lm_head.weight", M1B_USE_HEAD, c->vocab_size,
		   c->hidden_size, &w->head);
	for (int i = 0; i < c->layers && l.status == M1_OK; i++)
	{
		m1_layer *layer = &w->layers[i];

		layer->slot = slots[c->attention[i]]++;
		layer->input_norm = vector(&l, named(&name, i, "input_layernorm.weight"), c->hidden_size);
		layer->post_norm = vector(&l, named(&name, i, "post_attention_layernorm.weight"), c->hidden_size);
		if (c->attention[i] == M1_LIGHTNING)
			load_lightning(&l, i, layer);
		else
			load_softmax(&l, i, layer);
		if (l.status == M1_OK)
			load_experts(&l, i, layer);
	}
	return l.status;
}

void
m1_weights_free(m1_weights *w)
{
	for (int i = 0; i < w->n_layers; i++)
	{
		free(w->layers[i].decay);
		free(w->layers[i].w1);
		free(w->layers[i].w2);
		free(w->layers[i].w3);
	}
	free(w->layers);
	memset(w, 0, sizeof *w);
}
