/* jsonvalue.c - see jsonvalue.h. */
#include "grammar/jsonvalue.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define INTEGER_DIGITS 18 /* fits 64 bits */
#define FRACTION_DIGITS 17
/*
 * Beside a bound that is not one of the numbers itself: readers that round to 64-bit reals must not arrive there, and
 * they never round two numbers of 15 digits to the same.
 */
#define SHORT_FRACTION_DIGITS 6
#define EXACT_DIGITS 15
#define GREATEST_INTEGER 999999999999999999

int32_t
m1_json_separator(m1_nfa *nfa, char which, int32_t next)
{
	const int32_t blank = m1_nfa_split(nfa, m1_nfa_bytes(nfa, ' ', ' ', next), next);

	return m1_nfa_bytes(nfa, (uint8_t) which, (uint8_t) which, blank);
}

/* ---- strings ---- */

static int32_t
hex(m1_nfa *nfa, int digits, int32_t next)
{
	for (int i = 0; i < digits; i++)
		next = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '0', '9', next),
							m1_nfa_split(nfa, m1_nfa_bytes(nfa, 'a', 'f', next), m1_nfa_bytes(nfa, 'A', 'F', next)));
	return next;
}

/* One of the bytes. */
static int32_t
one_of(m1_nfa *nfa, const char *bytes, int32_t next)
{
	int32_t start = M1_NFA_FAIL;

	for (; *bytes != '\0'; bytes++)
		start = m1_nfa_split(nfa, m1_nfa_bytes(nfa, (uint8_t) *bytes, (uint8_t) *bytes, next), start);
	return start;
}

/* Four digits behind \u that are neither U+0000 nor half of a pair; or both halves of one. */
static int32_t
code(m1_nfa *nfa, int32_t next)
{
	static const char not_zero[] = "123456789abcdefABCDEF";
	const int32_t two = hex(nfa, 2, next);
	const int32_t three = hex(nfa, 1, two);
	const int32_t low_half = m1_nfa_literal(nfa, m1_slice_of("\\u"), one_of(nfa, "dD", one_of(nfa, "cdefCDEF", two)));
	int32_t start = m1_nfa_literal(nfa, m1_slice_of("000"), one_of(nfa, not_zero, next));

	start = m1_nfa_split(nfa, m1_nfa_literal(nfa, m1_slice_of("00"), one_of(nfa, not_zero, hex(nfa, 1, next))), start);
	start = m1_nfa_split(nfa, m1_nfa_literal(nfa, m1_slice_of("0"), one_of(nfa, not_zero, two)), start);
	start = m1_nfa_split(nfa, one_of(nfa, "123456789abcefABCEF", three), start);
	start = m1_nfa_split(nfa, one_of(nfa, "dD", one_of(nfa, "01234567", two)), start);
	return m1_nfa_split(nfa, one_of(nfa, "dD", one_of(nfa, "89abAB", hex(nfa, 2, low_half))), start);
}

static const m1_range unescaped[] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};

static int
character_rule(m1_nfa *nfa, m1_json_rules *rules)
{
	if (rules->character < 0)
	{
		const int32_t plain = m1_nfa_characters(nfa, unescaped, sizeof unescaped / sizeof *unescaped, M1_NFA_RETURN);
		const int32_t escape = m1_nfa_split(nfa, one_of(nfa, "\"\\/bfnrt", M1_NFA_RETURN),
											m1_nfa_bytes(nfa, 'u', 'u', code(nfa, M1_NFA_RETURN)));

		rules->character = m1_nfa_new_rule(nfa, false);
		m1_nfa_set_rule(nfa, rules->character, m1_nfa_split(nfa, plain, m1_nfa_bytes(nfa, '\\', '\\', escape)));
	}
	return rules->character;
}

static int32_t
escaped(m1_nfa *nfa, uint32_t c, int32_t next)
{
	static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt";
	char text[8];

	snprintf(text, sizeof text, "\\u%04x", c);
	for (const char *form = short_forms; *form != '\0'; form += 2)
		if ((unsigned char) form[0] == c)
			snprintf(text, sizeof text, "\\%c", form[1]);
	return m1_nfa_literal(nfa, m1_slice_of(text), next);
}

int32_t
m1_json_characters(m1_nfa *nfa, const m1_range *set, size_t n, int32_t next)
{
	int32_t start = M1_NFA_FAIL;

	for (size_t i = 0; i < n; i++)
	{
		for (size_t u = 0; u < sizeof unescaped / sizeof *unescaped; u++)
		{
			m1_range both = {set[i].low > unescaped[u].low ? set[i].low : unescaped[u].low,
							 set[i].high < unescaped[u].high ? set[i].high : unescaped[u].high};

			if (both.low <= both.high)
				start = m1_nfa_split(nfa, m1_nfa_characters(nfa, &both, 1, next), start);
		}
		for (uint32_t c = 1; c <= '\\'; c++)
			if ((c < 0x20 || c == '"' || c == '\\') && c >= set[i].low && c <= set[i].high)
				start = m1_nfa_split(nfa, escaped(nfa, c, next), start);
	}
	return start;
}

int32_t
m1_json_string(m1_nfa *nfa, m1_json_rules *rules, int min, int max, int32_t next)
{
	const int character = character_rule(nfa, rules);
	const int32_t close = m1_nfa_bytes(nfa, '"', '"', next);
	int32_t start = close;

	if (max == M1_JSON_NO_MAX)
	{
		start = m1_nfa_open_loop(nfa, close);
		m1_nfa_close_loop(nfa, start, m1_nfa_call(nfa, character, start));
	}
	for (int i = min; i < max && !nfa->failed; i++)
		start = m1_nfa_split(nfa, m1_nfa_call(nfa, character, start), close);
	for (int i = 0; i < min && !nfa->failed; i++)
		start = m1_nfa_call(nfa, character, start);
	return m1_nfa_bytes(nfa, '"', '"', start);
}

/* ---- numbers ---- */

/* From min to max digits. */
static int32_t
digits(m1_nfa *nfa, int min, int max, int32_t next)
{
	int32_t start = next;

	for (int i = min; i < max; i++)
		start = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '0', '9', start), next);
	for (int i = 0; i < min; i++)
		start = m1_nfa_bytes(nfa, '0', '9', start);
	return start;
}

/* The numbers from low to high, which have n digits each. */
static int32_t
same_length(m1_nfa *nfa, const char *low, const char *high, int n, int32_t next)
{
	static const char zeros[] = "0000000000000000000";
	static const char nines[] = "9999999999999999999";
	const uint8_t a = (uint8_t) *low;
	const uint8_t b = (uint8_t) *high;
	int32_t start = M1_NFA_FAIL;

	if (n == 0)
		return next;
	if (memcmp(low, zeros, (size_t) n) == 0 && memcmp(high, nines, (size_t) n) == 0)
		return digits(nfa, n, n, next);
	if (a == b)
		return m1_nfa_bytes(nfa, a, a, same_length(nfa, low + 1, high + 1, n - 1, next));
	start = m1_nfa_bytes(nfa, a, a, same_length(nfa, low + 1, nines, n - 1, next));
	if (a + 1 < b)
		start = m1_nfa_split(
			nfa, m1_nfa_bytes(nfa, (uint8_t) (a + 1), (uint8_t) (b - 1), digits(nfa, n - 1, n - 1, next)), start);
	return m1_nfa_split(nfa, m1_nfa_bytes(nfa, b, b, same_length(nfa, zeros, high + 1, n - 1, next)), start);
}

/* The whole numbers from low to high, neither negative, without leading zeros. */
static int32_t
whole(m1_nfa *nfa, uint64_t low, uint64_t high, int32_t next)
{
	int32_t start = M1_NFA_FAIL;
	uint64_t smallest = 0; /* number of its length */

	for (int n = 1; n <= 19 && low <= high; n++)
	{
		const uint64_t greatest = n == 1 ? 9 : smallest * 10 - 1;
		const uint64_t from = low > smallest ? low : smallest;
		const uint64_t to = high < greatest ? high : greatest;
		char a[24];
		char b[24];

		if (from <= to)
		{
			snprintf(a, sizeof a, "%llu", (unsigned long long) from);
			snprintf(b, sizeof b, "%llu", (unsigned long long) to);
			start = m1_nfa_split(nfa, same_length(nfa, a, b, n, next), start);
		}
		smallest = n == 1 ? 10 : smallest * 10;
	}
	return start;
}

/* What follows the whole part of a number. */
typedef enum fraction
{
	FRACTION_ANY,  /* none, or any */
	FRACTION_ZERO, /* none, or zeros */
	FRACTION_SOME, /* one that is not zero */
} fraction;

static int32_t
write_fraction(m1_nfa *nfa, fraction f, int max_digits, int32_t next)
{
	int32_t start = next;

	if (f == FRACTION_ANY)
		return m1_nfa_split(nfa, m1_nfa_bytes(nfa, '.', '.', digits(nfa, 1, max_digits, next)), next);
	if (f == FRACTION_ZERO)
		return m1_nfa_split(nfa, m1_nfa_literal(nfa, m1_slice_of(".0"), next), next);
	/* zeros, at least one other digit, any more */
	start = M1_NFA_FAIL;
	for (int i = max_digits; i > 0; i--)
	{
		const int32_t rest = digits(nfa, 0, max_digits - i, next);

		start = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '1', '9', rest),
							 start == M1_NFA_FAIL ? M1_NFA_FAIL : m1_nfa_bytes(nfa, '0', '0', start));
	}
	return m1_nfa_bytes(nfa, '.', '.', start);
}

/* Magnitudes from low to high; whether the ends themselves belong to them. */
typedef struct span
{
	uint64_t low, high;
	bool without_low, without_high;
} span;

static int
digits_of(uint64_t x)
{
	return x < 10 ? 1 : 1 + digits_of(x / 10);
}

/* Beside an end that is left out: how many digits a fraction may have, not to be rounded to that end. */
static int
short_fraction(uint64_t end)
{
	const int n = EXACT_DIGITS - digits_of(end);

	return n < SHORT_FRACTION_DIGITS ? n : SHORT_FRACTION_DIGITS;
}

/* Ends so large that no fraction is told from them: the next 64-bit real within the span is an end of it instead. */
static span
without_large_ends(span s)
{
	if (s.without_low && short_fraction(s.low) <= 0)
	{
		s.low = (uint64_t) nextafter((double) s.low, INFINITY);
		s.without_low = false;
	}
	if (s.without_high && short_fraction(s.high) <= 0)
	{
		s.high = (uint64_t) nextafter((double) s.high, 0);
		s.without_high = false;
	}
	return s;
}

/* Ends that belong to the span, but which 64-bit readers round out of it when a fraction follows: the reals within. */
static span
within_reals(span s)
{
	if (!s.without_low && (uint64_t) (double) s.low < s.low)
		s.low = (uint64_t) nextafter((double) s.low, INFINITY);
	if (!s.without_high && (uint64_t) (double) s.high > s.high)
		s.high = (uint64_t) nextafter((double) s.high, 0);
	return s;
}

static int32_t
write_reals(m1_nfa *nfa, span s, int32_t next)
{
	const bool open = s.without_low || s.without_high;
	const int fraction_digits = open ? short_fraction(s.without_high ? s.high : s.low) : FRACTION_DIGITS;
	int32_t start = M1_NFA_FAIL;

	if (s.low > s.high || (s.low == s.high && (s.without_low || s.without_high)))
		return M1_NFA_FAIL;
	if (!s.without_high)
		start = whole(nfa, s.high, s.high, write_fraction(nfa, FRACTION_ZERO, fraction_digits, next));
	if (s.low == s.high)
		return start;
	if (!s.without_low)
		return m1_nfa_split(
			nfa, whole(nfa, s.low, s.high - 1, write_fraction(nfa, FRACTION_ANY, fraction_digits, next)), start);
	start =
		m1_nfa_split(nfa, whole(nfa, s.low, s.low, write_fraction(nfa, FRACTION_SOME, fraction_digits, next)), start);
	if (s.low + 1 < s.high)
		start = m1_nfa_split(
			nfa, whole(nfa, s.low + 1, s.high - 1, write_fraction(nfa, FRACTION_ANY, fraction_digits, next)), start);
	return start;
}

/* Readers may know whole numbers digit by digit, so these go on to the ends themselves. */
static int32_t
write_span(m1_nfa *nfa, span given, int32_t next)
{
	const span s = without_large_ends(given);
	const span reals = within_reals(s);
	const int32_t start = write_reals(nfa, reals, next);
	const uint64_t low = s.low + s.without_low;
	const uint64_t high = s.high - (s.without_high && s.high > 0);

	if ((reals.low == s.low && reals.high == s.high) || low > high)
		return start;
	return m1_nfa_split(nfa, whole(nfa, low, high, next), start);
}

static uint64_t
magnitude(int64_t x)
{
	return x < 0 ? 0 - (uint64_t) x : (uint64_t) x;
}

/* Without a bound: the greatest that is written, or what a bound on the other side needs. */
static uint64_t
end_beyond(uint64_t other)
{
	if (other <= GREATEST_INTEGER)
		return GREATEST_INTEGER;
	return other > INT64_MAX ? other : INT64_MAX;
}

int32_t
m1_json_integer(m1_nfa *nfa, m1_json_bound low, m1_json_bound high, int32_t next)
{
	int32_t start = M1_NFA_FAIL;

	/* a bound that excludes the last 64-bit number leaves nothing */
	if ((low.exclusive && low.value == INT64_MAX) || (high.exclusive && high.value == INT64_MIN))
		return M1_NFA_FAIL;
	low.value += low.exclusive;
	high.value -= high.exclusive;
	if (!high.given || high.value >= 0)
	{
		const uint64_t from = low.given && low.value > 0 ? magnitude(low.value) : 0;

		start = whole(nfa, from, high.given ? magnitude(high.value) : end_beyond(from), next);
	}
	if (!low.given || low.value < 0)
	{
		const uint64_t from = high.given && high.value < 0 ? magnitude(high.value) : 1;
		const int32_t negative = whole(nfa, from, low.given ? magnitude(low.value) : end_beyond(from), next);

		start = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '-', '-', negative), start);
	}
	return start;
}

/* Any number, with a fraction and an exponent or without. */
static int32_t
unbounded_number(m1_nfa *nfa, int32_t next)
{
	const int32_t two = digits(nfa, 1, 2, next);
	const int32_t sign = m1_nfa_split(nfa, one_of(nfa, "+-", two), two);
	const int32_t exponent = m1_nfa_split(nfa, one_of(nfa, "eE", sign), next);
	const int32_t some = write_fraction(nfa, FRACTION_ANY, FRACTION_DIGITS, exponent);
	const int32_t unsigned_number = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '0', '0', some),
												 m1_nfa_bytes(nfa, '1', '9', digits(nfa, 0, INTEGER_DIGITS - 1, some)));

	return m1_nfa_split(nfa, m1_nfa_bytes(nfa, '-', '-', unsigned_number), unsigned_number);
}

/* ---- numbers between fractions ---- */

/* Magnitudes from low to high, both with the digits behind their points. */
typedef struct decimals
{
	uint64_t low, high;
	const char *low_fraction, *high_fraction;
} decimals;

/*
 * A digit or more, up to `left`, so that what they make is between low and high; high is NULL for any. `rest` has, by
 * their number, the nodes of any digits or none.
 */
static int32_t
digits_between(m1_nfa *nfa, const char *low, const char *high, int left, const int32_t *rest)
{
	const char a = *low != '\0' ? *low : '0';
	const char b = high == NULL ? '9' : *high != '\0' ? *high : '0';
	const char *low_rest = *low != '\0' ? low + 1 : low;
	const char *high_rest = high != NULL && *high != '\0' ? high + 1 : high;
	int32_t start;

	if (left == 0 || a > b)
		return M1_NFA_FAIL;
	if (*low == '\0' && high == NULL)
		return m1_nfa_bytes(nfa, '0', '9', rest[left - 1]);
	/* as low as can be, so that low counts on; where its digits are used up, none need follow */
	start = digits_between(nfa, low_rest, a == b ? high_rest : NULL, left - 1, rest);
	start = m1_nfa_bytes(nfa, (uint8_t) a, (uint8_t) a, *low_rest == '\0' ? m1_nfa_split(nfa, start, rest[0]) : start);
	if (a == b)
		return start;
	if (a + 1 < b || high == NULL)
		start = m1_nfa_split(
			nfa, m1_nfa_bytes(nfa, (uint8_t) (a + 1), (uint8_t) (high == NULL ? b : b - 1), rest[left - 1]), start);
	if (high == NULL)
		return start;
	return m1_nfa_split(nfa,
						m1_nfa_bytes(nfa, (uint8_t) b, (uint8_t) b,
									 m1_nfa_split(nfa, digits_between(nfa, "", high_rest, left - 1, rest), rest[0])),
						start);
}

static int32_t
fraction_between(m1_nfa *nfa, const char *low, const char *high, int32_t next)
{
	int32_t rest[FRACTION_DIGITS] = {next};
	int32_t some;

	for (int i = 1; i < FRACTION_DIGITS; i++)
		rest[i] = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '0', '9', rest[i - 1]), next);
	some = m1_nfa_bytes(nfa, '.', '.', digits_between(nfa, low, high, FRACTION_DIGITS, rest));
	return *low == '\0' ? m1_nfa_split(nfa, some, next) : some;
}

static int32_t
write_decimals(m1_nfa *nfa, decimals d, int32_t next)
{
	int32_t start;

	if (d.low > d.high)
		return M1_NFA_FAIL;
	if (d.low == d.high)
		return whole(nfa, d.low, d.low, fraction_between(nfa, d.low_fraction, d.high_fraction, next));
	start = whole(nfa, d.low, d.low, fraction_between(nfa, d.low_fraction, NULL, next));
	start = m1_nfa_split(nfa, whole(nfa, d.high, d.high, fraction_between(nfa, "", d.high_fraction, next)), start);
	if (d.low + 1 == d.high)
		return start;
	return m1_nfa_split(
		nfa, whole(nfa, d.low + 1, d.high - 1, write_fraction(nfa, FRACTION_ANY, FRACTION_DIGITS, next)), start);
}

/* The magnitudes on one side of 0, which the bounds leave: near is the bound next to it, if that is on this side. */
static decimals
decimals_between(const m1_json_bound *near, const m1_json_bound *far)
{
	decimals d = {.low = near != NULL ? magnitude(near->value) : 0,
				  .low_fraction = near != NULL ? near->fraction : "",
				  .high = far->given ? magnitude(far->value) : GREATEST_INTEGER,
				  .high_fraction = far->given ? far->fraction : ""};

	return d;
}

static bool
is_negative(const m1_json_bound *bound)
{
	return bound->given && (bound->value < 0 || bound->negative);
}

static int32_t
fractional_number(m1_nfa *nfa, const m1_json_bound *low, const m1_json_bound *high, int32_t next)
{
	int32_t start = M1_NFA_FAIL;

	if (!is_negative(high))
		start = write_decimals(nfa, decimals_between(low->given && !is_negative(low) ? low : NULL, high), next);
	if (!low->given || is_negative(low))
	{
		const int32_t negative = write_decimals(nfa, decimals_between(is_negative(high) ? high : NULL, low), next);

		start = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '-', '-', negative), start);
	}
	return start;
}

int32_t
m1_json_number(m1_nfa *nfa, m1_json_bound low, m1_json_bound high, int32_t next)
{
	int32_t start = M1_NFA_FAIL;

	if (!low.given && !high.given)
		return unbounded_number(nfa, next);
	if (low.fraction[0] != '\0' || high.fraction[0] != '\0')
		return fractional_number(nfa, &low, &high, next);
	if (!high.given || high.value >= 0)
	{
		span s = {.low = low.given && low.value > 0 ? magnitude(low.value) : 0,
				  .without_low = low.given && low.value >= 0 && low.exclusive,
				  .without_high = high.given && high.exclusive};

		s.high = high.given ? magnitude(high.value) : end_beyond(s.low);
		start = write_span(nfa, s, next);
	}
	if (!low.given || low.value < 0)
	{
		span s = {.low = high.given && high.value < 0 ? magnitude(high.value) : 0,
				  .without_low = high.given && high.value <= 0 && high.exclusive,
				  .without_high = low.given && low.exclusive};

		s.high = low.given ? magnitude(low.value) : end_beyond(s.low);
		start = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '-', '-', write_span(nfa, s, next)), start);
	}
	return start;
}

/* ---- objects and arrays of anything ---- */

int32_t
m1_json_map(m1_nfa *nfa, m1_json_rules *rules, int value_rule, int32_t next)
{
	const int map = m1_nfa_new_rule(nfa, true);
	const int member = m1_nfa_new_rule(nfa, false);
	const int32_t close = m1_nfa_bytes(nfa, '}', '}', M1_NFA_RETURN);
	const int32_t more = m1_nfa_open_loop(nfa, close);
	const int32_t value = m1_nfa_call(nfa, value_rule, M1_NFA_RETURN);

	m1_nfa_set_rule(nfa, member, m1_json_string(nfa, rules, 0, M1_JSON_NO_MAX, m1_json_separator(nfa, ':', value)));
	m1_nfa_close_loop(nfa, more, m1_json_separator(nfa, ',', m1_nfa_call(nfa, member, more)));
	m1_nfa_set_rule(nfa, map, m1_nfa_bytes(nfa, '{', '{', m1_nfa_split(nfa, m1_nfa_call(nfa, member, more), close)));
	return m1_nfa_call(nfa, map, next);
}

static int32_t
any_array(m1_nfa *nfa, int value_rule, int32_t next)
{
	const int array = m1_nfa_new_rule(nfa, true);
	const int32_t close = m1_nfa_bytes(nfa, ']', ']', M1_NFA_RETURN);
	const int32_t more = m1_nfa_open_loop(nfa, close);

	m1_nfa_close_loop(nfa, more, m1_json_separator(nfa, ',', m1_nfa_call(nfa, value_rule, more)));
	m1_nfa_set_rule(nfa, array,
					m1_nfa_bytes(nfa, '[', '[', m1_nfa_split(nfa, m1_nfa_call(nfa, value_rule, more), close)));
	return m1_nfa_call(nfa, array, next);
}

int32_t
m1_json_any(m1_nfa *nfa, m1_json_rules *rules, int32_t next)
{
	static const char *const words[] = {"null", "true", "false"};
	int32_t start;

	if (rules->any < 0)
	{
		rules->any = m1_nfa_new_rule(nfa, false);
		start = m1_json_number(nfa, (m1_json_bound){0}, (m1_json_bound){0}, M1_NFA_RETURN);
		for (size_t i = 0; i < sizeof words / sizeof *words; i++)
			start = m1_nfa_split(nfa, m1_nfa_literal(nfa, m1_slice_of(words[i]), M1_NFA_RETURN), start);
		start = m1_nfa_split(nfa, any_array(nfa, rules->any, M1_NFA_RETURN), start);
		start = m1_nfa_split(nfa, m1_json_map(nfa, rules, rules->any, M1_NFA_RETURN), start);
		start = m1_nfa_split(nfa, m1_json_string(nfa, rules, 0, M1_JSON_NO_MAX, M1_NFA_RETURN), start);
		m1_nfa_set_rule(nfa, rules->any, start);
	}
	return m1_nfa_call(nfa, rules->any, next);
}
