/* regex.c - see regex.h: a parser that makes a tree, and what writes the tree into an nfa from its end. */
#include "grammar/regex.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define MAX_GROUPS 200 /* inside each other */
#define MAX_STACKED 8  /* repetitions of a repetition: like groups, each is a level of the writer's recursion */
#define MAX_COUNT 65535
#define UNBOUNDED (-1)
#define LAST_CHARACTER 0x10FFFF

typedef enum item_kind
{
	ITEM_EMPTY,
	ITEM_SET,	   /* one character */
	ITEM_SEQUENCE, /* left, then right */
	ITEM_EITHER,   /* left or right */
	ITEM_REPEATED, /* left, from min to max times */
} item_kind;

/* A tree whose long sides lean to the left, so that depth comes from groups alone. */
typedef struct item
{
	item_kind kind;
	int left, right;
	int min, max;
	size_t first, n; /* of a set's ranges */
	int rule;		 /* that stands for the item where it is written more than once; -1 = not yet */
} item;

typedef struct parser
{
	m1_slice text;
	size_t at;
	int groups;
	m1_regex_match match;
	item *items;
	int n_items, cap_items;
	m1_range *ranges;
	size_t n_ranges, cap_ranges;
	m1_error *err;
	m1_status status;
} parser;

/* ---- errors and memory ---- */

static int
fail(parser *p, m1_status status, const char *what)
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

static int
no_memory(parser *p)
{
	if (p->status == M1_OK)
		p->status = m1_fail(p->err, M1_E_NO_MEMORY, "out of memory for the regular expression");
	return 0;
}

static int
add_item(parser *p, item new_item)
{
	if (p->status != M1_OK)
		return 0;
	if (p->n_items == p->cap_items)
	{
		int cap = p->cap_items < 64 ? 64 : p->cap_items * 2;
		item *items = realloc(p->items, (size_t) cap * sizeof *items);

		if (items == NULL)
			return no_memory(p);
		p->items = items;
		p->cap_items = cap;
	}
	new_item.rule = -1;
	p->items[p->n_items] = new_item;
	return p->n_items++;
}

static void
add_range(parser *p, uint32_t low, uint32_t high)
{
	if (p->n_ranges == p->cap_ranges)
	{
		size_t cap = p->cap_ranges < 64 ? 64 : p->cap_ranges * 2;
		m1_range *ranges = realloc(p->ranges, cap * sizeof *ranges);

		if (ranges == NULL)
		{
			no_memory(p);
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
static void
normalise(parser *p, size_t first)
{
	size_t kept = first;

	if (p->n_ranges == first)
		return;
	qsort(p->ranges + first, p->n_ranges - first, sizeof *p->ranges, by_low);
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

static void
negate(parser *p, size_t first)
{
	uint32_t low = 1;
	size_t n;

	normalise(p, first);
	n = p->n_ranges - first;
	for (size_t i = 0; i < n && p->status == M1_OK; i++)
	{
		const m1_range r = p->ranges[first + i];

		if (r.low > low)
			add_range(p, low, r.low - 1);
		low = r.high + 1;
	}
	if (low <= LAST_CHARACTER)
		add_range(p, low, LAST_CHARACTER);
	if (p->status != M1_OK)
		return;
	memmove(p->ranges + first, p->ranges + first + n, (p->n_ranges - first - n) * sizeof *p->ranges);
	p->n_ranges -= n;
}

static int
set_item(parser *p, size_t first)
{
	normalise(p, first);
	return add_item(p, (item){.kind = ITEM_SET, .first = first, .n = p->n_ranges - first});
}

static void
add_pairs(parser *p, const char *pairs)
{
	for (; *pairs != '\0'; pairs += 2)
		add_range(p, (unsigned char) pairs[0], (unsigned char) pairs[1]);
}

/* \d \w \s and their negations; false when c is none of these letters. */
static bool
add_letter_class(parser *p, char c)
{
	static const m1_range other_spaces[] = {{0x85, 0x85},	  {0xA0, 0xA0},		{0x1680, 0x1680}, {0x2000, 0x200A},
											{0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000},
											{0xFEFF, 0xFEFF}, {0x1C, 0x1F}};
	const size_t first = p->n_ranges;

	switch (c)
	{
		case 'd':
		case 'D':
			add_pairs(p, "09");
			break;
		case 'w':
		case 'W':
			add_pairs(p, "azAZ09__");
			break;
		case 's':
		case 'S':
			add_pairs(p, "  \t\r");
			break;
		default:
			return false;
	}
	/* What is a space elsewhere is not taken for something else here. */
	if (c == 'S')
		for (size_t i = 0; i < sizeof other_spaces / sizeof *other_spaces; i++)
			add_range(p, other_spaces[i].low, other_spaces[i].high);
	if (c == 'D' || c == 'W' || c == 'S')
		negate(p, first);
	return true;
}

/* ---- characters ---- */

static bool
more(const parser *p)
{
	return p->at < p->text.len && p->status == M1_OK;
}

static char
peek(const parser *p)
{
	return more(p) ? p->text.data[p->at] : '\0';
}

static bool
take(parser *p, const char *what)
{
	const size_t n = strlen(what);

	if (p->text.len - p->at < n || memcmp(p->text.data + p->at, what, n) != 0)
		return false;
	p->at += n;
	return true;
}

/* The next character of the expression, which is valid UTF-8. */
static uint32_t
take_character(parser *p)
{
	const unsigned char *s = (const unsigned char *) p->text.data + p->at;
	const int n = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
	uint32_t c = n == 1 ? s[0] : s[0] & (0x7Fu >> n);

	for (int i = 1; i < n; i++)
		c = c << 6 | (s[i] & 63);
	p->at += (size_t) n;
	return c;
}

/* {H...} or exactly n hexadecimal digits. */
static uint32_t
take_code(parser *p, int n)
{
	const bool braces = take(p, "{");
	uint32_t code = 0;
	int digits = 0;

	while (m1_hex_digit(peek(p)) >= 0 && digits < (braces ? 6 : n))
	{
		code = code * 16 + (uint32_t) m1_hex_digit(peek(p));
		p->at++;
		digits++;
	}
	if ((braces && (digits == 0 || !take(p, "}"))) || (!braces && digits != n))
		fail(p, M1_E_INVALID_ARGUMENT, "a character code is not complete");
	else if (code == 0 || code > LAST_CHARACTER || (code >= 0xD800 && code <= 0xDFFF))
		fail(p, M1_E_INVALID_ARGUMENT, "a character code that no text can hold");
	return code;
}

/* The character behind a backslash that has been taken; letter classes have been looked for. */
static uint32_t
take_escaped(parser *p)
{
	static const char letters[] = "n\nr\rt\tf\fv\va\ae\x1b";
	char c;

	if (!more(p))
		return (uint32_t) fail(p, M1_E_INVALID_ARGUMENT, "nothing follows the last \\");
	c = peek(p);
	for (const char *l = letters; *l != '\0'; l += 2)
		if (*l == c)
		{
			p->at++;
			return (uint32_t) (unsigned char) l[1];
		}
	if (c == 'x' || c == 'u')
	{
		p->at++;
		return take_code(p, c == 'x' ? 2 : 4);
	}
	if ((c >= '0' && c <= '9') || c == 'k')
		return (uint32_t) fail(p, M1_E_UNSUPPORTED, "back references are not supported");
	if (c == 'b' || c == 'B')
		return (uint32_t) fail(p, M1_E_UNSUPPORTED, "word boundaries (\\b) are not supported");
	if (c == 'p' || c == 'P')
		return (uint32_t) fail(p, M1_E_UNSUPPORTED, "character properties (\\p) are not supported");
	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
		return (uint32_t) fail(p, M1_E_UNSUPPORTED, "an unknown escape");
	return take_character(p);
}

/* ---- [sets] ---- */

static bool
take_named_class(parser *p)
{
	static const struct
	{
		const char *name;
		const char *pairs;
	} classes[] = {
		{"[:alpha:]", "azAZ"},	   {"[:digit:]", "09"},		 {"[:alnum:]", "azAZ09"},
		{"[:lower:]", "az"},	   {"[:upper:]", "AZ"},		 {"[:space:]", "  \t\r"},
		{"[:punct:]", "!/:@[`{~"}, {"[:xdigit:]", "09afAF"}, {"[:blank:]", "  \t\t"},
	};

	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
		if (take(p, classes[i].name))
		{
			add_pairs(p, classes[i].pairs);
			return true;
		}
	return false;
}

/* One member of a set: a class, which is added, or a character. */
static bool
take_member(parser *p, uint32_t *character)
{
	if (take_named_class(p))
		return false;
	if (!take(p, "\\"))
	{
		*character = take_character(p);
		return true;
	}
	if (more(p) && add_letter_class(p, peek(p)))
	{
		p->at++;
		return false;
	}
	*character = take_escaped(p);
	return true;
}

static int
parse_set(parser *p)
{
	const size_t first = p->n_ranges;
	const bool negated = take(p, "^");
	bool empty = true;

	while (more(p) && (peek(p) != ']' || empty))
	{
		uint32_t low;
		uint32_t high;

		if (peek(p) == ']')
			return fail(p, M1_E_INVALID_ARGUMENT, "an empty set; a ] inside a set is written \\]");
		empty = false;
		if (!take_member(p, &low))
			continue;
		high = low;
		if (peek(p) == '-' && p->at + 1 < p->text.len && p->text.data[p->at + 1] != ']')
		{
			p->at++;
			if (!take_member(p, &high))
				return fail(p, M1_E_INVALID_ARGUMENT, "a range that ends with a class");
			if (high < low)
				return fail(p, M1_E_INVALID_ARGUMENT, "a range that ends before it begins");
		}
		add_range(p, low, high);
	}
	if (!take(p, "]"))
		return fail(p, M1_E_INVALID_ARGUMENT, "a [ without its ]");
	if (negated)
		negate(p, first);
	return set_item(p, first);
}

/* ---- the rest of the grammar ---- */

static int parse_alternatives(parser *p);

static int
parse_group(parser *p)
{
	int inside;

	if (take(p, "?"))
	{
		if (!take(p, ":"))
			return fail(p, M1_E_UNSUPPORTED,
						peek(p) == '=' || peek(p) == '!' || peek(p) == '<'
							? "look-around and named groups are not supported"
							: "flags are not supported");
	}
	if (++p->groups > MAX_GROUPS)
		return fail(p, M1_E_UNSUPPORTED, "groups inside groups are too deep");
	inside = parse_alternatives(p);
	p->groups--;
	if (!take(p, ")"))
		return fail(p, M1_E_INVALID_ARGUMENT, "a ( without its )");
	return inside;
}

static int
parse_atom(parser *p)
{
	const size_t first = p->n_ranges;

	if (take(p, "("))
		return parse_group(p);
	if (take(p, "["))
		return parse_set(p);
	if (take(p, "."))
	{
		/* everything but what ends a line */
		add_pairs(p, "\n\n\r\r");
		add_range(p, 0x2028, 0x2029);
		negate(p, first);
		return set_item(p, first);
	}
	if (peek(p) == '*' || peek(p) == '+' || peek(p) == '?')
		return fail(p, M1_E_INVALID_ARGUMENT, "a repetition of nothing");
	if (peek(p) == '^' || peek(p) == '$')
		return fail(p, M1_E_UNSUPPORTED, "^ and $ are supported at the ends of the expression only");
	if (take(p, "\\"))
	{
		if (more(p) && add_letter_class(p, peek(p)))
		{
			p->at++;
			return set_item(p, first);
		}
		const uint32_t c = take_escaped(p);

		add_range(p, c, c);
		return set_item(p, first);
	}
	const uint32_t c = take_character(p);

	add_range(p, c, c);
	return set_item(p, first);
}

static int
take_count(parser *p)
{
	int n = 0;

	while (peek(p) >= '0' && peek(p) <= '9')
	{
		n = n * 10 + (p->text.data[p->at++] - '0');
		if (n > MAX_COUNT)
			return fail(p, M1_E_UNSUPPORTED, "a count above 65535");
	}
	return n;
}

/* {n} {n,} {n,m}; false when the brace is an ordinary character. */
static bool
take_counts(parser *p, int *min, int *max)
{
	const size_t back = p->at;

	if (!take(p, "{"))
		return false;
	if (peek(p) < '0' || peek(p) > '9')
	{
		p->at = back;
		return false;
	}
	*min = *max = take_count(p);
	if (take(p, ","))
		*max = peek(p) >= '0' && peek(p) <= '9' ? take_count(p) : UNBOUNDED;
	if (!take(p, "}"))
	{
		p->at = back;
		return false;
	}
	if (*max != UNBOUNDED && *max < *min)
		fail(p, M1_E_INVALID_ARGUMENT, "a repetition whose counts are the wrong way round");
	return p->status == M1_OK;
}

static int
parse_repeated(parser *p)
{
	int it = parse_atom(p);
	int stacked = 0;

	while (more(p))
	{
		int min = 0;
		int max = UNBOUNDED;

		if (take(p, "?"))
			max = 1;
		else if (take(p, "+"))
			min = 1;
		else if (!take(p, "*") && !take_counts(p, &min, &max))
			break;
		/* lazy or not, the texts are the same */
		if (!take(p, "?") && peek(p) == '+')
			return fail(p, M1_E_UNSUPPORTED, "possessive repetitions are not supported");
		if (++stacked > MAX_STACKED)
			return fail(p, M1_E_UNSUPPORTED, "too many repetitions of one part");
		it = add_item(p, (item){.kind = ITEM_REPEATED, .left = it, .min = min, .max = max});
	}
	return it;
}

/* Any text at all, in front of or behind a part that is searched for. */
static int
anything(parser *p)
{
	const size_t first = p->n_ranges;

	add_range(p, 1, LAST_CHARACTER);
	return add_item(p, (item){.kind = ITEM_REPEATED, .left = set_item(p, first), .min = 0, .max = UNBOUNDED});
}

static int
parse_sequence(parser *p)
{
	const bool outermost = p->groups == 0;
	const bool from_start = outermost && take(p, "^");
	bool to_end = false;
	int sequence =
		outermost && p->match == M1_REGEX_SEARCH && !from_start ? anything(p) : add_item(p, (item){.kind = ITEM_EMPTY});

	while (more(p) && peek(p) != '|' && !(peek(p) == ')' && p->groups > 0))
	{
		if (peek(p) == ')')
			return fail(p, M1_E_INVALID_ARGUMENT, "a ) without its (");
		if (outermost && peek(p) == '$' && (p->at + 1 == p->text.len || p->text.data[p->at + 1] == '|'))
		{
			p->at++;
			to_end = true;
			break;
		}
		const int next = parse_repeated(p);

		sequence = add_item(p, (item){.kind = ITEM_SEQUENCE, .left = sequence, .right = next});
	}
	if (outermost && p->match == M1_REGEX_SEARCH && !to_end)
	{
		const int rest = anything(p);

		sequence = add_item(p, (item){.kind = ITEM_SEQUENCE, .left = sequence, .right = rest});
	}
	return sequence;
}

static int
parse_alternatives(parser *p)
{
	int either = parse_sequence(p);

	while (take(p, "|") && p->status == M1_OK)
	{
		const int other = parse_sequence(p);

		either = add_item(p, (item){.kind = ITEM_EITHER, .left = either, .right = other});
	}
	return either;
}

/* ---- writing ---- */

typedef struct writer
{
	m1_nfa *nfa;
	parser *p;
	m1_write_characters write;
} writer;

static int32_t write_item(writer *w, int i, int32_t next);

/* The item as a rule, so that it is written once however often it is repeated. */
static int32_t
call_item(writer *w, int i, int32_t next)
{
	if (w->p->items[i].rule < 0)
	{
		const int rule = m1_nfa_new_rule(w->nfa, false);

		m1_nfa_set_rule(w->nfa, rule, write_item(w, i, M1_NFA_RETURN));
		w->p->items[i].rule = rule;
	}
	return m1_nfa_call(w->nfa, w->p->items[i].rule, next);
}

static int32_t
write_repeated(writer *w, const item *it, int32_t next)
{
	const int body = it->left;
	int32_t start = next;

	if (it->max == UNBOUNDED)
	{
		start = m1_nfa_open_loop(w->nfa, next);
		m1_nfa_close_loop(w->nfa, start, call_item(w, body, start));
	}
	for (int i = it->min; i < it->max && !w->nfa->failed; i++)
		start = m1_nfa_split(w->nfa, call_item(w, body, start), next);
	for (int i = 0; i < it->min && !w->nfa->failed; i++)
		start = call_item(w, body, start);
	return start;
}

static int32_t
write_set(writer *w, int i, int32_t next)
{
	const item *it = &w->p->items[i];
	const m1_range *set = w->p->ranges + it->first;

	if (it->n == 0)
		return M1_NFA_FAIL;
	return w->write(w->nfa, set, it->n, next);
}

static int32_t
write_item(writer *w, int i, int32_t next)
{
	int32_t either = M1_NFA_FAIL;

	for (;;)
	{
		const item *it = &w->p->items[i];

		switch (it->kind)
		{
			case ITEM_EMPTY:
				return m1_nfa_split(w->nfa, next, either);
			case ITEM_SET:
				return m1_nfa_split(w->nfa, write_set(w, i, next), either);
			case ITEM_REPEATED:
				return m1_nfa_split(w->nfa, write_repeated(w, it, next), either);
			case ITEM_EITHER:
				either = m1_nfa_split(w->nfa, write_item(w, it->right, next), either);
				i = it->left;
				break;
			case ITEM_SEQUENCE:
				/* alternatives around a sequence are done with: it goes on by itself */
				if (either != M1_NFA_FAIL)
					return m1_nfa_split(w->nfa, write_item(w, i, next), either);
				next = write_item(w, it->right, next);
				i = it->left;
				break;
		}
	}
}

m1_status
m1_regex_compile(m1_nfa *nfa, m1_slice pattern, m1_regex_match match, m1_write_characters write, int32_t next,
				 int32_t *start, m1_error *err)
{
	parser p = {.text = pattern, .match = match, .err = err};
	writer w = {.nfa = nfa, .p = &p, .write = write};
	int root;

	*start = M1_NFA_FAIL;
	if (!m1_utf8_valid(pattern))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "regular expression: it is not valid UTF-8");
	root = parse_alternatives(&p);
	if (p.status == M1_OK)
		*start = write_item(&w, root, next);
	free(p.items);
	free(p.ranges);
	return p.status;
}
