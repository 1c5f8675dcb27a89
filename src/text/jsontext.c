/* jsontext.c - see jsontext.h. Nesting is bounded by the parser that made the value. */
#include "text/jsontext.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jsonparse.h"

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

static void
write_string(m1_buf *out, const char *s, size_t len)
{
	size_t plain = 0; /* where the bytes that need no escape began */

	m1_buf_puts(out, "\"");
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) s[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		m1_buf_append(out, s + plain, i - plain);
		write_escape(out, c);
		plain = i + 1;
	}
	m1_buf_append(out, s + plain, len - plain);
	m1_buf_puts(out, "\"");
}

/* ---- numbers ---- */

/*
 * The fewest digits that read back as x, without sign and point; *exponent is that of the first digit. Taking
 * digits only makes the result the same in every locale.
 */
static size_t
shortest_digits(double x, char digits[20], int *exponent)
{
	char text[40];
	size_t n = 0;

	for (int precision = 0; precision <= 16; precision++)
	{
		snprintf(text, sizeof text, "%.*e", precision, x);
		if (strtod(text, NULL) == x)
			break;
	}
	for (const char *c = text; *c != 'e' && n < 17; c++)
		if (*c >= '0' && *c <= '9')
			digits[n++] = *c;
	*exponent = atoi(strchr(text, 'e') + 1);
	while (n > 1 && digits[n - 1] == '0')
		n--;
	return n;
}

static void
write_zeros(m1_buf *out, int n)
{
	for (; n > 0; n--)
		m1_buf_puts(out, "0");
}

/* d.ddde+XX from 1e16 on and below 1e-4, else all digits with at least one behind the point. */
static void
write_real(m1_buf *out, double x)
{
	char digits[20];
	char suffix[16];
	int exponent;
	size_t n = shortest_digits(x, digits, &exponent);
	size_t whole = exponent < 0 ? 0 : (size_t) exponent + 1;

	if (x < 0 || (x == 0 && 1 / x < 0))
		m1_buf_puts(out, "-");
	if (exponent < -4 || exponent >= 16)
	{
		m1_buf_append(out, digits, 1);
		if (n > 1)
			m1_buf_puts(out, ".");
		m1_buf_append(out, digits + 1, n - 1);
		snprintf(suffix, sizeof suffix, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
		m1_buf_puts(out, suffix);
		return;
	}
	if (whole == 0)
		m1_buf_puts(out, "0");
	m1_buf_append(out, digits, whole < n ? whole : n);
	write_zeros(out, (int) whole - (int) n);
	m1_buf_puts(out, ".");
	write_zeros(out, -exponent - 1);
	if (whole < n)
		m1_buf_append(out, digits + whole, n - whole);
	else
		m1_buf_puts(out, "0");
}

static void
write_integer(m1_buf *out, json_int_t x)
{
	char text[32];

	snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, x);
	m1_buf_puts(out, text);
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

static void write_value(m1_buf *out, const json_t *value, key_order order);

static key_order
order_below(key_order order, const char *key)
{
	if (order == BY_RANK && strcmp(key, "properties") == 0)
		return USERS_NAMES;
	return order == AS_GIVEN ? AS_GIVEN : BY_RANK;
}

static void
write_object(m1_buf *out, const json_t *object, key_order order)
{
	const size_t n_passes = order == BY_RANK ? N_RANKS + 1 : 1;
	bool first = true;
	const char *key;
	json_t *value;

	m1_buf_puts(out, "{");
	for (size_t pass = 0; pass < n_passes; pass++)
		json_object_foreach ((json_t *) object, key, value)
		{
			if (order == BY_RANK && key_rank(key) != pass)
				continue;
			if (!first)
				m1_buf_puts(out, ", ");
			first = false;
			write_string(out, key, strlen(key));
			m1_buf_puts(out, ": ");
			write_value(out, value, order_below(order, key));
		}
	m1_buf_puts(out, "}");
}

static void
write_array(m1_buf *out, const json_t *array, key_order order)
{
	size_t i;
	json_t *item;

	m1_buf_puts(out, "[");
	json_array_foreach ((json_t *) array, i, item)
	{
		if (i > 0)
			m1_buf_puts(out, ", ");
		write_value(out, item, order == AS_GIVEN ? AS_GIVEN : BY_RANK);
	}
	m1_buf_puts(out, "]");
}

static void
write_value(m1_buf *out, const json_t *value, key_order order)
{
	switch (json_typeof(value))
	{
		case JSON_OBJECT:
			write_object(out, value, order);
			break;
		case JSON_ARRAY:
			write_array(out, value, order);
			break;
		case JSON_STRING:
			if (m1_json_number_text(value).data != NULL)
				m1_buf_append(out, m1_json_number_text(value).data, m1_json_number_text(value).len);
			else
				write_string(out, json_string_value(value), json_string_length(value));
			break;
		case JSON_INTEGER:
			write_integer(out, json_integer_value(value));
			break;
		case JSON_REAL:
			write_real(out, json_real_value(value));
			break;
		case JSON_TRUE:
			m1_buf_puts(out, "true");
			break;
		case JSON_FALSE:
			m1_buf_puts(out, "false");
			break;
		case JSON_NULL:
			m1_buf_puts(out, "null");
			break;
	}
}

bool
m1_json_write(m1_buf *out, const json_t *value, m1_json_order order)
{
	write_value(out, value, order == M1_JSON_TOOL ? BY_RANK : AS_GIVEN);
	return !out->failed;
}
