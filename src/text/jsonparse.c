/* jsonparse.c - see jsonparse.h: before jansson sees the text, numbers that it cannot hold are put in quotes. */
#include "text/jsonparse.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MARK "\"\\u0000" /* in front of a number that is kept as text */
#define SURE_DIGITS 15	 /* of a real: read and written again, they are the same */
#define SURE_EXPONENT 290

/* ---- numbers ---- */

/* A number taken apart: digits without the zeros around them, times ten to some power. */
typedef struct decimal
{
	size_t n_digits;
	bool integer;  /* written without point and exponent */
	long exponent; /* of the last digit */
	size_t len;	   /* of the text; 0 when it is not a number of JSON */
} decimal;

static size_t
count_digits(const char *s, size_t len)
{
	size_t n = 0;

	while (n < len && s[n] >= '0' && s[n] <= '9')
		n++;
	return n;
}

/* Counts the digits between leading and trailing zeros, of both sides of the point; *zeros: those that trail. */
static void
count_significant(decimal *d, const char *s, size_t len, size_t *zeros)
{
	for (size_t i = 0; i < len; i++)
	{
		if (s[i] == '0' && d->n_digits == 0)
			continue;
		*zeros = s[i] == '0' ? *zeros + 1 : 0;
		d->n_digits++;
	}
}

/* Cut where it is beyond all that counts, so that sums of it do not overflow. */
static long
exponent_of(const char *s)
{
	const long exponent = strtol(s, NULL, 10);

	return exponent > INT32_MAX ? INT32_MAX : exponent < INT32_MIN ? INT32_MIN : exponent;
}

static decimal
take_number(const char *s, size_t len)
{
	decimal d = {.integer = true};
	size_t at = len > 0 && s[0] == '-';
	size_t zeros = 0;
	size_t n = count_digits(s + at, len - at);

	if (n == 0 || (n > 1 && s[at] == '0'))
		return (decimal){0};
	count_significant(&d, s + at, n, &zeros);
	at += n;
	if (at < len && s[at] == '.')
	{
		d.integer = false;
		if ((n = count_digits(s + at + 1, len - at - 1)) == 0)
			return (decimal){0};
		count_significant(&d, s + at + 1, n, &zeros);
		d.exponent -= (long) n;
		at += n + 1;
	}
	if (at < len && (s[at] == 'e' || s[at] == 'E'))
	{
		const size_t sign = at + 1 < len && (s[at + 1] == '+' || s[at + 1] == '-');

		d.integer = false;
		if ((n = count_digits(s + at + 1 + sign, len - at - 1 - sign)) == 0)
			return (decimal){0};
		d.exponent += exponent_of(s + at + 1);
		at += 1 + sign + n;
	}
	d.exponent += (long) zeros;
	d.n_digits -= zeros;
	d.len = at;
	return d;
}

/* Whether jansson reads the number as what it is. The text behind it goes on, or ends with a NUL. */
static bool
is_held(const char *s, const decimal *d)
{
	if (d->integer)
	{
		errno = 0;
		strtoll(s, NULL, 10);
		return errno == 0;
	}
	return d->n_digits == 0 || (d->n_digits <= SURE_DIGITS && labs(d->exponent) <= SURE_EXPONENT);
}

/* ---- parsing ---- */

/* Behind a string whose opening quote is at `at`; *nul: it holds an escaped U+0000. */
static size_t
skip_string(m1_slice text, size_t at, bool *nul)
{
	for (at++; at < text.len && text.data[at] != '"'; at++)
		if (text.data[at] == '\\' && at + 1 < text.len)
		{
			*nul |= text.len - at >= 6 && memcmp(text.data + at, "\\u0000", 6) == 0;
			at++;
		}
	return at < text.len ? at + 1 : text.len;
}

/* Copies the text with quotes around what jansson does not hold. *marked: there is such a number. */
static void
mark_numbers(m1_slice text, m1_buf *out, bool *marked, bool *nul)
{
	size_t done = 0;
	size_t at = 0;

	while (at < text.len)
	{
		const char c = text.data[at];

		if (c == '"')
			at = skip_string(text, at, nul);
		else if (c == '-' || (c >= '0' && c <= '9'))
		{
			const decimal d = take_number(text.data + at, text.len - at);

			if (d.len > 0 && !is_held(text.data + at, &d))
			{
				m1_buf_append(out, text.data + done, at - done);
				m1_buf_puts(out, MARK);
				m1_buf_append(out, text.data + at, d.len);
				m1_buf_puts(out, "\"");
				done = at + d.len;
				*marked = true;
			}
			at += d.len > 0 ? d.len : 1;
		}
		else
			at++;
	}
	m1_buf_append(out, text.data + done, text.len - done);
}

json_t *
m1_json_parse(m1_slice text, size_t flags, json_error_t *where)
{
	m1_buf whole = {0};
	m1_buf rewritten = {0};
	bool marked = false;
	bool nul = false;
	json_t *value;

	/* numbers are read up to a NUL */
	m1_buf_append(&whole, text.data, text.len);
	if (m1_buf_cstr(&whole) != NULL)
		mark_numbers((m1_slice){whole.data, whole.len}, &rewritten, &marked, &nul);
	/* a text with a U+0000 of its own is refused, as it stands */
	if (whole.failed || rewritten.failed || !marked || nul)
		value = json_loadb(text.data, text.len, flags, where);
	else
		value = json_loadb(rewritten.data, rewritten.len, flags | JSON_ALLOW_NUL, where);
	m1_buf_free(&whole);
	m1_buf_free(&rewritten);
	return value;
}

/* ---- values ---- */

m1_slice
m1_json_number_text(const json_t *value)
{
	if (!json_is_string(value) || json_string_length(value) == 0 || json_string_value(value)[0] != '\0')
		return (m1_slice){0};
	return (m1_slice){json_string_value(value) + 1, json_string_length(value) - 1};
}

bool
m1_json_is_string(const json_t *value)
{
	return json_is_string(value) && m1_json_number_text(value).data == NULL;
}

bool
m1_json_is_number(const json_t *value)
{
	return json_is_number(value) || m1_json_number_text(value).data != NULL;
}

double
m1_json_real(const json_t *value)
{
	const m1_slice text = m1_json_number_text(value);

	return text.data != NULL ? strtod(text.data, NULL) : json_number_value(value);
}

bool
m1_json_is_whole(const json_t *value)
{
	const m1_slice text = m1_json_number_text(value);

	if (text.data != NULL)
		return take_number(text.data, text.len).exponent >= 0;
	return json_is_integer(value) || (json_is_real(value) && json_real_value(value) == floor(json_real_value(value)));
}
