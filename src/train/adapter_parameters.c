/*
 * adapter_parameters.c - the numbers of an adapter as parameters, under the names of its file: they are trained in
 * place, and the model's weights stay as they are, of whatever type.
 *
 * The adapter belongs to whoever opened the trainer; gradients and moments are the trainer's.
 */
#include <stdlib.h>

#include "model/adapter_names.h"
#include "train/trainer.h"

static m1b_adapted_gradient **
gradients_at(const m1_trainer *t, m1_role role, int layer)
{
	return &t->adapted_gradients[(size_t) layer * M1_ROLES + (size_t) role];
}

const m1b_adapted_gradient *
m1_adapted_gradients(const m1_trainer *t, m1_role role, int layer)
{
	return *gradients_at(t, role, layer);
}

/* One of the matrices of a target. */
static m1_status
add(m1_trainer *t, const m1_adapter_target *target, const char *suffix, int rows, int cols, float *value,
	float **gradient, m1_error *err)
{
	char module[M1_ADAPTER_NAME_SIZE];
	char name[M1_ADAPTER_NAME_SIZE];
	m1_parameter p = {.rows = rows, .cols = cols, .n = (size_t) rows * (size_t) cols, .value = value};

	m1_adapter_module_name(target->role, target->layer, target->expert, module);
	m1_adapter_tensor_name(module, suffix, name);
	snprintf(p.name, sizeof p.name, "%.*s", (int) sizeof p.name - 1, name);
	p.transposed = value == target->b;
	return m1_parameters_add(t, &p, gradient, err);
}

static m1_status
add_target(m1_trainer *t, const m1_adapter_target *target, m1_error *err)
{
	const size_t experts = m1_role_of_expert(target->role) ? (size_t) t->model->config.experts : 1;
	m1b_adapted_gradient **all = gradients_at(t, target->role, target->layer);
	m1b_adapted_gradient *to;
	m1_status status = M1_OK;

	if (*all == NULL && (*all = calloc(experts, sizeof **all)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the gradients of an adapter");
	to = *all + target->expert;
	if (target->rank > 0 &&
		((status = add(t, target, ".lora_A.weight", target->rank, target->cols, target->a, &to->a, err)) != M1_OK ||
		 (status = add(t, target, ".lora_B.weight", target->rank, target->rows, target->b, &to->b, err)) != M1_OK))
		return status;
	if (target->whole != NULL)
		status = add(t, target, target->rank > 0 ? ".base_layer.weight" : ".weight", target->rows, target->cols,
					 target->whole, &to->whole, err);
	if (target->role != M1_ROLE_HEAD && target->layer < t->first_layer)
		t->first_layer = target->layer;
	return status;
}

m1_status
m1_adapter_parameters_create(m1_trainer *t, m1_error *err)
{
	const m1b_ops *ops = t->backend->ops;
	const size_t layers = (size_t) t->model->config.layers;
	const m1_adapter_target *targets;
	int n;
	m1_status status;

	targets = m1_adapter_targets(t->adapter, &n);
	t->first_layer = (int) layers;
	if ((t->adapted_gradients = calloc(layers * M1_ROLES, sizeof(m1b_adapted_gradient *))) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the gradients of an adapter");
	status = ops->prepare_adapters(t->backend, m1_adapter_max_rank(t->adapter), err);
	for (int i = 0; i < n && status == M1_OK; i++)
		status = add_target(t, &targets[i], err);
	return status;
}

void
m1_adapter_parameters_free(m1_trainer *t)
{
	const size_t n = t->adapted_gradients != NULL ? (size_t) t->model->config.layers * M1_ROLES : 0;

	for (size_t i = 0; i < n; i++)
		free(t->adapted_gradients[i]);
	free(t->adapted_gradients);
}
