/*
 * jsonschema_disjoint.c - oneOf means exactly one: its schemas can be written as alternatives only where no value
 * satisfies two of them. See jsonschema_internal.h.
 */
#include <string.h>

#include "grammar/jsonschema_internal.h"

#define MAX_REFERENCES 16	 /* followed one after the other */
#define MAX_ALTERNATIVES 256 /* of one oneOf */

/* What a schema refers to, or itself. */
static const json_t *
resolve(const m1_schema_compiler *c, const json_t *schema)
{
	for (int i = 0; i < MAX_REFERENCES; i++)
	{
		const json_t *reference = json_object_get(schema, "$ref");
		const json_t *target =
			json_is_string(reference) ? m1_schema_target(c->root, json_string_value(reference)) : NULL;

		if (target == NULL)
			break;
		schema = target;
	}
	return schema;
}

/* The listed values of a schema as an array that the caller owns; NULL when it has no list. */
static json_t *
values_of(const json_t *schema)
{
	const json_t *list = json_object_get(schema, "enum");
	json_t *one = json_object_get(schema, "const");

	if (json_is_array(list))
		return json_incref((json_t *) list);
	return one != NULL ? json_pack("[O]", one) : NULL;
}

/* The types that a value of the schema may have, at least. */
static int
kinds_of(const json_t *schema)
{
	const json_t *type = json_object_get(schema, "type");
	json_t *values = values_of(schema);
	int kinds = M1_KIND_ANY;
	size_t i;
	json_t *one;

	if (values != NULL)
	{
		kinds = 0;
		json_array_foreach (values, i, one)
			kinds |= m1_schema_kind_of_value(one);
	}
	else if (type != NULL && m1_schema_types(type) != 0)
		kinds = m1_schema_types(type);
	json_decref(values);
	return kinds;
}

/* As JSON Schema compares: 1 and 1.0 are the same. */
static bool
same_value(const json_t *a, const json_t *b)
{
	if (json_is_number(a) && json_is_number(b))
		return json_number_value(a) == json_number_value(b);
	return json_equal(a, b) != 0;
}

/* Numbers deep inside listed arrays and objects are not compared by value: those count as possibly the same. */
static bool
values_apart(const json_t *a, const json_t *b)
{
	json_t *x = values_of(a);
	json_t *y = values_of(b);
	bool apart = x != NULL && y != NULL;
	size_t i;
	size_t j;
	json_t *one;
	json_t *other;

	json_array_foreach (x, i, one)
		json_array_foreach (y, j, other)
		{
			const bool both_deep =
				(json_is_array(one) && json_is_array(other)) || (json_is_object(one) && json_is_object(other));

			if (both_deep || same_value(one, other))
				apart = false;
		}
	json_decref(x);
	json_decref(y);
	return apart;
}

static bool requires(const json_t *schema, const char *name)
{
	size_t i;
	json_t *one;

	json_array_foreach (json_object_get(schema, "required"), i, one)
		if (json_is_string(one) && strcmp(json_string_value(one), name) == 0)
			return true;
	return false;
}

/* Two objects that must both have a property whose listed values differ. */
static bool
told_apart_by_property(const m1_schema_compiler *c, const json_t *a, const json_t *b)
{
	const json_t *others = json_object_get(b, "properties");
	const char *name;
	json_t *schema;

	if (kinds_of(a) != M1_KIND_OBJECT || kinds_of(b) != M1_KIND_OBJECT)
		return false;
	json_object_foreach (json_object_get(a, "properties"), name, schema)
		if (requires(a, name) && requires(b, name) &&
			values_apart(resolve(c, schema), resolve(c, json_object_get(others, name))))
			return true;
	return false;
}

static bool
apart(const m1_schema_compiler *c, const json_t *a, const json_t *b)
{
	a = resolve(c, a);
	b = resolve(c, b);
	return (kinds_of(a) & kinds_of(b)) == 0 || values_apart(a, b) || told_apart_by_property(c, a, b);
}

const char *
m1_schema_overlap(const m1_schema_compiler *c, const json_t *alternatives)
{
	/* all pairs are compared, while the process that reads everybody's requests waits */
	if (json_array_size(alternatives) > MAX_ALTERNATIVES)
		return "Say anyOf: so many alternatives are not compared with each other.";
	for (size_t i = 0; i < json_array_size(alternatives); i++)
		for (size_t j = 0; j < i; j++)
			if (!apart(c, json_array_get(alternatives, i), json_array_get(alternatives, j)))
				return "Say anyOf, or give them different types, or a required property whose const differs.";
	return NULL;
}
