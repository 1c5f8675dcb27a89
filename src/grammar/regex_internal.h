/*
 * regex_internal.h - what the files of the compiler of regular expressions share. One parser lives for one call of
 * m1_regex_compile.
 *
 *   regex.c        the grammar, and the tree written into an nfa
 *   regex_sets.c   characters, escapes and sets
 */
#ifndef M1_GRAMMAR_REGEX_INTERNAL_H
#define M1_GRAMMAR_REGEX_INTERNAL_H

#include "grammar/regex.h"

#define M1_REGEX_LAST_CHARACTER 0x10FFFF

typedef struct m1_regex_parser
{
	m1_slice text;
	size_t at;
	int groups;
	m1_regex_match match;
	struct m1_regex_item *items;
	int n_items, cap_items;
	m1_range *ranges; /* of all sets, one behind the other; the one that is being read is the last */
	size_t n_ranges, cap_ranges;
	m1_error *err;
	m1_status status;
} m1_regex_parser;

/* Remember the first failure, at the place that has been reached. They return 0. */
int m1_regex_fail(m1_regex_parser *p, m1_status status, const char *what);
int m1_regex_no_memory(m1_regex_parser *p);

/* ---- the text ---- */

bool m1_regex_is_digit(char c);
bool m1_regex_more(const m1_regex_parser *p);
char m1_regex_peek(const m1_regex_parser *p);		 /* the next byte, or 0 */
char m1_regex_peek_behind(const m1_regex_parser *p); /* the one behind that */
bool m1_regex_take(m1_regex_parser *p, const char *what);
uint32_t m1_regex_take_character(m1_regex_parser *p);
/* The character behind a backslash that has been taken; letter classes have been looked for. */
uint32_t m1_regex_take_escaped(m1_regex_parser *p, bool in_set);

/* ---- sets: the ranges from `first` to the end of the array ---- */

void m1_regex_add_range(m1_regex_parser *p, uint32_t low, uint32_t high);
void m1_regex_add_pairs(m1_regex_parser *p, const char *pairs);
/* \d \w \s and their negations, in a set that is negated or not; false when c is none of these letters. */
bool m1_regex_add_letter_class(m1_regex_parser *p, char c, bool negated);
/* Puts the ranges in order, joined where they touch. U+0000 is left out. */
void m1_regex_normalise(m1_regex_parser *p, size_t first);
void m1_regex_negate(m1_regex_parser *p, size_t first);
/* The set behind a [ that has been taken; false when it is none. */
bool m1_regex_take_set(m1_regex_parser *p);

#endif
