/* jsontext.c - see jsontext.h. Nesting is bounded by the parser that made the value. */
#include "text/jsontext.h"

#include <stdio.h>
#include <string.h>

/* How the keys of an object are ordered. */
typedef enum key_order
{
	AS_GIVEN,	/* here and below */
	BY_RANK,	/* a tool definition or a schema */
	USERS_NAMES /* the members of "properties": the user's names as given, each with a schema */
} key_order;

/* ---- strings ---- */

static void
write_escape(m1_buf *out, unsigned char c)
{
	static const char short_forms[] = "\"\"\\\\\nn\rr\tt\bb\ff";
	char escape[8];

	for (const char *form = short_forms; *form != '\0'; form += 2)
		if ((unsigned char) form[0] == c)
		{
			snprintf(escape, sizeof escape, "\\%c", form[1]);
			m1_buf_puts(out, escape);
			return;
		}
	snprintf(escape, sizeof escape, "\\u%04x", c);
	m1_buf_puts(out, escape);
}

bool
m1_json_write_string(m1_buf *out, m1_slice s)
{
	size_t plain = 0; /* where the bytes that need no escape began */

	m1_buf_puts(out, "\"");
	for (size_t i = 0; i < s.len; i++)
	{
		unsigned char c = (unsigned char) s.data[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		m1_buf_append(out, s.data + plain, i - plain);
		write_escape(out, c);
		plain = i + 1;
	}
	if (s.len > plain)
		m1_buf_append(out, s.data + plain, s.len - plain);
	m1_buf_puts(out, "\"");
	return !out->failed;
}

/* ---- arrays and objects ---- */

static const char *const ranked_keys[] = {"name",  "type",		 "description", "enum",
										  "items", "properties", "required",	"parameters"};
#define N_RANKS (sizeof ranked_keys / sizeof *ranked_keys)

/* The place of a well-known key; all others come last. */
static size_t
key_rank(const char *key)
{
	size_t rank = 0;

	while (rank < N_RANKS && strcmp(ranked_keys[rank], key) != 0)
		rank++;
	return rank;
}

static void write_value(m1_buf *out, const m1_json *value, key_order order);

static key_order
order_below(key_order order, const char *key)
{
	if (order == BY_RANK && strcmp(key, "properties") == 0)
		return USERS_NAMES;
	return order == AS_GIVEN ? AS_GIVEN : BY_RANK;
}

static void
write_object(m1_buf *out, const m1_json *object, key_order order)
{
	const size_t n_passes = order == BY_RANK ? N_RANKS + 1 : 1;
	bool first = true;

	m1_buf_puts(out, "{");
	for (size_t pass = 0; pass < n_passes; pass++)
		m1_json_foreach (object, member)
		{
			const char *key = m1_json_key(member);

			if (order == BY_RANK && key_rank(key) != pass)
				continue;
			if (!first)
				m1_buf_puts(out, ", ");
			first = false;
			m1_json_write_string(out, m1_slice_of(key));
			m1_buf_puts(out, ": ");
			write_value(out, member, order_below(order, key));
		}
	m1_buf_puts(out, "}");
}

static void
write_array(m1_buf *out, const m1_json *array, key_order order)
{
	m1_buf_puts(out, "[");
	m1_json_foreach (array, item)
	{
		if (item != m1_json_first(array))
			m1_buf_puts(out, ", ");
		write_value(out, item, order == AS_GIVEN ? AS_GIVEN : BY_RANK);
	}
	m1_buf_puts(out, "]");
}

static void
write_value(m1_buf *out, const m1_json *value, key_order order)
{
	switch ((m1_json_kind) value->kind)
	{
		case M1_JSON_OBJECT:
			write_object(out, value, order);
			break;
		case M1_JSON_ARRAY:
			write_array(out, value, order);
			break;
		case M1_JSON_STRING:
			m1_json_write_string(out, m1_json_text(value));
			break;
		case M1_JSON_NUMBER:
			m1_buf_append(out, value->text, value->n);
			break;
		case M1_JSON_TRUE:
			m1_buf_puts(out, "true");
			break;
		case M1_JSON_FALSE:
			m1_buf_puts(out, "false");
			break;
		case M1_JSON_NULL:
			m1_buf_puts(out, "null");
			break;
	}
}

bool
m1_json_write(m1_buf *out, const m1_json *value, m1_json_order order)
{
	write_value(out, value, order == M1_JSON_TOOL ? BY_RANK : AS_GIVEN);
	return !out->failed;
}
