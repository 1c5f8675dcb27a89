/*
 * adamw.c - the optimizer: AdamW on the fp32 weights, after the gradient has been clipped to a norm over all
 * parameters. See train.h.
 *
 * Where a gradient is exactly 0 and always has been, 0 / (0 + eps) changes nothing, however small eps is.
 */
#include <math.h>

#include "train/trainer.h"

m1_adamw_options
m1_adamw_defaults(float rate)
{
	return (m1_adamw_options){
		.rate = rate, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-15f, .weight_decay = 0.1f, .clip = 1.0f};
}

m1_status
m1_trainer_moments(m1_trainer *t, m1_error *err)
{
	for (size_t i = 0; i < t->n_parameters; i++)
	{
		m1_parameter *p = &t->parameters[i];

		if (p->m == NULL)
			p->m = t->ops->take(t->backend, p->n);
		if (p->v == NULL)
			p->v = t->ops->take(t->backend, p->n);
		if (p->m == NULL || p->v == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the moments of \"%s\"", p->name);
	}
	return M1_OK;
}

int64_t
m1_trainer_updates(const m1_trainer *t)
{
	return t->updates;
}

void
m1_trainer_set_updates(m1_trainer *t, int64_t updates)
{
	t->updates = updates;
}

int
m1_trainer_dropped_in_a_row(const m1_trainer *t)
{
	return t->dropped_in_a_row;
}

int64_t
m1_trainer_dropped(const m1_trainer *t)
{
	return t->dropped;
}

static double
gradient_norm(m1_trainer *t)
{
	double sum = 0.0;

	for (size_t i = 0; i < t->n_parameters; i++)
		sum += t->ops->sum_of_squares(t->backend, t->parameters[i].gradient, t->parameters[i].n);
	return sqrt(sum);
}

m1_status
m1_trainer_update(m1_trainer *t, const m1_adamw_options *o, const m1_batch_result *batch, m1_update *update,
				  m1_error *err)
{
	m1_status status = m1_trainer_moments(t, err);
	m1b_adamw step = {.rate = o->rate, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps, .scale = 1.0f};

	if (status != M1_OK)
		return status;
	update->norm = gradient_norm(t);
	update->dropped = !(update->norm <= M1_MOST_MEASURED) || !m1_batch_is_sound(batch);
	if (update->dropped)
	{
		t->dropped++;
		t->dropped_in_a_row++;
		return M1_OK;
	}
	t->dropped_in_a_row = 0;
	t->updates++;
	if (o->clip > 0.0f && update->norm > (double) o->clip)
		step.scale = (float) ((double) o->clip / update->norm);
	step.correction1 = (float) (1.0 - pow((double) o->beta1, (double) t->updates));
	step.correction2 = (float) (1.0 - pow((double) o->beta2, (double) t->updates));
	for (size_t i = 0; i < t->n_parameters; i++)
	{
		const m1_parameter *p = &t->parameters[i];

		step.value = p->value;
		step.gradient = p->gradient;
		step.m = p->m;
		step.v = p->v;
		step.n = p->n;
		step.decay = p->cols > 0 ? o->rate * o->weight_decay : 0.0f;
		t->ops->adamw(t->backend, &step);
	}
	return M1_OK;
}
