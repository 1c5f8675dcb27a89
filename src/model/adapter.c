/* adapter.c - see adapter.h. */
#include "model/adapter.h"

#include <stdlib.h>
#include <string.h>

struct m1_adapter
{
	m1_adapter_target *targets;
	int n_targets;
	float *numbers; /* of all of them */
	size_t n_numbers;
	/* [layers][M1_ROLES]: one, or E of them, for operations; NULL where nothing changes. The head is in layer 0 */
	m1b_adapted **changes;
	int layers;
};

bool
m1_adapter_may_change(m1_role role)
{
	return m1_role_is_large(role) || role == M1_ROLE_ROUTER || role == M1_ROLE_HEAD;
}

bool
m1_adapter_may_replace(m1_role role)
{
	return m1_adapter_may_change(role) && !m1_role_of_expert(role);
}

/* ---- which weights ---- */

typedef struct builder
{
	const m1_config *config;
	m1_adapter_rule rule;
	void *context;
	m1_adapter *a;
	int cap;
	m1_error *err;
} builder;

static m1_status
no_memory(m1_error *err)
{
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
}

static m1_status
add_target(builder *b, m1_role role, int layer, int expert, const m1_adapter_shape *shape)
{
	m1_adapter *a = b->a;
	m1_adapter_target *t;

	if (a->n_targets == b->cap)
	{
		const int cap = b->cap == 0 ? 64 : 2 * b->cap;
		m1_adapter_target *grown = realloc(a->targets, (size_t) cap * sizeof *grown);

		if (grown == NULL)
			return no_memory(b->err);
		a->targets = grown;
		b->cap = cap;
	}
	t = &a->targets[a->n_targets++];
	*t =
		(m1_adapter_target){.role = role, .layer = layer, .expert = expert, .rank = shape->rank, .scale = shape->scale};
	m1_role_shape(role, b->config, &t->rows, &t->cols);
	a->n_numbers += (size_t) shape->rank * ((size_t) t->rows + (size_t) t->cols);
	if (shape->whole)
	{
		t->whole_matrix = (m1b_matrix){.type = M1B_F32, .use = M1B_USE_HEAD, .rows = t->rows, .cols = t->cols};
		a->n_numbers += (size_t) t->rows * (size_t) t->cols;
	}
	return M1_OK;
}

static m1_status
ask(builder *b, m1_role role, int layer)
{
	const int n = m1_role_of_expert(role) ? b->config->experts : 1;

	for (int expert = 0; m1_adapter_may_change(role) && expert < n; expert++)
	{
		m1_adapter_shape shape = {0};
		m1_status status = b->rule(b->context, role, layer, expert, &shape, b->err);

		if (status == M1_OK && (shape.rank > 0 || shape.whole))
			status = add_target(b, role, layer, expert, &shape);
		if (status != M1_OK)
			return status;
	}
	return M1_OK;
}

static m1_status
ask_all(builder *b)
{
	m1_role roles[M1_ROLES];
	m1_status status;

	for (int layer = 0; layer < b->config->layers; layer++)
		for (int i = 0, n = m1_roles_of_layer(b->config, layer, roles); i < n; i++)
			if ((status = ask(b, roles[i], layer)) != M1_OK)
				return status;
	return ask(b, M1_ROLE_HEAD, 0);
}

/* ---- their memory ---- */

static m1b_adapted **
changes_at(const m1_adapter *a, m1_role role, int layer)
{
	return &a->changes[(size_t) layer * M1_ROLES + (size_t) role];
}

/* Gives each target its numbers, and lets operations find them. */
static bool
place(m1_adapter *a, const m1_config *c)
{
	float *at = a->numbers;

	for (int i = 0; i < a->n_targets; i++)
	{
		m1_adapter_target *t = &a->targets[i];
		m1b_adapted **changes = changes_at(a, t->role, t->layer);

		if (*changes == NULL &&
			(*changes = calloc(m1_role_of_expert(t->role) ? (size_t) c->experts : 1, sizeof **changes)) == NULL)
			return false;
		if (t->rank > 0)
		{
			t->a = at;
			t->b = at + (size_t) t->rank * (size_t) t->cols;
			at = t->b + (size_t) t->rank * (size_t) t->rows;
		}
		if (t->whole_matrix.rows > 0)
		{
			t->whole_matrix.data = t->whole = at;
			at += (size_t) t->rows * (size_t) t->cols;
		}
		(*changes)[t->expert] = (m1b_adapted){.whole = t->whole != NULL ? &t->whole_matrix : NULL,
											  .a = t->a,
											  .b = t->b,
											  .rank = t->rank,
											  .scale = t->scale};
	}
	return true;
}

m1_status
m1_adapter_build(const m1_config *config, m1_adapter_rule rule, void *context, m1_adapter **out, m1_error *err)
{
	m1_adapter *a = calloc(1, sizeof *a);
	builder b = {.config = config, .rule = rule, .context = context, .a = a, .err = err};
	m1_status status;

	*out = NULL;
	if (a == NULL)
		return no_memory(err);
	a->layers = config->layers;
	a->changes = calloc((size_t) config->layers * M1_ROLES, sizeof *a->changes);
	status = a->changes != NULL ? ask_all(&b) : no_memory(err);
	if (status == M1_OK && ((a->numbers = calloc(a->n_numbers + 1, sizeof *a->numbers)) == NULL || !place(a, config)))
		status = no_memory(err);
	if (status != M1_OK)
	{
		m1_adapter_free(a);
		return status;
	}
	*out = a;
	return M1_OK;
}

void
m1_adapter_free(m1_adapter *a)
{
	if (a == NULL)
		return;
	for (size_t i = 0; a->changes != NULL && i < (size_t) a->layers * M1_ROLES; i++)
		free(a->changes[i]);
	free(a->changes);
	free(a->targets);
	free(a->numbers);
	free(a);
}

/* The targets of another adapter that have not been asked for yet. */
typedef struct left
{
	const m1_adapter_target *next, *end;
} left;

static m1_status
as_there(void *context, m1_role role, int layer, int expert, m1_adapter_shape *shape, m1_error *err)
{
	left *l = context;
	const m1_adapter_target *t = l->next;

	(void) err;
	if (t == l->end || t->role != role || t->layer != layer || t->expert != expert)
		return M1_OK;
	*shape = (m1_adapter_shape){.rank = t->rank, .scale = t->scale, .whole = t->whole != NULL};
	l->next++;
	return M1_OK;
}

m1_adapter *
m1_adapter_copy(const m1_adapter *a, const m1_config *config)
{
	left l = {a->targets, a->targets + a->n_targets};
	m1_adapter *copy;

	if (m1_adapter_build(config, as_there, &l, &copy, NULL) != M1_OK)
		return NULL;
	memcpy(copy->numbers, a->numbers, a->n_numbers * sizeof *a->numbers);
	return copy;
}

/* ---- what there is ---- */

m1_adapter_target *
m1_adapter_targets(const m1_adapter *a, int *n)
{
	*n = a->n_targets;
	return a->targets;
}

float *
m1_adapter_numbers(const m1_adapter *a, size_t *n)
{
	*n = a->n_numbers;
	return a->numbers;
}

size_t
m1_adapter_bytes(const m1_adapter *a)
{
	return a->n_numbers * sizeof *a->numbers;
}

int
m1_adapter_max_rank(const m1_adapter *a)
{
	int max = 0;

	for (int i = 0; i < a->n_targets; i++)
		max = a->targets[i].rank > max ? a->targets[i].rank : max;
	return max;
}

const m1b_adapted *
m1_adapter_change(const m1_adapter *a, m1_role role, int layer)
{
	return *changes_at(a, role, layer);
}

const m1_adapter_target *
m1_adapter_find(const m1_adapter *a, m1_role role, int layer, int expert)
{
	for (int i = 0; i < a->n_targets && *changes_at(a, role, layer) != NULL; i++)
	{
		const m1_adapter_target *t = &a->targets[i];

		if (t->role == role && t->layer == layer && t->expert == expert)
			return t;
	}
	return NULL;
}

void
m1_adapter_apply(const m1_adapter_target *t, int first, int n, float *to)
{
	const size_t cols = (size_t) t->cols;

	if (t->whole != NULL)
		memcpy(to, t->whole + (size_t) first * cols, (size_t) n * cols * sizeof *to);
	for (int i = 0; i < n; i++)
		for (int r = 0; r < t->rank; r++)
		{
			const float factor = t->scale * t->b[(size_t) r * (size_t) t->rows + (size_t) (first + i)];

			for (size_t k = 0; k < cols; k++)
				to[(size_t) i * cols + k] += factor * t->a[(size_t) r * cols + k];
		}
}
