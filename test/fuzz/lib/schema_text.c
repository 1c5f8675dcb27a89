/* schema_text.c - see schema_text.h. */
#include "schema_text.h"

#include <string.h>

#include "regex_text.h"

static const char *const words[] = {"a",	 "b",	 "kind",	 "value", "",	"a b",
									"x/y~z", "q\"d", "\xC3\xA4", "n\nl",  "__", NULL};
static const char *const types[] = {"string", "integer", "number", "array", "object", "boolean", "null", NULL};

m1_buf
json_text_of(json_t *value)
{
	char *dumped = json_dumps(value, JSON_ENCODE_ANY);
	m1_buf text = {0};

	fuzz_check(dumped != NULL && m1_buf_puts(&text, dumped) && m1_buf_cstr(&text) != NULL, "out of memory");
	free(dumped);
	json_decref(value);
	return text;
}

/* ---- values ---- */

static json_t *
number_value(fuzz_input *in)
{
	static const char *const texts[] = {
		"0",   "-0",	  "1.0",  "12345678901234567.89", "1e-7", "-0.0", "9223372036854775807",
		"1E2", "0.1e+20", "-1.5", "9007199254740993",	  NULL};

	if (fuzz_below(in, 2))
		return json_integer((json_int_t) fuzz_below(in, 200) - 100);
	return json_loads(fuzz_one_of(in, texts), JSON_DECODE_ANY, NULL);
}

json_t *
json_value_make(fuzz_input *in, int depth)
{
	json_t *many;

	switch (fuzz_below(in, depth > 0 ? 7 : 5))
	{
		case 0:
			return json_null();
		case 1:
			return json_boolean(fuzz_below(in, 2));
		case 2:
		case 3:
			return number_value(in);
		case 4:
			return json_string(fuzz_one_of(in, words));
		case 5:
			many = json_array();
			for (uint32_t n = fuzz_below(in, 3); n > 0; n--)
				json_array_append_new(many, json_value_make(in, depth - 1));
			return many;
		default:
			many = json_object();
			for (uint32_t n = fuzz_below(in, 3); n > 0; n--)
				json_object_set_new(many, fuzz_one_of(in, words), json_value_make(in, depth - 1));
			return many;
	}
}

/* ---- keywords ---- */

static void
put(json_t *schema, const char *keyword, json_t *value)
{
	fuzz_check(json_object_set_new(schema, keyword, value) == 0, "a value of \"%s\" cannot be set", keyword);
}

static json_t *any_schema(fuzz_input *in, int depth);

static void
put_string(json_t *s, fuzz_input *in)
{
	static const char *const formats[] = {"date", "time", "date-time", "uuid", "email", NULL};
	const uint32_t low = fuzz_below(in, 4);

	switch (fuzz_below(in, 4))
	{
		case 0:
			put(s, "minLength", json_integer(low));
			/* fall through */
		case 1:
			put(s, "maxLength", json_integer(low + fuzz_below(in, 12)));
			break;
		case 2:
		{
			regex_text r = regex_text_make(in, 1);

			put(s, "pattern", json_string(r.text.data));
			m1_buf_free(&r.text);
			break;
		}
		default:
			put(s, "format", json_string(fuzz_one_of(in, formats)));
	}
}

static void
put_number(json_t *s, fuzz_input *in)
{
	static const char *const bounds[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"};
	static const json_int_t bases[] = {
		0, -3, 100, 1700000000000, -9007199254740993, 9223372036854775807, 999999999999999999};
	const json_int_t base = bases[fuzz_below(in, 7)];

	for (int i = 0; i < 4; i++)
		if (fuzz_below(in, 3) == 2)
		{
			const json_int_t step = (json_int_t) fuzz_below(in, 2000) * (i < 2 ? -1 : 1);

			if (fuzz_below(in, 5) == 4)
				put(s, bounds[i], json_real((double) base + (double) step + 0.5));
			else
				put(s, bounds[i],
					json_integer((base > 0) == (step > 0) && base > INT64_MAX - 2000 ? base : base + step));
		}
}

static void
put_array(json_t *s, fuzz_input *in, int depth)
{
	const uint32_t low = fuzz_below(in, 3);

	if (fuzz_below(in, 3) == 2)
	{
		json_t *prefix = json_array();

		for (uint32_t n = fuzz_below(in, 3); n > 0; n--)
			json_array_append_new(prefix, any_schema(in, depth - 1));
		put(s, "prefixItems", prefix);
	}
	if (fuzz_below(in, 4) > 0)
		put(s, "items", any_schema(in, depth - 1));
	if (low > 0)
		put(s, "minItems", json_integer(low));
	if (fuzz_below(in, 2))
		put(s, "maxItems", json_integer(low + fuzz_below(in, 4)));
}

static void
put_object(json_t *s, fuzz_input *in, int depth)
{
	json_t *properties = json_object();
	json_t *required = json_array();

	for (uint32_t n = fuzz_below(in, 4); n > 0; n--)
		put(properties, fuzz_one_of(in, words), any_schema(in, depth - 1));
	for (uint32_t n = fuzz_below(in, 3); n > 0; n--)
		json_array_append_new(required, json_string(fuzz_one_of(in, words)));
	if (fuzz_below(in, 6) < 5)
		put(s, "properties", properties);
	else
		json_decref(properties);
	put(s, "required", required);
	if (fuzz_below(in, 2))
		put(s, "additionalProperties", any_schema(in, depth - 1));
}

static void
put_list(json_t *s, const char *keyword, fuzz_input *in, json_t *(*make)(fuzz_input *in, int depth), int depth)
{
	json_t *list = json_array();

	for (uint32_t n = fuzz_below(in, 4); n > 0; n--)
		json_array_append_new(list, make(in, depth));
	put(s, keyword, list);
}

static void
put_reference(json_t *s, fuzz_input *in)
{
	static const char *const references[] = {"#/$defs/a", "#/$defs/b", "#/$defs/tree", "#", "#/properties/a",
											 "#/none",	  NULL};

	put(s, "$ref", json_string(fuzz_one_of(in, references)));
}

static void
put_types(json_t *s, fuzz_input *in)
{
	json_t *list;

	if (fuzz_below(in, 3) > 0)
	{
		put(s, "type", json_string(fuzz_one_of(in, types)));
		return;
	}
	list = json_array();
	for (uint32_t n = 1 + fuzz_below(in, 3); n > 0; n--)
		json_array_append_new(list, json_string(fuzz_one_of(in, types)));
	put(s, "type", list);
}

/* A keyword with a value that it may not be meant for. */
static void
spoil(json_t *s, fuzz_input *in)
{
	static const char *const keywords[] = {"type",
										   "properties",
										   "required",
										   "additionalProperties",
										   "items",
										   "prefixItems",
										   "minItems",
										   "maxItems",
										   "enum",
										   "const",
										   "anyOf",
										   "oneOf",
										   "allOf",
										   "$ref",
										   "minLength",
										   "maxLength",
										   "pattern",
										   "format",
										   "minimum",
										   "maximum",
										   "exclusiveMinimum",
										   "exclusiveMaximum",
										   "title",
										   "$defs",
										   "not",
										   "if",
										   "uniqueItems",
										   NULL};

	put(s, fuzz_one_of(in, keywords), json_value_make(in, 2));
}

static json_t *
any_schema(fuzz_input *in, int depth)
{
	json_t *s = json_object();

	if (in->left == 0 || depth < 0)
		return s;
	for (uint32_t n = 1 + fuzz_below(in, 4) / 3; n > 0; n--)
		switch (fuzz_below(in, depth > 0 ? 14 : 8))
		{
			case 0:
			case 1:
				put_types(s, in);
				break;
			case 2:
				put(s, "type", json_string("string"));
				put_string(s, in);
				break;
			case 3:
				put(s, "type", json_string(fuzz_below(in, 2) ? "integer" : "number"));
				put_number(s, in);
				break;
			case 4:
				put_list(s, "enum", in, json_value_make, 2);
				break;
			case 5:
				put(s, "const", json_value_make(in, 2));
				break;
			case 6:
				put_reference(s, in);
				break;
			case 7:
				if (fuzz_below(in, 4) == 3)
					spoil(s, in);
				else
					put_number(s, in);
				break;
			case 8:
			case 9:
				put_array(s, in, depth);
				break;
			case 10:
			case 11:
				put_object(s, in, depth);
				break;
			case 12:
				put_list(s, "anyOf", in, any_schema, depth - 1);
				break;
			default:
				put_list(s, fuzz_below(in, 4) > 0 ? "oneOf" : "allOf", in, any_schema, depth - 1);
		}
	return s;
}

m1_buf
schema_text_make(fuzz_input *in)
{
	static const char tree[] = "{\"properties\": {\"v\": {\"$ref\": \"#/$defs/a\"}, \"next\": {\"anyOf\": [{\"$ref\": "
							   "\"#/$defs/tree\"}, {\"type\": \"null\"}]}}, \"required\": [\"next\"]}";
	json_t *s = any_schema(in, 3);
	json_t *definitions = json_object();

	put(definitions, "a", any_schema(in, 1));
	put(definitions, "b", any_schema(in, 1));
	put(definitions, "tree", json_loads(tree, 0, NULL));
	put(s, "$defs", definitions);
	return json_text_of(s);
}
