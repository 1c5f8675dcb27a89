/* jsonschema_parts.c - objects and arrays; see jsonschema_internal.h. */
#include <stdlib.h>
#include <string.h>

#include "grammar/jsonschema.h"
#include "grammar/jsonschema_internal.h"
#include "text/jsonparse.h"
#include "text/jsontext.h"

/* ---- objects ---- */

typedef struct property
{
	int rule; /* "name": value */
	bool required;
} property;

json_t *
m1_schema_names(const json_t *names)
{
	json_t *set = json_object();
	size_t i;
	json_t *one;

	json_array_foreach ((json_t *) names, i, one)
		if (m1_json_is_string(one) && json_object_set_new(set, json_string_value(one), json_null()) != 0)
		{
			json_decref(set);
			return NULL;
		}
	return set;
}

/* The rule of "name": and then what begins at node `value`. */
static int
property_rule(m1_schema_compiler *c, const char *name, int32_t value)
{
	json_t *text = json_string(name);
	m1_buf quoted = {0};
	const int rule = m1_nfa_new_rule(c->nfa, false);

	value = m1_json_separator(c->nfa, ':', value);
	if (text == NULL || !m1_json_write(&quoted, text, M1_JSON_AS_GIVEN))
		c->nfa->failed = true;
	else
		m1_nfa_set_rule(c->nfa, rule, m1_nfa_literal(c->nfa, (m1_slice){quoted.data, quoted.len}, value));
	m1_buf_free(&quoted);
	json_decref(text);
	return rule;
}

/* Appends the names that are required without being described: what they may be is said by additionalProperties. */
static void
list_others(m1_schema_compiler *c, const json_t *properties, json_t *names, const json_t *others, property *list,
			size_t *n)
{
	int value = -1; /* the rule of all of them */
	const char *name;
	json_t *unused;

	json_object_foreach (names, name, unused)
		if (json_object_get(properties, name) == NULL && !c->nfa->failed)
		{
			if (value < 0)
				value = m1_schema_rule_of(c, others, "additionalProperties", NULL, -1);
			list[(*n)++] = (property){property_rule(c, name, m1_nfa_call(c->nfa, value, M1_NFA_RETURN)), true};
		}
}

/* The properties in the order of the schema, then those that are only required. */
static property *
list_properties(m1_schema_compiler *c, const json_t *properties, const json_t *required, const json_t *others,
				size_t *n)
{
	json_t *names = m1_schema_names(required);
	property *list = calloc(json_object_size(properties) + json_object_size(names) + 1, sizeof *list);
	const char *name;
	json_t *schema;

	*n = 0;
	if (list == NULL || names == NULL)
		c->nfa->failed = true;
	else
	{
		json_object_foreach ((json_t *) properties, name, schema)
		{
			const int32_t value = m1_schema_write(c, schema, "properties", name, -1, M1_NFA_RETURN);

			list[(*n)++] = (property){property_rule(c, name, value), json_object_get(names, name) != NULL};
		}
		list_others(c, properties, names, others, list, n);
	}
	json_decref(names);
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
check_object(m1_schema_compiler *c, const json_t *properties, const json_t *required, const json_t *others)
{
	size_t i;
	json_t *one;

	if (properties != NULL && !json_is_object(properties))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "properties is not an object of schemas");
	if (required != NULL && !json_is_array(required))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "required is not an array of names");
	if (others != NULL && !json_is_boolean(others) && !json_is_object(others))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "additionalProperties is not a schema");
	json_array_foreach ((json_t *) required, i, one)
		if (!m1_json_is_string(one))
			m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "required is not an array of names");
	return c->status == M1_OK;
}

int32_t
m1_schema_object(m1_schema_compiler *c, const json_t *schema, int32_t next)
{
	const json_t *properties = json_object_get(schema, "properties");
	const json_t *required = json_object_get(schema, "required");
	const json_t *others = json_object_get(schema, "additionalProperties");
	property *list;
	size_t n;
	int rule;

	if (!check_object(c, properties, required, others))
		return M1_NFA_FAIL;
	if (others == NULL)
		others = json_true();
	/* Without a list of properties, the object is a map, unless that is forbidden. */
	if (json_object_size(properties) + json_array_size(required) == 0 && !json_is_false(others))
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
m1_schema_array(m1_schema_compiler *c, const json_t *schema, int32_t next)
{
	const json_t *prefix = json_object_get(schema, "prefixItems");
	const json_t *items = json_object_get(schema, "items");
	array_parts a = {.item = -1, .n_prefix = (int) json_array_size(prefix)};
	int *rules;
	int rule;

	a.min = m1_schema_count(c, schema, "minItems", 0, false);
	a.max = m1_schema_count(c, schema, "maxItems", M1_JSON_NO_MAX, true);
	if (prefix != NULL && !json_is_array(prefix))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "prefixItems is not an array of schemas");
	if (json_is_array(items))
		m1_schema_fail(c, M1_E_UNSUPPORTED, "items as an array is not supported: say prefixItems");
	if (c->status != M1_OK || (rules = calloc((size_t) a.n_prefix + 1, sizeof *rules)) == NULL)
	{
		c->nfa->failed |= c->status == M1_OK;
		return M1_NFA_FAIL;
	}
	for (int i = 0; i < a.n_prefix; i++)
		rules[i] = m1_schema_rule_of(c, json_array_get(prefix, (size_t) i), "prefixItems", NULL, i);
	/* Behind a prefix no other items are made up, unless they must be there. */
	if (items == NULL && (a.n_prefix == 0 || a.min > a.n_prefix))
		items = json_true();
	if (items != NULL && !json_is_false(items))
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
