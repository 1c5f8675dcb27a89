/*
 * cmd_bench.c - `bench`: speeds of the forward pass on random tokens, as one JSON
 * object, beside the memory bandwidth that bounds decoding.
 */
#define _GNU_SOURCE /* getrusage */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/pool.h"
#include "engine/cli.h"
#include "model/forward.h"

#define REPEATS 3 /* of each timing; the median counts */
#define MAX_LIST 16
#define PREFILL_CHUNK 256
#define STREAM_BYTES ((size_t) 512 << 20) /* far beyond any cache */
#define STREAM_PIECE ((size_t) 1 << 20)

static int
parse_list(const char *text, int *list)
{
	int n = 0;
	char *end;

	while (n < MAX_LIST)
	{
		long value = strtol(text, &end, 10);

		if (end == text || value < 1 || value > 1 << 24 || (*end != ',' && *end != '\0'))
			return -1;
		list[n++] = (int) value;
		if (*end == '\0')
			return n;
		text = end + 1;
	}
	return -1;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a;
	double y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static double
median(double *values, int n)
{
	qsort(values, (size_t) n, sizeof *values, by_value);
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
	return (double) m->rows * m->cols * (m->type == M1B_F32 ? 4 : 2);
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
	float *logits; /* [max_sequences, vocab] */
	int32_t *tokens;
	int max_tokens;
} bench;

static void
random_tokens(const bench *b, int32_t *tokens, int n)
{
	uint32_t x = 12345;

	for (int i = 0; i < n; i++)
	{
		x = x * 1664525u + 1013904223u;
		tokens[i] = (int32_t) ((x >> 8) % (uint32_t) b->model->config.vocab_size);
	}
}

static m1_status
prefill(const bench *b, m1b_state *state, int n, m1_error *err)
{
	m1_status status = M1_OK;

	for (int at = 0; status == M1_OK && at < n; at += PREFILL_CHUNK)
	{
		int size = n - at < PREFILL_CHUNK ? n - at : PREFILL_CHUNK;
		int row = size - 1;
		m1b_segment segment = {.state = state, .start = at, .n_tokens = size};
		m1b_batch batch = {.tokens = b->tokens + at, .n_tokens = size, .segments = &segment, .n_segments = 1};

		status = m1_forward(b->model, &batch, &row, at + size == n ? 1 : 0, b->logits, err);
	}
	return status;
}

static m1_status
time_prefill(const bench *b, int n, double *rate, m1_error *err)
{
	const m1b_ops *ops = b->model->backend->ops;
	double rates[REPEATS];

	for (int i = 0; i < REPEATS; i++)
	{
		m1b_state *state = ops->state_acquire(b->model->backend, n);
		double start = m1_now_ms();
		m1_status status;

		if (state == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "no room for a prompt of %d tokens", n);
		status = prefill(b, state, n, err);
		rates[i] = n / (m1_now_ms() - start) * 1e3;
		ops->state_release(b->model->backend, state);
		if (status != M1_OK)
			return status;
	}
	*rate = median(rates, REPEATS);
	return M1_OK;
}

/* `batch` sequences side by side, one token each a step, n steps. */
static m1_status
decode(const bench *b, m1b_state **states, int batch, int first, int n, m1_error *err)
{
	m1b_segment *segments = calloc((size_t) batch, sizeof *segments);
	int *rows = calloc((size_t) batch, sizeof *rows);
	m1_status status = M1_OK;

	if (segments == NULL || rows == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for a batch of %d", batch);
	for (int i = first; status == M1_OK && i < first + n; i++)
	{
		m1b_batch step = {.tokens = b->tokens, .n_tokens = batch, .segments = segments, .n_segments = batch};

		for (int s = 0; s < batch; s++)
		{
			segments[s] = (m1b_segment){.state = states[s], .start = i, .n_tokens = 1, .row = s};
			rows[s] = s;
		}
		random_tokens(b, b->tokens, batch);
		b->tokens[0] = i % b->model->config.vocab_size;
		status = m1_forward(b->model, &step, rows, batch, b->logits, err);
	}
	free(segments);
	free(rows);
	return status;
}

static m1_status
time_decode(const bench *b, int batch, int n, double *rate, m1_error *err)
{
	const m1b_ops *ops = b->model->backend->ops;
	m1b_state **states = calloc((size_t) batch, sizeof *states);
	double rates[REPEATS];
	m1_status status = states != NULL ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	int n_states = 0;

	for (; status == M1_OK && n_states < batch; n_states++)
		if ((states[n_states] = ops->state_acquire(b->model->backend, (REPEATS + 1) * n)) == NULL)
			status = m1_fail(err, M1_E_NO_MEMORY, "no room for %d sequences", batch);
	if (status == M1_OK)
		status = decode(b, states, batch, 0, n, err); /* warm up */
	for (int i = 0; status == M1_OK && i < REPEATS; i++)
	{
		double start = m1_now_ms();

		status = decode(b, states, batch, (i + 1) * n, n, err);
		rates[i] = (double) batch * n / (m1_now_ms() - start) * 1e3;
	}
	for (int i = 0; i < n_states; i++)
		if (states[i] != NULL)
			ops->state_release(b->model->backend, states[i]);
	free(states);
	if (status == M1_OK)
		*rate = median(rates, REPEATS);
	return status;
}

static m1_status
run(const m1_cli *cli, const bench *b, const int *prefills, int n_prefills, const int *batches, int n_batches,
	json_t *result, m1_error *err)
{
	json_t *prefill_rates = json_object();
	json_t *decode_rates = json_object();
	const double bytes = bytes_per_token(b->model);
	const double bandwidth = measure_bandwidth(cli->threads);
	double single = 0;
	struct rusage usage;
	char key[16];
	m1_status status = M1_OK;

	for (int i = 0; status == M1_OK && i < n_prefills; i++)
	{
		double rate = 0;

		random_tokens(b, b->tokens, b->max_tokens);
		status = time_prefill(b, prefills[i], &rate, err);
		snprintf(key, sizeof key, "%d", prefills[i]);
		json_object_set_new(prefill_rates, key, json_real(rate));
	}
	for (int i = 0; status == M1_OK && i < n_batches; i++)
	{
		double rate = 0;

		status = time_decode(b, batches[i], cli->bench_tokens, &rate, err);
		if (batches[i] == 1)
			single = rate;
		snprintf(key, sizeof key, "%d", batches[i]);
		json_object_set_new(decode_rates, key, json_real(rate));
	}
	getrusage(RUSAGE_SELF, &usage);
	json_object_set_new(result, "model", json_string(b->model->name));
	json_object_set_new(result, "device", json_string(b->model->backend->ops->describe(b->model->backend)));
	json_object_set_new(result, "parameters", json_integer((json_int_t) b->model->weights.parameters));
	json_object_set_new(result, "prefill_tokens_per_s", prefill_rates);
	json_object_set_new(result, "decode_tokens_per_s", decode_rates);
	json_object_set_new(result, "bytes_per_token", json_real(bytes));
	json_object_set_new(result, "read_bandwidth_bytes_per_s", json_real(bandwidth));
	json_object_set_new(result, "decode_share_of_bandwidth", json_real(bytes * single / bandwidth));
	json_object_set_new(result, "max_resident_bytes", json_integer((json_int_t) usage.ru_maxrss * 1024));
	return status;
}

static int
largest(const int *list, int n)
{
	int max = 1;

	for (int i = 0; i < n; i++)
		max = list[i] > max ? list[i] : max;
	return max;
}

int
m1_cmd_bench(const m1_cli *cli)
{
	int prefills[MAX_LIST];
	int batches[MAX_LIST];
	const int n_prefills = parse_list(cli->prefill_list, prefills);
	const int n_batches = parse_list(cli->batch_list, batches);
	m1_model_options options = {.path = cli->model,
								.device = cli->device,
								.isa = cli->isa,
								.weight_format = cli->weight_format,
								.threads = cli->threads};
	bench b = {0};
	json_t *result = json_object();
	m1_error err;
	m1_status status;

	if (n_prefills < 0 || n_batches < 0)
	{
		fputs("minimax_m1_engine: --prefill and --batch take up to 16 positive numbers with commas between\n", stderr);
		return 2;
	}
	b.max_tokens = largest(prefills, n_prefills);
	options.max_sequences = largest(batches, n_batches);
	options.max_batch_tokens = PREFILL_CHUNK > options.max_sequences ? PREFILL_CHUNK : options.max_sequences;
	if ((status = m1_model_open(&options, &b.model, &err)) == M1_OK)
	{
		b.logits = malloc((size_t) options.max_sequences * (size_t) b.model->config.vocab_size * sizeof *b.logits);
		b.tokens = malloc((size_t) (b.max_tokens + options.max_sequences) * sizeof *b.tokens);
		if (b.logits == NULL || b.tokens == NULL)
			status = m1_fail(&err, M1_E_NO_MEMORY, "out of memory");
		else
			status = run(cli, &b, prefills, n_prefills, batches, n_batches, result, &err);
	}
	if (status == M1_OK)
	{
		json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(5));
		fputc('\n', stdout);
	}
	json_decref(result);
	free(b.logits);
	free(b.tokens);
	m1_model_close(b.model);
	return status == M1_OK ? 0 : m1_cli_report(&err);
}
