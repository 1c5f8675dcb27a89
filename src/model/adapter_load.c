/* adapter_load.c - see adapter_files.h: reading. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks/blocks.h"
#include "model/adapter_config.h"
#include "model/adapter_files.h"
#include "model/adapter_names.h"
#include "model/digest.h"

typedef struct loader
{
	const m1_adapter_base *base;
	m1_adapter_config *config;
	m1_checkpoint *file;
	bool *used; /* of the file's tensors, those that are understood */
	m1_adapter *adapter;
	float *column; /* room for one tensor that is not as we keep it */
	size_t column_floats;
} loader;

/* ---- which base ---- */

static m1_status
check_base(const loader *l, m1_error *err)
{
	const char *named = m1_checkpoint_metadata(l->file, M1_ADAPTER_BASE_KEY);
	char digest[M1_DIGEST_SIZE];
	m1_status status;

	if (named == NULL) /* made elsewhere */
		return M1_OK;
	if ((status = m1_digest(l->base->source, l->base->config, l->base->checkpoint, digest, err)) != M1_OK)
		return status;
	if (strcmp(named, digest) == 0)
		return M1_OK;
	m1_fail(err, M1_E_INVALID_ARGUMENT, "the adapter was made for another model");
	m1_error_detail(err, "It names the base %.40s; model \"%.100s\" is %s.", named, m1_source_name(l->base->source),
					digest);
	return M1_E_INVALID_ARGUMENT;
}

/* ---- tensors ---- */

/* Marks it as understood; NULL when there is none of that name. */
static const m1_tensor *
find(loader *l, const char *module, const char *suffix)
{
	char name[M1_ADAPTER_NAME_SIZE];
	const m1_tensor *t;

	m1_adapter_tensor_name(module, suffix, name);
	if ((t = m1_checkpoint_find(l->file, name)) != NULL)
		l->used[t - m1_checkpoint_tensor(l->file, 0)] = true;
	return t;
}

static m1_status
require(loader *l, const char *module, const char *suffix, const m1_tensor **out, m1_error *err)
{
	char name[M1_ADAPTER_NAME_SIZE];

	if ((*out = find(l, module, suffix)) != NULL)
		return M1_OK;
	m1_adapter_tensor_name(module, suffix, name);
	m1_fail(err, M1_E_NOT_FOUND, "tensor \"%.180s\" is missing from the adapter", name);
	m1_error_detail(err, M1_ADAPTER_CONFIG " asks for it.");
	return M1_E_NOT_FOUND;
}

static m1_status
check_tensor(const m1_tensor *t, int rows, int cols, m1_error *err)
{
	if (t->dims != 2 || t->shape[0] != rows || t->shape[1] != cols)
	{
		char is[128];

		m1_describe_shape(t->shape, t->dims, is, sizeof is);
		m1_fail(err, M1_E_CORRUPT, "tensor \"%.160s\" has the wrong shape", t->name);
		m1_error_detail(err, "It is %s; the model and " M1_ADAPTER_CONFIG " ask for [%d, %d].", is, rows, cols);
		return M1_E_CORRUPT;
	}
	if (!t->usable || t->type == M1B_F8_E4M3)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "tensor \"%.160s\" has a type that is not supported", t->name);
		m1_error_detail(err, "It is %s; supported are F32, F16 and BF16.", t->type_name);
		return M1_E_UNSUPPORTED;
	}
	return M1_OK;
}

static m1_status
read_numbers(const m1_tensor *t, size_t n, float *to, m1_error *err)
{
	m1b_dequantize(t->type, t->data, n, to);
	for (size_t i = 0; i < n; i++)
		if (!isfinite(to[i]))
			return m1_fail(err, M1_E_CORRUPT, "tensor \"%.160s\" holds values that are not finite numbers", t->name);
	return M1_OK;
}

/* B, transposed. */
static m1_status
read_b(loader *l, const m1_tensor *t, const m1_adapter_target *target, m1_error *err)
{
	const size_t rows = (size_t) target->rows;
	const size_t rank = (size_t) target->rank;
	m1_status status;

	if (rows * rank > l->column_floats)
	{
		free(l->column);
		l->column_floats = 0;
		if ((l->column = malloc(rows * rank * sizeof *l->column)) == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
		l->column_floats = rows * rank;
	}
	if ((status = read_numbers(t, rows * rank, l->column, err)) != M1_OK)
		return status;
	for (size_t i = 0; i < rows; i++)
		for (size_t r = 0; r < rank; r++)
			target->b[r * rows + i] = l->column[i * rank + r];
	return M1_OK;
}

/* ---- the rule: what becomes of each weight ---- */

/* Whether the file's copy of a weight is the base's own, which is no change. */
static bool
is_same(const loader *l, const m1_tensor *t, m1_role role)
{
	m1_weight w;

	return m1_role_find(role, l->base->checkpoint, l->base->config, 0, 0, &w, NULL) == M1_OK && w.scales == NULL &&
		   w.type == t->type && w.bytes == t->bytes && memcmp(w.data, t->data, t->bytes) == 0;
}

/*
 * PEFT saves the head's own weight beside A and B of the head; loading it back is what PEFT does, and a no-op nearly
 * always.
 */
static bool
has_other_base_layer(loader *l, const char *module, m1_role role)
{
	const m1_tensor *t = role == M1_ROLE_HEAD ? find(l, module, ".base_layer.weight") : NULL;

	return t != NULL && !is_same(l, t, role);
}

static m1_status
configured(void *context, m1_role role, int layer, int expert, m1_adapter_shape *shape, m1_error *err)
{
	loader *l = context;
	char module[M1_ADAPTER_NAME_SIZE];
	m1_whole whole;
	m1_status status;

	m1_adapter_module_name(role, layer, expert, module);
	if ((status = m1_adapter_config_module(l->config, module, shape, &whole, err)) != M1_OK)
		return status;
	shape->whole = whole == M1_WHOLE_YES || (whole == M1_WHOLE_MAYBE && find(l, module, ".weight") != NULL) ||
				   (shape->rank > 0 && has_other_base_layer(l, module, role));
	if (shape->whole && shape->rank > 0 && role != M1_ROLE_HEAD)
		return m1_fail(err, M1_E_UNSUPPORTED, "the adapter both replaces \"%s\" and adds to it", module);
	if (!shape->whole || m1_adapter_may_replace(role))
		return M1_OK;
	m1_fail(err, M1_E_UNSUPPORTED, "an adapter cannot replace \"%s\"", module);
	m1_error_detail(err, M1_ADAPTER_CONFIG " names it in modules_to_save; projections of attention, the router and the "
										   "head may be there.");
	return M1_E_UNSUPPORTED;
}

/* ---- filling ---- */

static m1_status
fill_target(loader *l, const m1_adapter_target *target, m1_error *err)
{
	char module[M1_ADAPTER_NAME_SIZE];
	const m1_tensor *t;
	m1_status status = M1_OK;

	m1_adapter_module_name(target->role, target->layer, target->expert, module);
	if (target->rank > 0 &&
		((status = require(l, module, ".lora_A.weight", &t, err)) != M1_OK ||
		 (status = check_tensor(t, target->rank, target->cols, err)) != M1_OK ||
		 (status = read_numbers(t, (size_t) target->rank * (size_t) target->cols, target->a, err)) != M1_OK ||
		 (status = require(l, module, ".lora_B.weight", &t, err)) != M1_OK ||
		 (status = check_tensor(t, target->rows, target->rank, err)) != M1_OK ||
		 (status = read_b(l, t, target, err)) != M1_OK))
		return status;
	if (target->whole == NULL)
		return M1_OK;
	if ((t = find(l, module, ".base_layer.weight")) == NULL &&
		(status = require(l, module, ".weight", &t, err)) != M1_OK)
		return status;
	if ((status = check_tensor(t, target->rows, target->cols, err)) != M1_OK)
		return status;
	return read_numbers(t, (size_t) target->rows * (size_t) target->cols, target->whole, err);
}

/* Whatever else is in the file would change the results, if it were understood. */
static m1_status
refuse_others(const loader *l, m1_error *err)
{
	for (size_t i = 0; i < m1_checkpoint_tensors(l->file); i++)
	{
		const char *name = m1_checkpoint_tensor(l->file, i)->name;

		if (l->used[i])
			continue;
		m1_fail(err, M1_E_UNSUPPORTED, "tensor \"%.180s\" of the adapter is not supported", name);
		if (strstr(name, "lora_magnitude_vector") != NULL)
			m1_error_detail(err, "It is of DoRA, which this version does not know.");
		else if (strstr(name, "embed") != NULL)
			m1_error_detail(err, "An adapter cannot change the embedding.");
		else
			m1_error_detail(err, "An adapter changes projections of attention, the router, experts and the head, where "
								 "target_modules or modules_to_save of " M1_ADAPTER_CONFIG " name them.");
		return M1_E_UNSUPPORTED;
	}
	return M1_OK;
}

static m1_status
run(loader *l, const char *dir, m1_error *err)
{
	const m1_adapter_target *targets;
	int n;
	m1_status status;

	if ((status = m1_adapter_config_load(dir, &l->config, err)) != M1_OK ||
		(status = m1_checkpoint_open_file(dir, M1_ADAPTER_MODEL, &l->file, err)) != M1_OK ||
		(status = check_base(l, err)) != M1_OK)
		return status;
	if ((l->used = calloc(m1_checkpoint_tensors(l->file) + 1, sizeof *l->used)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
	if ((status = m1_adapter_build(l->base->config, configured, l, &l->adapter, err)) != M1_OK)
		return status;
	targets = m1_adapter_targets(l->adapter, &n);
	for (int i = 0; i < n && status == M1_OK; i++)
		status = fill_target(l, &targets[i], err);
	if (status == M1_OK)
		status = refuse_others(l, err);
	if (status == M1_OK && n == 0)
		status = m1_fail(err, M1_E_CORRUPT, "the adapter changes nothing of this model");
	return status;
}

m1_status
m1_adapter_load(const char *dir, const m1_adapter_base *base, m1_adapter **out, m1_error *err)
{
	loader l = {.base = base};
	m1_status status = run(&l, dir, err);

	*out = status == M1_OK ? l.adapter : NULL;
	if (status != M1_OK)
		m1_adapter_free(l.adapter);
	m1_adapter_config_free(l.config);
	m1_checkpoint_close(l.file);
	free(l.used);
	free(l.column);
	return status;
}
