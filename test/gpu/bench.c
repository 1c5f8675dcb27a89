/*
 * bench.c - the CUDA backend on a slice of the real model with random weights: the copy bandwidth and the rate of bf16
 * products of this GPU first, then prefill and decode beside them, as one JSON object.
 *
 * bench [GPUS] [small]: the slice is 8 layers (7 lightning, 1 softmax) of MiniMax-M1 in bf16, about 91 GB with embedding
 * and head, on so many GPUs (1); small is a toy of the same shape, for trying the program where GPUs are emulated.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda_group.h"
#include "base/clock.h"
#include "model/forward.h"

#define REPEATS 5
#define MAX_BATCH 64
#define REAL_LAYERS 80

typedef struct slice
{
	m1_model model;
	uint16_t *random; /* bf16, as many as the largest matrix has */
	size_t bytes;	  /* of one layer's weights that a token reads, and of the head's */
	size_t head_bytes;
	int prefill;
	int gpus;
	m1_error err;
} slice;

static void
must(slice *s, m1_status status)
{
	if (status == M1_OK)
		return;
	fprintf(stderr, "bench: %s\nDETAIL: %s\nHINT: %s\n", s->err.message, s->err.detail, s->err.hint);
	exit(1);
}

/* ---- the model ---- */

static void
choose_sizes(m1_config *c, int *prefill, bool small)
{
	*c = (m1_config){.vocab_size = small ? 512 : 200064,
					 .hidden_size = small ? 64 : 6144,
					 .layers = 8,
					 .heads = small ? 4 : 64,
					 .kv_heads = small ? 2 : 8,
					 .head_dim = small ? 16 : 128,
					 .rotary_dim = small ? 8 : 64,
					 .rope_theta = 1e7f,
					 .expert_width = small ? 64 : 9216,
					 .experts = small ? 4 : 32,
					 .experts_per_token = 2,
					 .rms_norm_eps = 1e-5f,
					 .postnorm = true,
					 .alpha_softmax = 3.55f,
					 .beta_softmax = 1.0f,
					 .alpha_lightning = 3.55f,
					 .beta_lightning = 1.0f,
					 .alpha_mlp = 3.55f,
					 .beta_mlp = 1.0f,
					 .max_context = small ? 256 : 16384};
	c->attention[7] = M1_SOFTMAX;
	*prefill = small ? 40 : 8192;
}

/* Small values of both signs, whose products neither vanish nor overflow. Never zeros: those would run faster. */
static uint16_t *
random_weights(size_t n)
{
	const size_t period = n < (1 << 24) ? n : 1 << 24;
	uint16_t *w = malloc(n * sizeof *w);
	uint32_t x = 1;

	for (size_t i = 0; w != NULL && i < period; i++)
	{
		x = x * 1664525u + 1013904223u;
		w[i] = (uint16_t) ((x >> 16 & 0x8000) | 0x3c00 | (x >> 8 & 0xff));
	}
	for (size_t at = period; w != NULL && at < n; at += period)
		memcpy(w + at, w, (n - at < period ? n - at : period) * sizeof *w);
	return w;
}

static m1b_matrix
matrix(slice *s, m1b_use use, m1b_split split, int rows, int cols)
{
	m1b_backend *b = s->model.backend;
	m1b_matrix m;
	bool borrowed;

	must(s, b->ops->matrix(b, s->random, M1B_BF16, use, split, rows, cols, &m, &borrowed, &s->err));
	return m;
}

static const float *
vector(slice *s, int n, float value)
{
	float *host = malloc((size_t) n * sizeof *host);
	const float *device;

	for (int i = 0; host != NULL && i < n; i++)
		host[i] = value;
	device = s->model.backend->ops->scratch(s->model.backend, (size_t) n, host);
	free(host);
	return device;
}

static void
make_layer(slice *s, int i, int slot)
{
	const m1_config *c = &s->model.config;
	m1_layer *l = &s->model.weights.layers[i];
	const int width = c->heads * c->head_dim;
	const int d = c->hidden_size;

	l->slot = slot;
	l->input_norm = vector(s, d, 1.0f);
	l->post_norm = vector(s, d, 1.0f);
	if (c->attention[i] == M1_LIGHTNING)
	{
		l->qkv = matrix(s, M1B_USE_PRODUCT, M1B_SPLIT_ROWS, 3 * width, d);
		l->output_gate = matrix(s, M1B_USE_PRODUCT, M1B_SPLIT_ROWS, width, d);
		l->inner_norm = vector(s, width, 1.0f);
		l->decay = vector(s, c->heads, 0.01f);
	}
	else
	{
		l->q = matrix(s, M1B_USE_PRODUCT, M1B_SPLIT_ROWS, width, d);
		l->k = matrix(s, M1B_USE_PRODUCT, M1B_SPLIT_ROWS, c->kv_heads * c->head_dim, d);
		l->v = matrix(s, M1B_USE_PRODUCT, M1B_SPLIT_ROWS, c->kv_heads * c->head_dim, d);
	}
	l->out = matrix(s, M1B_USE_PRODUCT, M1B_SPLIT_COLS, d, width);
	l->router = matrix(s, M1B_USE_PRODUCT, M1B_WHOLE, c->experts, d);
	l->w1 = calloc((size_t) c->experts, sizeof *l->w1);
	l->w2 = calloc((size_t) c->experts, sizeof *l->w2);
	l->w3 = calloc((size_t) c->experts, sizeof *l->w3);
	for (int e = 0; e < c->experts; e++)
	{
		l->w1[e] = matrix(s, M1B_USE_PRODUCT, M1B_SPLIT_ROWS, c->expert_width, d);
		l->w2[e] = matrix(s, M1B_USE_PRODUCT, M1B_SPLIT_COLS, d, c->expert_width);
		l->w3[e] = matrix(s, M1B_USE_PRODUCT, M1B_SPLIT_ROWS, c->expert_width, d);
	}
}

static void
log_line(void *context, const char *line)
{
	(void) context;
	fprintf(stderr, "bench: %s\n", line);
}

static size_t
layer_matrices(const m1_config *c, int experts)
{
	const size_t width = (size_t) c->heads * (size_t) c->head_dim;

	/* a lightning layer; a softmax layer has a little less */
	return (5 * width + (size_t) c->experts + 3 * (size_t) experts * (size_t) c->expert_width) *
		   (size_t) c->hidden_size;
}

static void
make_model(slice *s, bool small)
{
	const m1b_cuda_options options = {.gpus = s->gpus, .log = log_line};
	m1_model *m = &s->model;
	m1_config *c = &m->config;
	size_t vocab;

	choose_sizes(c, &s->prefill, small);
	vocab = (size_t) c->vocab_size * (size_t) c->hidden_size;
	m->max_context = c->max_context;
	m->max_sequences = MAX_BATCH;
	m->max_batch_tokens = s->prefill > MAX_BATCH ? s->prefill : MAX_BATCH;
	must(s, m1b_cuda_open(&options, &m->backend, &s->err));
	must(s, m->backend->ops->configure(
				m->backend,
				&(m1b_geometry){.heads = c->heads,
								.kv_heads = c->kv_heads,
								.head_dim = c->head_dim,
								.rotary_dim = c->rotary_dim,
								.rope_theta = c->rope_theta,
								.lightning_layers = c->layers - 1,
								.softmax_layers = 1,
								.max_context = c->max_context,
								.max_states = MAX_BATCH,
								.max_tokens = m->max_batch_tokens,
								.max_moe_pairs = m->max_batch_tokens * c->experts_per_token,
								.expert_width = c->expert_width,
								.hidden = c->hidden_size,
								.experts = c->experts,
								.vocab = c->vocab_size,
								.whole_bytes = 2 * (vocab + (size_t) (c->layers * c->experts * c->hidden_size)),
								.weight_bytes = 2 * ((size_t) c->layers * layer_matrices(c, c->experts) + 2 * vocab),
								.weight_matrices = (size_t) (c->layers * (8 + 3 * c->experts)) + 2,
								.scratch_bytes = m1_forward_bytes(m) + (size_t) c->layers * 4 * ((size_t) 64 << 10)},
				&s->err));
	s->random = random_weights(vocab > layer_matrices(c, 1) ? vocab : layer_matrices(c, 1));
	if (s->random == NULL)
	{
		fputs("bench: out of memory\n", stderr);
		exit(1);
	}
	m->weights.n_layers = c->layers;
	m->weights.layers = calloc((size_t) c->layers, sizeof *m->weights.layers);
	m->weights.embed = matrix(s, M1B_USE_ROWS, M1B_WHOLE, c->vocab_size, c->hidden_size);
	m->weights.head = matrix(s, M1B_USE_HEAD, M1B_SPLIT_ROWS, c->vocab_size, c->hidden_size);
	m->weights.final_norm = vector(s, c->hidden_size, 1.0f);
	for (int i = 0; i < c->layers; i++)
		make_layer(s, i, c->attention[i] == M1_LIGHTNING ? i : 0);
	must(s, m1_forward_prepare(m, &s->err));
	s->head_bytes = 2 * vocab;
}

/* ---- timings ---- */

static int
by_value(const void *a, const void *b)
{
	const double x = *(const double *) a;
	const double y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
median(double *values, int n)
{
	qsort(values, (size_t) n, sizeof *values, by_value);
	return values[n / 2];
}

/*
 * Seconds of a step of `batch` sequences with n tokens each, median of several. Single tokens follow each other; longer
 * ones begin anew each time.
 */
static double
time_steps(slice *s, int batch, int n, int steps)
{
	const m1b_ops *ops = s->model.backend->ops;
	m1b_segment segments[MAX_BATCH];
	int rows[MAX_BATCH];
	double seconds[64];
	int32_t *tokens = malloc((size_t) (batch * n) * sizeof *tokens);
	float *logits = malloc((size_t) batch * (size_t) s->model.config.vocab_size * sizeof *logits);

	for (int i = 0; i < batch; i++)
	{
		segments[i] = (m1b_segment){
			.state = ops->state_acquire(s->model.backend, n > 1 ? n : steps + 3), .n_tokens = n, .row = i * n};
		rows[i] = i * n + n - 1;
		if (segments[i].state == NULL || tokens == NULL || logits == NULL)
		{
			fprintf(stderr, "bench: no room for %d sequences\n", batch);
			exit(1);
		}
	}
	for (int step = -3; step < steps; step++)
	{
		m1b_batch b = {.tokens = tokens, .n_tokens = batch * n, .segments = segments, .n_segments = batch};
		double start;

		for (int i = 0; i < batch * n; i++)
			tokens[i] = (int32_t) (((unsigned) rand()) % (unsigned) s->model.config.vocab_size);
		start = m1_now_ms();
		must(s, m1_forward(&s->model, &b, rows, batch, logits, &s->err));
		/* the first steps load, and record */
		if (step >= 0)
			seconds[step] = (m1_now_ms() - start) * 1e-3;
		for (int i = 0; i < batch; i++)
			segments[i].start += n == 1;
	}
	for (int i = 0; i < batch; i++)
		ops->state_release(s->model.backend, segments[i].state);
	free(tokens);
	free(logits);
	return median(seconds, steps);
}

static double
elapsed(const m1b_cuda *c, cudaEvent_t start, cudaEvent_t end)
{
	float ms = 0;

	cudaEventRecord(end, c->stream);
	cudaEventSynchronize(end);
	cudaEventElapsedTime(&ms, start, end);
	return ms * 1e-3;
}

static m1b_cuda *
first_gpu(slice *s)
{
	return s->gpus > 1 ? m1b_cuda_group_use(m1b_cuda_group_of(s->model.backend), 0) : m1b_cuda_of(s->model.backend);
}

/* Of one GPU, times their number: bytes a second, read plus written, of a copy from weights to the KV pages, and operations a second of a product. */
static void
measure_ceilings(slice *s, bool small, double *bandwidth, double *rate)
{
	m1b_cuda *c = first_gpu(s);
	const m1k_matrix head = m1b_cuda_kernel_matrix(&s->model.weights.head);
	const int side = small ? 64 : 6144;
	const m1k_matrix w = {
		.data = head.data, .type = M1K_BF16, .rows = side, .cols = side, .row_bytes = (size_t) side * 2};
	const int n = s->prefill;
	const size_t head_bytes = s->head_bytes / (size_t) s->gpus;
	const size_t bytes = head_bytes < c->plan.pages ? head_bytes : c->plan.pages;
	/* the experts' rows are free for the product's result */
	float *out = c->expert_out;
	cudaEvent_t start, end;
	double copies[REPEATS], products[REPEATS];

	cudaEventCreateWithFlags(&start, 0);
	cudaEventCreateWithFlags(&end, 0);
	for (int i = -2; i < REPEATS; i++)
	{
		double seconds;

		cudaEventRecord(start, c->stream);
		m1b_cuda_note(c, cudaMemcpyAsync(c->page_memory, head.data, bytes, cudaMemcpyDeviceToDevice, c->stream),
					  "copying");
		seconds = elapsed(c, start, end);
		if (i >= 0)
			copies[i] = 2.0 * (double) bytes / seconds;
		cudaEventRecord(start, c->stream);
		/* right side: rows of the embedding, random as well */
		m1b_cuda_note(c, m1b_cuda_gemm(c->gemm, &w, s->model.weights.embed.data, n, false, out, c->stream),
					  "multiplying");
		seconds = elapsed(c, start, end);
		if (i >= 0)
			products[i] = 2.0 * n * side * side / seconds;
	}
	cudaEventDestroy(start);
	cudaEventDestroy(end);
	m1b_cuda_note(c, cudaMemsetAsync(c->page_memory, 0, bytes, c->stream), "wiping");
	must(s, m1b_cuda_status(c, &s->err));
	*bandwidth = s->gpus * median(copies, REPEATS);
	*rate = s->gpus * median(products, REPEATS);
}

/* ---- the table ---- */

/* Bytes a decode step must read and write: weights of the experts that are expected to be chosen, states, the head. */
static double
step_bytes(const slice *s, int batch)
{
	const m1_config *c = &s->model.config;
	double untouched = 1.0;
	double state = 2.0 * (c->layers - 1) * c->heads * c->head_dim * c->head_dim * (double) sizeof(float);

	for (int i = 0; i < batch; i++)
		untouched *= 1.0 - (double) c->experts_per_token / c->experts;
	return 2.0 * c->layers * (double) layer_matrices(c, 0) +
		   2.0 * c->layers * (1.0 - untouched) * c->experts * 3.0 * c->expert_width * (double) c->hidden_size +
		   (double) s->head_bytes + batch * state;
}

static json_t *
project(const slice *s, double seconds, int batch, double bandwidth)
{
	const double head = (double) s->head_bytes / bandwidth;
	const double layers = (seconds - head) * REAL_LAYERS / s->model.config.layers;
	/* sums over eight GPUs, two a layer and one more in seven of eight, each a fixed latency: the data are small */
	const double sums = REAL_LAYERS * (2 + 7.0 / 8) * 10e-6;

	return json_pack("{s:i, s:f, s:f}", "batch", batch, "ms_80_layers_one_gpu", (layers + head) * 1e3,
					 "ms_80_layers_eight_gpus", ((layers + head) / 8 + sums) * 1e3);
}

int
main(int argc, char **argv)
{
	static const int batches[] = {1, 8, 64};
	const bool small = strcmp(argv[argc - 1], "small") == 0;
	static slice s = {.gpus = 1};
	json_t *result = json_object();
	json_t *decode = json_array();
	json_t *projected = json_array();
	double bandwidth, rate, prefill, operations;

	if (argc > 1 && atoi(argv[1]) > 0)
		s.gpus = atoi(argv[1]);
	make_model(&s, small);
	/* ends loading */
	time_steps(&s, 1, 1, 1);
	measure_ceilings(&s, small, &bandwidth, &rate);
	json_object_set_new(result, "device", json_string(s.model.backend->ops->describe(s.model.backend)));
	json_object_set_new(result, "copy_bytes_per_s", json_real(bandwidth));
	json_object_set_new(result, "bf16_product_operations_per_s", json_real(rate));
	prefill = time_steps(&s, 1, s.prefill / (small ? 4 : 1), small ? 2 : 1);
	operations = 2.0 * s.prefill / (small ? 4 : 1) * s.model.config.layers *
				 (double) layer_matrices(&s.model.config, s.model.config.experts_per_token);
	json_object_set_new(result, "prefill_tokens", json_integer(s.prefill / (small ? 4 : 1)));
	json_object_set_new(result, "prefill_ms", json_real(prefill * 1e3));
	json_object_set_new(result, "prefill_share_of_product_rate", json_real(operations / prefill / rate));
	for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
	{
		const double seconds = time_steps(&s, batches[i], 1, small ? 2 : 32);

		json_array_append_new(decode, json_pack("{s:i, s:f, s:f, s:f}", "batch", batches[i], "ms", seconds * 1e3,
												"bytes", step_bytes(&s, batches[i]), "share_of_copy_bandwidth",
												step_bytes(&s, batches[i]) / bandwidth / seconds));
		if (s.gpus == 1)
			json_array_append_new(projected, project(&s, seconds, batches[i], bandwidth));
	}
	json_object_set_new(result, "decode", decode);
	json_object_set_new(result, "projected", projected);
	json_object_set_new(
		result, "assumptions",
		json_string(
			"bf16; random weights and tokens, so all experts are chosen alike; the 80 layers are ten times this "
			"slice and the head once, read at the copy bandwidth; one GPU would need 0.92 TB of memory; eight "
			"GPUs share every matrix evenly and sum 230 times at 10 microseconds each; host time and "
			"the copy of the logits are in the measured steps"));
	json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(5));
	fputc('\n', stdout);
	json_decref(result);
	return 0;
}
