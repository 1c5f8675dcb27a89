/*
 * million.c - one prompt of very many tokens, by the model of a folder: what it takes in memory on the way, beside what is
 * planned, that another chunking leaves the same behind, and how long a token takes at its end.
 *
 * million MODEL TOKENS [THREADS]: prints a table, and a line "ok ..." or "not ok ..." for each of the three. The states are
 * those of the CPU backend, which this looks into.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu_internal.h"
#include "base/clock.h"
#include "base/memory.h"
#include "commands/cli.h"
#include "model/forward.h"
#include "model/plan.h"
#include "model/state.h"

#define CHUNK 2048
#define OTHER_CHUNK 1500 /* no multiple of a block: its cuts are elsewhere */
#define DECODED 16
#define ROWS 10		   /* of the table */
#define SLACK 2e6	   /* bytes: what neither states nor pages are, and pages that are not full */
#define TOLERANCE 1e-3 /* of the largest number in a layer's state */

typedef struct run
{
	m1_model *model;
	const int32_t *tokens;
	int n;
	float *logits;
	double before; /* bytes of memory before the prompt */
	double planned_state, planned_token;
} run;

static void
fail(const m1_error *err)
{
	m1_cli_report(err);
	exit(1);
}

static void
report(bool ok, const char *what)
{
	printf("%s %s\n", ok ? "ok" : "not ok", what);
	fflush(stdout);
}

/* Tokens [from, to) of the prompt, or behind it. */
static void
feed(const run *r, m1b_state *state, int from, int to)
{
	int row = to - from - 1;
	m1b_segment segment = {.state = state, .start = from, .n_tokens = to - from};
	m1b_batch batch = {.tokens = r->tokens + from, .n_tokens = to - from, .segments = &segment, .n_segments = 1};
	m1_error err;

	if (m1_forward(r->model, &batch, &row, to >= r->n, r->logits, &err) != M1_OK)
		fail(&err);
}

static void
plan(run *r)
{
	const m1_config *c = &r->model->config;
	const m1_plan_options o = {
		.devices = 1, .cpu = true, .context = r->n, .requests = 1, .checkpoint = r->model->checkpoint};
	m1_plan p;
	m1_error err;

	if (m1_plan_make(c, &o, &p, &err) != M1_OK)
		fail(&err);
	r->planned_state = p.state;
	r->planned_token = p.kv_token;
}

/* Whether the memory was what is planned, at each row of the table. */
static bool
prefill(const run *r, m1b_state *state, int chunk, bool print)
{
	const double start = m1_now_ms();
	bool as_planned = true;
	int row = 1;

	if (print)
		printf("%9s %9s %10s %12s %12s\n", "tokens", "seconds", "tokens/s", "memory, MB", "planned, MB");
	for (int at = 0; at < r->n; at += chunk)
	{
		const int to = at + chunk < r->n ? at + chunk : r->n;

		feed(r, state, at, to);
		while (print && row <= ROWS && to >= (int) ((double) r->n / ROWS * row))
		{
			const double seconds = (m1_now_ms() - start) / 1e3;
			const double memory = (double) m1_resident_memory() - r->before;
			const double planned = r->planned_state + r->planned_token * to;

			printf("%9d %9.1f %10.0f %12.1f %12.1f\n", to, seconds, to / seconds, memory / 1e6, planned / 1e6);
			fflush(stdout);
			as_planned = as_planned && fabs(memory - planned) < SLACK;
			row++;
		}
	}
	return as_planned;
}

/* The largest difference of a layer's states, as a part of the largest number there. */
static double
difference(const run *r, const m1b_state *a, const m1b_state *b)
{
	const m1_config *c = &r->model->config;
	const size_t n = (size_t) c->heads * (size_t) c->head_dim * (size_t) c->head_dim;
	double worst = 0;

	for (int layer = 0, slot = 0; layer < c->layers; layer++)
	{
		double most = 0;
		double apart = 0;

		if (c->attention[layer] != M1_LIGHTNING)
			continue;
		for (size_t i = n * (size_t) slot; i < n * (size_t) (slot + 1); i++)
		{
			most = fmax(most, fabs((double) a->lightning[i]));
			apart = fmax(apart, fabs((double) a->lightning[i] - (double) b->lightning[i]));
		}
		if (!(apart <= worst * most)) /* NaN counts, too */
			worst = apart / most;
		slot++;
	}
	return worst;
}

static m1b_state *
acquire(const run *r)
{
	m1b_state *state = m1_state_acquire(r->model, r->n + DECODED, NULL);
	m1_error err;

	if (state != NULL)
		return state;
	m1_fail(&err, M1_E_NO_MEMORY, "no room for a sequence of %d tokens", r->n + DECODED);
	fail(&err);
	return NULL;
}

/* Work memory is touched, and threads are there. */
static void
warm_up(const run *r)
{
	m1b_state *state = acquire(r);
	const run all = {.model = r->model, .tokens = r->tokens, .n = CHUNK, .logits = r->logits};

	prefill(&all, state, CHUNK, false);
	m1_state_release(r->model, state);
}

static void
check(run *r)
{
	m1b_state *state;
	m1b_state *other;
	double start;
	double apart;
	char line[160];

	warm_up(r);
	r->before = (double) m1_resident_memory();
	state = acquire(r);
	report(prefill(r, state, CHUNK, true), "memory is what is planned, all the way");
	other = acquire(r);
	prefill(r, other, OTHER_CHUNK, false);
	apart = difference(r, state, other);
	snprintf(line, sizeof line, "chunks of %d and of %d leave the same states: %.2g apart", CHUNK, OTHER_CHUNK, apart);
	report(apart < TOLERANCE, line);
	start = m1_now_ms();
	for (int i = 0; i < DECODED; i++)
		feed(r, state, r->n + i, r->n + i + 1);
	snprintf(line, sizeof line, "a token behind %d takes %.2f ms", r->n, (m1_now_ms() - start) / DECODED);
	report(isfinite(r->logits[0]), line);
	m1_state_release(r->model, state);
	m1_state_release(r->model, other);
}

int
main(int argc, char **argv)
{
	run r = {.n = argc > 2 ? atoi(argv[2]) : 0};
	m1_model_options options = {
		.path = argv[1],
		.device = "cpu",
		.threads = argc > 3 ? atoi(argv[3]) : 0,
		.max_context = r.n + DECODED,
		.max_sequences = 2,
		.max_batch_tokens = CHUNK,
	};
	int32_t *tokens;
	m1_error err;

	if (r.n < CHUNK)
	{
		fprintf(stderr, "million MODEL TOKENS [THREADS], of at least %d tokens\n", CHUNK);
		return 2;
	}
	options.kv_bytes = SIZE_MAX; /* as much as two whole contexts take */
	if (m1_model_open(&options, &r.model, &err) != M1_OK)
		fail(&err);
	tokens = malloc((size_t) (r.n + DECODED) * sizeof *tokens);
	r.logits = malloc((size_t) r.model->config.vocab_size * sizeof *r.logits);
	if (tokens == NULL || r.logits == NULL)
		return 1;
	m1_cli_random_tokens(r.model, tokens, r.n + DECODED);
	r.tokens = tokens;
	plan(&r);
	check(&r);
	free(tokens);
	free(r.logits);
	m1_model_close(r.model);
	puts("done");
	return 0;
}
