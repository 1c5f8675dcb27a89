/*
 * jsonschema_disjoint.c - oneOf means exactly one: its schemas can be written as alternatives only where no value
 * satisfies two of them. See jsonschema_internal.h.
 *
 * Two schemas are told apart by the types of their values, by the values that they list, or by those that they list for
 * a property that both require. All pairs are told apart at once: listed values are sorted, and alternatives that share
 * one are next to each other then. A row of bits is a set of alternatives.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"
#include "grammar/jsonschema_internal.h"
#include "text/jsonparse.h"

#define MAX_REFERENCES 16	 /* followed one after the other */
#define MAX_ALTERNATIVES 512 /* of one oneOf */
#define MAX_COMPARED 100000	 /* listed values and properties, in all that a document says oneOf of */
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define ROW (MAX_ALTERNATIVES / 64)
#define ITSELF (-1) /* not a property of the value */

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

typedef struct listed
{
	int property; /* the number of its name, or ITSELF */
	int alternative;
	uint64_t hash;
} listed;

typedef struct comparison
{
	m1_schema_compiler *c;
	size_t n;
	int kinds[MAX_ALTERNATIVES];
	uint64_t apart[MAX_ALTERNATIVES][ROW];
	uint64_t shares[MAX_ALTERNATIVES][ROW]; /* a value of the property at hand */
	json_t *names;							/* of properties, with their numbers */
	listed *list;							/* [MAX_COMPARED] */
	size_t n_list;
	m1_buf text; /* of one value */
} comparison;

static void
add_bit(uint64_t row[ROW], int i)
{
	row[i / 64] |= (uint64_t) 1 << i % 64;
}

/* ---- what the alternatives list ---- */

static bool
may_compare(comparison *x, size_t more)
{
	x->c->n_compared += more;
	if (!m1_work_goes_on(x->c->nfa->work, more))
		x->c->nfa->failed = true;
	return x->c->n_compared <= MAX_COMPARED && !x->c->nfa->failed;
}

/*
 * Equal texts for values that are equal, as JSON Schema compares, or might be: 1 and 1.0 are the same, numbers deep
 * inside arrays and objects are not compared.
 */
static void
put_value(m1_buf *out, const json_t *value)
{
	char number[40];

	if (m1_json_is_number(value))
	{
		snprintf(number, sizeof number, "%.17g", m1_json_real(value) + 0.0);
		m1_buf_puts(out, number);
		return;
	}
	switch (json_typeof(value))
	{
		case JSON_INTEGER:
		case JSON_REAL:
			break;
		case JSON_STRING:
			m1_buf_puts(out, "\"");
			m1_buf_append(out, json_string_value(value), json_string_length(value));
			break;
		case JSON_OBJECT:
			m1_buf_puts(out, "{");
			break;
		case JSON_ARRAY:
			m1_buf_puts(out, "[");
			break;
		case JSON_TRUE:
			m1_buf_puts(out, "t");
			break;
		case JSON_FALSE:
			m1_buf_puts(out, "f");
			break;
		case JSON_NULL:
			m1_buf_puts(out, "n");
			break;
	}
}

/* FNV-1a. Two values with one hash are taken for equal: the schema is refused then, at worst. */
static uint64_t
hash_of(const m1_buf *text)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < text->len; i++)
		h = (h ^ (unsigned char) text->data[i]) * 0x100000001b3u;
	return h;
}

static bool
add_values(comparison *x, int alternative, int property, const json_t *schema)
{
	json_t *values = values_of(schema);
	const bool ok = may_compare(x, 1 + json_array_size(values));
	size_t i;
	json_t *one;

	json_array_foreach (values, i, one)
	{
		if (!ok)
			break;
		x->text.len = 0;
		put_value(&x->text, one);
		x->list[x->n_list++] = (listed){property, alternative, hash_of(&x->text)};
	}
	json_decref(values);
	return ok;
}

static int
number_of(comparison *x, const char *name)
{
	const json_t *known = json_object_get(x->names, name);

	if (known != NULL)
		return (int) json_integer_value(known);
	json_object_set_new(x->names, name, json_integer((json_int_t) json_object_size(x->names)));
	return (int) json_object_size(x->names) - 1;
}

/* The properties that an object must have. */
static bool
add_properties(comparison *x, int alternative, const json_t *schema)
{
	const json_t *properties = json_object_get(schema, "properties");
	const json_t *required = json_object_get(schema, "required");
	bool ok = may_compare(x, json_object_size(properties) + json_array_size(required));
	json_t *names = ok ? m1_schema_names(required) : NULL;
	const char *name;
	json_t *one;

	json_object_foreach (names, name, one)
	{
		const json_t *described = json_object_get(properties, name);

		if (ok && described != NULL)
			ok = add_values(x, alternative, number_of(x, name), resolve(x->c, described));
	}
	json_decref(names);
	return ok;
}

static bool
add_alternative(comparison *x, int i, const json_t *schema)
{
	schema = resolve(x->c, schema);
	if (!add_values(x, i, ITSELF, schema))
		return false;
	x->kinds[i] = kinds_of(schema);
	return x->kinds[i] != M1_KIND_OBJECT || add_properties(x, i, schema);
}

/* ---- telling them apart ---- */

static int
by_value(const void *a, const void *b)
{
	const listed *x = a;
	const listed *y = b;

	if (x->property != y->property)
		return x->property < y->property ? -1 : 1;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->alternative - y->alternative;
}

/* Notes who shares one value of a property, which the list has from `first` on. Returns where the next one begins. */
static size_t
note_shared(comparison *x, size_t first)
{
	uint64_t all[ROW] = {0};
	size_t end = first;

	for (; end < x->n_list && x->list[end].property == x->list[first].property &&
		   x->list[end].hash == x->list[first].hash;
		 end++)
		add_bit(all, x->list[end].alternative);
	for (size_t i = first; i < end; i++)
		for (int w = 0; w < ROW; w++)
			x->shares[x->list[i].alternative][w] |= all[w];
	return end;
}

/* Those that list values of one property are apart where they share none. Returns where the next property begins. */
static size_t
compare_property(comparison *x, size_t first)
{
	const int property = x->list[first].property;
	uint64_t members[ROW] = {0};
	size_t end = first;

	for (; end < x->n_list && x->list[end].property == property; end++)
	{
		add_bit(members, x->list[end].alternative);
		memset(x->shares[x->list[end].alternative], 0, sizeof x->shares[0]);
	}
	for (size_t i = first; i < end;)
		i = note_shared(x, i);
	for (size_t i = first; i < end; i++)
		for (int w = 0; w < ROW; w++)
			x->apart[x->list[i].alternative][w] |= members[w] & ~x->shares[x->list[i].alternative][w];
	return end;
}

static bool
all_apart(comparison *x)
{
	m1_sort(x->list, x->n_list, sizeof *x->list, by_value);
	for (size_t i = 0; i < x->n_list;)
		i = compare_property(x, i);
	for (size_t i = 0; i < x->n; i++)
		for (size_t j = 0; j < i; j++)
			if ((x->kinds[i] & x->kinds[j]) != 0 && (x->apart[i][j / 64] >> j % 64 & 1) == 0)
				return false;
	return true;
}

static const char *
overlap(comparison *x, const json_t *alternatives)
{
	for (size_t i = 0; i < x->n; i++)
		if (!add_alternative(x, (int) i, json_array_get(alternatives, i)))
			return "Say anyOf: more than " TEXT(MAX_COMPARED) " listed values and properties are not compared.";
	x->c->nfa->failed |= x->text.failed;
	return all_apart(x) ? NULL : "Say anyOf, or give them different types, or a required property whose const differs.";
}

const char *
m1_schema_overlap(m1_schema_compiler *c, const json_t *alternatives)
{
	comparison *x;
	const char *why = NULL;

	if (json_array_size(alternatives) > MAX_ALTERNATIVES)
		return "Say anyOf: more than " TEXT(MAX_ALTERNATIVES) " schemas are not compared.";
	x = calloc(1, sizeof *x);
	if (x == NULL || (x->names = json_object()) == NULL || (x->list = malloc(MAX_COMPARED * sizeof *x->list)) == NULL)
		c->nfa->failed = true;
	else
	{
		x->c = c;
		x->n = json_array_size(alternatives);
		why = overlap(x, alternatives);
	}
	if (x != NULL)
	{
		json_decref(x->names);
		free(x->list);
		m1_buf_free(&x->text);
	}
	free(x);
	return why;
}
