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

#define MAX_REFERENCES 16	 /* followed one after the other */
#define MAX_ALTERNATIVES 512 /* of one oneOf */
#define MAX_COMPARED 100000	 /* listed values and properties, in all that a document says oneOf of */
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define ROW (MAX_ALTERNATIVES / 64)

/* What a schema refers to, or itself. */
static const m1_json *
resolve(const m1_schema_compiler *c, const m1_json *schema)
{
	for (int i = 0; i < MAX_REFERENCES; i++)
	{
		const m1_json *reference = m1_json_get(schema, "$ref");
		const m1_json *target =
			m1_json_is(reference, M1_JSON_STRING) ? m1_schema_target(c->root, m1_json_cstr(reference)) : NULL;

		if (target == NULL)
			break;
		schema = target;
	}
	return schema;
}

/* The listed values of a schema. */
typedef struct values
{
	bool given;
	const m1_json *list; /* NULL: the one */
	const m1_json *one;
	size_t n;
} values;

static values
values_of(const m1_json *schema)
{
	const m1_json *list = m1_json_get(schema, "enum");
	const m1_json *one = m1_json_get(schema, "const");

	if (m1_json_is(list, M1_JSON_ARRAY))
		return (values){.given = true, .list = list, .n = m1_json_size(list)};
	return (values){.given = one != NULL, .one = one, .n = one != NULL};
}

static const m1_json *
value_at(const values *v, size_t i)
{
	return v->list != NULL ? m1_json_at(v->list, i) : v->one;
}

/* The types that a value of the schema may have, at least. */
static int
kinds_of(const m1_json *schema)
{
	const m1_json *type = m1_json_get(schema, "type");
	const values v = values_of(schema);
	int kinds = M1_KIND_ANY;

	if (v.given)
		kinds = 0;
	else if (type != NULL && m1_schema_types(type) != 0)
		kinds = m1_schema_types(type);
	for (size_t i = 0; i < v.n; i++)
		kinds |= m1_schema_kind_of_value(value_at(&v, i));
	return kinds;
}

typedef struct listed
{
	const char *property; /* its name; NULL: of none, but of the value itself */
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
put_value(m1_buf *out, const m1_json *value)
{
	char number[40];

	switch ((m1_json_kind) value->kind)
	{
		case M1_JSON_NUMBER:
			snprintf(number, sizeof number, "%.17g", m1_json_real(value) + 0.0);
			m1_buf_puts(out, number);
			break;
		case M1_JSON_STRING:
			m1_buf_puts(out, "\"");
			m1_buf_append(out, value->text, value->n);
			break;
		case M1_JSON_OBJECT:
			m1_buf_puts(out, "{");
			break;
		case M1_JSON_ARRAY:
			m1_buf_puts(out, "[");
			break;
		case M1_JSON_TRUE:
			m1_buf_puts(out, "t");
			break;
		case M1_JSON_FALSE:
			m1_buf_puts(out, "f");
			break;
		case M1_JSON_NULL:
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
add_values(comparison *x, int alternative, const char *property, const m1_json *schema)
{
	const values v = values_of(schema);
	const bool ok = may_compare(x, 1 + v.n);

	for (size_t i = 0; ok && i < v.n; i++)
	{
		x->text.len = 0;
		put_value(&x->text, value_at(&v, i));
		x->list[x->n_list++] = (listed){property, alternative, hash_of(&x->text)};
	}
	return ok;
}

/* The properties that an object must have. */
static bool
add_properties(comparison *x, int alternative, const m1_json *schema)
{
	const m1_json *properties = m1_json_get(schema, "properties");
	const m1_json *required = m1_json_get(schema, "required");
	bool ok = may_compare(x, m1_json_size(properties) + m1_json_size(required));
	m1_schema_names names = {0};

	if (ok)
	{
		names = m1_schema_names_of(required);
		x->c->nfa->failed |= names.sorted == NULL;
	}
	for (size_t i = 0; ok && i < names.n; i++)
	{
		const m1_json *described = m1_json_get(properties, names.sorted[i]->text);

		if (described != NULL)
			ok = add_values(x, alternative, names.sorted[i]->text, resolve(x->c, described));
	}
	free(names.sorted);
	return ok;
}

static bool
add_alternative(comparison *x, int i, const m1_json *schema)
{
	schema = resolve(x->c, schema);
	if (!add_values(x, i, NULL, schema))
		return false;
	x->kinds[i] = kinds_of(schema);
	return x->kinds[i] != M1_KIND_OBJECT || add_properties(x, i, schema);
}

/* ---- telling them apart ---- */

static int
by_property(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	return strcmp(a, b);
}

static int
by_value(const void *a, const void *b)
{
	const listed *x = a;
	const listed *y = b;

	const int order = by_property(x->property, y->property);

	if (order != 0)
		return order;
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

	for (; end < x->n_list && by_property(x->list[end].property, x->list[first].property) == 0 &&
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
	const char *property = x->list[first].property;
	uint64_t members[ROW] = {0};
	size_t end = first;

	for (; end < x->n_list && by_property(x->list[end].property, property) == 0; end++)
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
overlap(comparison *x, const m1_json *alternatives)
{
	for (size_t i = 0; i < x->n; i++)
		if (!add_alternative(x, (int) i, m1_json_at(alternatives, i)))
			return "Say anyOf: more than " TEXT(MAX_COMPARED) " listed values and properties are not compared.";
	x->c->nfa->failed |= x->text.failed;
	return all_apart(x) ? NULL : "Say anyOf, or give them different types, or a required property whose const differs.";
}

const char *
m1_schema_overlap(m1_schema_compiler *c, const m1_json *alternatives)
{
	comparison *x;
	const char *why = NULL;

	if (m1_json_size(alternatives) > MAX_ALTERNATIVES)
		return "Say anyOf: more than " TEXT(MAX_ALTERNATIVES) " schemas are not compared.";
	x = calloc(1, sizeof *x);
	if (x == NULL || (x->list = malloc(MAX_COMPARED * sizeof *x->list)) == NULL)
		c->nfa->failed = true;
	else
	{
		x->c = c;
		x->n = m1_json_size(alternatives);
		why = overlap(x, alternatives);
	}
	if (x != NULL)
	{
		free(x->list);
		m1_buf_free(&x->text);
	}
	free(x);
	return why;
}
