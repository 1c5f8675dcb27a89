/* plan.c - see plan.h. */
#include "model/plan.h"

#include <math.h>

#include "model/roles.h"

#define KV_BYTES 2.0	/* of a number in the KV pages */
#define STATE_BYTES 4.0 /* of a number in a lightning state */
#define WORK_SHARE 0.1	/* of a device, for all that is neither weights nor sequences */

/* Of the weights of one role in a layer, those of all experts together. */
static double
numbers_of(const m1_config *c, m1_role role)
{
	int rows;
	int cols;

	m1_role_shape(role, c, &rows, &cols);
	return (double) rows * (cols > 0 ? cols : 1) * (m1_role_of_expert(role) ? c->experts : 1);
}

static double
bytes_of(const m1_config *c, m1_role role, m1_weight_format format)
{
	m1_weight w = {.type = c->fp8 && m1_role_is_large(role) ? M1B_F8_E4M3 : M1B_BF16};
	m1b_dtype type;
	double scales = 0;

	m1_role_shape(role, c, &w.rows, &w.cols);
	if (role == M1_ROLE_ROUTER || w.cols == 0)
		w.type = M1B_F32;
	type = m1_weight_format_type(format, role, &w);
	if (type == M1B_F8_E4M3) /* one for each block */
		scales = numbers_of(c, role) / (M1_FP8_BLOCK * M1_FP8_BLOCK) * 4;
	return numbers_of(c, role) / m1b_block_weights(type) * (double) m1b_block_bytes(type) + scales;
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
static void
add(m1_plan *p, const m1_config *c, const m1_plan_options *o, m1_role role, bool is_read)
{
	const double numbers = numbers_of(c, role);
	const double bytes = bytes_of(c, role, o->format);

	p->parameters += numbers;
	p->weights += bytes;
	p->device_weights += m1_role_split(role) == M1B_WHOLE ? bytes : bytes / o->devices;
	if (!is_read)
		return;
	p->active_weights += bytes * share_read(c, role, 1);
	p->step_bytes += bytes * share_read(c, role, o->requests);
	*(role == M1_ROLE_HEAD ? &p->head_parameters : &p->active_parameters) += numbers * share_read(c, role, 1);
}

static void
add_weights(m1_plan *p, const m1_config *c, const m1_plan_options *o)
{
	add(p, c, o, M1_ROLE_EMBED, c->tied_head);
	add(p, c, o, M1_ROLE_FINAL_NORM, true);
	if (!c->tied_head)
		add(p, c, o, M1_ROLE_HEAD, true);
	for (int layer = 0; layer < c->layers; layer++)
	{
		m1_role roles[M1_ROLES];
		const int n = m1_roles_of_layer(c, layer, roles);

		for (int i = 0; i < n; i++)
			add(p, c, o, roles[i], true);
	}
}

static int
softmax_layers(const m1_config *c)
{
	int n = 0;

	for (int i = 0; i < c->layers; i++)
		n += c->attention[i] == M1_SOFTMAX;
	return n;
}

/* Of a token in the middle of the context: scores and values of softmax, state and output of lightning attention. */
static double
attention_flops(const m1_config *c, const m1_plan_options *o)
{
	const double softmax = softmax_layers(c) * 4.0 * c->heads * c->head_dim * (o->context / 2.0);
	const double lightning = (c->layers - softmax_layers(c)) * 4.0 * c->heads * c->head_dim * c->head_dim;

	return softmax + lightning;
}

m1_plan
m1_plan_make(const m1_config *c, const m1_plan_options *o)
{
	m1_plan p = {0};
	double flops;

	add_weights(&p, c, o);
	p.state = (c->layers - softmax_layers(c)) * (double) c->heads * c->head_dim * c->head_dim * STATE_BYTES;
	p.kv_token = softmax_layers(c) * 2.0 * c->kv_heads * c->head_dim * KV_BYTES;
	p.sequence = p.state + p.kv_token * o->context;
	p.room = o->devices * (o->device_bytes * (1 - WORK_SHARE) - p.device_weights);
	p.fits = p.room > 0 ? floor(p.room / p.sequence) : 0;
	/* a state is read and written; keys and values are read */
	p.step_bytes += o->requests * (2 * p.state + p.kv_token * o->context);
	p.decode = o->requests * o->devices * o->bandwidth / p.step_bytes;
	flops = 2 * p.active_parameters + attention_flops(c, o);
	p.prefill = o->devices * o->flops / flops;
	return p;
}
