/* slice.c - see slice.h. */
#include "slice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks/blocks.h"
#include "commands/options.h"
#include "model/forward.h"

#define PERIOD ((size_t) 16 << 20) /* bytes of random weights, which are repeated */
#define SLACK ((size_t) 64 << 10)

/* Random weights as the host has them. */
typedef struct stock
{
	void *typed; /* as many as the largest matrix of a layer has */
	void *bf16;	 /* as many as the embedding has */
} stock;

void
slice_must(slice *s, m1_status status)
{
	if (status == M1_OK)
		return;
	m1_error_spell_settings(&s->err, m1_cli_spell_setting);
	fprintf(stderr, "bench: %s\nDETAIL: %s\nHINT: %s\n", s->err.message, s->err.detail, s->err.hint);
	exit(1);
}

static void
must_have(const void *memory)
{
	if (memory != NULL)
		return;
	fputs("bench: out of memory\n", stderr);
	exit(1);
}

/* ---- sizes ---- */

static void
choose_sizes(slice *s)
{
	m1_config *c = &s->model.config;
	const bool small = slice_is_toy(s);
	const bool profiled = s->size == SLICE_PROFILED;

	*c = (m1_config){.vocab_size = small	  ? 512
								   : profiled ? 50176
											  : 200064,
					 .hidden_size = small ? 128 : 6144,
					 .layers = SLICE_LAYERS,
					 .heads = small ? 4 : 64,
					 .kv_heads = small ? 2 : 8,
					 .head_dim = small ? 32 : 128,
					 .rotary_dim = small ? 16 : 64,
					 .rope_theta = 1e7f,
					 .expert_width = small ? 128 : 9216,
					 .experts = small	   ? 4
								: profiled ? 8
										   : 32,
					 .experts_per_token = 2,
					 .rms_norm_eps = 1e-5f,
					 .postnorm = true,
					 .alpha_softmax = 3.55f,
					 .beta_softmax = 1.0f,
					 .alpha_lightning = 3.55f,
					 .beta_lightning = 1.0f,
					 .alpha_mlp = 3.55f,
					 .beta_mlp = 1.0f,
					 .max_context = small	   ? 256
									: profiled ? 16384
											   : 1 << 20};
	c->attention[SLICE_LAYERS - 1] = M1_SOFTMAX;
	s->prefill = small ? 32 : 8192;
	s->model.max_context = c->max_context;
	s->model.max_sequences = SLICE_BATCH;
	s->model.max_batch_tokens = s->prefill > SLICE_BATCH ? s->prefill : SLICE_BATCH;
}

double
slice_layer_weights(const m1_config *c, double experts)
{
	const double width = (double) c->heads * c->head_dim;

	return (5.0 * width + 3.0 * experts * c->expert_width) * c->hidden_size;
}

size_t
slice_head_bytes(const slice *s)
{
	return m1b_bytes(M1B_BF16, (size_t) s->model.config.vocab_size * (size_t) s->model.config.hidden_size);
}

static size_t
qkv_floats(const slice *s)
{
	return (size_t) s->prefill * 3 * (size_t) (s->model.config.heads * s->model.config.head_dim);
}

static m1b_geometry
geometry(const slice *s)
{
	const m1_config *c = &s->model.config;
	const size_t layers = (size_t) c->layers;
	const size_t weights = (size_t) slice_layer_weights(c, c->experts);
	const size_t page = (size_t) 2 * (size_t) c->kv_heads * M1B_PAGE_TOKENS * (size_t) c->head_dim * sizeof(uint16_t);

	return (m1b_geometry){
		.heads = c->heads,
		.kv_heads = c->kv_heads,
		.head_dim = c->head_dim,
		.rotary_dim = c->rotary_dim,
		.rope_theta = c->rope_theta,
		.lightning_layers = c->layers - 1,
		.softmax_layers = 1,
		.max_context = c->max_context,
		.max_states = SLICE_BATCH,
		.max_tokens = s->model.max_batch_tokens,
		.max_moe_pairs = s->model.max_batch_tokens * c->experts_per_token,
		.expert_width = c->expert_width,
		.hidden = c->hidden_size,
		.experts = c->experts,
		.bf16_experts = s->type == M1B_BF16,
		.vocab = c->vocab_size,
		.weight_bytes = layers * (m1b_bytes(s->type, weights) +
								  m1b_bytes(M1B_BF16, (size_t) c->experts * (size_t) c->hidden_size)) +
						2 * slice_head_bytes(s),
		.weight_matrices = layers * (8 + 3 * (size_t) c->experts) + 2,
		/* one whole context, and some pages for each of a batch */
		.kv_bytes = (size_t) (m1b_pages_for(c->max_context) + SLICE_BATCH * 4) * page,
		.scratch_bytes =
			m1_forward_bytes(&s->model) + layers * 4 * SLACK + 4 * qkv_floats(s) / 3 * sizeof(float) + SLACK,
	};
}

/* ---- weights ---- */

/* A scale that makes weights small, so that their products neither vanish nor overflow. */
static void
set_scale(m1b_dtype type, uint8_t *block)
{
	const float scale = type == M1B_F8_E4M3 ? 1e-4f : type == M1B_Q8_0 ? 1e-4f : 2e-3f;
	const uint16_t half = m1b_float_to_half(scale);

	if (type == M1B_F8_E4M3)
	{
		memcpy(block, &scale, sizeof scale);
		for (size_t i = sizeof scale; i < m1b_block_bytes(type); i++)
			block[i] ^= (block[i] & 0x7f) == 0x7f; /* never NaN */
	}
	else
		memcpy(block, &half, sizeof half);
}

/* Never zeros: those would run faster. */
static void *
random_weights(m1b_dtype type, size_t n)
{
	const size_t block = m1b_block_bytes(type);
	const size_t bytes = m1b_bytes(type, n);
	const size_t period = bytes < PERIOD ? bytes : PERIOD / block * block;
	uint8_t *w = malloc(bytes);
	uint32_t x = 1;

	must_have(w);
	for (size_t i = 0; i < period; i++)
	{
		x = x * 1664525u + 1013904223u;
		w[i] = (uint8_t) (x >> 24);
		if (type == M1B_BF16 && i % 2 == 1)
			w[i] = (w[i] & 0x80) | 0x3c; /* about 0.01 of both signs */
	}
	if (m1b_is_quantized(type))
		for (size_t at = 0; at < period; at += block)
			set_scale(type, w + at);
	for (size_t at = period; at < bytes; at += period)
		memcpy(w + at, w, bytes - at < period ? bytes - at : period);
	return w;
}

static m1b_matrix
matrix(slice *s, const void *stored, m1b_dtype type, m1b_use use, int rows, int cols)
{
	const m1b_stored_matrix p = {.host = stored, .type = type, .use = use, .rows = rows, .cols = cols};
	m1b_backend *b = s->model.backend;
	m1b_matrix m;
	bool borrowed;

	slice_must(s, b->ops->matrix(b, &p, &m, &borrowed, &s->err));
	return m;
}

static float *
constant(slice *s, int n, float value)
{
	float *host = malloc((size_t) n * sizeof *host);
	float *device;

	must_have(host);
	for (int i = 0; i < n; i++)
		host[i] = value;
	device = s->model.backend->ops->scratch(s->model.backend, (size_t) n, host);
	must_have(device);
	free(host);
	return device;
}

static void
make_attention(slice *s, m1_layer *l, bool lightning, const void *typed)
{
	const m1_config *c = &s->model.config;
	const int width = c->heads * c->head_dim;
	const int kv_width = c->kv_heads * c->head_dim;
	const int d = c->hidden_size;

	if (lightning)
	{
		l->qkv = matrix(s, typed, s->type, M1B_USE_PRODUCT, 3 * width, d);
		l->output_gate = matrix(s, typed, s->type, M1B_USE_PRODUCT, width, d);
		l->inner_norm = constant(s, width, 1.0f);
		l->decay = constant(s, c->heads, 0.01f);
	}
	else
	{
		l->q = matrix(s, typed, s->type, M1B_USE_PRODUCT, width, d);
		l->k = matrix(s, typed, s->type, M1B_USE_PRODUCT, kv_width, d);
		l->v = matrix(s, typed, s->type, M1B_USE_PRODUCT, kv_width, d);
	}
	l->out = matrix(s, typed, s->type, M1B_USE_PRODUCT, d, width);
}

static void
make_layer(slice *s, int i, const stock *host)
{
	const m1_config *c = &s->model.config;
	m1_layer *l = &s->model.weights.layers[i];
	const bool lightning = c->attention[i] == M1_LIGHTNING;
	const int d = c->hidden_size;

	l->slot = lightning ? i : 0;
	l->input_norm = constant(s, d, 1.0f);
	l->post_norm = constant(s, d, 1.0f);
	make_attention(s, l, lightning, host->typed);
	l->router = matrix(s, host->bf16, M1B_BF16, M1B_USE_HEAD, c->experts, d);
	l->w1 = calloc((size_t) c->experts, sizeof *l->w1);
	l->w2 = calloc((size_t) c->experts, sizeof *l->w2);
	l->w3 = calloc((size_t) c->experts, sizeof *l->w3);
	must_have(l->w1 != NULL && l->w2 != NULL ? l->w3 : NULL);
	for (int e = 0; e < c->experts; e++)
	{
		l->w1[e] = matrix(s, host->typed, s->type, M1B_USE_PRODUCT, c->expert_width, d);
		l->w2[e] = matrix(s, host->typed, s->type, M1B_USE_PRODUCT, d, c->expert_width);
		l->w3[e] = matrix(s, host->typed, s->type, M1B_USE_PRODUCT, c->expert_width, d);
	}
}

static void
make_weights(slice *s)
{
	const m1_config *c = &s->model.config;
	m1_weights *w = &s->model.weights;
	const size_t width = (size_t) (c->heads * c->head_dim);
	const size_t rows = 3 * width > (size_t) c->expert_width ? 3 * width : (size_t) c->expert_width;
	const stock host = {
		.typed = random_weights(s->type, rows * (size_t) c->hidden_size),
		.bf16 = random_weights(M1B_BF16, (size_t) c->vocab_size * (size_t) c->hidden_size),
	};

	w->n_layers = c->layers;
	w->layers = calloc((size_t) c->layers, sizeof *w->layers);
	must_have(w->layers);
	w->embed = matrix(s, host.bf16, M1B_BF16, M1B_USE_ROWS, c->vocab_size, c->hidden_size);
	w->head = matrix(s, host.bf16, M1B_BF16, M1B_USE_HEAD, c->vocab_size, c->hidden_size);
	w->final_norm = constant(s, c->hidden_size, 1.0f);
	for (int i = 0; i < c->layers; i++)
		make_layer(s, i, &host);
	free(host.typed);
	free(host.bf16);
}

/* ---- the whole ---- */

static float *
random_activations(slice *s, size_t n)
{
	float *host = malloc(n * sizeof *host);
	float *device;
	uint32_t x = 1;

	must_have(host);
	for (size_t i = 0; i < n; i++)
	{
		x = x * 1664525u + 1013904223u;
		host[i] = (float) (int32_t) x * 0x1p-31f;
	}
	device = s->model.backend->ops->scratch(s->model.backend, n, host);
	must_have(device);
	free(host);
	return device;
}

static void
log_line(void *context, const char *line)
{
	(void) context;
	fprintf(stderr, "bench: %s\n", line);
}

static void
take_memory(slice *s, m1b_dtype type, slice_size size)
{
	const m1b_cuda_options options = {.log = log_line};
	m1b_geometry g;

	*s = (slice){.type = type, .size = size};
	choose_sizes(s);
	g = geometry(s);
	slice_must(s, m1b_cuda_open(&options, &s->model.backend, &s->err));
	slice_must(s, s->model.backend->ops->configure(s->model.backend, &g, &s->err));
}

void
slice_plan(m1b_dtype type, slice_size size)
{
	static slice s;

	take_memory(&s, type, size);
	s.model.backend->ops->close(s.model.backend);
}

void
slice_open(slice *s, m1b_dtype type, slice_size size)
{
	take_memory(s, type, size);
	make_weights(s);
	s->qkv = random_activations(s, qkv_floats(s));
	s->attention = s->model.backend->ops->scratch(s->model.backend, qkv_floats(s) / 3, NULL);
	must_have(s->attention);
	slice_must(s, m1_forward_prepare(&s->model, &s->err));
	m1b_cuda_loader_finish(slice_cuda(s));
}

void
slice_close(slice *s)
{
	m1_forward_free(&s->model);
	s->model.backend->ops->close(s->model.backend);
	m1_weights_free(&s->model.weights);
}
