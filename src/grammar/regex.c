/* regex.c - see regex.h: a parser that makes a tree, and what writes the tree into an nfa from its end. */
#include "grammar/regex.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "grammar/regex_internal.h"

#define MAX_GROUPS 200 /* inside each other */
#define MAX_STACKED 8  /* repetitions of a repetition: like groups, each is a level of the writer's recursion */
#define MAX_COUNT 65535
#define UNBOUNDED (-1)
#define ODD_COUNTS "counts are {n}, {n,} or {n,m}: write {0,m} for {,m}, or \\{ for a brace"

typedef enum item_kind
{
	ITEM_EMPTY,
	ITEM_SET,	   /* one character */
	ITEM_SEQUENCE, /* left, then right */
	ITEM_EITHER,   /* left or right */
	ITEM_REPEATED, /* left, from min to max times */
} item_kind;

/* A tree whose long sides lean to the left, so that depth comes from groups alone. */
struct m1_regex_item
{
	item_kind kind;
	int left, right;
	int min, max;
	size_t first, n; /* of a set's ranges */
	int rule;		 /* that stands for the item where it is written more than once; -1 = not yet */
};

typedef struct m1_regex_item item;
typedef m1_regex_parser parser;

/* ---- items ---- */

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
			return m1_regex_no_memory(p);
		p->items = items;
		p->cap_items = cap;
	}
	new_item.rule = -1;
	p->items[p->n_items] = new_item;
	return p->n_items++;
}

static int
set_item(parser *p, size_t first)
{
	m1_regex_normalise(p, first);
	return add_item(p, (item){.kind = ITEM_SET, .first = first, .n = p->n_ranges - first});
}

/* ---- parsing ---- */

static int parse_alternatives(parser *p);

/* Why "(?" and what stands behind it, a character and the one that follows that, are refused. */
static const char *
why_refused(char kind, char next)
{
	static const char *const kinds[][2] = {
		{"=!", "look-around is not supported"},
		{"P'<", "named groups are not supported: write (?:...), or a group without a name"},
		{">", "atomic groups are not supported"},
		{"|", "groups that count anew are not supported"},
		{"(", "conditions are not supported"},
		{"#", "comments are not supported"},
		{"R&+0123456789", "recursion is not supported"},
		{"C", "callouts are not supported"},
	};

	if (kind == '<' && (next == '=' || next == '!'))
		kind = next;
	for (size_t i = 0; kind != '\0' && i < sizeof kinds / sizeof *kinds; i++)
		if (strchr(kinds[i][0], kind) != NULL)
			return kinds[i][1];
	return "flags are not supported";
}

static int
parse_group(parser *p)
{
	int inside;

	if (m1_regex_take(p, "?") && !m1_regex_take(p, ":"))
		return m1_regex_fail(p, M1_E_UNSUPPORTED, why_refused(m1_regex_peek(p), m1_regex_peek_behind(p)));
	if (++p->groups > MAX_GROUPS)
		return m1_regex_fail(p, M1_E_UNSUPPORTED, "groups inside groups are too deep");
	inside = parse_alternatives(p);
	p->groups--;
	if (!m1_regex_take(p, ")"))
		return m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "a ( without its )");
	return inside;
}

static size_t
skip(const parser *p, size_t at, const char *what)
{
	while (at < p->text.len && p->text.data[at] != '\0' && strchr(what, p->text.data[at]) != NULL)
		at++;
	return at;
}

/* Whether some readers take the brace that is next for {n,m}: any of the counts may be missing, blanks may be there. */
static bool
looks_like_counts(const parser *p)
{
	static const char digits[] = "0123456789";
	size_t from, at;

	if (m1_regex_peek(p) != '{')
		return false;
	from = skip(p, p->at + 1, " \t");
	at = skip(p, skip(p, from, digits), " \t");
	if (at < p->text.len && p->text.data[at] == ',')
		at = skip(p, skip(p, skip(p, at + 1, " \t"), digits), " \t");
	return at > from && at < p->text.len && p->text.data[at] == '}';
}

static int
parse_atom(parser *p)
{
	const size_t first = p->n_ranges;

	if (m1_regex_take(p, "("))
		return parse_group(p);
	if (m1_regex_take(p, "["))
		return m1_regex_take_set(p) ? set_item(p, first) : 0;
	if (m1_regex_take(p, "."))
	{
		/* everything but what ends a line */
		m1_regex_add_pairs(p, "\n\n\r\r");
		m1_regex_add_range(p, 0x2028, 0x2029);
		m1_regex_negate(p, first);
		return set_item(p, first);
	}
	if (m1_regex_peek(p) == '*' || m1_regex_peek(p) == '+' || m1_regex_peek(p) == '?' || looks_like_counts(p))
		return m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "a repetition of nothing");
	if (m1_regex_peek(p) == '^' || m1_regex_peek(p) == '$')
		return m1_regex_fail(p, M1_E_UNSUPPORTED, "^ and $ are supported at the ends of the expression only");
	if (m1_regex_take(p, "\\"))
	{
		if (m1_regex_more(p) && m1_regex_add_letter_class(p, m1_regex_peek(p), false))
		{
			p->at++;
			return set_item(p, first);
		}
		const uint32_t c = m1_regex_take_escaped(p, false);

		m1_regex_add_range(p, c, c);
		return set_item(p, first);
	}
	const uint32_t c = m1_regex_take_character(p);

	m1_regex_add_range(p, c, c);
	return set_item(p, first);
}

static int
take_count(parser *p)
{
	int n = 0;

	while (m1_regex_is_digit(m1_regex_peek(p)))
	{
		n = n * 10 + (p->text.data[p->at++] - '0');
		if (n > MAX_COUNT)
			return m1_regex_fail(p, M1_E_UNSUPPORTED, "a count above 65535");
	}
	return n;
}

/* {n} {n,} {n,m}; false when the brace is an ordinary character. What not all readers read alike is refused. */
static bool
take_counts(parser *p, int *min, int *max)
{
	if (!looks_like_counts(p))
		return false;
	p->at++;
	if (!m1_regex_is_digit(m1_regex_peek(p)))
		return m1_regex_fail(p, M1_E_UNSUPPORTED, ODD_COUNTS);
	*min = *max = take_count(p);
	if (m1_regex_take(p, ","))
		*max = m1_regex_is_digit(m1_regex_peek(p)) ? take_count(p) : UNBOUNDED;
	if (!m1_regex_take(p, "}"))
		return m1_regex_fail(p, M1_E_UNSUPPORTED, ODD_COUNTS);
	if (*max != UNBOUNDED && *max < *min)
		m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "a repetition whose counts are the wrong way round");
	return p->status == M1_OK;
}

static int
parse_repeated(parser *p)
{
	int it = parse_atom(p);
	int stacked = 0;

	while (m1_regex_more(p))
	{
		int min = 0;
		int max = UNBOUNDED;

		if (m1_regex_take(p, "?"))
			max = 1;
		else if (m1_regex_take(p, "+"))
			min = 1;
		else if (!m1_regex_take(p, "*") && !take_counts(p, &min, &max))
			break;
		/* lazy or not, the texts are the same */
		if (!m1_regex_take(p, "?") && m1_regex_peek(p) == '+')
			return m1_regex_fail(p, M1_E_UNSUPPORTED, "possessive repetitions are not supported");
		if (++stacked > MAX_STACKED)
			return m1_regex_fail(p, M1_E_UNSUPPORTED, "too many repetitions of one part");
		it = add_item(p, (item){.kind = ITEM_REPEATED, .left = it, .min = min, .max = max});
	}
	return it;
}

/* Any text at all, in front of or behind a part that is searched for. */
static int
anything(parser *p)
{
	const size_t first = p->n_ranges;

	m1_regex_add_range(p, 1, M1_REGEX_LAST_CHARACTER);
	return add_item(p, (item){.kind = ITEM_REPEATED, .left = set_item(p, first), .min = 0, .max = UNBOUNDED});
}

static int
parse_sequence(parser *p)
{
	const bool outermost = p->groups == 0;
	const bool from_start = outermost && m1_regex_take(p, "^");
	bool to_end = false;
	int sequence =
		outermost && p->match == M1_REGEX_SEARCH && !from_start ? anything(p) : add_item(p, (item){.kind = ITEM_EMPTY});

	while (m1_regex_more(p) && m1_regex_peek(p) != '|' && !(m1_regex_peek(p) == ')' && p->groups > 0))
	{
		if (m1_regex_peek(p) == ')')
			return m1_regex_fail(p, M1_E_INVALID_ARGUMENT, "a ) without its (");
		if (outermost && m1_regex_peek(p) == '$' && (p->at + 1 == p->text.len || p->text.data[p->at + 1] == '|'))
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

	while (m1_regex_take(p, "|") && p->status == M1_OK)
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
		start = m1_nfa_option(w->nfa, start, call_item(w, body, start), next);
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
	if (pattern.len > 0 && memchr(pattern.data, '\0', pattern.len) != NULL)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "regular expression: it has U+0000, which no text can hold");
	root = parse_alternatives(&p);
	if (p.status == M1_OK)
		*start = write_item(&w, root, next);
	free(p.items);
	free(p.ranges);
	return p.status;
}
