/* json_judge.c - see json_judge.h. */
#include "json_judge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "regex_judge.h"

/* ---- values ---- */

static bool
is_whole(const json_t *value)
{
	const double x = json_number_value(value);

	return json_is_number(value) && x == floor(x);
}

/* As numbers compare: 1 is 1.0. */
static int
compare(const json_t *a, const json_t *b)
{
	const double x = json_number_value(a);
	const double y = json_number_value(b);

	if (json_is_integer(a) && json_is_integer(b))
		return (json_integer_value(a) > json_integer_value(b)) - (json_integer_value(a) < json_integer_value(b));
	return (x > y) - (x < y);
}

static bool
same(const json_t *a, const json_t *b)
{
	const char *name;
	json_t *one;
	size_t i;

	if (json_is_number(a) && json_is_number(b))
		return compare(a, b) == 0;
	if (json_is_object(a) && json_is_object(b) && json_object_size(a) == json_object_size(b))
	{
		json_object_foreach ((json_t *) a, name, one)
			if (json_object_get(b, name) == NULL || !same(one, json_object_get(b, name)))
				return false;
		return true;
	}
	if (json_is_array(a) && json_is_array(b) && json_array_size(a) == json_array_size(b))
	{
		json_array_foreach ((json_t *) a, i, one)
			if (!same(one, json_array_get(b, i)))
				return false;
		return true;
	}
	return json_equal(a, b);
}

static bool
is_listed(const json_t *list, const json_t *value)
{
	size_t i;
	json_t *one;

	json_array_foreach ((json_t *) list, i, one)
		if (same(one, value))
			return true;
	return false;
}

/* ---- keywords ---- */

static bool
has_type(const json_t *type, const json_t *value)
{
	const char *name = json_string_value(type);
	size_t i;
	json_t *one;

	json_array_foreach ((json_t *) type, i, one)
		if (has_type(one, value))
			return true;
	if (name == NULL)
		return false;
	if (json_is_number(value))
		return strcmp(name, "number") == 0 || (strcmp(name, "integer") == 0 && is_whole(value));
	switch (json_typeof(value))
	{
		case JSON_OBJECT:
			return strcmp(name, "object") == 0;
		case JSON_ARRAY:
			return strcmp(name, "array") == 0;
		case JSON_STRING:
			return strcmp(name, "string") == 0;
		case JSON_NULL:
			return strcmp(name, "null") == 0;
		default:
			return strcmp(name, "boolean") == 0;
	}
}

static bool
judge_object(const json_t *root, const json_t *schema, const json_t *value)
{
	const json_t *properties = json_object_get(schema, "properties");
	const json_t *others = json_object_get(schema, "additionalProperties");
	const char *name;
	json_t *one;
	size_t i;

	json_array_foreach (json_object_get(schema, "required"), i, one)
		if (json_object_get(value, json_string_value(one)) == NULL)
			return false;
	json_object_foreach ((json_t *) value, name, one)
	{
		const json_t *described = json_object_get(properties, name);

		if (!json_judge(root, described != NULL ? described : others, one))
			return false;
	}
	return true;
}

/* A limit that is absent holds. */
static bool
holds(const json_t *schema, const char *key, double n, bool at_least)
{
	const json_t *limit = json_object_get(schema, key);

	return limit == NULL || (at_least ? n >= json_number_value(limit) : n <= json_number_value(limit));
}

static bool
judge_array(const json_t *root, const json_t *schema, const json_t *value)
{
	const json_t *prefix = json_object_get(schema, "prefixItems");
	const json_t *items = json_object_get(schema, "items");
	const size_t n = json_array_size(value);
	size_t i;
	json_t *one;

	if (!holds(schema, "minItems", (double) n, true) || !holds(schema, "maxItems", (double) n, false))
		return false;
	json_array_foreach ((json_t *) value, i, one)
		if (!json_judge(root, i < json_array_size(prefix) ? json_array_get(prefix, i) : items, one))
			return false;
	return true;
}

/* By other means than the compiler of formats: the parts as numbers, without expressions. */
static bool
has_format(const char *format, const char *text)
{
	int y, mo, d, h, mi, s, n = 0;

	if (strcmp(format, "uuid") == 0)
		return strlen(text) == 36 && strspn(text, "0123456789abcdef-") == 36 && text[8] == '-' && text[13] == '-' &&
			   text[18] == '-' && text[23] == '-';
	if (strcmp(format, "time") != 0)
	{
		if (sscanf(text, "%4d-%2d-%2d%n", &y, &mo, &d, &n) != 3 || n != 10 || mo < 1 || mo > 12 || d < 1 || d > 31 ||
			(d == 31 && (mo == 4 || mo == 6 || mo == 9 || mo == 11)) || (mo == 2 && d > 28))
			return false;
		if (strcmp(format, "date") == 0)
			return text[10] == '\0';
		if (text[10] != 'T')
			return false;
		text += 11;
	}
	n = 0;
	if (sscanf(text, "%2d:%2d:%2d%n", &h, &mi, &s, &n) != 3 || n != 8 || h > 23 || mi > 59 || s > 59)
		return false;
	text += 8;
	if (*text == '.')
		text += 1 + strspn(text + 1, "0123456789");
	return strcmp(text, "Z") == 0 || (strlen(text) == 6 && strchr("+-", *text) != NULL && text[3] == ':');
}

static bool
judge_string(const json_t *schema, const json_t *value)
{
	const m1_slice text = {json_string_value(value), json_string_length(value)};
	const json_t *pattern = json_object_get(schema, "pattern");
	const json_t *format = json_object_get(schema, "format");
	size_t n = 0;

	for (size_t i = 0; i < text.len; i++)
		n += (text.data[i] & 0xC0) != 0x80;
	if (!holds(schema, "minLength", (double) n, true) || !holds(schema, "maxLength", (double) n, false))
		return false;
	if (format != NULL && !has_format(json_string_value(format), text.data))
		return false;
	return pattern == NULL || regex_judge((m1_slice){json_string_value(pattern), json_string_length(pattern)}, text,
										  true) != REGEX_DIFFERS;
}

static bool
judge_number(const json_t *schema, const json_t *value)
{
	const json_t *bound;

	if ((bound = json_object_get(schema, "minimum")) != NULL && compare(value, bound) < 0)
		return false;
	if ((bound = json_object_get(schema, "maximum")) != NULL && compare(value, bound) > 0)
		return false;
	if ((bound = json_object_get(schema, "exclusiveMinimum")) != NULL && compare(value, bound) <= 0)
		return false;
	return (bound = json_object_get(schema, "exclusiveMaximum")) == NULL || compare(value, bound) < 0;
}

static size_t
count_valid(const json_t *root, const json_t *schemas, const json_t *value)
{
	size_t n = 0;
	size_t i;
	json_t *one;

	json_array_foreach ((json_t *) schemas, i, one)
		n += json_judge(root, one, value);
	return n;
}

/* A JSON pointer behind "#", without escapes. */
static const json_t *
target(const json_t *root, const char *reference)
{
	char step[256];
	int n;

	for (reference++; sscanf(reference, "/%255[^/]%n", step, &n) == 1; reference += n)
		root = json_is_array(root) ? json_array_get(root, strtoul(step, NULL, 10)) : json_object_get(root, step);
	return root;
}

static bool
judge_keywords(const json_t *root, const json_t *schema, const json_t *value)
{
	const json_t *part;

	if ((part = json_object_get(schema, "$ref")) != NULL &&
		!json_judge(root, target(root, json_string_value(part)), value))
		return false;
	if ((part = json_object_get(schema, "type")) != NULL && !has_type(part, value))
		return false;
	if ((part = json_object_get(schema, "enum")) != NULL && !is_listed(part, value))
		return false;
	if ((part = json_object_get(schema, "const")) != NULL && !same(part, value))
		return false;
	if ((part = json_object_get(schema, "anyOf")) != NULL && count_valid(root, part, value) == 0)
		return false;
	if ((part = json_object_get(schema, "oneOf")) != NULL && count_valid(root, part, value) != 1)
		return false;
	part = json_object_get(schema, "allOf");
	return part == NULL || count_valid(root, part, value) == json_array_size(part);
}

bool
json_judge(const json_t *root, const json_t *schema, const json_t *value)
{
	if (schema == NULL || json_is_true(schema))
		return true;
	if (json_is_false(schema) || !judge_keywords(root, schema, value))
		return false;
	if (json_is_number(value))
		return judge_number(schema, value);
	switch (json_typeof(value))
	{
		case JSON_OBJECT:
			return judge_object(root, schema, value);
		case JSON_ARRAY:
			return judge_array(root, schema, value);
		case JSON_STRING:
			return judge_string(schema, value);
		default:
			return true;
	}
}
