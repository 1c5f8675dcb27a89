/* weights.c - see weights.h. */
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

#include "blocks/blocks.h"
#include "files/mapped.h"

typedef struct loader
{
	const m1_checkpoint *checkpoint;
	const m1_config *config;
	m1_weight_format format;
	m1_quantizer *quantizer; /* NULL when everything stays as stored */
	void *staging;			 /* room for one matrix that does not, unless the backend has borrowed it */
	size_t staging_bytes;
	m1b_backend *backend;
	m1_weights *weights;
	m1_status status; /* the first failure, after which nothing more is tried */
	m1_error *err;
} loader;

static bool
find(loader *l, m1_role role, int layer, int expert, m1_weight *w)
{
	if (l->status == M1_OK)
		l->status = m1_role_find(role, l->checkpoint, l->config, layer, expert, w, l->err);
	return l->status == M1_OK;
}

static void
fail_memory(loader *l, const m1_weight *w)
{
	l->status = m1_fail(l->err, M1_E_NO_MEMORY, "out of memory for tensor \"%s\"", w->name);
}

/* ---- quantizing on load, and joining numbers with their scales ---- */

/* Makes sure that staging has room, and that a place is free to own it. */
static bool
reserve_staging(loader *l, size_t bytes)
{
	m1_weights *w = l->weights;

	if (w->n_owned == w->cap_owned)
	{
		const size_t cap = w->cap_owned == 0 ? 64 : 2 * w->cap_owned;
		void **grown = realloc(w->owned, cap * sizeof *grown);

		if (grown == NULL)
			return false;
		w->owned = grown;
		w->cap_owned = cap;
	}
	if (l->staging != NULL && bytes <= l->staging_bytes)
		return true;
	free(l->staging);
	l->staging_bytes = (bytes + 63) / 64 * 64;
	return (l->staging = aligned_alloc(64, l->staging_bytes)) != NULL;
}

/* The weight in the type that it is to be used in: itself, or a copy in staging. */
static m1_weight
prepare(loader *l, m1_role role, const m1_weight *stored)
{
	m1_weight w = *stored;

	w.type = m1_weight_format_type(l->format, role, stored);
	w.bytes = m1b_bytes(w.type, (size_t) w.rows * (size_t) w.cols);
	if (w.type == stored->type && w.scales == NULL)
		return w;
	if (!reserve_staging(l, w.bytes))
	{
		fail_memory(l, stored);
		return w;
	}
	m1_mapped_expect(stored->data, stored->bytes);
	l->status = m1_quantizer_run(l->quantizer, stored, NULL, 0, w.rows, w.type, l->staging, l->err);
	w.data = l->staging;
	return w;
}

/* ---- one weight ---- */

static void
matrix(loader *l, m1_role role, int layer, int expert, m1b_use use, m1b_matrix *out)
{
	m1_weight stored;
	m1b_stored_matrix p;
	m1_weight w;
	bool borrowed;

	if (!find(l, role, layer, expert, &stored))
		return;
	w = prepare(l, role, &stored);
	if (l->status != M1_OK)
		return;
	p = (m1b_stored_matrix){
		.host = w.data, .type = w.type, .use = use, .split = m1_role_split(role), .rows = w.rows, .cols = w.cols};
	l->status = l->backend->ops->matrix(l->backend, &p, out, &borrowed, l->err);
	if (l->status != M1_OK)
		return;
	if (borrowed && w.data == l->staging)
	{
		l->weights->owned[l->weights->n_owned++] = l->staging;
		l->staging = NULL;
	}
	if (!borrowed || w.data != stored.data)
		m1_mapped_drop(stored.data, stored.bytes);
	if (role != M1_ROLE_HEAD || !l->config->tied_head)
		l->weights->parameters += (uint64_t) w.rows * (uint64_t) w.cols;
}

/* A vector in fp32: norms are tiny and read by every token. */
static const float *
vector(loader *l, m1_role role, int layer)
{
	m1_weight w;
	float *host;
	const float *device;
	size_t n;

	if (!find(l, role, layer, 0, &w))
		return NULL;
	n = (size_t) w.rows;
	if ((host = malloc(n * sizeof *host)) == NULL)
	{
		fail_memory(l, &w);
		return NULL;
	}
	m1b_dequantize(w.type, w.data, n, host);
	l->weights->parameters += n;
	if ((device = l->backend->ops->scratch(l->backend, n, host)) == NULL)
		fail_memory(l, &w);
	free(host);
	return device;
}

/* ---- layers ---- */

/* Every head's decay, where operations can read it. */
static const float *
decays(loader *l, int i)
{
	const m1_config *c = l->config;
	float *host;
	const float *device = NULL;

	if (l->status != M1_OK)
		return NULL;
	if ((host = malloc((size_t) c->heads * sizeof *host)) != NULL)
	{
		for (int h = 0; h < c->heads; h++)
			host[h] = m1_config_decay(c, i, h);
		device = l->backend->ops->scratch(l->backend, (size_t) c->heads, host);
	}
	free(host);
	if (device == NULL)
		l->status = m1_fail(l->err, M1_E_NO_MEMORY, "out of memory for layer %d", i);
	return device;
}

static void
load_lightning(loader *l, int i, m1_layer *layer)
{
	matrix(l, M1_ROLE_QKV, i, 0, M1B_USE_PRODUCT, &layer->qkv);
	matrix(l, M1_ROLE_OUTPUT_GATE, i, 0, M1B_USE_PRODUCT, &layer->output_gate);
	matrix(l, M1_ROLE_LIGHTNING_OUT, i, 0, M1B_USE_PRODUCT, &layer->out);
	layer->inner_norm = vector(l, M1_ROLE_INNER_NORM, i);
	layer->decay = decays(l, i);
}

static void
load_softmax(loader *l, int i, m1_layer *layer)
{
	matrix(l, M1_ROLE_Q, i, 0, M1B_USE_PRODUCT, &layer->q);
	matrix(l, M1_ROLE_K, i, 0, M1B_USE_PRODUCT, &layer->k);
	matrix(l, M1_ROLE_V, i, 0, M1B_USE_PRODUCT, &layer->v);
	matrix(l, M1_ROLE_SOFTMAX_OUT, i, 0, M1B_USE_PRODUCT, &layer->out);
}

static void
load_experts(loader *l, int i, m1_layer *layer)
{
	const m1_config *c = l->config;

	layer->w1 = calloc((size_t) c->experts, sizeof *layer->w1);
	layer->w2 = calloc((size_t) c->experts, sizeof *layer->w2);
	layer->w3 = calloc((size_t) c->experts, sizeof *layer->w3);
	if (layer->w1 == NULL || layer->w2 == NULL || layer->w3 == NULL)
	{
		l->status = m1_fail(l->err, M1_E_NO_MEMORY, "out of memory for layer %d", i);
		return;
	}
	matrix(l, M1_ROLE_ROUTER, i, 0, M1B_USE_HEAD, &layer->router); /* a choice: nothing may blur it */
	for (int e = 0; e < c->experts && l->status == M1_OK; e++)
	{
		matrix(l, M1_ROLE_W1, i, e, M1B_USE_PRODUCT, &layer->w1[e]);
		matrix(l, M1_ROLE_W2, i, e, M1B_USE_PRODUCT, &layer->w2[e]);
		matrix(l, M1_ROLE_W3, i, e, M1B_USE_PRODUCT, &layer->w3[e]);
		if (l->status == M1_OK && (layer->w1[e].type != layer->w1[0].type || layer->w2[e].type != layer->w2[0].type ||
								   layer->w3[e].type != layer->w3[0].type))
			l->status = m1_fail(l->err, M1_E_UNSUPPORTED, "the experts of layer %d are stored as different types", i);
	}
}

static void
load_all(loader *l)
{
	m1_weights *w = l->weights;
	int slots[2] = {0, 0};

	matrix(l, M1_ROLE_EMBED, 0, 0, M1B_USE_ROWS, &w->embed);
	w->final_norm = vector(l, M1_ROLE_FINAL_NORM, 0);
	matrix(l, M1_ROLE_HEAD, 0, 0, M1B_USE_HEAD, &w->head);
	for (int i = 0; i < w->n_layers && l->status == M1_OK; i++)
	{
		m1_layer *layer = &w->layers[i];
		const unsigned char kind = l->config->attention[i];

		layer->slot = slots[kind]++;
		layer->input_norm = vector(l, M1_ROLE_INPUT_NORM, i);
		layer->post_norm = vector(l, M1_ROLE_POST_NORM, i);
		if (kind == M1_LIGHTNING)
			load_lightning(l, i, layer);
		else
			load_softmax(l, i, layer);
		if (l->status == M1_OK)
			load_experts(l, i, layer);
	}
}

/*
 * Reading a tensor brings in pages around it, also of tensors that were dropped before: when all is loaded, everything
 * is dropped once more. What the backend has borrowed comes back when it is used.
 */
static void
drop_files(const m1_checkpoint *checkpoint)
{
	for (size_t i = 0; i < m1_checkpoint_tensors(checkpoint); i++)
	{
		const m1_tensor *t = m1_checkpoint_tensor(checkpoint, i);

		m1_mapped_drop(t->data, t->bytes);
	}
}

/* ---- all of it ---- */

static m1_status
measure_role(m1_role role, const m1_checkpoint *checkpoint, const m1_config *c, m1_weight_format format, int layer,
			 m1_weights_size *size, m1_error *err)
{
	for (int e = 0; e < (m1_role_of_expert(role) ? c->experts : 1); e++)
	{
		m1_weight w;
		m1b_dtype type;
		m1_status status = m1_role_find(role, checkpoint, c, layer, e, &w, err);

		if (status != M1_OK)
			return status;
		if (w.cols == 0)
		{
			size->bytes += (uint64_t) w.rows * sizeof(float);
			size->vector_bytes += m1b_scratch_bytes((size_t) w.rows);
			continue;
		}
		type = m1_weight_format_type(format, role, &w);
		size->bytes += m1b_bytes(type, (size_t) w.rows * (size_t) w.cols);
		size->matrix_bytes += m1b_bytes(type, (size_t) w.rows * (size_t) w.cols);
		if (m1_role_split(role) == M1B_WHOLE)
			size->whole_bytes += m1b_bytes(type, (size_t) w.rows * (size_t) w.cols);
		size->matrices++;
		size->f32_experts = size->f32_experts && (role != M1_ROLE_W1 || type == M1B_F32);
		if (role == M1_ROLE_W1 || role == M1_ROLE_W2 || role == M1_ROLE_W3)
			size->bf16_experts = size->bf16_experts && type == M1B_BF16;
		if (role == M1_ROLE_W1)
			size->integer_experts = size->integer_experts || m1b_is_integer(type);
	}
	return M1_OK;
}

m1_status
m1_weights_measure(const m1_checkpoint *checkpoint, const m1_config *c, m1_weight_format format, m1_weights_size *size,
				   m1_error *err)
{
	m1_role roles[M1_ROLES];
	uint64_t bytes;
	m1_status status;

	*size = (m1_weights_size){.f32_experts = true, .bf16_experts = true};
	if ((status = measure_role(M1_ROLE_EMBED, checkpoint, c, format, 0, size, err)) != M1_OK ||
		(status = measure_role(M1_ROLE_FINAL_NORM, checkpoint, c, format, 0, size, err)) != M1_OK)
		return status;
	bytes = size->bytes;
	if ((status = measure_role(M1_ROLE_HEAD, checkpoint, c, format, 0, size, err)) != M1_OK)
		return status;
	if (c->tied_head)
		size->bytes = bytes;
	for (int layer = 0; layer < c->layers; layer++)
	{
		size->vector_bytes += m1b_scratch_bytes((size_t) c->heads); /* decays */
		for (int i = 0, n = m1_roles_of_layer(c, layer, roles); i < n; i++)
			if ((status = measure_role(roles[i], checkpoint, c, format, layer, size, err)) != M1_OK)
				return status;
	}
	return M1_OK;
}

m1_status
m1_weights_load(const m1_checkpoint *checkpoint, const m1_config *c, m1_weight_format format, int threads,
				m1b_backend *backend, m1_weights *w, m1_error *err)
{
	loader l = {.checkpoint = checkpoint, .config = c, .format = format, .backend = backend, .weights = w, .err = err};

	memset(w, 0, sizeof *w);
	if ((w->layers = calloc((size_t) c->layers, sizeof *w->layers)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d layers", c->layers);
	w->n_layers = c->layers;
	l.status = m1_role_refuse_others(checkpoint, c, err);
	if (l.status == M1_OK && (format != M1_WEIGHTS_STORED || c->fp8))
		l.status = m1_quantizer_create(threads, &l.quantizer, err);
	if (l.status == M1_OK)
		load_all(&l);
	drop_files(checkpoint);
	m1_quantizer_free(l.quantizer);
	free(l.staging);
	return l.status;
}

void
m1_weights_free(m1_weights *w)
{
	for (int i = 0; i < w->n_layers; i++)
	{
		free(w->layers[i].w1);
		free(w->layers[i].w2);
		free(w->layers[i].w3);
	}
	free(w->layers);
	for (size_t i = 0; i < w->n_owned; i++)
		free(w->owned[i]);
	free(w->owned);
	memset(w, 0, sizeof *w);
}
