/* jsonschema.c - see jsonschema.h and jsonschema_internal.h. */
#include "grammar/jsonschema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "grammar/jsonschema_internal.h"

#define MAX_DEPTH 100 /* schemas inside each other, references not counted */

/* ---- errors and paths ---- */

void
m1_schema_fail(m1_schema_compiler *c, m1_status status, const char *fmt, ...)
{
	char what[160];
	va_list args;

	if (c->status != M1_OK)
		return;
	va_start(args, fmt);
	vsnprintf(what, sizeof what, fmt, args);
	va_end(args);
	c->status = m1_fail(c->err, status, "JSON schema: %s", what);
	m1_error_detail(c->err, "It is at %.400s.", m1_buf_cstr(&c->path) != NULL ? c->path.data : "#");
}

static void
append_step(m1_schema_compiler *c, const char *key, const char *name, int index)
{
	char number[16];

	m1_buf_puts(&c->path, "/");
	m1_buf_puts(&c->path, key);
	if (name != NULL)
	{
		m1_buf_puts(&c->path, "/");
		m1_buf_puts(&c->path, name);
	}
	if (index >= 0)
	{
		snprintf(number, sizeof number, "/%d", index);
		m1_buf_puts(&c->path, number);
	}
}

/* ---- keywords ---- */

/* Where a keyword may stand. */
enum
{
	SAYS_NOTHING = 1, /* about the value */
	BESIDE_TYPE = 2,  /* beside "type" and others of its own kind */
	ALONE = 4,		  /* beside those that say nothing only */
	LISTED = 8,		  /* the same, and beside "type" */
	FALSE_ONLY = 16,  /* when it is false */
};

static const struct keyword
{
	const char *name;
	int where;
	int kind; /* of the values it speaks of */
} keywords[] = {
	{"title", SAYS_NOTHING, 0},
	{"description", SAYS_NOTHING, 0},
	{"default", SAYS_NOTHING, 0},
	{"examples", SAYS_NOTHING, 0},
	{"deprecated", SAYS_NOTHING, 0},
	{"readOnly", SAYS_NOTHING, 0},
	{"writeOnly", SAYS_NOTHING, 0},
	{"$schema", SAYS_NOTHING, 0},
	{"$id", SAYS_NOTHING, 0},
	{"$comment", SAYS_NOTHING, 0},
	{"$defs", SAYS_NOTHING, 0},
	{"definitions", SAYS_NOTHING, 0},
	{"uniqueItems", FALSE_ONLY, 0},
	{"type", BESIDE_TYPE, 0},
	{"properties", BESIDE_TYPE, M1_KIND_OBJECT},
	{"required", BESIDE_TYPE, M1_KIND_OBJECT},
	{"additionalProperties", BESIDE_TYPE, M1_KIND_OBJECT},
	{"items", BESIDE_TYPE, M1_KIND_ARRAY},
	{"prefixItems", BESIDE_TYPE, M1_KIND_ARRAY},
	{"minItems", BESIDE_TYPE, M1_KIND_ARRAY},
	{"maxItems", BESIDE_TYPE, M1_KIND_ARRAY},
	{"minLength", BESIDE_TYPE, M1_KIND_STRING},
	{"maxLength", BESIDE_TYPE, M1_KIND_STRING},
	{"pattern", BESIDE_TYPE, M1_KIND_STRING},
	{"format", BESIDE_TYPE, M1_KIND_STRING},
	{"minimum", BESIDE_TYPE, M1_KIND_NUMBER},
	{"maximum", BESIDE_TYPE, M1_KIND_NUMBER},
	{"exclusiveMinimum", BESIDE_TYPE, M1_KIND_NUMBER},
	{"exclusiveMaximum", BESIDE_TYPE, M1_KIND_NUMBER},
	{"enum", LISTED, 0},
	{"const", LISTED, 0},
	{"$ref", ALONE, 0},
	{"anyOf", ALONE, 0},
	{"oneOf", ALONE, 0},
	{"allOf", ALONE, 0},
};

static const struct keyword *
find_keyword(const char *name)
{
	for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
		if (strcmp(keywords[i].name, name) == 0)
			return &keywords[i];
	return NULL;
}

bool
m1_jsonschema_says_nothing(const m1_json *schema)
{
	m1_json_foreach (schema, value)
	{
		const struct keyword *k = find_keyword(m1_json_key(value));

		if (k == NULL || (k->where != SAYS_NOTHING && (k->where != FALSE_ONLY || !m1_json_is(value, M1_JSON_FALSE))))
			return false;
	}
	return m1_json_is(schema, M1_JSON_OBJECT);
}

/* Refuses what is not known. Sets *kinds to the types that the keywords speak of. */
static bool
check_keywords(m1_schema_compiler *c, const m1_json *schema, int *kinds)
{
	const struct keyword *decisive = NULL; /* the one that says all */
	const char *beside = NULL;

	*kinds = 0;
	m1_json_foreach (schema, value)
	{
		const char *name = m1_json_key(value);
		const struct keyword *k = find_keyword(name);

		if (k == NULL || (k->where == FALSE_ONLY && !m1_json_is(value, M1_JSON_FALSE)))
		{
			m1_schema_fail(c, M1_E_UNSUPPORTED, "keyword \"%.60s\" is not supported%s", name,
						   k != NULL ? ", unless it is false" : "");
			return false;
		}
		*kinds |= k->kind;
		if ((k->where == ALONE || k->where == LISTED) && decisive == NULL)
			decisive = k;
		else if (k->where >= BESIDE_TYPE && k->where <= LISTED && (beside == NULL || strcmp(beside, "type") == 0))
			beside = k->name;
	}
	if (decisive == NULL || beside == NULL || (decisive->where == LISTED && strcmp(beside, "type") == 0))
		return true;
	m1_schema_fail(c, M1_E_UNSUPPORTED, "keyword \"%s\" beside \"%s\" is not supported", beside, decisive->name);
	return false;
}

int
m1_schema_types(const m1_json *type)
{
	static const struct
	{
		const char *name;
		int kinds;
	} names[] = {{"object", M1_KIND_OBJECT},   {"array", M1_KIND_ARRAY},
				 {"string", M1_KIND_STRING},   {"number", M1_KIND_NUMBER | M1_KIND_INTEGER},
				 {"integer", M1_KIND_INTEGER}, {"boolean", M1_KIND_BOOLEAN},
				 {"null", M1_KIND_NULL}};
	int kinds = 0;

	if (m1_json_is(type, M1_JSON_STRING))
		for (size_t i = 0; i < sizeof names / sizeof *names; i++)
			if (strcmp(names[i].name, m1_json_cstr(type)) == 0)
				return names[i].kinds;
	if (!m1_json_is(type, M1_JSON_ARRAY))
		return 0;
	m1_json_foreach (type, one)
	{
		const int these = m1_json_is(one, M1_JSON_STRING) ? m1_schema_types(one) : 0;

		if (these == 0)
			return 0;
		kinds |= these;
	}
	return kinds;
}

int
m1_schema_count(m1_schema_compiler *c, const m1_json *schema, const char *key, int otherwise, bool cut)
{
	const m1_json *value = m1_json_get(schema, key);
	double n;

	if (value == NULL)
		return otherwise;
	n = m1_json_is(value, M1_JSON_NUMBER) ? m1_json_real(value) : -1;
	if (!(n >= 0) || !m1_json_is_whole(value))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "%s must be a whole number that is not negative", key);
	else if (n > M1_SCHEMA_MAX_COUNT && !cut)
		m1_schema_fail(c, M1_E_UNSUPPORTED, "%s is above %d", key, M1_SCHEMA_MAX_COUNT);
	else
		return n > M1_SCHEMA_MAX_COUNT ? M1_SCHEMA_MAX_COUNT : (int) n;
	return 0;
}

/* ---- references ---- */

/* One step of a JSON pointer in a URI fragment: %XX, ~1 and ~0 stand for other bytes. */
static bool
decode_step(const char *from, size_t len, m1_buf *out)
{
	out->len = 0;
	for (size_t i = 0; i < len; i++)
	{
		char byte = from[i];

		if (byte == '%')
		{
			if (i + 2 >= len || m1_hex_digit(from[i + 1]) < 0 || m1_hex_digit(from[i + 2]) < 0)
				return false;
			byte = (char) (m1_hex_digit(from[i + 1]) * 16 + m1_hex_digit(from[i + 2]));
			i += 2;
		}
		else if (byte == '~')
		{
			if (i + 1 >= len || (from[i + 1] != '0' && from[i + 1] != '1'))
				return false;
			byte = from[++i] == '0' ? '~' : '/';
		}
		m1_buf_append(out, &byte, 1);
	}
	return m1_buf_cstr(out) != NULL;
}

static const m1_json *
child(const m1_json *parent, const char *step)
{
	char *end;
	unsigned long i;

	if (m1_json_is(parent, M1_JSON_OBJECT))
		return m1_json_get(parent, step);
	if (!m1_json_is(parent, M1_JSON_ARRAY) || *step < '0' || *step > '9')
		return NULL;
	i = strtoul(step, &end, 10);
	return *end == '\0' ? m1_json_at(parent, i) : NULL;
}

const m1_json *
m1_schema_target(const m1_json *root, const char *reference)
{
	const m1_json *at = root;
	m1_buf step = {0};

	if (*reference++ != '#')
		return NULL;
	while (at != NULL && *reference == '/')
	{
		const size_t len = strcspn(reference + 1, "/");

		at = decode_step(reference + 1, len, &step) ? child(at, step.data) : NULL;
		reference += 1 + len;
	}
	m1_buf_free(&step);
	return *reference == '\0' && (m1_json_is(at, M1_JSON_OBJECT) || m1_json_is_boolean(at)) ? at : NULL;
}

/* The rule of a schema that is referred to; written later, once, under the path of its first reference. */
static int
referred_rule(m1_schema_compiler *c, const m1_json *schema, const char *reference)
{
	m1_schema_rule *r;
	uint32_t *place = &c->places[schema - c->root];

	if (*place > 0)
		return c->referred[*place - 1].rule;
	if (c->n_referred == c->cap_referred)
	{
		size_t cap = c->cap_referred < 16 ? 16 : c->cap_referred * 2;
		m1_schema_rule *referred = realloc(c->referred, cap * sizeof *referred);

		if (referred == NULL)
		{
			c->nfa->failed = true;
			return 0;
		}
		c->referred = referred;
		c->cap_referred = cap;
	}
	r = &c->referred[c->n_referred++];
	*place = (uint32_t) c->n_referred;
	*r = (m1_schema_rule){.schema = schema, .rule = m1_nfa_new_rule(c->nfa, false), .path = c->rule_paths.len};
	m1_buf_append(&c->rule_paths, reference, strlen(reference) + 1);
	return r->rule;
}

/* Marks what stands in schemas below the root that have an $id: to a $ref in there, they are the document. */
static bool
mark_documents(m1_schema_compiler *c)
{
	const m1_json *end = c->root;

	if ((c->inner = calloc(c->root->span, sizeof *c->inner)) == NULL)
		return false;
	for (const m1_json *value = c->root + 1; value < c->root + c->root->span; value++)
	{
		const char *id = m1_json_cstr(m1_json_get(value, "$id"));

		/* one that is a mere fragment is a name, in older drafts */
		if (id != NULL && id[0] != '#' && value + value->span > end)
			end = value + value->span;
		c->inner[value - c->root] = value < end;
	}
	return true;
}

static int32_t
write_reference(m1_schema_compiler *c, const m1_json *reference, int32_t next)
{
	const m1_json *target =
		m1_json_is(reference, M1_JSON_STRING) ? m1_schema_target(c->root, m1_json_cstr(reference)) : NULL;

	if (!m1_json_is(reference, M1_JSON_STRING))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "$ref is not a string");
	else if (c->inner[reference - c->root])
		m1_schema_fail(c, M1_E_UNSUPPORTED, "$ref inside of a schema that has an $id of its own is not supported");
	else if (m1_json_cstr(reference)[0] != '#')
		m1_schema_fail(c, M1_E_UNSUPPORTED, "$ref \"%.80s\" leads out of the document", m1_json_cstr(reference));
	else if (target == NULL)
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "$ref \"%.80s\" leads to no schema", m1_json_cstr(reference));
	if (c->status != M1_OK)
		return M1_NFA_FAIL;
	return m1_nfa_call(c->nfa, referred_rule(c, target, m1_json_cstr(reference)), next);
}

/* ---- schemas ---- */

static int32_t
write_alternatives(m1_schema_compiler *c, const m1_json *schema, const char *key, int32_t next)
{
	const m1_json *list = m1_json_get(schema, key);
	int32_t start = M1_NFA_FAIL;
	const char *overlap;

	if (!m1_json_is(list, M1_JSON_ARRAY) || m1_json_size(list) == 0)
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "%s is not an array of schemas", key);
	else if (strcmp(key, "allOf") == 0 && m1_json_size(list) > 1)
		m1_schema_fail(c, M1_E_UNSUPPORTED, "allOf is supported with one schema only");
	else if (strcmp(key, "oneOf") == 0 && (overlap = m1_schema_overlap(c, list)) != NULL)
	{
		m1_schema_fail(c, M1_E_UNSUPPORTED, "the schemas of oneOf may overlap");
		m1_error_hint(c->err, "%s", overlap);
	}
	for (size_t i = m1_json_size(list); i-- > 0 && c->status == M1_OK;)
		start = m1_nfa_split(c->nfa, m1_schema_write(c, m1_json_at(list, i), key, NULL, (int) i, next), start);
	return start;
}

/* The values of the types that "type" names, or, without it, that the other keywords speak of. */
static int32_t
write_types(m1_schema_compiler *c, const m1_json *schema, int spoken_of, int32_t next)
{
	const m1_json *type = m1_json_get(schema, "type");
	int kinds = type != NULL ? m1_schema_types(type) : spoken_of;
	m1_nfa *nfa = c->nfa;
	int32_t start = M1_NFA_FAIL;

	if (type != NULL && kinds == 0)
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "type is not one of JSON's types, or a list of them");
	else if (kinds == 0)
		return m1_json_any(nfa, &c->rules, next);
	if (kinds & M1_KIND_NULL)
		start = m1_nfa_split(nfa, m1_nfa_literal(nfa, m1_slice_of("null"), next), start);
	if (kinds & M1_KIND_BOOLEAN)
		start = m1_nfa_split(nfa, m1_nfa_literal(nfa, m1_slice_of("true"), next),
							 m1_nfa_split(nfa, m1_nfa_literal(nfa, m1_slice_of("false"), next), start));
	if (kinds & (M1_KIND_NUMBER | M1_KIND_INTEGER))
		start = m1_nfa_split(nfa, m1_schema_number(c, schema, !(kinds & M1_KIND_NUMBER), next), start);
	if (kinds & M1_KIND_STRING)
		start = m1_nfa_split(nfa, m1_schema_string(c, schema, next), start);
	if (kinds & M1_KIND_ARRAY)
		start = m1_nfa_split(nfa, m1_schema_array(c, schema, next), start);
	if (kinds & M1_KIND_OBJECT)
		start = m1_nfa_split(nfa, m1_schema_object(c, schema, next), start);
	return start;
}

static int32_t
write_keywords(m1_schema_compiler *c, const m1_json *schema, int32_t next)
{
	static const char *const lists[] = {"anyOf", "oneOf", "allOf"};
	int kinds;

	if (!check_keywords(c, schema, &kinds))
		return M1_NFA_FAIL;
	if (m1_json_get(schema, "$ref") != NULL)
		return write_reference(c, m1_json_get(schema, "$ref"), next);
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
		if (m1_json_get(schema, lists[i]) != NULL)
			return write_alternatives(c, schema, lists[i], next);
	if (m1_json_get(schema, "enum") != NULL || m1_json_get(schema, "const") != NULL)
		return m1_schema_values(c, schema, next);
	return write_types(c, schema, kinds, next);
}

int32_t
m1_schema_write(m1_schema_compiler *c, const m1_json *schema, const char *key, const char *name, int index,
				int32_t next)
{
	const size_t above = c->path.len;
	int32_t start = M1_NFA_FAIL;

	if (c->status != M1_OK || c->nfa->failed)
		return start;
	append_step(c, key, name, index);
	if (++c->depth > MAX_DEPTH)
		m1_schema_fail(c, M1_E_UNSUPPORTED, "it is more than %d schemas deep", MAX_DEPTH);
	else if (m1_json_is(schema, M1_JSON_TRUE))
		start = m1_json_any(c->nfa, &c->rules, next);
	else if (m1_json_is(schema, M1_JSON_OBJECT))
		start = write_keywords(c, schema, next);
	else if (!m1_json_is(schema, M1_JSON_FALSE))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "a schema must be an object, true or false");
	c->depth--;
	c->path.len = above;
	return start;
}

int
m1_schema_rule_of(m1_schema_compiler *c, const m1_json *schema, const char *key, const char *name, int index)
{
	const int32_t start = m1_schema_write(c, schema, key, name, index, M1_NFA_RETURN);
	const int rule = m1_nfa_new_rule(c->nfa, false);

	m1_nfa_set_rule(c->nfa, rule, start);
	return rule;
}

/* ---- the document ---- */

/* The root, then what it refers to, and what that refers to. */
static int32_t
write_document(m1_schema_compiler *c, int32_t next)
{
	int32_t start;

	m1_buf_puts(&c->path, "#");
	c->depth = 1;
	if (m1_json_is(c->root, M1_JSON_OBJECT))
		start = write_keywords(c, c->root, next);
	else if (m1_json_is(c->root, M1_JSON_TRUE))
		start = m1_json_any(c->nfa, &c->rules, next);
	else
	{
		start = M1_NFA_FAIL;
		if (!m1_json_is(c->root, M1_JSON_FALSE))
			m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "a schema must be an object, true or false");
	}
	while (c->n_written < c->n_referred && c->status == M1_OK && !c->nfa->failed)
	{
		const m1_schema_rule r = c->referred[c->n_written++];
		int32_t rule_start = M1_NFA_FAIL;

		c->path.len = 0;
		m1_buf_puts(&c->path, c->rule_paths.data + r.path);
		if (m1_json_is(r.schema, M1_JSON_OBJECT))
			rule_start = write_keywords(c, r.schema, M1_NFA_RETURN);
		else if (m1_json_is(r.schema, M1_JSON_TRUE))
			rule_start = m1_json_any(c->nfa, &c->rules, M1_NFA_RETURN);
		m1_nfa_set_rule(c->nfa, r.rule, rule_start);
	}
	return start;
}

m1_status
m1_jsonschema_compile_value(m1_nfa *nfa, const m1_json *schema, int32_t next, int32_t *start, m1_error *err)
{
	m1_schema_compiler c = {.nfa = nfa, .root = schema, .rules = {.character = -1, .any = -1}, .err = err};

	*start = M1_NFA_FAIL;
	if ((c.places = calloc(schema->span, sizeof *c.places)) == NULL || !mark_documents(&c))
		nfa->failed = true;
	else
		*start = write_document(&c, next);
	if (c.path.failed || c.rule_paths.failed)
		nfa->failed = true;
	m1_buf_free(&c.path);
	m1_buf_free(&c.rule_paths);
	free(c.referred);
	free(c.places);
	free(c.inner);
	return c.status;
}

m1_status
m1_jsonschema_compile(m1_nfa *nfa, m1_slice schema, int32_t next, int32_t *start, m1_error *err)
{
	m1_json_doc doc;
	m1_status status = m1_json_parse(schema, "JSON schema: it", nfa->work, &doc, err);

	*start = M1_NFA_FAIL;
	if (status != M1_OK)
		return status;
	status = m1_jsonschema_compile_value(nfa, doc.root, next, start, err);
	m1_json_free(&doc);
	return status;
}
