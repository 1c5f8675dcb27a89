/*
 * parameters.c - the weights as parameters: fp32 copies that the model computes with from then on, names, gradients.
 *
 * The copies are the backend's, which frees them when the model is closed; gradients and moments are the trainer's.
 */
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"
#include "blocks/blocks.h"
#include "model/roles.h"
#include "train/trainer.h"

/* A weight of the model, and where its gradient goes. */
typedef struct place
{
	m1b_matrix *matrix; /* or */
	const float *vector;
	float **gradient;
} place;

static place
place_of(m1_trainer *t, m1_role role, int number, int expert)
{
	m1_weights *w = &t->model->weights;
	m1_layer *layer = &w->layers[number];
	m1_layer_gradients *d = &t->layers[number];

	switch (role)
	{
		case M1_ROLE_EMBED:
			return (place){.matrix = &w->embed, .gradient = &t->embed};
		case M1_ROLE_HEAD:
			return (place){.matrix = &w->head, .gradient = &t->head};
		case M1_ROLE_FINAL_NORM:
			return (place){.vector = w->final_norm, .gradient = &t->final_norm};
		case M1_ROLE_INPUT_NORM:
			return (place){.vector = layer->input_norm, .gradient = &d->input_norm};
		case M1_ROLE_POST_NORM:
			return (place){.vector = layer->post_norm, .gradient = &d->post_norm};
		case M1_ROLE_INNER_NORM:
			return (place){.vector = layer->inner_norm, .gradient = &d->inner_norm};
		case M1_ROLE_ROUTER:
			return (place){.matrix = &layer->router, .gradient = &d->router};
		case M1_ROLE_W1:
			return (place){.matrix = &layer->w1[expert], .gradient = &d->w1[expert]};
		case M1_ROLE_W2:
			return (place){.matrix = &layer->w2[expert], .gradient = &d->w2[expert]};
		case M1_ROLE_W3:
			return (place){.matrix = &layer->w3[expert], .gradient = &d->w3[expert]};
		case M1_ROLE_QKV:
			return (place){.matrix = &layer->qkv, .gradient = &d->qkv};
		case M1_ROLE_OUTPUT_GATE:
			return (place){.matrix = &layer->output_gate, .gradient = &d->output_gate};
		case M1_ROLE_Q:
			return (place){.matrix = &layer->q, .gradient = &d->q};
		case M1_ROLE_K:
			return (place){.matrix = &layer->k, .gradient = &d->k};
		case M1_ROLE_V:
			return (place){.matrix = &layer->v, .gradient = &d->v};
		default:
			return (place){.matrix = &layer->out, .gradient = &d->out};
	}
}

m1_projection
m1_train_projection(m1_trainer *t, m1_role role, int layer)
{
	const place at = place_of(t, role, layer, 0);
	m1_projection p = {.matrix = at.matrix, .gradient = *at.gradient};

	if (t->adapter != NULL)
	{
		p.adapted = m1_adapter_change(t->adapter, role, layer);
		p.adapted_gradient = m1_adapted_gradients(t, role, layer);
	}
	return p;
}

/* The matrix as floats of our own, in its place. */
static m1_status
widen(m1_trainer *t, const char *name, m1b_matrix *matrix, float **value, m1_error *err)
{
	if (m1b_is_quantized(matrix->type))
	{
		m1_fail(err, M1_E_UNSUPPORTED, "\"%s\" is stored as %s, and only floats can be trained", name,
				m1b_dtype_name(matrix->type));
		m1_error_hint(err, "Train the checkpoint that it was made of, with {weight_format} stored.");
		return M1_E_UNSUPPORTED;
	}
	if ((*value = t->ops->widen(t->backend, matrix)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the fp32 copy of \"%s\"", name);
	return M1_OK;
}

static m1_status
grow(m1_trainer *t, m1_error *err)
{
	const size_t cap = t->cap_parameters == 0 ? 256 : 2 * t->cap_parameters;
	m1_parameter *grown;

	if (t->n_parameters < t->cap_parameters)
		return M1_OK;
	if ((grown = realloc(t->parameters, cap * sizeof *grown)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the list of parameters");
	t->parameters = grown;
	t->cap_parameters = cap;
	return M1_OK;
}

m1_status
m1_parameters_add(m1_trainer *t, const m1_parameter *p, float **gradient, m1_error *err)
{
	m1_status status = grow(t, err);

	if (status != M1_OK)
		return status;
	if ((*gradient = t->ops->take(t->backend, p->n)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the gradient of \"%s\"", p->name);
	t->parameters[t->n_parameters] = *p;
	t->parameters[t->n_parameters++].gradient = *gradient;
	return M1_OK;
}

static m1_status
add_parameter(m1_trainer *t, m1_role role, int layer, int expert, m1_error *err)
{
	const place at = place_of(t, role, layer, expert);
	m1_parameter p = {.cols = 0};
	m1_status status;

	m1_role_shape(role, &t->model->config, &p.rows, &p.cols);
	m1_role_name(role, M1_NAMES_SAFETENSORS, layer, expert, p.name, sizeof p.name);
	p.n = (size_t) p.rows * (size_t) (p.cols > 0 ? p.cols : 1);
	p.value = (float *) (uintptr_t) at.vector; /* norms are the backend's floats already */
	if (at.matrix != NULL && (status = widen(t, p.name, at.matrix, &p.value, err)) != M1_OK)
		return status;
	return m1_parameters_add(t, &p, at.gradient, err);
}

static m1_status
add_layer(m1_trainer *t, int number, m1_error *err)
{
	const m1_config *c = &t->model->config;
	m1_layer_gradients *d = &t->layers[number];
	m1_role roles[M1_ROLES];
	m1_status status = M1_OK;

	d->w1 = calloc((size_t) c->experts, sizeof *d->w1);
	d->w2 = calloc((size_t) c->experts, sizeof *d->w2);
	d->w3 = calloc((size_t) c->experts, sizeof *d->w3);
	if (d->w1 == NULL || d->w2 == NULL || d->w3 == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for layer %d", number);
	for (int i = 0, n = m1_roles_of_layer(c, number, roles); i < n; i++)
		for (int e = 0; status == M1_OK && e < (m1_role_of_expert(roles[i]) ? c->experts : 1); e++)
			status = add_parameter(t, roles[i], number, e, err);
	return status;
}

/* The head is the embedding: its weights are the same, its gradient is another's until both are added. */
static m1_status
tie_head(m1_trainer *t, m1_error *err)
{
	m1_weights *w = &t->model->weights;
	const m1b_use use = w->head.use;

	w->head = w->embed;
	w->head.use = use;
	if ((t->head = t->ops->take(t->backend, (size_t) w->embed.rows * (size_t) w->embed.cols)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the gradient of the head");
	return M1_OK;
}

static m1_status
add_all(m1_trainer *t, m1_error *err)
{
	const m1_config *c = &t->model->config;
	m1_status status;

	if ((status = add_parameter(t, M1_ROLE_EMBED, 0, 0, err)) != M1_OK ||
		(status = add_parameter(t, M1_ROLE_FINAL_NORM, 0, 0, err)) != M1_OK)
		return status;
	status = c->tied_head ? tie_head(t, err) : add_parameter(t, M1_ROLE_HEAD, 0, 0, err);
	for (int i = 0; status == M1_OK && i < c->layers; i++)
		status = add_layer(t, i, err);
	return status;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const m1_parameter *) a)->name, ((const m1_parameter *) b)->name);
}

m1_status
m1_parameters_create(m1_trainer *t, m1_error *err)
{
	const int layers = t->model->config.layers;
	m1_status status;

	if ((t->layers = calloc((size_t) layers, sizeof *t->layers)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d layers", layers);
	status = t->adapter != NULL ? m1_adapter_parameters_create(t, err) : add_all(t, err);
	if (status == M1_OK)
		m1_sort(t->parameters, t->n_parameters, sizeof *t->parameters, by_name);
	return status;
}

void
m1_parameters_free(m1_trainer *t)
{
	for (size_t i = 0; i < t->n_parameters; i++)
	{
		t->ops->give(t->backend, t->parameters[i].gradient);
		t->ops->give(t->backend, t->parameters[i].m);
		t->ops->give(t->backend, t->parameters[i].v);
	}
	free(t->parameters);
	m1_adapter_parameters_free(t);
	if (t->model->config.tied_head)
		t->ops->give(t->backend, t->head);
	for (int i = 0; t->layers != NULL && i < t->model->config.layers; i++)
	{
		free(t->layers[i].w1);
		free(t->layers[i].w2);
		free(t->layers[i].w3);
	}
	free(t->layers);
}
