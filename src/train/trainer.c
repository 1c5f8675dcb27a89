/*
 * trainer.c - a batch from its sequences to its gradients: planned, cut into micro-batches, and computed piece by
 * piece. See train.h.
 */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SUITING_ROWS 4096 /* tokens that are computed together, where there is memory for them */
#define FEW_ROWS 1024	  /* with fewer, it is better to keep less of each */
#define PASSED 65536	  /* numbers that are passed on from the device at once */

/* ---- life ---- */

static m1_status
check_device(const m1_model *model, const m1_trainer_options *options, m1_error *err)
{
	const m1b_learning *ops = model->backend->ops->learning;

	if (ops != NULL && (options->adapter == NULL || ops->adapted_back != NULL))
		return M1_OK;
	m1_fail(err, M1_E_UNSUPPORTED, "this device cannot %s: %s", ops == NULL ? "learn" : "train adapters",
			m1_model_device(model));
	m1_error_hint(err, "Set {device} to cpu.");
	return M1_E_UNSUPPORTED;
}

/* The moments are taken later. */
static size_t
memory_left(const m1_trainer *t)
{
	const size_t left = t->ops->memory(t->backend);
	size_t moments = 0;

	for (size_t i = 0; i < t->n_parameters; i++)
		moments += 2 * t->parameters[i].n * sizeof(float);
	return left > moments ? left - moments : 0;
}

m1_status
m1_trainer_open(m1_model *model, const m1_trainer_options *options, m1_trainer **out, m1_error *err)
{
	m1_trainer *t;
	m1_status status;

	*out = NULL;
	if ((status = check_device(model, options, err)) != M1_OK)
		return status;
	if ((t = calloc(1, sizeof *t)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	t->model = model;
	t->backend = model->backend;
	t->ops = model->backend->ops->learning;
	t->options = *options;
	t->adapter = options->adapter;
	t->target_chunk = model->max_batch_tokens < M1_MAX_TARGETS ? model->max_batch_tokens : M1_MAX_TARGETS;
	if ((status = m1_activations_prepare(t, err)) != M1_OK || (status = m1_parameters_create(t, err)) != M1_OK)
	{
		m1_trainer_close(t);
		return status;
	}
	t->memory = options->memory > 0 ? options->memory : memory_left(t) / 4;
	*out = t;
	return M1_OK;
}

static void
give_arena(m1_trainer *t)
{
	t->ops->give(t->backend, t->arena);
	t->arena = NULL;
	t->arena_floats = 0;
}

static void
end_batch(m1_trainer *t)
{
	m1_micro_free(&t->progress.micro);
	m1_ordered_free(&t->progress.ordered);
	t->progress = (m1_progress){0};
	if (t->options.gives_back)
		give_arena(t);
}

void
m1_trainer_abandon(m1_trainer *t)
{
	end_batch(t);
}

void
m1_trainer_close(m1_trainer *t)
{
	if (t == NULL)
		return;
	end_batch(t);
	m1_activations_free(t);
	m1_parameters_free(t);
	free(t);
}

m1_status
m1_trainer_pass(const m1_trainer *t, const float *from, size_t n, m1_numbers_fn fn, void *context, m1_error *err)
{
	const size_t most = n < PASSED ? n : PASSED;
	float *some = malloc((most + 1) * sizeof *some);
	m1_status status = M1_OK;

	if (some == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %zu numbers", most);
	for (size_t at = 0, now; status == M1_OK && at < n; at += now)
	{
		now = n - at < most ? n - at : most;
		if ((status = t->backend->ops->read(t->backend, from + at, now, some, err)) == M1_OK)
			status = fn(context, some, now, err);
	}
	free(some);
	return status;
}

void
m1_trainer_put(m1_trainer *t, float *to, const void *from, size_t n)
{
	t->ops->put(t->backend, to, from, n * sizeof *to);
}

m1_parameter *
m1_trainer_parameters(const m1_trainer *t, size_t *n)
{
	*n = t->n_parameters;
	return t->parameters;
}

/* ---- the plan ---- */

/* Sets *bytes to what the largest micro-batch takes when the batch is cut into so many rows. */
static m1_status
measure(m1_trainer *t, const m1_ordered *o, const m1_objective *objective, int rows, bool recompute, size_t *bytes,
		m1_error *err)
{
	m1_status status = M1_OK;

	*bytes = 0;
	for (int unit = 0, n; status == M1_OK && unit < o->n_units; unit += n)
	{
		m1_micro micro;
		size_t need;

		n = m1_micro_units(o, unit, rows);
		if ((status = m1_micro_build(o, unit, n, objective, &micro, err)) == M1_OK)
		{
			need = m1_activations_lay_out(t, &micro.spans, recompute, NULL) * sizeof(float) +
				   t->ops->reserve_bytes(t->backend, &micro.spans);
			*bytes = need > *bytes ? need : *bytes;
		}
		m1_micro_free(&micro);
	}
	return status;
}

static m1_status
refuse(const m1_trainer *t, const m1_ordered *o, size_t least, m1_error *err)
{
	m1_fail(err, M1_E_NO_MEMORY, "the activations of %d tokens do not fit", o->most_rows);
	m1_error_detail(err, "They take %zu MB at least, and may take %zu MB.", (least >> 20) + 1, t->memory >> 20);
	m1_error_hint(err, "Train on shorter sequences, or allow more memory.");
	return M1_E_NO_MEMORY;
}

/*
 * As many tokens together as the memory takes: all activations of them, or else the layers' inputs and what one layer
 * has beside.
 */
static m1_status
plan(m1_trainer *t, const m1_ordered *o, const m1_objective *objective, bool gradients, m1_train_memory *memory,
	 m1_error *err)
{
	const int most = t->options.rows > 0 ? t->options.rows : SUITING_ROWS;
	m1_status status = measure(t, o, objective, 1, true, &memory->least, err);

	if (status == M1_OK && memory->least > t->memory)
		status = refuse(t, o, memory->least, err);
	for (int recompute = t->options.recompute || !gradients; status == M1_OK && recompute <= 1; recompute++)
		for (int rows = most; status == M1_OK && rows >= (recompute || rows == most ? 1 : FEW_ROWS); rows /= 2)
		{
			status = measure(t, o, objective, rows, recompute, &memory->planned, err);
			memory->rows = rows;
			memory->recompute = recompute;
			if (status == M1_OK && memory->planned <= t->memory)
				return M1_OK;
		}
	return status == M1_OK ? refuse(t, o, memory->least, err) : status;
}

m1_status
m1_trainer_plan(m1_trainer *t, const m1_sequence *sequences, int n, const m1_objective *objective,
				m1_train_memory *memory, m1_error *err)
{
	m1_ordered o;
	m1_status status = m1_order(sequences, n, objective, &t->model->config, t->model->max_context, &o, err);

	*memory = (m1_train_memory){0};
	if (status == M1_OK)
		status = plan(t, &o, objective, true, memory, err);
	m1_ordered_free(&o);
	return status;
}

/* ---- micro-batches ---- */

/* Makes the arena large enough. */
static m1_status
reserve_arena(m1_trainer *t, size_t floats, m1_error *err)
{
	if (floats <= t->arena_floats)
		return M1_OK;
	give_arena(t);
	if ((t->arena = t->ops->take(t->backend, floats)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %zu MB of activations",
					   (floats * sizeof(float) >> 20) + 1);
	t->arena_floats = floats;
	return M1_OK;
}

/* The micro-batch that begins at a unit. */
static m1_status
begin_micro(m1_trainer *t, int unit, m1_phase phase, m1_error *err)
{
	m1_progress *p = &t->progress;
	size_t floats;
	m1_status status;

	m1_micro_free(&p->micro);
	p->unit = unit;
	p->n_units = m1_micro_units(&p->ordered, unit, p->rows);
	p->phase = phase;
	p->step = 0;
	if ((status = m1_micro_build(&p->ordered, unit, p->n_units, &p->objective, &p->micro, err)) != M1_OK)
		return status;
	floats = m1_activations_lay_out(t, &p->micro.spans, p->recompute, NULL);
	if ((status = reserve_arena(t, floats, err)) != M1_OK ||
		(status = t->ops->reserve(t->backend, &p->micro.spans, err)) != M1_OK)
		return status;
	m1_activations_lay_out(t, &p->micro.spans, p->recompute, t->arena);
	m1_train_embed(t);
	return M1_OK;
}

static void
zero_gradients(m1_trainer *t)
{
	for (size_t i = 0; i < t->n_parameters; i++)
		t->ops->zero(t->backend, t->parameters[i].gradient, t->parameters[i].n);
	if (t->model->config.tied_head && t->adapter == NULL)
		t->ops->zero(t->backend, t->head, (size_t) t->model->weights.head.rows * (size_t) t->model->weights.head.cols);
}

m1_status
m1_trainer_begin(m1_trainer *t, const m1_sequence *sequences, int n, const m1_objective *objective, bool gradients,
				 m1_error *err)
{
	const size_t loads = (size_t) t->model->config.layers * (size_t) t->model->config.experts;
	m1_progress *p = &t->progress;
	m1_train_memory memory;
	m1_status status;

	end_batch(t);
	if ((status = m1_order(sequences, n, objective, &t->model->config, t->model->max_context, &p->ordered, err)) !=
			M1_OK ||
		(status = plan(t, &p->ordered, objective, gradients, &memory, err)) != M1_OK)
	{
		end_batch(t);
		return status;
	}
	p->running = true;
	p->objective = *objective;
	p->gradients = gradients;
	p->rows = memory.rows;
	p->recompute = memory.recompute;
	p->load_first =
		gradients && objective->balance != 0.0f && m1_micro_units(&p->ordered, 0, p->rows) < p->ordered.n_units;
	p->result.tokens = p->ordered.tokens;
	p->result.rows = p->ordered.rows;
	p->result.learned = p->ordered.learned;
	memset(t->chosen, 0, loads * sizeof *t->chosen);
	memset(t->probability, 0, loads * sizeof *t->probability);
	if (gradients)
		zero_gradients(t);
	status = begin_micro(t, 0, p->load_first ? M1_PHASE_LOAD : M1_PHASE_FORWARD, err);
	if (status != M1_OK)
		end_batch(t);
	return status;
}

/* ---- pieces ---- */

/* The auxiliary loss, E sum_e f_e m_e as a mean over layers, and the largest load. */
static void
finish_load(m1_trainer *t, m1_batch_result *r)
{
	const m1_config *c = &t->model->config;
	const double tokens = (double) r->tokens;

	for (int i = 0; i < c->layers; i++)
		for (int e = 0; e < c->experts; e++)
		{
			const double chosen = t->chosen[i * c->experts + e];
			const double load = chosen / (tokens * c->experts_per_token) * c->experts;

			r->balance += c->experts * (chosen / tokens) * (t->probability[i * c->experts + e] / tokens) / c->layers;
			r->most_load = load > r->most_load ? load : r->most_load;
		}
	r->loss += (double) t->progress.objective.balance * r->balance;
}

bool
m1_batch_is_sound(const m1_batch_result *r)
{
	const double measured[] = {r->loss, r->balance, r->most_load, r->entropy, r->old_difference, r->old_mean};

	for (size_t i = 0; i < sizeof measured / sizeof *measured; i++)
		if (!(fabs(measured[i]) <= M1_MOST_MEASURED)) /* NaN is not, either */
			return false;
	return true;
}

/* And tells of a device that has failed. */
static m1_status
finish(m1_trainer *t, m1_batch_result *result, m1_error *err)
{
	m1_batch_result *r = &t->progress.result;
	float nothing;
	m1_status status;

	if (t->progress.gradients && t->model->config.tied_head && t->adapter == NULL)
	{
		const m1b_sum both = {.x = t->embed,
							  .y = t->head,
							  .alpha = 1.0f,
							  .beta = 1.0f,
							  .n = (size_t) t->model->weights.head.rows * (size_t) t->model->weights.head.cols,
							  .out = t->embed};

		t->ops->sum(t->backend, &both);
	}
	finish_load(t, r);
	if (r->predicted > 0)
	{
		r->entropy /= (double) r->predicted;
		r->old_mean /= (double) r->predicted;
	}
	*result = *r;
	status = t->backend->ops->read(t->backend, t->arena, 0, &nothing, err);
	end_batch(t);
	return status;
}

/* After the last step of a phase: the next phase, the next micro-batch, or the end. */
static m1_status
advance(m1_trainer *t, bool *done, m1_batch_result *result, m1_error *err)
{
	m1_progress *p = &t->progress;
	const bool flows = p->gradients && (p->micro.n_targets > 0 || p->objective.balance != 0.0f);
	m1_status status;

	p->step = 0;
	if (p->phase == M1_PHASE_FORWARD)
	{
		p->phase = M1_PHASE_HEAD;
		t->ops->zero(t->backend, t->a.dx, (size_t) p->micro.spans.n_rows * (size_t) t->model->config.hidden_size);
		return M1_OK;
	}
	if (p->phase == M1_PHASE_HEAD && flows)
	{
		p->phase = M1_PHASE_BACKWARD;
		return M1_OK;
	}
	if (p->phase == M1_PHASE_BACKWARD)
		m1_train_embed_backward(t);
	if (p->unit + p->n_units < p->ordered.n_units)
		return begin_micro(t, p->unit + p->n_units, p->phase == M1_PHASE_LOAD ? M1_PHASE_LOAD : M1_PHASE_FORWARD, err);
	if (p->phase == M1_PHASE_LOAD)
		return begin_micro(t, 0, M1_PHASE_FORWARD, err);
	status = finish(t, result, err);
	*done = status == M1_OK;
	return status;
}

static int
steps_of_phase(const m1_trainer *t)
{
	if (t->progress.phase == M1_PHASE_HEAD)
		return (t->progress.micro.n_targets + t->target_chunk - 1) / t->target_chunk;
	return t->model->config.layers - (t->progress.phase == M1_PHASE_BACKWARD ? t->first_layer : 0);
}

m1_status
m1_trainer_piece(m1_trainer *t, bool *done, m1_batch_result *result, m1_error *err)
{
	m1_progress *p = &t->progress;
	m1_status status = M1_OK;

	*done = false;
	if (!p->running)
		return m1_fail(err, M1_E_INTERNAL, "no batch has been begun");
	if (p->step < steps_of_phase(t))
	{
		if (p->phase == M1_PHASE_HEAD)
			m1_train_head(t, p->step);
		else if (p->phase == M1_PHASE_BACKWARD)
			m1_train_layer_backward(t, t->model->config.layers - 1 - p->step);
		else
			m1_train_layer_forward(t, p->step);
		p->step++;
	}
	if (p->step >= steps_of_phase(t))
		status = advance(t, done, result, err);
	if (status != M1_OK)
		end_batch(t);
	return status;
}

static m1_status
run(m1_trainer *t, const m1_sequence *sequences, int n, const m1_objective *objective, bool gradients,
	m1_batch_result *result, m1_error *err)
{
	bool done = false;
	m1_status status = m1_trainer_begin(t, sequences, n, objective, gradients, err);

	while (status == M1_OK && !done)
		status = m1_trainer_piece(t, &done, result, err);
	return status;
}

m1_status
m1_trainer_gradients(m1_trainer *t, const m1_sequence *sequences, int n, const m1_objective *objective,
					 m1_batch_result *result, m1_error *err)
{
	return run(t, sequences, n, objective, true, result, err);
}

m1_status
m1_trainer_evaluate(m1_trainer *t, const m1_sequence *sequences, int n, const m1_objective *objective,
					m1_batch_result *result, m1_error *err)
{
	return run(t, sequences, n, objective, false, result, err);
}
