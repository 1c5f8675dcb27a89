/*
 * cmd_bench_train.c - `bench-train`: how fast a model learns from random tokens, as one JSON object: whole steps of
 * forward, backward and optimizer, their forward passes alone, and what the two leave of a step, beside the memory that
 * was planned for them.
 */
#define _GNU_SOURCE /* getrusage */
#include <jansson.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/pool.h"
#include "commands/cli.h"
#include "train/train.h"

#define LEAST_MS 10000.0 /* that each of the two is measured for */

typedef struct training
{
	m1_model *model;
	m1_adapter *adapter; /* that is trained, or NULL: all weights are */
	m1_trainer *trainer;
	int32_t *tokens; /* [n, length] */
	m1_sequence *sequences;
	int n, length;
	m1_objective objective;
	m1_adamw_options adamw;
} training;

typedef struct rates
{
	double train, forward, backward; /* tokens/s */
	double update_ms;				 /* of a step, by the optimizer */
	m1_train_memory memory;
} rates;

/* Any tokens do: the same work is done for all. */
static m1_status
make_sequences(training *t, m1_error *err)
{
	t->tokens = calloc((size_t) t->n * (size_t) t->length, sizeof *t->tokens);
	t->sequences = calloc((size_t) t->n, sizeof *t->sequences);
	if (t->tokens == NULL || t->sequences == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d sequences of %d tokens", t->n, t->length);
	m1_cli_random_tokens(t->model, t->tokens, t->n * t->length);
	for (int i = 0; i < t->n; i++)
		t->sequences[i] = (m1_sequence){.tokens = t->tokens + i * t->length, .n = t->length, .share = -1};
	return M1_OK;
}

/* What steps took, in ms. */
typedef struct spent
{
	double passes, update; /* forward and, if it learns, backward; the optimizer */
	int steps;
} spent;

static m1_status
step(training *t, bool learns, spent *s, m1_error *err)
{
	const double began = m1_now_ms();
	m1_batch_result result;
	m1_update update;
	m1_status status = learns ? m1_trainer_gradients(t->trainer, t->sequences, t->n, &t->objective, &result, err)
							  : m1_trainer_evaluate(t->trainer, t->sequences, t->n, &t->objective, &result, err);
	const double passed = m1_now_ms();

	if (status == M1_OK && learns)
		status = m1_trainer_update(t->trainer, &t->adamw, &result, &update, err);
	s->passes += passed - began;
	s->update += m1_now_ms() - passed;
	s->steps++;
	return status;
}

/* One step first, which finds its memory. */
static m1_status
measure(training *t, bool learns, spent *s, m1_error *err)
{
	m1_status status = step(t, learns, s, err);

	*s = (spent){0};
	while (status == M1_OK && s->passes + s->update < LEAST_MS)
		status = step(t, learns, s, err);
	return status;
}

/* Of a training's passes, what the forward pass alone takes is taken away. */
static void
set_rates(const training *t, const spent *all, const spent *forward, rates *r)
{
	const double tokens = 1000.0 * t->n * t->length;
	const double forward_ms = forward->passes / forward->steps;

	r->train = tokens * all->steps / (all->passes + all->update);
	r->forward = tokens / forward_ms;
	r->backward = tokens / (all->passes / all->steps - forward_ms);
	r->update_ms = all->update / all->steps;
}

static m1_status
make_adapter(training *t, const m1_cli *cli, m1_error *err)
{
	m1_adapter_plan plan;
	const m1_status status = m1_cli_adapter_plan(cli, &plan, err);

	if (status != M1_OK)
		return status;
	return m1_adapter_create(&plan, &t->model->config, t->model->checkpoint, &t->adapter, err);
}

static m1_status
run(training *t, const m1_cli *cli, rates *r, m1_error *err)
{
	m1_trainer_options options = {0};
	spent all = {0};
	spent forward = {0};
	m1_status status = make_sequences(t, err);

	if (status == M1_OK && cli->adapts)
		status = make_adapter(t, cli, err);
	options.adapter = t->adapter;
	t->objective = m1_objective_of(M1_LOSS_CE);
	t->adamw = m1_adamw_defaults(1e-5f);
	if (status == M1_OK && (status = m1_trainer_open(t->model, &options, &t->trainer, err)) == M1_OK &&
		(status = m1_trainer_plan(t->trainer, t->sequences, t->n, &t->objective, &r->memory, err)) == M1_OK &&
		(status = measure(t, true, &all, err)) == M1_OK && (status = measure(t, false, &forward, err)) == M1_OK)
		set_rates(t, &all, &forward, r);
	return status;
}

static double
trained_parameters(const training *t)
{
	double all = 0;
	size_t n;
	const m1_parameter *p = m1_trainer_parameters(t->trainer, &n);

	for (size_t i = 0; i < n; i++)
		all += (double) p[i].n;
	return all;
}

static void
print_rates(const m1_cli *cli, const training *t, const rates *r)
{
	struct rusage usage = {0};
	json_t *out;

	getrusage(RUSAGE_SELF, &usage);
	out = json_pack("{s:s, s:s, s:f, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:I, s:b, s:I}", "model", cli->model, "device",
					m1_model_device(t->model), "trained_parameters", trained_parameters(t), "threads", cli->threads,
					"sequences", t->n, "sequence_tokens", t->length, "train_tokens_per_s", r->train,
					"forward_tokens_per_s", r->forward, "backward_tokens_per_s", r->backward, "update_ms", r->update_ms,
					"planned_bytes", (json_int_t) r->memory.planned, "recompute", (int) r->memory.recompute,
					"peak_bytes", (json_int_t) usage.ru_maxrss * 1024);
	json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	fputc('\n', stdout);
	json_decref(out);
}

int
m1_cmd_bench_train(const m1_cli *cli)
{
	const m1_model_options options = m1_cli_model_options(cli);
	training t = {.n = cli->sequences, .length = cli->bench_tokens};
	rates r = {0};
	m1_error err;
	m1_status status = m1_model_open(&options, &t.model, &err);

	if (status == M1_OK && (status = run(&t, cli, &r, &err)) == M1_OK)
		print_rates(cli, &t, &r);
	m1_trainer_close(t.trainer);
	m1_adapter_free(t.adapter);
	m1_model_close(t.model);
	free(t.tokens);
	free(t.sequences);
	return status == M1_OK ? 0 : m1_cli_report(&err);
}
