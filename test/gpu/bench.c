/*
 * bench.c - the CUDA backend on a slice of the real model with random weights, as one JSON object: the copy bandwidth
 * and the rate of bf16 products of this GPU, and of the parts that are asked for,
 *
 *   attention   both kinds of attention alone
 *   contexts    decode at growing context
 *   graphs      what launching a step takes, recorded and not
 *   profile     one prefill and one decode step that are not recorded, for a profiler, of a slice that takes little memory;
 *               nothing is timed
 *   launch      a single kernel, to see whether a tool can look at it
 *   plan        nothing is measured: whether each slice that is measured would fit, and how
 *   TYPE        prefill and decode with weights of this type: BF16, Q8_0, F8_E4M3, Q4_0
 *
 * bench FILE [small] PART...: small is a toy of the same shape (slice.h). FILE is written after each part, whose name is
 * printed then: what has been measured is not lost if a later one fails.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks/blocks.h"
#include "base/clock.h"
#include "model/forward.h"
#include "slice.h"

#define REPEATS 5
#define WARM_UP 3 /* steps: the first ones load, and record */
#define REAL_LAYERS 80
#define REAL_SOFTMAX_LAYERS 10
#define GPUS 8
#define SUMS (2 + 7.0 / 8) /* over several GPUs, of a layer: attention, experts, and in lightning layers the norm's */
#define SUM_SECONDS 10e-6  /* of one: a latency, since the data are small */

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

/* ---- time on the device ---- */

typedef struct stopwatch
{
	m1b_cuda *c;
	cudaEvent_t start, end;
} stopwatch;

static stopwatch
make_stopwatch(slice *s)
{
	stopwatch w = {.c = slice_cuda(s)};

	m1b_cuda_note(w.c, cudaEventCreateWithFlags(&w.start, 0), "timing");
	m1b_cuda_note(w.c, cudaEventCreateWithFlags(&w.end, 0), "timing");
	return w;
}

static void
free_stopwatch(slice *s, const stopwatch *w)
{
	cudaEventDestroy(w->start);
	cudaEventDestroy(w->end);
	slice_must(s, m1b_cuda_status(w->c, &s->err));
}

static void
begin_timing(const stopwatch *w)
{
	m1b_cuda_note(w->c, cudaEventRecord(w->start, w->c->stream), "timing");
}

/* Seconds since begin_timing, once everything is done. */
static double
end_timing(const stopwatch *w)
{
	float ms = 0;

	m1b_cuda_note(w->c, cudaEventRecord(w->end, w->c->stream), "timing");
	m1b_cuda_note(w->c, cudaEventSynchronize(w->end), "timing");
	m1b_cuda_note(w->c, cudaEventElapsedTime(&ms, w->start, w->end), "timing");
	return ms * 1e-3;
}

/* ---- what the device can do ---- */

typedef struct ceilings
{
	double bandwidth; /* bytes a second, read plus written */
	double rate;	  /* operations a second of a bf16 product */
} ceilings;

/* Random bits in all KV pages: what a sequence gives back is zeros, which would be faster to read. */
static void
fill_pages(slice *s)
{
	m1b_cuda *c = slice_cuda(s);
	const void *head = s->model.weights.head.data;
	const size_t bytes = slice_head_bytes(s);

	for (size_t at = 0; at < c->plan.pages; at += bytes)
		m1b_cuda_note(c,
					  cudaMemcpyAsync(c->pool.page_memory + at, head,
									  c->plan.pages - at < bytes ? c->plan.pages - at : bytes, cudaMemcpyDeviceToDevice,
									  c->stream),
					  "filling pages");
}

/* A copy from the head to KV pages, and a product of a piece of the head and one of the embedding. */
static ceilings
measure_ceilings(slice *s)
{
	m1b_cuda *c = slice_cuda(s);
	const stopwatch watch = make_stopwatch(s);
	const m1k_matrix head = m1b_cuda_kernel_matrix(&s->model.weights.head);
	const int side = s->model.config.hidden_size;
	const m1k_matrix w = {
		.data = head.data, .type = M1K_BF16, .rows = side, .cols = side, .row_bytes = (size_t) side * sizeof(uint16_t)};
	const size_t bytes = slice_head_bytes(s) < c->plan.pages ? slice_head_bytes(s) : c->plan.pages;
	double copies[REPEATS], products[REPEATS];

	for (int i = -2; i < REPEATS; i++)
	{
		double seconds;

		begin_timing(&watch);
		m1b_cuda_note(c, cudaMemcpyAsync(c->pool.page_memory, head.data, bytes, cudaMemcpyDeviceToDevice, c->stream),
					  "copying");
		seconds = end_timing(&watch);
		if (i >= 0)
			copies[i] = 2.0 * (double) bytes / seconds;
		begin_timing(&watch);
		/* the experts' rows are free for the result */
		m1b_cuda_multiply_many(c, &(m1b_cuda_multiply){.weight = w,
													   .x = s->model.weights.embed.data,
													   .n = s->prefill,
													   .out = c->routed.out,
													   .out_stride = side,
													   .stream = c->stream});
		seconds = end_timing(&watch);
		if (i >= 0)
			products[i] = 2.0 * s->prefill * side * side / seconds;
	}
	free_stopwatch(s, &watch);
	return (ceilings){.bandwidth = median(copies, REPEATS), .rate = median(products, REPEATS)};
}

/* ---- attention alone ---- */

static void
attend(slice *s, bool lightning, const m1b_batch *batch)
{
	const m1_config *c = &s->model.config;
	const size_t n = (size_t) batch->n_tokens;
	const size_t head_dim = (size_t) c->head_dim;
	float *k = s->qkv + n * (size_t) c->heads * head_dim;

	if (lightning)
		s->model.backend->ops->lightning(s->model.backend, &(m1b_lightning){.batch = batch,
																			.decay = s->model.weights.layers[0].decay,
																			.qkv = s->qkv,
																			.out = s->attention});
	else
		s->model.backend->ops->attention(s->model.backend,
										 &(m1b_attention){.batch = batch,
														  .q = s->qkv,
														  .k = k,
														  .v = k + n * (size_t) c->kv_heads * head_dim,
														  .out = s->attention});
}

/*
 * Seconds of one layer's attention for n tokens of one sequence at position `start`, once or the median of several. The
 * batch is made known to the device by a step of nothing else, which must not be recorded.
 */
static double
time_attention(slice *s, const stopwatch *watch, bool lightning, m1b_state *state, int start, int n, int repeats)
{
	m1b_segment segment = {.state = state, .start = start, .n_tokens = n};
	const m1b_batch batch = {.n_tokens = n, .segments = &segment, .n_segments = 1};
	double seconds[REPEATS];

	watch->c->graphs.layers[1].seen = 0;
	if (s->model.backend->ops->begin(s->model.backend, &batch))
	{
		fputs("bench: a step was recorded too early\n", stderr);
		exit(1);
	}
	for (int i = repeats > 1 ? -2 : 0; i < repeats; i++)
	{
		begin_timing(watch);
		attend(s, lightning, &batch);
		if (i >= 0)
			seconds[i] = end_timing(watch);
	}
	s->model.backend->ops->end(s->model.backend);
	watch->c->graphs.layers[1].seen = 0;
	return median(seconds, repeats);
}

/* One layer, chunk after chunk, as long prompts are fed. */
static double
time_attention_prefill(slice *s, const stopwatch *watch, bool lightning, int tokens)
{
	const m1b_ops *ops = s->model.backend->ops;
	m1b_state *state = ops->state_acquire(s->model.backend, tokens);
	double seconds = 0.0;

	slice_must(s, state != NULL ? M1_OK : m1_fail(&s->err, M1_E_NO_MEMORY, "no room for %d tokens", tokens));
	for (int warm = 0; warm < 2; warm++)
	{
		seconds = 0.0;
		for (int at = 0; at < tokens; at += s->prefill)
			seconds += time_attention(s, watch, lightning, state, at, s->prefill, 1);
	}
	ops->state_release(s->model.backend, state);
	return seconds;
}

/* In chunks of a prefill; softmax attention to a million tokens would take a minute. */
#define PREFILLS 4
static const int prefill_chunks[PREFILLS] = {1, 4, 16, 128};
static const int softmax_chunks = 16;

static json_t *
measure_attention(slice *s, const ceilings *top)
{
	const m1_config *c = &s->model.config;
	const stopwatch watch = make_stopwatch(s);
	const double width = (double) c->heads * c->head_dim;
	json_t *list = json_array();

	for (int i = 0; i < PREFILLS && prefill_chunks[i] * s->prefill <= c->max_context; i++)
	{
		const int tokens = prefill_chunks[i] * s->prefill;
		const double lightning = time_attention_prefill(s, &watch, true, tokens);
		json_t *one = json_pack("{s:i, s:f, s:f}", "tokens", tokens, "lightning_ms", lightning * 1e3,
								"lightning_share_of_copy_bandwidth",
								tokens * 4.0 * width * sizeof(float) / lightning / top->bandwidth);

		if (prefill_chunks[i] <= softmax_chunks)
		{
			const double softmax = time_attention_prefill(s, &watch, false, tokens);

			json_object_set_new(one, "softmax_ms", json_real(softmax * 1e3));
			json_object_set_new(one, "softmax_share_of_product_rate",
								json_real(2.0 * tokens * tokens * width / softmax / top->rate));
		}
		json_array_append_new(list, one);
	}
	free_stopwatch(s, &watch);
	return list;
}

/* ---- steps ---- */

typedef struct step_time
{
	double seconds;
	double launching; /* seconds of them until its last launch but for the choice of tokens returned */
} step_time;

/*
 * Steps of `batch` sequences with n tokens each, from position `start` on, and the choice of each one's next token, as
 * the engine would make it. Single tokens follow each other, and their steps are recorded unless they
 * are to be launched kernel by kernel; longer ones begin anew each time.
 */
typedef struct steps
{
	int batch, n, start, count;
	bool one_by_one;
	bool cold; /* no steps before those that count */
} steps;

/* The median of `count` of them. */
static step_time
time_steps(slice *s, steps p)
{
	const int batch = p.batch, n = p.n;
	const int warm_up = p.cold ? 0 : WARM_UP;
	m1b_backend *b = s->model.backend;
	const m1b_ops *ops = b->ops;
	m1b_segment segments[SLICE_BATCH];
	m1b_draw draws[SLICE_BATCH];
	m1b_pick picks[SLICE_BATCH];
	int rows[SLICE_BATCH];
	double seconds[64], launching[64];
	int32_t *tokens = malloc((size_t) (batch * n) * sizeof *tokens);

	for (int i = 0; i < batch; i++)
	{
		segments[i] = (m1b_segment){.state = ops->state_acquire(b, p.start + (n > 1 ? n : p.count + warm_up)),
									.start = p.start,
									.n_tokens = n,
									.row = i * n};
		rows[i] = i * n + n - 1;
		draws[i] = (m1b_draw){.row = i, .temperature = 1.0f, .top_p = 0.95f, .uniform = (double) i / batch};
		if (segments[i].state == NULL || tokens == NULL)
			slice_must(s, m1_fail(&s->err, M1_E_NO_MEMORY, "no room for %d sequences", batch));
	}
	for (int step = -warm_up; step < p.count; step++)
	{
		m1b_batch step_batch = {.tokens = tokens, .n_tokens = batch * n, .segments = segments, .n_segments = batch};
		double began, launched;

		for (int i = 0; i < batch * n; i++)
			tokens[i] = (int32_t) (((unsigned) rand()) % (unsigned) s->model.config.vocab_size);
		if (p.one_by_one)
			slice_cuda(s)->graphs.layers[batch].seen = 0;
		began = m1_now_ms();
		m1_forward_start(&s->model, &step_batch, rows, batch);
		launched = m1_now_ms();
		slice_must(s, m1_forward_sample(&s->model, draws, batch, picks, &s->err));
		if (step >= 0)
		{
			seconds[step] = (m1_now_ms() - began) * 1e-3;
			launching[step] = (launched - began) * 1e-3;
		}
		for (int i = 0; i < batch; i++)
			segments[i].start += n == 1;
	}
	for (int i = 0; i < batch; i++)
		ops->state_release(b, segments[i].state);
	free(tokens);
	return (step_time){.seconds = median(seconds, p.count), .launching = median(launching, p.count)};
}

/* Bytes a decode step must read and write: weights of the experts that are expected to be chosen, states, the head. */
static double
step_bytes(const slice *s, int batch)
{
	const m1_config *c = &s->model.config;
	const double bytes_of_weight = (double) m1b_block_bytes(s->type) / m1b_block_weights(s->type);
	const double state = 2.0 * (c->layers - 1) * c->heads * c->head_dim * c->head_dim * (double) sizeof(float);
	double untouched = 1.0;

	for (int i = 0; i < batch; i++)
		untouched *= 1.0 - (double) c->experts_per_token / c->experts;
	return bytes_of_weight * c->layers * slice_layer_weights(c, (1.0 - untouched) * c->experts) +
		   (double) slice_head_bytes(s) + batch * state;
}

/* ---- decode at growing context ---- */

typedef struct context_time
{
	int tokens;
	double step, lightning, softmax; /* seconds of a step, and of one layer's attention in it */
} context_time;

/* The attention of one token after so many others, which are whatever the pages hold. */
static context_time
time_context(slice *s, const stopwatch *watch, int tokens)
{
	const m1b_ops *ops = s->model.backend->ops;
	m1b_state *state = ops->state_acquire(s->model.backend, tokens);
	context_time t = {.tokens = tokens};

	slice_must(s, state != NULL ? M1_OK : m1_fail(&s->err, M1_E_NO_MEMORY, "no room for %d tokens", tokens));
	fill_pages(s);
	t.lightning = time_attention(s, watch, true, state, tokens - 1, 1, REPEATS);
	t.softmax = time_attention(s, watch, false, state, tokens - 1, 1, REPEATS);
	ops->state_release(s->model.backend, state);
	return t;
}

#define MAX_CONTEXTS 5

static json_t *
measure_contexts(slice *s, const ceilings *top)
{
	static const int large[MAX_CONTEXTS] = {4096, 32768, 131072, 524288, 1048576};
	static const int small[MAX_CONTEXTS] = {64, 96, 128, 192, 256};
	const int *contexts = slice_is_toy(s) ? small : large;
	const int count = slice_is_toy(s) ? 2 : 16;
	const m1_config *c = &s->model.config;
	const double token_bytes = 2.0 * c->kv_heads * c->head_dim * (double) sizeof(uint16_t);
	const stopwatch watch = make_stopwatch(s);
	context_time times[MAX_CONTEXTS];
	json_t *list = json_array();

	/* before steps are recorded, which run as a whole then */
	for (int i = 0; i < MAX_CONTEXTS; i++)
		times[i] = time_context(s, &watch, contexts[i]);
	free_stopwatch(s, &watch);
	for (int i = 0; i < MAX_CONTEXTS; i++)
	{
		const double added = (times[i].softmax - times[0].softmax) * REAL_SOFTMAX_LAYERS;

		fill_pages(s);
		times[i].step =
			time_steps(s, (steps){.batch = 1, .n = 1, .start = contexts[i] - count - WARM_UP, .count = count}).seconds;
		json_array_append_new(list,
							  json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "tokens", contexts[i], "step_ms",
										times[i].step * 1e3, "lightning_layer_ms", times[i].lightning * 1e3,
										"softmax_layer_ms", times[i].softmax * 1e3, "softmax_share_of_copy_bandwidth",
										contexts[i] * token_bytes / times[i].softmax / top->bandwidth,
										"added_ms_80_layers", added * 1e3));
	}
	return list;
}

/* ---- weights of one type ---- */

/*
 * Seconds of a step without its layers: the embedding, the head, the choice of tokens, and the host. Before any step of
 * that batch is recorded.
 */
static double
time_outside_layers(slice *s, steps p)
{
	const int layers = s->model.config.layers;
	double seconds;

	s->model.config.layers = 0;
	p.one_by_one = true;
	seconds = time_steps(s, p).seconds;
	s->model.config.layers = layers;
	/* the layers' kernels are still to be loaded, which cannot be recorded */
	slice_cuda(s)->graphs.layers[p.batch].seen = 0;
	return seconds;
}

/* Several GPUs share the layers and the head, and nothing else of what is outside the layers. */
static json_t *
project(const slice *s, double seconds, double outside, int batch, double bandwidth)
{
	const double head = (double) slice_head_bytes(s) / bandwidth;
	const double layers = (seconds - outside) * REAL_LAYERS / s->model.config.layers;
	const double sums = REAL_LAYERS * SUMS * SUM_SECONDS;
	const double shared = head < outside ? head : outside;

	return json_pack("{s:i, s:f, s:f, s:f}", "batch", batch, "outside_layers_ms", outside * 1e3, "ms_one_gpu",
					 (layers + outside) * 1e3, "ms_eight_gpus",
					 ((layers + shared) / GPUS + outside - shared + sums) * 1e3);
}

static json_t *
measure_weights(slice *s, const ceilings *top)
{
	static const int batches[] = {1, 8, 64};
	const m1_config *c = &s->model.config;
	const int tokens = s->prefill;
	const double prefill = time_steps(s, (steps){.batch = 1, .n = tokens, .count = slice_is_toy(s) ? 1 : 3}).seconds;
	const double operations = 2.0 * tokens * c->layers * slice_layer_weights(c, c->experts_per_token);
	json_t *decode = json_array();
	json_t *projected = json_array();

	for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
	{
		const int batch = batches[i];
		const steps p = {.batch = batch, .n = 1, .count = slice_is_toy(s) ? 2 : 32};
		const double without_layers = time_outside_layers(s, p);
		const step_time t = time_steps(s, p);
		/* on a busy machine, a step that has none may take longer than one that has some */
		const double outside = without_layers < t.seconds ? without_layers : t.seconds;

		json_array_append_new(decode,
							  json_pack("{s:i, s:f, s:f, s:f, s:f}", "batch", batch, "ms", t.seconds * 1e3,
										"launching_ms", t.launching * 1e3, "bytes", step_bytes(s, batch),
										"share_of_copy_bandwidth", step_bytes(s, batch) / top->bandwidth / t.seconds));
		json_array_append_new(projected, project(s, t.seconds, outside, batch, top->bandwidth));
	}
	return json_pack("{s:s, s:i, s:f, s:i, s:f, s:f, s:o, s:o}", "weights", m1b_dtype_name(s->type), "layers",
					 c->layers, "weight_bytes", (double) slice_cuda(s)->g.weight_bytes, "prefill_tokens", tokens,
					 "prefill_ms", prefill * 1e3, "prefill_share_of_product_rate", operations / prefill / top->rate,
					 "decode", decode, "projected_80_layers", projected);
}

static const char assumptions[] =
	"random weights and tokens, so all experts are chosen alike; the layers of the slice stand for 80, "
	"whatever its proportion of the two kinds, and what is outside them, which is measured apart, is there "
	"once; eight GPUs share every matrix evenly and add up twice a layer, and once more in a lightning one, "
	"at 10 microseconds each; softmax attention is prefilled to 131,072 tokens only; context adds the "
	"time of ten softmax layers; 80 layers take 912 GB in BF16, 487 in Q8_0, 473 in F8_E4M3 and 260 in "
	"Q4_0, which no single GPU has";

/* ---- launches ---- */

/* Before any step of these batches is recorded. */
static json_t *
measure_graphs(slice *s)
{
	static const int batches[] = {1, 8, 64};
	json_t *list = json_array();

	for (int i = 0; i < (slice_is_toy(s) ? 2 : 3); i++)
	{
		steps p = {.batch = batches[i], .n = 1, .count = slice_is_toy(s) ? 2 : 32, .one_by_one = true};
		const step_time plain = time_steps(s, p);
		step_time recorded;

		p.one_by_one = false;
		recorded = time_steps(s, p);
		json_array_append_new(list, json_pack("{s:i, s:f, s:f, s:f, s:f}", "batch", p.batch, "launching_ms",
											  plain.launching * 1e3, "ms", plain.seconds * 1e3, "recorded_launching_ms",
											  recorded.launching * 1e3, "recorded_ms", recorded.seconds * 1e3));
	}
	return list;
}

/* ---- parts ---- */

static void
run_once(slice *s)
{
	time_steps(s, (steps){.batch = 1, .n = s->prefill, .count = 1, .cold = true});
	time_steps(s, (steps){.batch = 1, .n = 1, .count = 1, .one_by_one = true, .cold = true});
}

/* Of a slice whose weights have the type, if that is the part's name. */
static void
measure(slice *s, const char *part, bool weights, json_t *result)
{
	const ceilings top = measure_ceilings(s);

	json_object_set_new(result, "copy_bytes_per_s", json_real(top.bandwidth));
	json_object_set_new(result, "bf16_product_operations_per_s", json_real(top.rate));
	if (weights)
		json_array_append_new(json_object_get(result, "weights"), measure_weights(s, &top));
	else if (strcmp(part, "graphs") == 0)
		json_object_set_new(result, part, measure_graphs(s));
	else if (strcmp(part, "contexts") == 0)
		json_object_set_new(result, part, measure_contexts(s, &top));
	else
		json_object_set_new(result, part, measure_attention(s, &top));
}

static bool
dtype_named(const char *name, m1b_dtype *type)
{
	static const m1b_dtype types[] = {M1B_BF16, M1B_Q8_0, M1B_F8_E4M3, M1B_Q4_0};

	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (strcmp(name, m1b_dtype_name(*type = types[i])) == 0)
			return true;
	return false;
}

/* Nothing else: a tool that looks into a device takes long for what a slice loads. */
static void
launch_once(void)
{
	cudaStream_t stream;
	void *x;

	if (cudaMalloc(&x, 256 * sizeof(float)) == cudaSuccess &&
		cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
		cudaMemsetAsync(x, 0, 256 * sizeof(float), stream) == cudaSuccess)
	{
		m1k_silu(x, 256, stream);
		if (cudaStreamSynchronize(stream) == cudaSuccess && cudaGetLastError() == cudaSuccess)
			return;
	}
	fputs("bench: error: nothing can be launched\n", stderr);
	exit(1);
}

static void
plan_all(void)
{
	static const m1b_dtype types[] = {M1B_BF16, M1B_Q8_0, M1B_F8_E4M3, M1B_Q4_0};

	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		slice_plan(types[i], SLICE_REAL);
	slice_plan(M1B_BF16, SLICE_PROFILED);
}

static void
run_part(const char *part, bool small, json_t *result)
{
	m1b_dtype type;
	const bool weights = dtype_named(part, &type);
	const bool profiled = strcmp(part, "profile") == 0;
	static slice s;

	if (strcmp(part, "plan") == 0)
		return plan_all();
	if (strcmp(part, "launch") == 0)
		return launch_once();
	slice_open(&s, weights ? type : M1B_BF16, small ? SLICE_TOY : profiled ? SLICE_PROFILED : SLICE_REAL);
	json_object_set_new(result, "device", json_string(s.model.backend->ops->describe(s.model.backend)));
	if (profiled)
		run_once(&s);
	else
		measure(&s, part, weights, result);
	slice_close(&s);
}

static bool
is_part(const char *name)
{
	static const char *const others[] = {"attention", "contexts", "graphs", "launch", "plan", "profile"};
	m1b_dtype type;

	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (strcmp(name, others[i]) == 0)
			return true;
	return dtype_named(name, &type);
}

int
main(int argc, char **argv)
{
	const bool small = argc > 2 && strcmp(argv[2], "small") == 0;
	json_t *result = json_object();
	bool known = argc > 2 + small;

	for (int i = 2 + small; i < argc; i++)
		known = known && is_part(argv[i]);
	if (!known)
	{
		fprintf(stderr,
				"usage: bench FILE [small] attention|contexts|graphs|launch|plan|profile|BF16|Q8_0|F8_E4M3|Q4_0...\n");
		return 2;
	}
	json_object_set_new(result, "layers", json_integer(SLICE_LAYERS));
	json_object_set_new(result, "weights", json_array());
	json_object_set_new(result, "assumptions", json_string(assumptions));
	for (int i = 2 + small; i < argc; i++)
	{
		run_part(argv[i], small, result);
		if (json_dump_file(result, argv[1], JSON_INDENT(2) | JSON_REAL_PRECISION(5)) != 0)
		{
			fprintf(stderr, "%s cannot be written\n", argv[1]);
			return 1;
		}
		puts(argv[i]);
		fflush(stdout);
	}
	json_decref(result);
	return 0;
}
