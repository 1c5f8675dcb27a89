/* jsonschema_scalars.c - strings, numbers and listed values; see jsonschema_internal.h. */
#include <string.h>

#include "grammar/jsonschema_internal.h"
#include "grammar/regex.h"
#include "text/jsontext.h"

/* ---- strings ---- */

/* Formats as the texts that every reader takes: four-digit years, days that every year has, UTC or an offset. */
#define DAY                                                     \
	"[1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|" \
	"(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
#define TIME "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?"
#define ZONE "(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])"

static const struct
{
	const char *name;
	const char *pattern;
} formats[] = {
	{"date", DAY},
	{"time", TIME ZONE},
	{"date-time", DAY "T" TIME ZONE},
	{"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
};

static int32_t
write_pattern(m1_schema_compiler *c, m1_slice pattern, m1_regex_match match, int32_t next)
{
	const int32_t close = m1_nfa_bytes(c->nfa, '"', '"', next);
	m1_error error;
	int32_t start;

	if (m1_regex_compile(c->nfa, pattern, match, m1_json_characters, close, &start, &error) != M1_OK)
		m1_schema_fail(c, error.code, "pattern: %.80s; %.60s", error.message, error.detail);
	return m1_nfa_bytes(c->nfa, '"', '"', start);
}

static int32_t
write_format(m1_schema_compiler *c, const m1_json *format, int32_t next)
{
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
		if (m1_json_is(format, M1_JSON_STRING) && strcmp(formats[i].name, m1_json_cstr(format)) == 0)
			return write_pattern(c, m1_slice_of(formats[i].pattern), M1_REGEX_WHOLE, next);
	if (m1_json_is(format, M1_JSON_STRING))
		m1_schema_fail(c, M1_E_UNSUPPORTED, "format \"%.60s\" is not supported", m1_json_cstr(format));
	else
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "format is not a string");
	return M1_NFA_FAIL;
}

int32_t
m1_schema_string(m1_schema_compiler *c, const m1_json *schema, int32_t next)
{
	const m1_json *pattern = m1_json_get(schema, "pattern");
	const m1_json *format = m1_json_get(schema, "format");
	const int min = m1_schema_count(c, schema, "minLength", 0, false);
	const int max = m1_schema_count(c, schema, "maxLength", M1_JSON_NO_MAX, true);
	const bool sized = m1_json_get(schema, "minLength") != NULL || m1_json_get(schema, "maxLength") != NULL;

	if (pattern != NULL && !m1_json_is(pattern, M1_JSON_STRING))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "pattern is not a string");
	else if ((pattern != NULL) + (format != NULL) + sized > 1)
		m1_schema_fail(c, M1_E_UNSUPPORTED, "only one of pattern, format and a length is supported");
	if (c->status != M1_OK)
		return M1_NFA_FAIL;
	if (pattern != NULL)
		return write_pattern(c, m1_json_text(pattern), M1_REGEX_SEARCH, next);
	if (format != NULL)
		return write_format(c, format, next);
	return max != M1_JSON_NO_MAX && min > max ? M1_NFA_FAIL : m1_json_string(c->nfa, &c->rules, min, max, next);
}

/* ---- numbers ---- */

/* Whether the whole part of a bound leaves room for its fraction. */
static bool
is_short(const m1_json_bound *bound)
{
	int n = (int) strlen(bound->fraction);

	for (int64_t x = bound->value; x != 0; x /= 10)
		n++;
	return n <= M1_JSON_BOUND_DIGITS;
}

static m1_json_bound
fractional_bound(m1_schema_compiler *c, const m1_json *value, const char *key, bool exclusive)
{
	m1_json_bound bound = {.given = true, .negative = *value->text == '-'};

	if (exclusive || !m1_json_fraction(value, bound.fraction, sizeof bound.fraction) ||
		!m1_json_to_whole(value, bound.negative, &bound.value) || !is_short(&bound))
		m1_schema_fail(c, M1_E_UNSUPPORTED, "%s of a number must be whole, or inclusive and of at most %d digits", key,
					   M1_JSON_BOUND_DIGITS);
	return bound;
}

/*
 * The bound as a whole number. One that no 64-bit number is beyond bounds what is written to 64 bits. Of integers only
 * those on the right side of a fraction are meant; it is none of them itself.
 */
static m1_json_bound
whole_bound(m1_schema_compiler *c, const m1_json *value, const char *key, bool upper, bool integer, bool exclusive)
{
	const bool whole = m1_json_is_whole(value);
	m1_json_bound bound = {.given = true, .exclusive = exclusive && whole};

	if (!m1_json_is(value, M1_JSON_NUMBER))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "%s is not a number", key);
	else if (!whole && !integer)
		return fractional_bound(c, value, key, exclusive);
	else if (m1_json_to_whole(value, !upper, &bound.value))
		return bound;
	else if (upper == (*value->text != '-'))
		bound = (m1_json_bound){.given = true, .value = upper ? INT64_MAX : INT64_MIN};
	else
		m1_schema_fail(c, M1_E_UNSUPPORTED, "%s is beyond 64 bits", key);
	return bound;
}

/* Which of "minimum" and "exclusiveMinimum", or of the maxima, bounds the values more. */
static m1_json_bound
read_bound(m1_schema_compiler *c, const m1_json *schema, bool upper, bool integer)
{
	const char *const keys[] = {upper ? "maximum" : "minimum", upper ? "exclusiveMaximum" : "exclusiveMinimum"};
	m1_json_bound bound = {0};

	for (int i = 0; i < 2; i++)
	{
		const m1_json *value = m1_json_get(schema, keys[i]);
		m1_json_bound this;

		if (value == NULL)
			continue;
		this = whole_bound(c, value, keys[i], upper, integer, i == 1);
		if (bound.fraction[0] != '\0')
			m1_schema_fail(c, M1_E_UNSUPPORTED, "%s with a fraction beside %s is not supported", keys[0], keys[1]);
		if (!bound.given || (upper ? this.value <= bound.value : this.value >= bound.value))
			bound = this;
	}
	return bound;
}

int32_t
m1_schema_number(m1_schema_compiler *c, const m1_json *schema, bool integer, int32_t next)
{
	const m1_json_bound low = read_bound(c, schema, false, integer);
	const m1_json_bound high = read_bound(c, schema, true, integer);

	if ((low.fraction[0] != '\0' || high.fraction[0] != '\0') &&
		(low.exclusive || high.exclusive || !is_short(&low) || !is_short(&high)))
		m1_schema_fail(c, M1_E_UNSUPPORTED,
					   "a bound with a fraction beside one that is exclusive, or of more than %d digits",
					   M1_JSON_BOUND_DIGITS);
	if (c->status != M1_OK)
		return M1_NFA_FAIL;
	return integer ? m1_json_integer(c->nfa, low, high, next) : m1_json_number(c->nfa, low, high, next);
}

/* ---- listed values ---- */

int
m1_schema_kind_of_value(const m1_json *value)
{
	if (value == NULL)
		return 0;
	switch ((m1_json_kind) value->kind)
	{
		case M1_JSON_NUMBER:
			return m1_json_is_whole(value) ? M1_KIND_INTEGER : M1_KIND_NUMBER;
		case M1_JSON_OBJECT:
			return M1_KIND_OBJECT;
		case M1_JSON_ARRAY:
			return M1_KIND_ARRAY;
		case M1_JSON_STRING:
			return M1_KIND_STRING;
		case M1_JSON_TRUE:
		case M1_JSON_FALSE:
			return M1_KIND_BOOLEAN;
		case M1_JSON_NULL:
			return M1_KIND_NULL;
	}
	return 0;
}

static int32_t
write_value(m1_schema_compiler *c, const m1_json *value, int kinds, int32_t next)
{
	m1_buf text = {0};
	int32_t start = M1_NFA_FAIL;

	if ((m1_schema_kind_of_value(value) & kinds) == 0)
		return start;
	if (m1_json_write(&text, value, M1_JSON_AS_GIVEN))
		start = m1_nfa_literal(c->nfa, (m1_slice){text.data, text.len}, next);
	else
		c->nfa->failed = true;
	m1_buf_free(&text);
	return start;
}

/* Those of the values that have one of the types. */
int32_t
m1_schema_values(m1_schema_compiler *c, const m1_json *schema, int32_t next)
{
	const m1_json *type = m1_json_get(schema, "type");
	const m1_json *list = m1_json_get(schema, "enum");
	const int kinds = type != NULL ? m1_schema_types(type) : M1_KIND_ANY;
	int32_t start = M1_NFA_FAIL;

	if (kinds == 0)
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "type is not one of JSON's types, or a list of them");
	else if (list == NULL)
		return write_value(c, m1_json_get(schema, "const"), kinds, next);
	else if (!m1_json_is(list, M1_JSON_ARRAY))
		m1_schema_fail(c, M1_E_INVALID_ARGUMENT, "enum is not an array of values");
	for (size_t i = m1_json_size(list); i-- > 0 && c->status == M1_OK;)
		start = m1_nfa_split(c->nfa, write_value(c, m1_json_at(list, i), kinds, next), start);
	return start;
}
