/* regex_text.c - see regex_text.h. */
#include "regex_text.h"

#include <string.h>

/* One, two, three and four bytes; few, so that texts match. */
static const char *const characters[] = {"a",
										 "b",
										 "c",
										 "A",
										 "0",
										 "9",
										 " ",
										 "-",
										 "_",
										 "\"",
										 ",",
										 "\n",
										 "e",
										 "<",
										 "\xC3\xA4",
										 "\xE2\x82\xAC",
										 "\xF0\x9F\x98\x80",
										 NULL};

const char *
regex_text_character(fuzz_input *in)
{
	return fuzz_one_of(in, characters);
}

static void
put_count(regex_text *r, fuzz_input *in)
{
	const unsigned low = fuzz_below(in, 5);
	const unsigned more = fuzz_below(in, 8) == 7 ? fuzz_below(in, 60) : fuzz_below(in, 3);
	char text[32];

	switch (fuzz_below(in, 3))
	{
		case 0:
			snprintf(text, sizeof text, "{%u}", low);
			break;
		case 1:
			snprintf(text, sizeof text, "{%u,}", low);
			break;
		default:
			snprintf(text, sizeof text, "{%u,%u}", low, low + more);
	}
	m1_buf_puts(&r->text, text);
}

static void
put_repetition(regex_text *r, fuzz_input *in)
{
	static const char *const marks[] = {"", "", "?", "*", "+"};
	const uint32_t which = fuzz_below(in, 7);

	if (which < 5)
		m1_buf_puts(&r->text, marks[which]);
	else
		put_count(r, in);
	if (which > 1 && fuzz_below(in, 6) == 5)
		m1_buf_puts(&r->text, "?");
}

static void
put_class(regex_text *r, fuzz_input *in)
{
	static const char *const classes[] = {"\\d", "\\w", "\\s", "\\D", "\\W", "\\S", NULL};
	const char *one = fuzz_one_of(in, classes);

	r->exact &= strcmp(one, "\\S") != 0 && strcmp(one, "\\s") != 0;
	m1_buf_puts(&r->text, one);
}

/* What the members of one set may be. PCRE2 10.42 forgets part of a set that has more than one kind. */
typedef enum members
{
	CLASSES,
	NAMES,
	OTHER_NAMES,
	KINDS
} members;

static void
put_member(regex_text *r, fuzz_input *in, members kind)
{
	static const char *const plain[] = {"a-c", "0-9", "\\x41", "\\-", "\\]", "\\n", "\\x{20ac}", "\xC3\xA0-\xC3\xBF",
										NULL};
	static const char *const names[] = {"[:alpha:]",  "[:space:]", "[:punct:]", "[:word:]",
										"[:xdigit:]", "[:cntrl:]", NULL};
	static const char *const others[] = {"[:^alpha:]", "[:^space:]", "[:^digit:]", "[:^print:]", NULL};

	switch (fuzz_below(in, 4))
	{
		case 0:
			if (kind == CLASSES)
				put_class(r, in);
			else
				m1_buf_puts(&r->text, fuzz_one_of(in, kind == NAMES ? names : others));
			break;
		case 1:
		case 2:
			m1_buf_puts(&r->text, fuzz_one_of(in, plain));
			break;
		default:
			m1_buf_puts(&r->text, "\\");
			m1_buf_puts(&r->text, fuzz_below(in, 2) ? "-" : "\"");
	}
}

static void
put_set(regex_text *r, fuzz_input *in)
{
	const members kind = (members) fuzz_below(in, KINDS);

	m1_buf_puts(&r->text, fuzz_below(in, 3) == 2 ? "[^" : "[");
	for (uint32_t n = 1 + fuzz_below(in, 3); n > 0; n--)
		put_member(r, in, kind);
	m1_buf_puts(&r->text, "]");
}

static void put_alternatives(regex_text *r, fuzz_input *in, int depth);

static void
put_group(regex_text *r, fuzz_input *in, int depth)
{
	m1_buf_puts(&r->text, fuzz_below(in, 2) ? "(?:" : "(");
	put_alternatives(r, in, depth - 1);
	m1_buf_puts(&r->text, ")");
}

static void
put_atom(regex_text *r, fuzz_input *in, int depth)
{
	static const char *const escapes[] = {"\\.", "\\n", "\\t", "\\x41", "\\\\", "\\x{e4}", NULL};

	switch (fuzz_below(in, 8))
	{
		case 1:
			m1_buf_puts(&r->text, ".");
			r->exact = false;
			break;
		case 2:
			put_set(r, in);
			break;
		case 3:
			put_class(r, in);
			break;
		case 4:
			m1_buf_puts(&r->text, fuzz_one_of(in, escapes));
			break;
		case 5:
		case 6:
			if (depth > 0)
			{
				put_group(r, in, depth);
				break;
			}
			/* fall through */
		default:
			m1_buf_puts(&r->text, regex_text_character(in));
	}
}

static void
put_sequence(regex_text *r, fuzz_input *in, int depth)
{
	for (uint32_t n = fuzz_below(in, 5); n > 0; n--)
	{
		put_atom(r, in, depth);
		put_repetition(r, in);
	}
}

static void
put_alternatives(regex_text *r, fuzz_input *in, int depth)
{
	put_sequence(r, in, depth);
	for (uint32_t n = fuzz_below(in, 4); n > 1; n--)
	{
		m1_buf_puts(&r->text, "|");
		put_sequence(r, in, depth);
	}
}

regex_text
regex_text_make(fuzz_input *in, int depth)
{
	regex_text r = {.exact = true};

	if (fuzz_below(in, 8) == 7)
		m1_buf_puts(&r.text, "^");
	put_alternatives(&r, in, depth);
	if (fuzz_below(in, 8) == 7)
		m1_buf_puts(&r.text, "$");
	fuzz_check(m1_buf_cstr(&r.text) != NULL, "out of memory");
	return r;
}
