/* fit.c - see fit.h. */
#include "train/fit.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "model/adapter_files.h"
#include "model/source.h"
#include "train/batches.h"
#include "train/fit_folder.h"
#include "train/training_files.h"

#define MOST_DROPPED 3 /* steps in a row without a number for a loss */

typedef struct fit
{
	const m1_fit_options *o;
	int lock;	  /* of the folder; -1: none */
	bool settled; /* the folder has nothing of another training any more */
	m1_config config;
	m1_model *model;
	m1_adapter *adapter; /* that is trained, or NULL */
	m1_trainer *trainer;
	m1_examples examples;
	m1_batches *batches;
	m1_schedule schedule;
	m1_training_place place;
	uint64_t saved; /* the step of the last checkpoint that was written */
	m1_sequence *sequences;
	size_t cap_sequences;
} fit;

/* ---- the options ---- */

/* Numbers are checked here; the schedule checks its own. NaN is in no range. */
static m1_status
check_options(const m1_fit_options *o, m1_error *err)
{
	const struct
	{
		const char *what;
		double x, least, most;
	} ranges[] = {
		{"share that is held out", o->held_out, 0.0, 0.999},   {"weight of prompts", o->prompt_weight, 0.0, 1e6},
		{"weight of answers", o->answer_weight, 0.0, 1e6},	   {"weight of the auxiliary loss", o->balance, 0.0, 1e6},
		{"beta1 of AdamW", o->adamw.beta1, 0.0, 0.999999},	   {"beta2 of AdamW", o->adamw.beta2, 0.0, 0.999999},
		{"epsilon of AdamW", o->adamw.eps, 1e-30, 1.0},		   {"weight decay", o->adamw.weight_decay, 0.0, 1e6},
		{"gradient's largest norm", o->adamw.clip, 0.0, 1e30},
	};

	for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
		if (!(ranges[i].x >= ranges[i].least && ranges[i].x <= ranges[i].most))
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "the %s must be from %g to %g", ranges[i].what, ranges[i].least,
						   ranges[i].most);
	return M1_OK;
}

/* ---- examples ---- */

static m1_status
read_files(fit *f, const m1_example_rules *rules, m1_error *err)
{
	const m1_fit_options *o = f->o;
	m1_status status = M1_OK;

	for (int i = 0; i < o->n_files && status == M1_OK; i++)
		status = m1_examples_read(&f->examples, o->files[i], rules, err);
	if (status == M1_OK)
		status = m1_batches_create(&f->examples, o->held_out, o->batch_tokens, o->seed, &f->batches, err);
	return status;
}

/* By what the model's folder says of it: the weights are not needed yet. */
static m1_status
read_examples(fit *f, m1_error *err)
{
	const m1_fit_options *o = f->o;
	m1_example_rules rules = {
		.too_long = o->too_long,
		.system = o->system,
		.prompt_weight = o->prompt_weight,
		.answer_weight = o->answer_weight,
		.goes_on = o->observer.goes_on,
		.goes_on_context = o->observer.context,
	};
	m1_source *source = NULL;
	m1_tokenizer *tokenizer = NULL;
	char room[M1_MAX_PATH];
	m1_status status;

	if ((status = m1_source_open(m1_fit_folder_beginning(o, room), &source, err)) != M1_OK ||
		(status = m1_source_config(source, &f->config, err)) != M1_OK)
	{
		m1_source_close(source);
		return status;
	}
	status = m1_source_tokenizer(source, f->config.vocab_size, &tokenizer, err);
	if (status == M1_OK || status == M1_E_NOT_FOUND)
	{
		rules.tokenizer = tokenizer;
		rules.vocab_rows = f->config.vocab_size;
		rules.max_tokens = (size_t) f->config.max_context;
		if (o->max_context > 0 && o->max_context < f->config.max_context)
			rules.max_tokens = (size_t) o->max_context;
		status = read_files(f, &rules, err);
	}
	m1_tokenizer_close(tokenizer);
	m1_source_close(source);
	return status;
}

/* ---- batches ---- */

/* The examples as the trainer takes them. *weight: the sum of their tokens' weights. */
static m1_status
make_sequences(fit *f, const uint32_t *numbers, size_t n, double *weight, int64_t *tokens, m1_error *err)
{
	const m1_examples *e = &f->examples;

	*weight = 0.0;
	*tokens = 0;
	if (n > f->cap_sequences)
	{
		free(f->sequences);
		f->cap_sequences = 0;
		if ((f->sequences = calloc(n, sizeof *f->sequences)) == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a batch of %zu sequences", n);
		f->cap_sequences = n;
	}
	for (size_t i = 0; i < n; i++)
	{
		const size_t begin = e->begins[numbers[i]];
		const size_t end = e->begins[numbers[i] + 1];

		f->sequences[i] = (m1_sequence){
			.tokens = e->ids + begin,
			.n = (int) (end - begin),
			.prompt = 1,
			.share = -1,
			.weight = e->weights + begin,
		};
		for (size_t t = begin; t < end; t++)
			*weight += e->weights[t];
		*tokens += (int64_t) (end - begin);
	}
	return M1_OK;
}

static m1_objective
objective_of(double weight, double balance)
{
	m1_objective objective = m1_objective_of(M1_LOSS_CE);

	objective.balance = (float) balance;
	objective.tokens = weight;
	return objective;
}

/* In pieces, so that an interrupt need not wait for the whole batch. */
static m1_status
run_batch(fit *f, size_t n, const m1_objective *objective, bool gradients, m1_batch_result *result, m1_error *err)
{
	bool done = false;
	m1_status status = m1_trainer_begin(f->trainer, f->sequences, (int) n, objective, gradients, err);

	while (status == M1_OK && !done)
	{
		if (!f->o->observer.goes_on(f->o->observer.context))
			return m1_fail(err, M1_E_CANCELLED, "interrupted");
		status = m1_trainer_piece(f->trainer, &done, result, err);
	}
	return status;
}

/* ---- opening ---- */

static m1_status
plan_steps(fit *f, m1_error *err)
{
	const m1_fit_options *o = f->o;
	m1_status status = M1_OK;

	f->schedule = o->schedule;
	f->schedule.steps = o->steps;
	if (o->steps == 0)
		status =
			m1_batches_steps(f->batches, o->epochs, o->observer.goes_on, o->observer.context, &f->schedule.steps, err);
	return status == M1_OK ? m1_schedule_check(&f->schedule, err) : status;
}

/* A training goes on with what it has begun with: another example or another order would be another training. */
static m1_status
check_same(const m1_training_place *was, const m1_training_place *is, m1_error *err)
{
	const char *what = was->digest != is->digest				 ? "other examples"
					   : was->seed != is->seed					 ? "another seed"
					   : was->batch_tokens != is->batch_tokens	 ? "other tokens of a batch"
					   : was->held_out != is->held_out			 ? "another share that is held out"
					   : was->weight_format != is->weight_format ? "another format of the weights"
																 : NULL;

	if (what == NULL)
		return M1_OK;
	return m1_fail(err, M1_E_INVALID_ARGUMENT, "the training cannot go on: it has begun with %s", what);
}

static m1_status
go_on(fit *f, m1_error *err)
{
	m1_training_place place;
	m1_status status;

	if ((status = m1_training_place_of(f->o->out, &place, err)) != M1_OK ||
		(status = check_same(&place, &f->place, err)) != M1_OK ||
		(status = m1_batches_go(f->batches, place.batch, err)) != M1_OK ||
		(status = m1_training_load(f->o->out, f->trainer, err)) != M1_OK)
		return status;
	f->place = place;
	f->saved = place.step;
	return M1_OK;
}

/* The number of the longest example, of which there is one. */
static uint32_t
longest(const m1_examples *e)
{
	uint32_t number = 0;

	for (uint32_t i = 1; i < e->n; i++)
		if (e->begins[i + 1] - e->begins[i] > e->begins[number + 1] - e->begins[number])
			number = i;
	return number;
}

/* The one that a training begins with. */
static m1_status
make_adapter(fit *f, const m1_adapter_base *base, m1_adapter **out, m1_error *err)
{
	m1_adapter_plan plan;

	if (f->o->adapter != NULL)
		return m1_adapter_load(f->o->adapter, base, out, err);
	plan = *f->o->plan;
	plan.seed = f->o->seed;
	return m1_adapter_create(&plan, base->config, base->checkpoint, out, err);
}

/* Whether both change the same weights in the same way. */
static bool
are_alike(const m1_adapter *a, const m1_adapter *b)
{
	int n, n_b;
	const m1_adapter_target *x = m1_adapter_targets(a, &n);
	const m1_adapter_target *y = m1_adapter_targets(b, &n_b);

	if (n != n_b)
		return false;
	for (int i = 0; i < n; i++)
		if (x[i].role != y[i].role || x[i].layer != y[i].layer || x[i].expert != y[i].expert ||
			x[i].rank != y[i].rank || x[i].scale != y[i].scale || (x[i].whole == NULL) != (y[i].whole == NULL))
			return false;
	return true;
}

/* The one that is there must be of this base, and be what the options ask for. */
static m1_status
check_adapter(fit *f, const m1_adapter_base *base, m1_error *err)
{
	m1_adapter *was;
	m1_status status = m1_adapter_load(f->o->out, base, &was, err);

	if (status == M1_OK && !are_alike(was, f->adapter))
		status = m1_fail(err, M1_E_INVALID_ARGUMENT,
						 "the training cannot go on: it has begun with another rank, alpha or other targets");
	m1_adapter_free(was);
	return status;
}

static m1_status
open_adapter(fit *f, m1_error *err)
{
	const m1_adapter_base base = {
		.source = f->model->source, .config = &f->model->config, .checkpoint = f->model->checkpoint};
	m1_status status = make_adapter(f, &base, &f->adapter, err);

	return status == M1_OK && f->o->resume ? check_adapter(f, &base, err) : status;
}

static m1_status
open_trainer(fit *f, m1_error *err)
{
	const m1_fit_options *o = f->o;
	const size_t *begin = f->examples.begins + longest(&f->examples);
	char room[M1_MAX_PATH];
	const m1_model_options options = {
		.path = !o->resume && o->model != NULL ? o->model : m1_fit_folder_beginning(o, room),
		.device = o->device,
		.isa = o->isa,
		.weight_format = m1_fit_adapts(o) ? o->weight_format : M1_WEIGHTS_STORED,
		.threads = o->threads,
		.max_context = (int) (begin[1] - begin[0]),
		.max_sequences = 1,
		.max_batch_tokens = m1_model_prefill_chunk(o->device),
	};
	m1_status status = m1_model_open(&options, &f->model, err);

	if (status != M1_OK || (m1_fit_adapts(o) && (status = open_adapter(f, err)) != M1_OK))
		return status;
	status = m1_trainer_open(f->model, &(m1_trainer_options){.adapter = f->adapter}, &f->trainer, err);
	return status == M1_OK ? m1_trainer_moments(f->trainer, err) : status;
}

/* A batch is taken apart until it fits the memory, a sequence is not: better told now than after an hour. */
static m1_status
check_memory(fit *f, m1_error *err)
{
	const uint32_t number = longest(&f->examples);
	m1_train_memory memory;
	m1_objective objective;
	double weight;
	int64_t tokens;
	m1_status status = make_sequences(f, &number, 1, &weight, &tokens, err);

	if (status != M1_OK)
		return status;
	objective = objective_of(weight, f->o->balance);
	return m1_trainer_plan(f->trainer, f->sequences, 1, &objective, &memory, err);
}

/* What can be wrong is found before anything of the folder is changed. */
static m1_status
open_all(fit *f, m1_error *err)
{
	const m1_fit_options *o = f->o;
	m1_status status = check_options(o, err);

	if (status != M1_OK || (o->resume && (status = m1_fit_folder_check(o, err)) != M1_OK))
		return status;
	if ((!o->resume && (status = m1_fit_folder_make(o, err)) != M1_OK) ||
		(status = m1_fit_folder_lock(o, &f->lock, err)) != M1_OK || (status = m1_fit_folder_fill(o, err)) != M1_OK)
		return status;
	if ((status = read_examples(f, err)) != M1_OK || (status = plan_steps(f, err)) != M1_OK)
		return status;
	if (!o->resume && o->model == NULL && (status = m1_fit_folder_initialise(o, &f->config, err)) != M1_OK)
		return status;
	if ((status = open_trainer(f, err)) != M1_OK || (status = check_memory(f, err)) != M1_OK)
		return status;
	f->place = (m1_training_place){
		.digest = m1_examples_digest(&f->examples),
		.seed = o->seed,
		.batch_tokens = o->batch_tokens,
		.held_out = o->held_out,
		.weight_format = m1_fit_adapts(o) ? (int) o->weight_format : M1_WEIGHTS_STORED,
	};
	f->settled = o->resume;
	return o->resume ? go_on(f, err) : M1_OK;
}

/* ---- held out ---- */

/* The mean loss of what is held out, a batch at a time. */
static m1_status
evaluate(fit *f, double *loss, m1_error *err)
{
	double sum = 0.0;
	double weights = 0.0;
	size_t n_held_out;
	const uint32_t *held_out = m1_batches_held_out(f->batches, &n_held_out);
	m1_status status = M1_OK;

	for (size_t at = 0, n; at < n_held_out && status == M1_OK; at += n)
	{
		m1_batch_result result = {0};
		m1_objective objective;
		double weight;
		int64_t tokens;

		n = m1_batches_held_out_at(f->batches, at);
		if ((status = make_sequences(f, held_out + at, n, &weight, &tokens, err)) != M1_OK)
			return status;
		objective = objective_of(weight, 0.0);
		status = run_batch(f, n, &objective, false, &result, err);
		sum += result.loss * weight;
		weights += weight;
	}
	*loss = sum / weights;
	return status;
}

/* ---- checkpoints ---- */

static m1_status
check_numbers(void *context, const float *numbers, size_t n, m1_error *err)
{
	const fit *f = context;

	for (size_t i = 0; i < n; i++)
		if (!isfinite(numbers[i]))
			return m1_fail(err, M1_E_INVALID_ARGUMENT,
						   "step %llu made weights that are no numbers: they were not saved",
						   (unsigned long long) f->place.step);
	return M1_OK;
}

/* Weights that are no numbers are no checkpoint: the one before is the last good one. */
static m1_status
check_weights(fit *f, m1_error *err)
{
	size_t n;
	const m1_parameter *p = m1_trainer_parameters(f->trainer, &n);
	m1_status status = M1_OK;

	for (size_t i = 0; i < n && status == M1_OK; i++)
		status = m1_trainer_pass(f->trainer, p[i].value, p[i].n, check_numbers, f, err);
	return status;
}

/* What the folder had before it was begun anew stays until there is something to replace it. */
static m1_status
save_made(fit *f, m1_error *err)
{
	const m1_fit_options *o = f->o;
	m1_status status;

	if (!f->settled)
		m1_fit_folder_forget(o);
	status = m1_training_save_made(o->out, f->trainer, f->model, f->adapter, err);
	if (status != M1_OK || f->settled)
		return status;
	if ((status = m1_fit_folder_settle(o, err)) != M1_OK)
		return status;
	m1_fit_folder_clean(o); /* what was read there is in memory */
	f->settled = true;
	return M1_OK;
}

static m1_status
save(fit *f, m1_error *err)
{
	m1_status status;

	if (f->saved == f->place.step && f->place.step > 0)
		return M1_OK;
	f->place.updates = m1_trainer_updates(f->trainer);
	if ((status = check_weights(f, err)) != M1_OK || (status = save_made(f, err)) != M1_OK ||
		(status = m1_training_save(f->o->out, f->trainer, &f->place, err)) != M1_OK)
		return status;
	f->saved = f->place.step;
	return M1_OK;
}

/* While there are more steps, a checkpoint that cannot be written is tried again at the next one. */
static void
save_on_the_way(fit *f)
{
	m1_error err;

	if (save(f, &err) != M1_OK)
		f->o->observer.warn(f->o->observer.context, &err);
}

/* ---- steps ---- */

static bool
is_time(uint64_t step, int every)
{
	return every > 0 && step % (uint64_t) every == 0;
}

/* The weights are those of the last good step: where no checkpoint has any, they become one. */
static m1_status
too_many_dropped(fit *f, m1_error *err)
{
	if (f->saved == 0 && m1_trainer_updates(f->trainer) > 0)
		save_on_the_way(f);
	m1_fail(err, M1_E_INVALID_ARGUMENT, "%d steps in a row had a loss or a gradient that is no number", MOST_DROPPED);
	if (f->saved > 0)
		m1_error_detail(err, "The last checkpoint is that of step %llu.", (unsigned long long) f->saved);
	else
		m1_error_detail(err, "There is no checkpoint yet.");
	m1_error_hint(err, "Use a lower {lr}, or look at the data of the last steps.");
	return M1_E_INVALID_ARGUMENT;
}

static m1_status
do_step(fit *f, m1_fit_step *s, m1_error *err)
{
	const m1_fit_options *o = f->o;
	m1_adamw_options adamw = o->adamw;
	m1_batch_result result = {0};
	m1_update update;
	m1_objective objective;
	double weight;
	size_t n;
	const uint32_t *numbers = m1_batches_next(f->batches, &n);
	m1_status status;

	if ((status = make_sequences(f, numbers, n, &weight, &s->tokens, err)) != M1_OK)
		return status;
	objective = objective_of(weight, o->balance);
	if ((status = run_batch(f, n, &objective, true, &result, err)) != M1_OK)
		return status;
	adamw.rate = (float) m1_schedule_rate(&f->schedule, f->place.step);
	if ((status = m1_trainer_update(f->trainer, &adamw, &result, &update, err)) != M1_OK)
		return status;
	f->place.batch = m1_batches_place(f->batches);
	f->place.step++;
	f->place.tokens += (uint64_t) s->tokens;
	s->step = f->place.step;
	s->steps = f->schedule.steps;
	s->epoch = f->place.batch.epoch;
	s->loss = result.loss - o->balance * result.balance;
	s->balance = result.balance;
	s->rate = adamw.rate;
	s->norm = update.norm;
	s->dropped = update.dropped;
	s->all_dropped = f->place.step - (uint64_t) m1_trainer_updates(f->trainer);
	s->sequences = (int64_t) n;
	s->all_tokens = f->place.tokens;
	return M1_OK;
}

/* A step, and what is due after it. */
static m1_status
step(fit *f, m1_error *err)
{
	const m1_fit_options *o = f->o;
	const bool last = f->place.step + 1 >= f->schedule.steps;
	m1_fit_step s = {0};
	m1_status status = do_step(f, &s, err);
	size_t n_held_out;

	if (status != M1_OK)
		return status;
	m1_batches_held_out(f->batches, &n_held_out);
	if (n_held_out > 0 && (last || is_time(s.step, o->evaluate_every)))
	{
		status = evaluate(f, &s.held_out_loss, err);
		s.evaluated = status == M1_OK;
	}
	o->observer.step(o->observer.context, &s);
	if (status != M1_OK)
		return status;
	if (m1_trainer_dropped_in_a_row(f->trainer) >= MOST_DROPPED)
		return too_many_dropped(f, err);
	if (!last && m1_trainer_dropped_in_a_row(f->trainer) == 0 && is_time(s.step, o->save_every))
		save_on_the_way(f);
	return M1_OK;
}

/* What an interrupt leaves: the last step that is done. The batch that was under way begins anew. */
static m1_status
interrupted(fit *f, m1_error *err)
{
	m1_status status = save(f, err);

	if (status != M1_OK)
		return status;
	m1_fail(err, M1_E_CANCELLED, "interrupted after step %llu of %llu", (unsigned long long) f->place.step,
			(unsigned long long) f->schedule.steps);
	m1_error_hint(err, "Use {resume} to go on.");
	return M1_E_CANCELLED;
}

static m1_status
run(fit *f, m1_error *err)
{
	const m1_fit_observer *observer = &f->o->observer;
	size_t n_held_out;
	m1_status status = open_all(f, err);

	if (status != M1_OK)
		return status;
	m1_batches_held_out(f->batches, &n_held_out);
	observer->begun(observer->context, &f->examples.counts, f->examples.n, n_held_out, f->place.step,
					f->schedule.steps);
	while (status == M1_OK && f->place.step < f->schedule.steps)
		status = step(f, err);
	if (status == M1_E_CANCELLED)
		return interrupted(f, err);
	if (status != M1_OK && m1_trainer_dropped_in_a_row(f->trainer) == 0)
		save_on_the_way(f); /* what failed is the step, not the ones before */
	return status == M1_OK ? save(f, err) : status;
}

m1_status
m1_fit(const m1_fit_options *options, m1_error *err)
{
	fit f = {.o = options, .lock = -1};
	m1_status status = run(&f, err);

	m1_trainer_close(f.trainer);
	m1_adapter_free(f.adapter);
	m1_model_close(f.model);
	if (f.lock >= 0)
		m1_fit_folder_clean(options);
	m1_batches_free(f.batches);
	m1_examples_free(&f.examples);
	free(f.sequences);
	if (f.lock >= 0)
		close(f.lock);
	return status;
}
