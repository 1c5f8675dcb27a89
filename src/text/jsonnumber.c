/* jsonnumber.c - what the numbers of a JSON text are; see jsonparse.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/jsonparse.h"

double
m1_json_real(const m1_json *value)
{
	return m1_json_is(value, M1_JSON_NUMBER) ? strtod(value->text, NULL) : 0;
}

bool
m1_json_is_int64(const m1_json *value, int64_t *n)
{
	char *end;

	if (!m1_json_is(value, M1_JSON_NUMBER))
		return false;
	errno = 0;
	*n = strtoll(value->text, &end, 10);
	return errno == 0 && end == value->text + value->n;
}

/* A number digit by digit, wherever its text has the point. */
typedef struct decimal
{
	const char *s;
	size_t whole;	  /* digits before the point in the text */
	long long n;	  /* of all */
	long long before; /* the point is, by the exponent, in front of this one */
} decimal;

static decimal
read_decimal(const m1_json *value)
{
	const char *s = value->text + (*value->text == '-');
	const size_t whole = strspn(s, "0123456789");
	const size_t fraction = s[whole] == '.' ? strspn(s + whole + 1, "0123456789") : 0;
	const char *end = s + whole + (fraction > 0 ? 1 + fraction : 0);
	const long long exponent = *end == 'e' || *end == 'E' ? strtoll(end + 1, NULL, 10) : 0;
	decimal d = {.s = s, .whole = whole, .n = (long long) (whole + fraction)};

	/* no text is that long */
	d.before = exponent > INT32_MAX ? INT32_MAX : exponent < INT32_MIN ? INT32_MIN : (long long) whole + exponent;
	return d;
}

/* Beyond its text on both sides, a number has zeros. */
static char
digit_at(const decimal *d, long long i)
{
	return i < 0 || i >= d->n ? '0' : d->s[(size_t) i < d->whole ? i : i + 1];
}

static bool
has_rest(const decimal *d)
{
	for (long long i = d->before > 0 ? d->before : 0; i < d->n; i++)
		if (digit_at(d, i) != '0')
			return true;
	return false;
}

bool
m1_json_is_whole(const m1_json *value)
{
	decimal d;

	if (!m1_json_is(value, M1_JSON_NUMBER))
		return false;
	d = read_decimal(value);
	return !has_rest(&d);
}

/* What is in front of the point; false when it is beyond 64 bits. */
static bool
read_magnitude(const decimal *d, uint64_t *magnitude)
{
	*magnitude = 0;
	for (long long i = 0; i < d->before && (i < d->n || *magnitude > 0); i++)
	{
		const uint64_t digit = (uint64_t) (digit_at(d, i) - '0');

		if (*magnitude > (UINT64_MAX - digit) / 10)
			return false;
		*magnitude = *magnitude * 10 + digit;
	}
	return true;
}

bool
m1_json_to_whole(const m1_json *value, bool up, int64_t *n)
{
	uint64_t magnitude;
	decimal d;
	bool negative;

	if (!m1_json_is(value, M1_JSON_NUMBER))
		return false;
	d = read_decimal(value);
	if (!read_magnitude(&d, &magnitude))
		return false;
	negative = *value->text == '-';
	if (has_rest(&d) && negative != up && magnitude < UINT64_MAX)
		magnitude++;
	*n = (int64_t) (negative ? 0 - magnitude : magnitude);
	return magnitude <= INT64_MAX + (uint64_t) negative;
}

bool
m1_json_fraction(const m1_json *value, char *digits, size_t size)
{
	size_t n = 0;
	decimal d;

	if (!m1_json_is(value, M1_JSON_NUMBER))
		return false;
	d = read_decimal(value);
	if (has_rest(&d))
		for (long long i = d.before; i < d.n; i++)
		{
			if (n + 1 < size)
				digits[n++] = digit_at(&d, i);
			else if (i < 0 || digit_at(&d, i) != '0')
				return false;
		}
	while (n > 0 && digits[n - 1] == '0')
		n--;
	digits[n] = '\0';
	return true;
}
