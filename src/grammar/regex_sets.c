/*
 * regex_sets.c - the part of regex.c that reads characters, escapes and [sets] into ranges of code points. See
 * regex_internal.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"
#include "base/utf8.h"
#include "grammar/regex_internal.h"

#define LAST_CHARACTER M1_REGEX_LAST_CHARACTER
#define NO_TEXT_HOLDS "a character code that no text can hold"

typedef m1_regex_parser parser;

/* ---- errors and memory ---- */

int
m1_regex_fail(parser *p, m1_status status, const char *what)
{
	size_t character = 1;

	for (size_t i = 0; i < p->at && i < p->text.len; i++)
		character += ((unsigned char) p->text.data[i] & 0xC0) != 0x80;
	if (p->status == M1_OK)
	{
		p->status = m1_fail(p->err, status, "regular expression: %s", what);
		m1_error_detail(p->err, "It is at character %zu.", character);
	}
	return 0;
}

int
m1_regex_no_memory(parser *p)
{
	if (p->status == M1_OK)
		p->status = m1_fail(p->err, M1_E_NO_MEMORY, "out of memory for the regular expression");
	return 0;
}

void
m1_regex_add_range(parser *p, uint32_t low, uint32_t high)
{
	if (p->n_ranges == p->cap_ranges)
	{
		size_t cap = p->cap_ranges < 64 ? 64 : p->cap_ranges * 2;
		m1_range *ranges = realloc(p->ranges, cap * sizeof *ranges);

		if (ranges == NULL)
		{
			m1_regex_no_memory(p);
			return;
		}
		p->ranges = ranges;
		p->cap_ranges = cap;
	}
	if (p->status == M1_OK)
		p->ranges[p->n_ranges++] = (m1_range){low, high};
}

/* ---- sets of characters: the ranges from `first` to the end of the array ---- */

static int
by_low(const void *a, const void *b)
{
	const m1_range *x = a;
	const m1_range *y = b;

	return (x->low > y->low) - (x->low < y->low);
}

/* Puts the ranges in order, joined where they touch. U+0000 is left out. */
void
m1_regex_normalise(parser *p, size_t first)
{
	size_t kept = first;

	if (p->n_ranges == first)
		return;
	m1_sort(p->ranges + first, p->n_ranges - first, sizeof *p->ranges, by_low);
	for (size_t i = first; i < p->n_ranges; i++)
	{
		m1_range r = p->ranges[i];

		r.low = r.low == 0 ? 1 : r.low;
		if (r.low > r.high)
			continue;
		if (kept > first && r.low <= p->ranges[kept - 1].high + 1)
		{
			if (r.high > p->ranges[kept - 1].high)
				p->ranges[kept - 1].high = r.high;
		}
		else
			p->ranges[kept++] = r;
	}
	p->n_ranges = kept;
}

void
m1_regex_negate(parser *p, size_t first)
{
	uint32_t low = 1;
	size_t n;

	m1_regex_normalise(p, first);
	n = p->n_ranges - first;
	for (size_t i = 0; i < n && p->status == M1_OK; i++)
	{
		const m1_range r = p->ranges[first + i];

		if (r.low > low)
			m1_regex_add_range(p, low, r.low - 1);
		low = r.high + 1;
	}
	if (low <= LAST_CHARACTER)
		m1_regex_add_range(p, low, LAST_CHARACTER);
	if (p->status != M1_OK)
		return;
	memmove(p->ranges + first, p->ranges + first + n, (p->n_ranges - first - n) * sizeof *p->ranges);
	p->n_ranges -= n;
}

void
m1_regex_add_pairs(parser *p, const char *pairs)
{
	for (; *pairs != '\0'; pairs += 2)
		m1_regex_add_range(p, (unsigned char) pairs[0], (unsigned char) pairs[1]);
}

/* \d \w \s and their negations, in a set that is negated or not; false when c is none of these letters. */
bool
m1_regex_add_letter_class(parser *p, char c, bool negated)
{
	static const m1_range other_spaces[] = {{0x85, 0x85},	  {0xA0, 0xA0},		{0x1680, 0x1680}, {0x2000, 0x200A},
											{0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000},
											{0xFEFF, 0xFEFF}, {0x1C, 0x1F}};
	const size_t first = p->n_ranges;

	switch (c)
	{
		case 'd':
		case 'D':
			m1_regex_add_pairs(p, "09");
			break;
		case 'w':
		case 'W':
			m1_regex_add_pairs(p, "azAZ09__");
			break;
		case 's':
		case 'S':
			m1_regex_add_pairs(p, "  \t\r");
			break;
		default:
			return false;
	}
	/* What is a space elsewhere is neither taken for a space here nor for something else, [^\S] and [^\s] included. */
	if ((c == 'S' && !negated) || (c == 's' && negated))
		for (size_t i = 0; i < sizeof other_spaces / sizeof *other_spaces; i++)
			m1_regex_add_range(p, other_spaces[i].low, other_spaces[i].high);
	if (c == 'D' || c == 'W' || c == 'S')
		m1_regex_negate(p, first);
	return true;
}

/* ---- characters ---- */

bool
m1_regex_more(const parser *p)
{
	return p->at < p->text.len && p->status == M1_OK;
}

char
m1_regex_peek(const parser *p)
{
	return m1_regex_more(p) ? p->text.data[p->at] : '\0';
}

char
m1_regex_peek_behind(const parser *p)
{
	return p->at + 1 < p->text.len ? p->text.data[p->at + 1] : '\0';
}

bool
m1_regex_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

bool
m1_regex_take(parser *p, const char *what)
{
	const size_t n = strlen(what);

	if (p->text.len - p->at < n || memcmp(p->text.data + p->at, what, n) != 0)
		return false;
	p->at += n;
	return true;
}

/* The next character of the expression, which is valid UTF-8. */
uint32_t
m1_regex_take_character(parser *p)
{
	const unsigned char *s = (const unsigned char *) p->text.data + p->at;
	const int n = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
	uint32_t c = n == 1 ? s[0] : s[0] & (0x7Fu >> n);

	for (int i = 1; i < n; i++)
		c = c << 6 | (s[i] & 63);
	p->at += (size_t) n;
	return c;
}

static bool
is_surrogate(uint32_t code)
{
	return code >= 0xD800 && code <= 0xDFFF;
}

/* {H...} or exactly n hexadecimal digits. */
static uint32_t
take_digits(parser *p, int n)
{
	const bool braces = m1_regex_take(p, "{");
	uint32_t code = 0;
	int digits = 0;

	while (m1_hex_digit(m1_regex_peek(p)) >= 0 && digits < (braces ? 6 : n))
	{
		code = code * 16 + (uint32_t) m1_hex_digit(m1_regex_peek(p));
		p->at++;
		digits++;
	}
	if ((braces && (digits == 0 || !m1_regex_take(p, "}"))) || (!braces && digits != n))
		m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "a character code is not complete");
	return code;
}

/* A code, or the two halves of one as JSON writes them. A set may name codes that no text holds; they match nothing. */
static uint32_t
take_code(parser *p, int n, bool in_set)
{
	uint32_t code = take_digits(p, n);
	const size_t back = p->at;

	if (code >= 0xD800 && code < 0xDC00 && m1_regex_take(p, "\\u"))
	{
		const uint32_t low = take_digits(p, 4);

		if (low >= 0xDC00 && low <= 0xDFFF)
			return 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00));
		p->at = back;
	}
	if (code > LAST_CHARACTER || (!in_set && (code == 0 || is_surrogate(code))))
		m1_regex_fail(p, M1_E_INVALID_ARGUMENT, NO_TEXT_HOLDS);
	return code;
}

/* U+0000, which only a set may name. With more digits it would be a code in octal, elsewhere. */
static uint32_t
take_zero(parser *p, bool in_set)
{
	if (m1_regex_is_digit(m1_regex_peek_behind(p)))
		return (uint32_t) m1_regex_fail(p, M1_E_UNSUPPORTED, "codes in octal are not supported: write \\xHH");
	p->at++;
	return in_set ? 0 : (uint32_t) m1_regex_fail(p, M1_E_INVALID_ARGUMENT, NO_TEXT_HOLDS);
}

static uint32_t
refuse_escape(parser *p, char c)
{
	char what[60];

	snprintf(what, sizeof what, "the escape \\%c is not supported%s", c,
			 c == 'a'	? ": write \\x07"
			 : c == 'e' ? ": write \\x1B"
						: "");
	return (uint32_t) m1_regex_fail(p, M1_E_UNSUPPORTED, what);
}

/* The character behind a backslash that has been taken; letter classes have been looked for. */
uint32_t
m1_regex_take_escaped(parser *p, bool in_set)
{
	static const char letters[] = "n\nr\rt\tf\fv\v";
	char c;

	if (!m1_regex_more(p))
		return (uint32_t) m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "nothing follows the last \\");
	c = m1_regex_peek(p);
	for (const char *l = letters; *l != '\0'; l += 2)
		if (*l == c)
		{
			p->at++;
			return (uint32_t) (unsigned char) l[1];
		}
	if (c == 'x' || c == 'u')
	{
		p->at++;
		return take_code(p, c == 'x' ? 2 : 4, in_set);
	}
	if (in_set && c == 'b')
	{
		p->at++;
		return '\b';
	}
	if (c == '0')
		return take_zero(p, in_set);
	if (m1_regex_is_digit(c) || c == 'k')
		return (uint32_t) m1_regex_fail(p, M1_E_UNSUPPORTED, "back references are not supported");
	if (c == 'b' || c == 'B')
		return (uint32_t) m1_regex_fail(p, M1_E_UNSUPPORTED, "word boundaries (\\b) are not supported");
	if (c == 'p' || c == 'P')
		return (uint32_t) m1_regex_fail(p, M1_E_UNSUPPORTED, "character properties (\\p) are not supported");
	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
		return refuse_escape(p, c);
	return m1_regex_take_character(p);
}

/* ---- [sets] ---- */

/* What stands between [: and :] at the place, or two other marks, as PCRE finds it; no data without them. */
static m1_slice
between(const parser *p, char mark)
{
	const char *const begin = p->text.data + p->at;
	const size_t left = p->text.len - p->at;

	if (left < 2 || begin[0] != '[' || begin[1] != mark)
		return (m1_slice){0};
	for (size_t n = 2; n + 1 < left && begin[n] != ']' && begin[n] != '\\' && begin[n] != '['; n++)
		if (begin[n] == mark && begin[n + 1] == ']')
			return (m1_slice){begin + 2, n - 2};
	return (m1_slice){0};
}

static bool
refuse_class(parser *p, m1_slice name)
{
	char what[80];

	snprintf(what, sizeof what, "there is no set [:%.*s:]", (int) (name.len < 40 ? name.len : 40), name.data);
	m1_regex_fail(p, M1_E_UNSUPPORTED, what);
	return false;
}

/* The sets that POSIX names, of ASCII, and PCRE's word and ascii. */
static bool
take_named_class(parser *p)
{
	static const struct
	{
		const char *name;
		const char *pairs;
	} classes[] = {
		{"alpha", "azAZ"},
		{"digit", "09"},
		{"alnum", "azAZ09"},
		{"lower", "az"},
		{"upper", "AZ"},
		{"space", "  \t\r"},
		{"blank", "  \t\t"},
		{"word", "azAZ09__"},
		{"punct", "!/:@[`{~"},
		{"xdigit", "09afAF"},
		{"graph", "!~"},
		{"print", " ~"},
		{"cntrl", "\1\x1f\x7f\x7f"},
		{"ascii", "\1\x7f"},
	};
	const m1_slice name = between(p, ':');
	const bool negated = name.len > 0 && name.data[0] == '^';
	const size_t first = p->n_ranges;

	if (name.data == NULL)
		return false;
	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
		if (strlen(classes[i].name) == name.len - negated &&
			memcmp(classes[i].name, name.data + negated, name.len - negated) == 0)
		{
			p->at += name.len + strlen("[::]");
			m1_regex_add_pairs(p, classes[i].pairs);
			if (negated)
				m1_regex_negate(p, first);
			return true;
		}
	return refuse_class(p, name);
}

/* One member of a set: a class, which is added, or a character. */
static bool
take_member(parser *p, bool negated, uint32_t *character)
{
	if (take_named_class(p) || p->status != M1_OK)
		return false;
	if (between(p, '.').data != NULL || between(p, '=').data != NULL)
		return m1_regex_fail(p, M1_E_UNSUPPORTED, "collating elements ([. and [=) are not supported") != 0;
	if (!m1_regex_take(p, "\\"))
	{
		*character = m1_regex_take_character(p);
		return true;
	}
	if (m1_regex_more(p) && m1_regex_add_letter_class(p, m1_regex_peek(p), negated))
	{
		p->at++;
		return false;
	}
	*character = m1_regex_take_escaped(p, true);
	return true;
}

bool
m1_regex_take_set(parser *p)
{
	const size_t first = p->n_ranges;
	bool negated;
	bool empty = true;

	p->at--; /* [:name:] would be a set of its letters */
	if (between(p, ':').data != NULL)
		return m1_regex_fail(p, M1_E_UNSUPPORTED, "[:name:] stands inside a set, as in [[:name:]]") != 0;
	p->at++;
	negated = m1_regex_take(p, "^");
	while (m1_regex_more(p) && (m1_regex_peek(p) != ']' || empty))
	{
		uint32_t low;
		uint32_t high;

		if (m1_regex_peek(p) == ']')
			return m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "an empty set; a ] inside a set is written \\]") != 0;
		empty = false;
		if (!take_member(p, negated, &low))
			continue;
		high = low;
		if (m1_regex_peek(p) == '-' && p->at + 1 < p->text.len && p->text.data[p->at + 1] != ']')
		{
			p->at++;
			if (!take_member(p, negated, &high))
				return m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "a range that ends with a class") != 0;
			if (high < low)
				return m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "a range that ends before it begins") != 0;
		}
		m1_regex_add_range(p, low, high);
	}
	if (!m1_regex_take(p, "]"))
		return m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "a [ without its ]") != 0;
	if (negated)
		m1_regex_negate(p, first);
	return true;
}
