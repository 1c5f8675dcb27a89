/*
 * cmd_bench.c - `bench`: speeds of the forward pass on random tokens, as one JSON object, beside the memory bandwidth
 * that bounds decoding.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/pool.h"
#include "base/sort.h"
#include "blocks/blocks.h"
#include "commands/cli.h"
#include "model/forward.h"
#include "model/state.h"

#define REPEATS 3						  /* of each timing; the median counts */
#define LONG_PREFILL 16384				  /* tokens from which one repeat is long enough */
#define CONTEXT_TOKENS 16				  /* decoded at each length of context */
#define STREAM_BYTES ((size_t) 512 << 20) /* far beyond any cache */
#define STREAM_PIECE ((size_t) 1 << 20)

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a;
	double y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static int
by_size(const void *a, const void *b)
{
	const int *x = a;
	const int *y = b;

	return (*x > *y) - (*x < *y);
}

static double
median(double *values, int n)
{
	m1_sort(values, (size_t) n, sizeof *values, by_value);
	return values[n / 2];
}

/* ---- memory bandwidth ---- */

typedef struct stream
{
	const uint64_t *data;
	uint64_t *sums; /* one per piece, so that the reads are not optimised away */
} stream;

static void
stream_piece(void *arg, int piece, int worker)
{
	const stream *s = arg;
	const size_t n = STREAM_PIECE / sizeof *s->data;
	const uint64_t *at = s->data + (size_t) piece * n;
	uint64_t sum = 0;

	(void) worker;
	for (size_t i = 0; i < n; i++)
		sum += at[i];
	s->sums[piece] = sum;
}

/* Bytes per second that all threads together read from memory: the best of several passes. */
static double
measure_bandwidth(int threads)
{
	const int pieces = (int) (STREAM_BYTES / STREAM_PIECE);
	uint64_t *data = malloc(STREAM_BYTES);
	uint64_t *sums = calloc((size_t) pieces, sizeof *sums);
	stream s = {data, sums};
	m1_pool *pool = NULL;
	m1_error err;
	double best = 0;

	if (data != NULL && sums != NULL && m1_pool_create(threads, &pool, &err) == M1_OK)
	{
		memset(data, 1, STREAM_BYTES);
		for (int i = 0; i < 5; i++)
		{
			double start = m1_now_ms();
			double rate;

			m1_pool_run(pool, pieces, stream_piece, &s);
			rate = (double) STREAM_BYTES / (m1_now_ms() - start) * 1e3;
			best = rate > best ? rate : best;
		}
	}
	m1_pool_free(pool);
	free(data);
	free(sums);
	return best;
}

/* ---- what one token must read ---- */

static double
matrix_bytes(const m1b_matrix *m)
{
	return (double) m1b_bytes(m->type, (size_t) m->rows * (size_t) m->cols);
}

/* Weights that one decoded token reads, and the lightning states it reads and writes. */
static double
bytes_per_token(const m1_model *m)
{
	const m1_config *c = &m->config;
	double bytes = matrix_bytes(&m->weights.head);

	for (int i = 0; i < c->layers; i++)
	{
		const m1_layer *l = &m->weights.layers[i];

		bytes += matrix_bytes(&l->out) + matrix_bytes(&l->router) +
				 c->experts_per_token * (matrix_bytes(&l->w1[0]) + matrix_bytes(&l->w2[0]) + matrix_bytes(&l->w3[0]));
		if (c->attention[i] == M1_LIGHTNING)
			bytes += matrix_bytes(&l->qkv) + matrix_bytes(&l->output_gate) +
					 2.0 * c->heads * c->head_dim * c->head_dim * (double) sizeof(float);
		else
			bytes += matrix_bytes(&l->q) + matrix_bytes(&l->k) + matrix_bytes(&l->v);
	}
	return bytes;
}

/* ---- timings ---- */

typedef struct bench
{
	m1_model *model;
	int chunk;		 /* prompt tokens of one step */
	float *logits;	 /* [max_sequences, vocab] */
	int32_t *tokens; /* the prompt */
} bench;

/* Prefills positions [from, to) of one sequence. */
static m1_status
prefill(const bench *b, m1b_state *state, int from, int to, m1_error *err)
{
	m1_status status = M1_OK;

	for (int at = from; status == M1_OK && at < to; at += b->chunk)
	{
		int size = to - at < b->chunk ? to - at : b->chunk;
		int row = size - 1;
		m1b_segment segment = {
			.state = state, .start = at, .n_tokens = size, .adapter = m1_adapter_set_count(b->model->adapters)};
		m1b_batch batch = {.tokens = b->tokens + at, .n_tokens = size, .segments = &segment, .n_segments = 1};

		status = m1_forward(b->model, &batch, &row, at + size == to ? 1 : 0, b->logits, err);
	}
	return status;
}

static m1b_state *
acquire(const bench *b, int n_tokens, m1_error *err)
{
	m1b_state *state = m1_state_acquire(b->model, n_tokens, NULL);

	if (state == NULL)
		m1_fail(err, M1_E_NO_MEMORY, "no room for a sequence of %d tokens", n_tokens);
	return state;
}

/* Gives the state back. Returns how much of the host's memory that frees: what the sequence has taken of it. */
static double
release(const bench *b, m1b_state *state)
{
	const double before = (double) m1_resident_memory();

	m1_state_release(b->model, state);
	return before - (double) m1_resident_memory();
}

static m1_status
time_prefill(const bench *b, int n, double *rate, double *bytes, m1_error *err)
{
	const int repeats = n >= LONG_PREFILL ? 1 : REPEATS;
	double rates[REPEATS] = {0};

	for (int i = 0; i < repeats; i++)
	{
		m1b_state *state = acquire(b, n, err);
		double start = m1_now_ms();
		m1_status status;

		if (state == NULL)
			return err->code;
		status = prefill(b, state, 0, n, err);
		rates[i] = n / (m1_now_ms() - start) * 1e3;
		*bytes = release(b, state);
		if (status != M1_OK)
			return status;
	}
	*rate = median(rates, repeats);
	return M1_OK;
}

/* `batch` sequences side by side, one token each a step, n steps. */
static m1_status
decode(const bench *b, m1b_state **states, int batch, int first, int n, m1_error *err)
{
	m1b_segment *segments = calloc((size_t) batch, sizeof *segments);
	int *rows = calloc((size_t) batch, sizeof *rows);
	int32_t *tokens = calloc((size_t) batch, sizeof *tokens);
	m1_status status = M1_OK;

	if (segments == NULL || rows == NULL || tokens == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for a batch of %d", batch);
	for (int i = first; status == M1_OK && i < first + n; i++)
	{
		m1b_batch step = {.tokens = tokens, .n_tokens = batch, .segments = segments, .n_segments = batch};

		for (int s = 0; s < batch; s++)
		{
			segments[s] = (m1b_segment){.state = states[s],
										.start = i,
										.n_tokens = 1,
										.row = s,
										.adapter = m1_adapter_set_count(b->model->adapters)};
			rows[s] = s;
		}
		for (int t = 0; t < batch; t++)
			tokens[t] = (int32_t) ((i * 7919 + t * 104729) % b->model->config.vocab_size);
		status = m1_forward(b->model, &step, rows, batch, b->logits, err);
	}
	free(segments);
	free(rows);
	free(tokens);
	return status;
}

static m1_status
time_decode(const bench *b, int batch, int n, double *rate, m1_error *err)
{
	m1b_state **states = calloc((size_t) batch, sizeof *states);
	double rates[REPEATS] = {0};
	m1_status status = states != NULL ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory");

	for (int i = 0; status == M1_OK && i < batch; i++)
		if ((states[i] = acquire(b, (REPEATS + 1) * n, err)) == NULL)
			status = err->code;
	if (status == M1_OK)
		status = decode(b, states, batch, 0, n, err); /* warm up */
	for (int i = 0; status == M1_OK && i < REPEATS; i++)
	{
		double start = m1_now_ms();

		status = decode(b, states, batch, (i + 1) * n, n, err);
		rates[i] = (double) batch * n / (m1_now_ms() - start) * 1e3;
	}
	for (int i = 0; states != NULL && i < batch; i++)
		m1_state_release(b->model, states[i]);
	free(states);
	if (status == M1_OK)
		*rate = median(rates, REPEATS);
	return status;
}

/* Milliseconds a decoded token takes after each of the contexts, which one sequence reaches one after the other. */
static m1_status
time_contexts(const bench *b, const int *contexts, int n, double *ms, m1_error *err)
{
	m1b_state *state = acquire(b, contexts[n - 1] + CONTEXT_TOKENS, err);
	m1_status status = state != NULL ? M1_OK : err->code;
	int reached = 0;

	for (int i = 0; status == M1_OK && i < n; i++)
	{
		double start;

		if ((status = prefill(b, state, reached, contexts[i], err)) != M1_OK)
			break;
		start = m1_now_ms();
		status = decode(b, &state, 1, contexts[i], CONTEXT_TOKENS, err);
		ms[i] = (m1_now_ms() - start) / CONTEXT_TOKENS;
		reached = contexts[i] + CONTEXT_TOKENS;
	}
	m1_state_release(b->model, state);
	return status;
}

/* ---- the whole ---- */

/* A list of sizes and what was measured at each. */
typedef struct series
{
	int n;
	int at[M1_CLI_MAX_SIZES];
	double value[M1_CLI_MAX_SIZES];
} series;

typedef struct results
{
	series prefill; /* tokens: tokens/s */
	series decode;	/* sequences: tokens/s of all together */
	series context; /* tokens: ms per decoded token */
	series held;	/* tokens of a prompt: bytes of its sequence, on the host */
	double bytes_per_token;
	double bandwidth;
	double resident;
} results;

static m1_status
run(const m1_cli *cli, const bench *b, results *r, m1_error *err)
{
	m1_status status = M1_OK;

	r->bytes_per_token = bytes_per_token(b->model);
	for (int i = 0; status == M1_OK && i < r->decode.n; i++)
		status = time_decode(b, r->decode.at[i], cli->bench_tokens, &r->decode.value[i], err);
	for (int i = 0; status == M1_OK && i < r->prefill.n; i++)
		status = time_prefill(b, r->prefill.at[i], &r->prefill.value[i], &r->held.value[i], err);
	r->resident = (double) m1_resident_memory();
	if (status == M1_OK && r->context.n > 0)
		status = time_contexts(b, r->context.at, r->context.n, r->context.value, err);
	r->bandwidth = measure_bandwidth(cli->threads);
	return status;
}

static json_t *
series_json(const series *s)
{
	json_t *object = json_object();
	char key[16];

	for (int i = 0; i < s->n; i++)
	{
		snprintf(key, sizeof key, "%d", s->at[i]);
		json_object_set_new(object, key, json_real(s->value[i]));
	}
	return object;
}

static void
print_results(const bench *b, const results *r, double load_ms)
{
	const m1_model *m = b->model;
	json_t *object = json_object();

	json_object_set_new(object, "model", json_string(m->name));
	json_object_set_new(object, "device", json_string(m1_model_device(m)));
	json_object_set_new(object, "parameters", json_integer((json_int_t) m->weights.parameters));
	json_object_set_new(object, "load_ms", json_real(load_ms));
	json_object_set_new(object, "prefill_tokens_per_s", series_json(&r->prefill));
	json_object_set_new(object, "decode_tokens_per_s", series_json(&r->decode));
	json_object_set_new(object, "ms_per_token_at_context", series_json(&r->context));
	json_object_set_new(object, "sequence_bytes", series_json(&r->held));
	json_object_set_new(object, "bytes_per_token", json_real(r->bytes_per_token));
	json_object_set_new(object, "read_bandwidth_bytes_per_s", json_real(r->bandwidth));
	for (int i = 0; i < r->decode.n; i++)
		if (r->decode.at[i] == 1)
			json_object_set_new(object, "decode_share_of_bandwidth",
								json_real(r->bytes_per_token * r->decode.value[i] / r->bandwidth));
	json_object_set_new(object, "resident_bytes", json_integer((json_int_t) r->resident));
	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(5));
	fputc('\n', stdout);
	json_decref(object);
}

static series
series_of(const m1_cli_sizes *sizes)
{
	series s = {.n = sizes->n};

	memcpy(s.at, sizes->at, sizeof s.at);
	return s;
}

static int
largest(const series *s)
{
	int max = 1;

	for (int i = 0; i < s->n; i++)
		max = s->at[i] > max ? s->at[i] : max;
	return max;
}

static m1_status
open_model(const m1_cli *cli, const results *r, bench *b, m1_error *err)
{
	const int contexts = largest(&r->context) + CONTEXT_TOKENS;
	const int prefills = largest(&r->prefill);
	const int n_tokens = contexts > prefills ? contexts : prefills;
	m1_model_options options = m1_cli_model_options(cli);
	m1_cli_adapter_list adapters;
	m1_status status = m1_cli_adapters(cli, 1, &adapters, err);

	if (status != M1_OK)
		return status;
	options.adapters = adapters.at;
	options.n_adapters = adapters.n;
	b->chunk = options.max_batch_tokens;
	options.max_sequences = largest(&r->decode);
	options.max_batch_tokens = b->chunk > options.max_sequences ? b->chunk : options.max_sequences;
	if ((status = m1_model_open(&options, &b->model, err)) != M1_OK)
		return status;
	b->logits = malloc((size_t) options.max_sequences * (size_t) b->model->config.vocab_size * sizeof *b->logits);
	b->tokens = malloc((size_t) (n_tokens + options.max_sequences) * sizeof *b->tokens);
	if (b->logits == NULL || b->tokens == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	m1_cli_random_tokens(b->model, b->tokens, n_tokens);
	return M1_OK;
}

int
m1_cmd_bench(const m1_cli *cli)
{
	bench b = {0};
	results r = {.prefill = series_of(&cli->prefill),
				 .decode = series_of(&cli->batch),
				 .context = series_of(&cli->context),
				 .held = series_of(&cli->prefill)};
	double start = m1_now_ms();
	double load_ms;
	m1_error err;
	m1_status status;

	m1_sort(r.context.at, (size_t) r.context.n, sizeof *r.context.at, by_size);
	status = open_model(cli, &r, &b, &err);
	load_ms = m1_now_ms() - start;
	if (status == M1_OK)
		status = run(cli, &b, &r, &err);
	if (status == M1_OK)
		print_results(&b, &r, load_ms);
	free(b.logits);
	free(b.tokens);
	m1_model_close(b.model);
	return status == M1_OK ? 0 : m1_cli_report(&err);
}
