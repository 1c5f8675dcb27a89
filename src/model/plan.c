/* plan.c - see plan.h. */
#include "model/plan.h"

#include <math.h>

#include "blocks/blocks.h"
#include "model/roles.h"

#define STATE_BYTES 4.0 /* of a number in a lightning state */
#define WORK_SHARE 0.1	/* of a device, for all that is neither weights nor sequences */

/* What is added up on the way. */
typedef struct sums
{
	const m1_config *config;
	const m1_plan_options *options;
	m1_plan *plan;
	bool f32_experts; /* all of them */
	bool integer_experts;
} sums;

/* Of the weights of one role in a layer, those of all experts together. */
static double
numbers_of(const m1_config *c, m1_role role)
{
	int rows;
	int cols;

	m1_role_shape(role, c, &rows, &cols);
	return (double) rows * (cols > 0 ? cols : 1) * (m1_role_of_expert(role) ? c->experts : 1);
}

/* As it is stored. */
static m1_status
find(const sums *s, m1_role role, int layer, m1_weight *w, m1_error *err)
{
	const m1_config *c = s->config;

	if (s->options->checkpoint != NULL)
		return m1_role_find(role, s->options->checkpoint, c, layer, 0, w, err);
	*w = (m1_weight){.type = c->fp8 && m1_role_is_large(role) ? M1B_F8_E4M3 : M1B_BF16};
	m1_role_shape(role, c, &w->rows, &w->cols);
	return M1_OK;
}

/* As it is used: vectors and the router are floats. */
static m1b_dtype
type_of(const sums *s, m1_role role, const m1_weight *w)
{
	const m1b_dtype *type = s->options->type;

	if (role == M1_ROLE_ROUTER || w->cols == 0)
		return M1B_F32;
	if (type == NULL)
		return m1_weight_format_type(s->options->format, role, w);
	if (!m1_role_is_large(role) || m1b_is_quantized(w->type) || w->cols % m1b_block_weights(*type) != 0)
		return w->type;
	return *type;
}

/* Of experts, those that `requests` tokens are expected to choose together. */
static double
share_read(const m1_config *c, m1_role role, double requests)
{
	if (!m1_role_of_expert(role))
		return 1;
	return 1 - pow(1 - (double) c->experts_per_token / c->experts, requests);
}

/* One role of a layer to the sums; is_read: each token is multiplied by it. */
static m1_status
add(sums *s, m1_role role, int layer, bool is_read, m1_error *err)
{
	const m1_config *c = s->config;
	m1_plan *p = s->plan;
	const double numbers = numbers_of(c, role);
	m1_weight w;
	const m1_status status = find(s, role, layer, &w, err);
	m1b_dtype type;
	double bytes;

	if (status != M1_OK)
		return status;
	type = type_of(s, role, &w);
	bytes = numbers / m1b_block_weights(type) * (double) m1b_block_bytes(type);
	if (role == M1_ROLE_W1)
	{
		s->f32_experts &= type == M1B_F32;
		s->integer_experts |= m1b_is_integer(type);
	}
	p->parameters += numbers;
	p->weights += bytes;
	p->device_weights += m1_role_split(role) == M1B_WHOLE ? bytes : bytes / s->options->devices;
	if (!is_read)
		return M1_OK;
	p->active_weights += bytes * share_read(c, role, 1);
	p->step_bytes += bytes * share_read(c, role, s->options->requests);
	p->prefill_bytes += bytes * share_read(c, role, s->options->context);
	*(role == M1_ROLE_HEAD ? &p->head_parameters : &p->active_parameters) += numbers * share_read(c, role, 1);
	return M1_OK;
}

static m1_status
add_weights(sums *s, m1_error *err)
{
	const m1_config *c = s->config;
	m1_status status = add(s, M1_ROLE_EMBED, 0, c->tied_head, err);

	if (status == M1_OK)
		status = add(s, M1_ROLE_FINAL_NORM, 0, true, err);
	if (status == M1_OK && !c->tied_head)
		status = add(s, M1_ROLE_HEAD, 0, true, err);
	for (int layer = 0; layer < c->layers; layer++)
	{
		m1_role roles[M1_ROLES];
		const int n = m1_roles_of_layer(c, layer, roles);

		for (int i = 0; i < n && status == M1_OK; i++)
			status = add(s, roles[i], layer, true, err);
	}
	return status;
}

/* Of a number among keys and values, as the backends keep them. */
static double
kv_bytes(const sums *s)
{
	const bool floats = s->options->cpu ? !s->integer_experts : s->f32_experts;

	return floats ? 4 : 2;
}

static int
softmax_layers(const m1_config *c)
{
	int n = 0;

	for (int i = 0; i < c->layers; i++)
		n += c->attention[i] == M1_SOFTMAX;
	return n;
}

/* Of a token behind so many: scores and values of softmax, state and output of lightning attention. */
static double
attention_flops(const m1_config *c, double behind)
{
	const double softmax = softmax_layers(c) * 4.0 * c->heads * c->head_dim * behind;
	const double lightning = (c->layers - softmax_layers(c)) * 4.0 * c->heads * c->head_dim * c->head_dim;

	return softmax + lightning;
}

static m1_plan_bound
bound(double by_memory, double by_arithmetic)
{
	return (m1_plan_bound){fmin(by_memory, by_arithmetic), by_arithmetic < by_memory};
}

m1_status
m1_plan_make(const m1_config *c, const m1_plan_options *o, m1_plan *p, m1_error *err)
{
	sums s = {.config = c, .options = o, .plan = p, .f32_experts = true};
	m1_status status;

	*p = (m1_plan){0};
	if ((status = add_weights(&s, err)) != M1_OK)
		return status;
	p->state = (c->layers - softmax_layers(c)) * (double) c->heads * c->head_dim * c->head_dim * STATE_BYTES;
	p->kv_token = softmax_layers(c) * 2.0 * c->kv_heads * c->head_dim * kv_bytes(&s);
	p->sequence = p->state + p->kv_token * o->context;
	p->work = o->device_bytes * WORK_SHARE;
	p->room = o->devices * (o->device_bytes - p->work - p->device_weights);
	p->fits = p->room > 0 ? floor(p->room / p->sequence) : 0;
	/* a state is read and written; keys and values are read */
	p->step_bytes += o->requests * (2 * p->state + p->kv_token * o->context);
	p->decode = bound(o->requests * o->devices * o->bandwidth / p->step_bytes,
					  o->devices * o->flops /
						  (2 * (p->active_parameters + p->head_parameters) + attention_flops(c, o->context)));
	p->prefill = bound(o->context * (o->devices * o->bandwidth) / p->prefill_bytes,
					   o->devices * o->flops / (2 * p->active_parameters + attention_flops(c, o->context / 2.0)));
	return M1_OK;
}
