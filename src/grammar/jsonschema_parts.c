/* jsonschema_parts.c - objects and arrays; see jsonschema_internal.h. */
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"
#include "grammar/jsonschema.h"
#include "grammar/jsonschema_internal.h"
#include "text/jsontext.h"

/* ---- objects ---- */

typedef struct property
{
	int rule; /* "name": value */
	bool required;
} property;

static int
by_text(const void *a, const void *b)
{
	const m1_json *x = *(const m1_json *const *) a;
	const m1_json *y = *(const m1_json *const *) b;
	const int order = strcmp(x->text, y->text);

	return order != 0 ? order : (x > y) - (x < y);
}

m1_schema_names
m1_schema_names_of(const m1_json *array)
{
	m1_schema_names names = {.sorted = malloc((m1_json_size(array) + 1) * sizeof *names.sorted)};
	size_t n = 0;

	if (names.sorted == NULL || !m1_json_is(array, M1_JSON_ARRAY))
		return names;
	m1_json_foreach (array, one)
		if (m1_json_is(one, M1_JSON_STRING))
			names.sorted[n++] = one;
	m1_sort(names.sorted, n, sizeof *names.sorted, by_text);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || strcmp(names.sorted[i]->text, names.sorted[names.n - 1]->text) != 0)
			names.sorted[names.n++] = names.sorted[i];
	return names;
}

const m1_json *
m1_schema_find_name(const m1_schema_names *names, const char *name)
{
	size_t low = 0;
	size_t high = names->n;

	while (low < high)
	{
		const size_t middle = low + (high - low) / 2;
		const int order = strcmp(name, names->sorted[middle]->text);

		if (order == 0)
			return names->sorted[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

/* The rule of "name": and then what begins at node `value`. */
static int
property_rule(m1_schema_compiler *c, const char *name, int32_t value)
{
	m1_buf quoted = {0};
	const int rule = m1_nfa_new_rule(c->nfa, false);

	value = m1_json_separator(c->nfa, ':', value);
	if (!m1_json_write_string(&quoted, m1_slice_of(name)))
		c->nfa->failed = true;
	else
		m1_nfa_set_rule(c->nfa, rule, m1_nfa_literal(c->nfa, (m1_slice){quoted.data, quoted.len}, value));
	m1_buf_free(&quoted);
	return rule;
}

/* Appends the names that are required without being described: what they may be is said by additionalProperties. */
static void
list_others(m1_schema_compiler *c, const m1_json *properties, const m1_json *required, const m1_schema_names *names,
			const m1_json *others, property *list, size_t *n)
{
	int value = -1; /* the rule of all of them */

	m1_json_foreach (required, one)
		if (m1_schema_find_name(names, one->text) == one && m1_json_get(properties, one->text) == NULL &&
			!c->nfa->failed)
		{
			if (value < 0)
				value = m1_schema_rule_of(c, others, "additionalProperties", NULL, -1);
			list[(*n)++] = (property){property_rule(c, one->text, m1_nfa_call(c->nfa, value, M1_NFA_RETURN)), true};
		}
}

/* The properties in the order of the schema, then those that are only required. */
static property *
list_properties(m1_schema_compiler *c, const m1_json *properties, const m1_json *required, const m1_json *others,
				size_t *n)
{
	m1_schema_names names = m1_schema_names_of(required);
	property *list = calloc(m1_json_size(properties) + names.n + 1, sizeof *list);

	*n = 0;
	if (list == NULL || names.sorted == NULL)
		c->nfa->failed = true;
	else
	{
		m1_json_foreach (properties, schema)
		{
			const char *name = m1_json_key(schema);
			const int32_t value = m1_schema_write(c, schema, "properties", name, -1, M1_NFA_RETURN);

			list[(*n)++] = (property){property_rule(c, name, value), m1_schema_find_name(&names, name) != NULL};
		}
		list_others(c, properties, required, &names, others, list, n);
	}
	free(names.sorted);
	return list;
}

/* Optional properties may be left out, so every property comes in two places: as the first one, and behind a comma. */
static int32_t
write_properties(m1_schema_compiler *c, const property *list, size_t n)
{
	m1_nfa *nfa = c->nfa;
	const int32_t close = m1_nfa_bytes(nfa, '}', '}', M1_NFA_RETURN);
	int32_t first = close;
	int32_t later = close;

	for (size_t i = n; i-- > 0;)
	{
		const int32_t with = m1_nfa_call(nfa, list[i].rule, later);
		const int32_t behind_comma = m1_json_separator(nfa, ',', with);

		first = list[i].required ? with : m1_nfa_split(nfa, with, first);
		later = list[i].required ? behind_comma : m1_nfa_split(nfa, behind_comma, later);
	}
	return m1_nfa_bytes(nfa, '{', '{', first);
}

static bool
check_object(m1_schema_compiler *c, const m1_json *properties, const m1_json *required, const m1_json *others)
{
	if (properties != NULL && !m1_json_is(properties, M1_JSON_OBJECT))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "properties is not an object of schemas");
	if (required != NULL && !m1_json_is(required, M1_JSON_ARRAY))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "required is not an array of names");
	if (others != NULL && !m1_json_is_boolean(others) && !m1_json_is(others, M1_JSON_OBJECT))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "additionalProperties is not a schema");
	m1_json_foreach (required, one)
		if (!m1_json_is(one, M1_JSON_STRING))
			m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "required is not an array of names");
	return c->status == M1_OK;
}

int32_t
m1_schema_object(m1_schema_compiler *c, const m1_json *schema, int32_t next)
{
	const m1_json *properties = m1_json_get(schema, "properties");
	const m1_json *required = m1_json_get(schema, "required");
	const m1_json *others = m1_json_get(schema, "additionalProperties");
	property *list;
	size_t n;
	int rule;

	if (!check_object(c, properties, required, others))
		return M1_NFA_FAIL;
	if (others == NULL)
		others = &m1_json_true;
	/* Without a list of properties, the object is a map, unless that is forbidden. */
	if (m1_json_size(properties) + m1_json_size(required) == 0 && !m1_json_is(others, M1_JSON_FALSE))
		return m1_json_map(c->nfa, &c->rules, m1_schema_rule_of(c, others, "additionalProperties", NULL, -1), next);
	if ((list = list_properties(c, properties, required, others, &n)) == NULL)
		return M1_NFA_FAIL;
	rule = m1_nfa_new_rule(c->nfa, true);
	m1_nfa_set_rule(c->nfa, rule, write_properties(c, list, n));
	free(list);
	return m1_nfa_call(c->nfa, rule, next);
}

/* ---- arrays ---- */

typedef struct array_parts
{
	const int *prefix; /* [n_prefix]: the rules of the first items */
	int n_prefix;
	int item;  /* the rule of those behind them, or -1 for none */
	int later; /* the same behind a comma: one node for each place where it may stand */
	int min, max;
} array_parts;

/* Item number i, with the comma before it, in front of next. */
static int32_t
write_item(m1_nfa *nfa, const array_parts *a, int i, int32_t next)
{
	if (i >= a->n_prefix)
		return m1_nfa_call(nfa, i == 0 ? a->item : a->later, next);
	next = m1_nfa_call(nfa, a->prefix[i], next);
	return i == 0 ? next : m1_json_separator(nfa, ',', next);
}

/* From the end: `after` is what may follow when i items are there. */
static int32_t
write_items(m1_schema_compiler *c, const array_parts *a)
{
	m1_nfa *nfa = c->nfa;
	const int32_t close = m1_nfa_bytes(nfa, ']', ']', M1_NFA_RETURN);
	int32_t after = close;
	int n = a->max;

	if (a->max == M1_JSON_NO_MAX)
	{
		n = a->n_prefix > a->min ? a->n_prefix : a->min;
		n = n > 1 ? n : 1;
		after = m1_nfa_open_loop(nfa, close);
		m1_nfa_close_loop(nfa, after, m1_nfa_call(nfa, a->later, after));
	}
	for (int i = n - 1; i >= 0 && !nfa->failed; i--)
	{
		const int32_t item = write_item(nfa, a, i, after);

		after = i >= a->min ? m1_nfa_split(nfa, item, close) : item;
	}
	return m1_nfa_bytes(nfa, '[', '[', after);
}

int32_t
m1_schema_array(m1_schema_compiler *c, const m1_json *schema, int32_t next)
{
	const m1_json *prefix = m1_json_get(schema, "prefixItems");
	const m1_json *items = m1_json_get(schema, "items");
	array_parts a = {.item = -1, .n_prefix = (int) m1_json_size(prefix)};
	int *rules;
	int rule;

	a.min = m1_schema_count(c, schema, "minItems", 0, false);
	a.max = m1_schema_count(c, schema, "maxItems", M1_JSON_NO_MAX, true);
	if (prefix != NULL && !m1_json_is(prefix, M1_JSON_ARRAY))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "prefixItems is not an array of schemas");
	if (m1_json_is(items, M1_JSON_ARRAY))
		m1_schema_fail(c, M1_E_UNSUPPORTED, "items as an array is not supported: say prefixItems");
	if (c->status != M1_OK || (rules = calloc((size_t) a.n_prefix + 1, sizeof *rules)) == NULL)
	{
		c->nfa->failed |= c->status == M1_OK;
		return M1_NFA_FAIL;
	}
	for (int i = 0; i < a.n_prefix; i++)
		rules[i] = m1_schema_rule_of(c, m1_json_at(prefix, (size_t) i), "prefixItems", NULL, i);
	/* Behind a prefix no other items are made up, unless they must be there. */
	if (items == NULL && (a.n_prefix == 0 || a.min > a.n_prefix))
		items = &m1_json_true;
	if (items != NULL && !m1_json_is(items, M1_JSON_FALSE))
	{
		a.item = m1_schema_rule_of(c, items, "items", NULL, -1);
		a.later = m1_nfa_new_rule(c->nfa, false);
		m1_nfa_set_rule(c->nfa, a.later, m1_json_separator(c->nfa, ',', m1_nfa_call(c->nfa, a.item, M1_NFA_RETURN)));
	}
	else if (a.max == M1_JSON_NO_MAX || a.max > a.n_prefix)
		a.max = a.n_prefix;
	a.prefix = rules;
	rule = m1_nfa_new_rule(c->nfa, true);
	if (a.max != M1_JSON_NO_MAX && a.min > a.max)
		m1_nfa_set_rule(c->nfa, rule, M1_NFA_FAIL);
	else
		m1_nfa_set_rule(c->nfa, rule, write_items(c, &a));
	free(rules);
	return m1_nfa_call(c->nfa, rule, next);
}
